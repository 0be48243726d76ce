"""Show a plan to a person: a sentence, the disks, the changes, and what speaks against it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.display import text
from saltext.kvmclone.display.changes import short
from saltext.kvmclone.display.failures import failure
from saltext.kvmclone.display.screen import Screen
from saltext.kvmclone.display.text import Column
from saltext.kvmclone.model import units

_DISKS = (
    Column("DISK", 4), Column("ACTION", 7), Column("SIZE", 4, right=True), Column("FILE", 40),
    Column("WHY", 12),
)  # fmt: skip


_STRATEGIES = {"full": "a full copy", "quick": "an overlay", "instant": "a fork"}


def plan(name: str, found: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show one plan.

    :param found: PLAN; or the name with its error, where nothing could be planned.
    """
    if "error" in found:
        return failure(name, found["error"], screen)
    conflicts = found["conflicts"]
    verb = "cannot" if conflicts else "can"
    strategy = _STRATEGIES.get(found["strategy"], "")
    how = f", as {strategy}" if strategy else ""
    where = f" on {found['host']}" if found.get("host") else ""
    said = f"{name} {verb} be cloned from {found['base']}{where}{how}."
    lines = text.wrapped(said, screen.width, "", "  ")
    for host, verdict in found.get("hosts", {}).items():
        if not verdict["chosen"]:
            lines += text.reason(f"not on {host}: {verdict['reason']}", screen.width, "  ", "    ")
    lines += [f"  {line}" for line in _disks(found, screen.width - 2)]
    lines += [f"  {line}" for line in _changes(found["changes"], screen.width - 2)]
    lines += text.warnings(found["warnings"], screen.width)
    for number, conflict in enumerate(conflicts, 1):
        lines += text.wrapped(conflict, screen.width, f"  conflict {number}: ", " " * 4)
    if screen.options.get("xml") is True:
        return [*lines, "", *str(found["xml"]).splitlines()]
    return [*lines, "  To see the clone's definition, add xml=True."]


def _disks(found: Mapping[str, Any], width: int) -> list[str]:
    rows = [
        (
            disk["target"],
            disk["action"],
            units.size(disk["bytes"]) if disk["bytes"] else "",
            text.cut_path(disk["destination"] or disk["source"], width // 2),
            disk["reason"],
        )
        for disk in found["disks"]
    ]
    return text.table(_DISKS, rows, width) if rows else []


def adjusted(found: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show what was changed of a clone that is there, and what waits for its next start.

    :param found: The answer of ``adjust`` or ``pending_changes``.
    """
    if refused := found.get("refused"):
        return ["Nothing was changed.", *text.warnings(refused, screen.width)]
    would = "would be" if screen.options.get("test") is True else "was"
    done = _changes(found["changes"], screen.width - 2)
    if screen.function == "pending_changes":
        lines = ["At its next start:" if done else "Nothing waits for its next start."]
    else:
        lines = [f"It {would} changed:" if done else "Nothing to change."]
    lines += [f"  {line}" for line in done]
    notes = found.get("notes") or [found.get("note")]
    return lines + text.warnings([said for said in notes if said], screen.width)


def _changes(changes: Mapping[str, Any], width: int) -> list[str]:
    """Return a line for each change; a value that is only known later stands as in the data."""
    lines = []
    wide = max((len(key) for key in changes), default=0)
    for key, change in changes.items():
        old, new = _value(key, change["old"]), _value(key, change["new"])
        what = _said(old, new)
        if wide + len(what) + 2 > width:
            what = _said(*(text.cut_path(value, 0) if value else "" for value in (old, new)))
        lines.append(text.cut(f"{key:<{wide}}  {what}", width))
    return lines


def _said(old: str, new: str) -> str:
    return f"{old} -> {new}" if old and new else new or f"{old} is left out"


def _value(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "(none)"
    (shown,) = short({key: {"new": value}})[key].values()
    return " ".join(str(shown).split())
