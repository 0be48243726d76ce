"""The form of what is sent or stored, to notice when it changes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, get_args, get_origin

from saltext.kvmclone.model.plain import hints


def form(kind: Any) -> Any:
    """A type as plain data, with every field of every dataclass in it."""
    if dataclasses.is_dataclass(kind):
        return {name: form(inner) for name, inner in hints(kind).items()}
    parts = [form(part) for part in get_args(kind)]
    name = str(getattr(get_origin(kind) or kind, "__name__", kind)).replace("UnionType", "Union")
    return [name, parts] if parts else name


def digest(told: Any) -> str:
    """Twelve digits that are others for another form."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
