"""Show the snapshots of a clone to a person, and what was done with one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saltext.kvmclone.display import clones, text
from saltext.kvmclone.display.failures import failure
from saltext.kvmclone.display.screen import Screen
from saltext.kvmclone.display.text import Column
from saltext.kvmclone.model import units

_COLUMNS = (
    Column("", 1),
    Column("LABEL", 19),
    Column("TAKEN", 16),
    Column("AGE", 4),
    Column("GUEST", 6),
    Column("DISKS", 5),
    Column("SIZE", 6, right=True),
)


def listing(name: str, found: Sequence[Mapping[str, Any]], screen: Screen) -> list[str]:
    """
    Show the snapshots of one clone, oldest first, and mark the one that it goes on from.

    :param name: The clone; empty where it is not known, as of an empty list from a host.
    """
    whose = f" of {name}" if name else ""
    if not found:
        return [f"No snapshots{whose}"]
    rows = [_row(one, screen) for one in found]
    lines = text.table(_COLUMNS, rows, screen.width)
    for one in found:
        lines += text.warnings(one["warnings"], screen.width)
    return [*lines, text.counted(len(found), "snapshot") + whose]


def _row(one: Mapping[str, Any], screen: Screen) -> list[str]:
    return [
        "*" if one["current"] else "",
        one["label"],
        units.short_moment(one["created"]),
        units.span(screen.now - one["created"]),
        "frozen" if one["frozen"] else "off",
        ",".join(disk["target"] for disk in one["disks"]),
        units.size(sum(disk["bytes"] for disk in one["disks"])),
    ]


def taken(name: str, snapshot: Mapping[str, Any], screen: Screen) -> list[str]:
    """Show that a snapshot was taken."""
    if "error" in snapshot:
        return failure(name, snapshot["error"], screen)
    how = "its file systems frozen" if snapshot["frozen"] else "shut off"
    line = f"{name}: snapshot '{snapshot['label']}' was taken, {how}."
    return [line, *text.warnings(snapshot["warnings"], screen.width)]


def deleted(name: str, snapshot: Mapping[str, Any], screen: Screen) -> list[str]:
    """Show that a snapshot was deleted."""
    if "error" in snapshot:
        return failure(name, snapshot["error"], screen)
    line = f"{name}: snapshot '{snapshot['label']}' was deleted."
    return [line, *text.warnings(snapshot["warnings"], screen.width)]


def rolled_back(name: str, clone: Mapping[str, Any], screen: Screen) -> list[str]:
    """Show that a clone was brought back to a snapshot, and what state it is in."""
    if "error" in clone:
        return failure(name, clone["error"], screen)
    state = clones.STATES.get(clone["state"], clone["state"])
    line = f"{name} was rolled back and is {state}."
    return [line, *text.warnings(clone["warnings"], screen.width)]
