"""Show errors to a person: what it is about, the message, and the next command. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.display import text
from saltext.kvmclone.display.screen import Screen

_INDENT = "  "


def failure(about: str, error: Mapping[str, Any], screen: Screen, stage: str = "") -> list[str]:
    """
    Show one error.

    :param about: What failed: a clone, a host; empty for the whole command.
    :param error: ``{"type", "message", "hint"}``.
    :param stage: The stage that a create had reached.
    """
    title = f"{about}  failed" + (f" after {stage}" if stage else "") if about else "failed"
    return [
        f"{title}: {error['type']}",
        *text.wrapped(error["message"], screen.width, _INDENT),
        *text.hint(error.get("hint") or ""),
    ]


def unreachable(errors: Mapping[str, Mapping[str, Any]], screen: Screen) -> list[str]:
    """
    Show which hosts did not answer, and why.

    :param errors: An error for each, by the host's label.
    """
    lines = []
    for label, error in errors.items():
        said = f"{label} could not be checked. {error['message']}"
        lines += text.wrapped(said, screen.width, "! ")
        lines += text.hint(error.get("hint") or "")
    return lines
