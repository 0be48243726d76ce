"""Write what a state changed as people write it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.model import units

#: What of CLONE a state names where it made or destroyed one.
_OF_A_CLONE = (
    "name", "uuid", "host", "base", "profile", "strategy", "state", "stage", "address", "disks",
)  # fmt: skip


def short(changes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """
    Return a state's changes with sizes and times as a profile says them, and without empty fields.

    :param changes: ``{KEY: {"old", "new"}}`` with sizes in bytes and times in seconds; of
        ``clone`` CLONE.
    """
    return {
        key: {when: _short(key, value) for when, value in change.items()}
        for key, change in changes.items()
    }


def _short(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: value[name] for name in _OF_A_CLONE if value.get(name)}
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if key.startswith(("memory", "disk ")):
        return units.exact_size(int(value))
    if key == "ttl":
        return units.exact_span(round(value))
    return value
