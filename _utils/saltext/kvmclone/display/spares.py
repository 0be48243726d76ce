"""Show the stock of spares, and what was claimed of it, to a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.display import text
from saltext.kvmclone.display.failures import failure, unreachable
from saltext.kvmclone.display.screen import Screen
from saltext.kvmclone.display.text import Column
from saltext.kvmclone.model import units

#: The sorts of spares, as columns of the table.
_SORTS = ("stock", "making", "claimed", "failed", "unusable")
_STOCK = (
    Column("PROFILE", 10),
    Column("WANTED", 6, right=True),
    *(Column(sort.upper(), 5, right=True) for sort in _SORTS),
)
_CLAIMED = (
    Column("CLAIMED", 12), Column("HOST", 8), Column("BY", 6), Column("SINCE", 16),
    Column("UNTIL", 16),
)  # fmt: skip


def overview(answer: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show how many spares each profile has, who has the claimed ones, and what stands in the way.

    :param answer: See ``spares`` in docs/answers.md.
    """
    profiles = answer["spares"].items()
    rows = [
        (name, str(one["wanted"]), *(str(len(one[sort])) for sort in _SORTS))
        for name, one in profiles
    ]
    lines = text.table(_STOCK, rows, screen.width) if rows else ["No profile wants spares."]
    claimed = [
        (
            name,
            row["host"],
            row["by"],
            units.short_moment(row["since"]),
            units.short_moment(row["until"]),
        )
        for _profile, one in profiles
        for name, row in one["claimed"].items()
    ]
    lines += ["", *text.table(_CLAIMED, claimed, screen.width)] if claimed else []
    notes = [
        f"{name}: {row['reason']}"
        for _profile, one in profiles
        for sort in ("failed", "unusable")
        for name, row in one[sort].items()
    ]
    notes += [
        f"{name}: none can be made, tried again from {units.short_moment(one['again'])} on: "
        f"{one['error']}"
        for name, one in profiles
        if one.get("error")
    ]
    lines += text.warnings([*notes, *answer.get("warnings", ())], screen.width, "")
    return [*lines, *unreachable(answer.get("unreachable") or {}, screen)]


def claimed(name: str, clone: Mapping[str, Any], screen: Screen) -> list[str]:
    """Show one machine that was claimed, or that could not be made."""
    if "error" in clone:
        return failure(name, clone["error"], screen, clone["stage"])
    version = clone["minion"]["version"]
    line = f"{name}  {clone['address'] or clone['state']}  claimed, test.version {version}"
    return [line, *text.warnings(clone["warnings"], screen.width)]
