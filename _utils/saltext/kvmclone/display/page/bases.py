"""Show on the page which host has which base, and what to type where that is unequal. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.display.page.picture import Picture
from saltext.kvmclone.model import units
from saltext.kvmclone.model.hints import Commands

#: What stands in the table for each state of docs/answers.md, and for no answer.
MARKS = {"same": "✓", "other": "≠", "unknown": "?", "missing": "–", "copying": "…", "": "·"}

#: States in which a host can give the base to another one.
_CAN_GIVE = ("same", "unknown")

#: The states of a base by host.
_States = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Matrix:
    """
    Which host has which base.

    :param corner: What the rows are: bases, or hosts where there are more of these.
    :param columns: Their titles.
    :param rows: The title of each row, and its cells: state, and size in words.
    """

    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


def matrix(picture: Picture) -> Matrix:
    """Return the table of bases and hosts, as high as can be, since paper is not wide."""
    bases, labels = list(picture.bases), _labels(picture)
    by_host = len(labels) > len(bases)
    rows, columns = (labels, bases) if by_host else (bases, labels)

    def cell(row: str, column: str) -> tuple[str, str]:
        base, label = (column, row) if by_host else (row, column)
        one = picture.bases[base].get(label, {})
        count = one.get("bytes", 0)
        return str(one.get("state", "")), units.size(count) if count else ""

    return Matrix(
        "Host" if by_host else "Base",
        tuple(columns),
        tuple((row, tuple(cell(row, column) for column in columns)) for row in rows),
    )


def _labels(picture: Picture) -> list[str]:
    asked = sorted({label for states in picture.bases.values() for label in states})
    return list(dict.fromkeys([*picture.hosts, *asked]))


def steps(picture: Picture) -> list[tuple[str, str]]:
    """Return what may be wanted next, and the command for it."""
    found = []
    doubtful = [name for name, states in picture.bases.items() if _is_doubtful(states)]
    if doubtful:
        only = doubtful if len(doubtful) == 1 else []
        what = f"Compare {only[0] if only else 'those that were not'}"
        found.append((what, Commands().clone("bases", *only, "hash=True")))
    for name, states in picture.bases.items():
        if name not in doubtful and (words := _push(states, picture.reached)):
            command = Commands().clone("push", name, *words)
            found.append((f"Copy {name} to where it is missing", command))
    return found


def _is_doubtful(states: _States) -> bool:
    having = [one["state"] for one in states.values() if one["state"] in ("other", *_CAN_GIVE)]
    return len(having) > 1 and "unknown" in having


def _push(states: _States, reached: frozenset[str]) -> list[str]:
    """
    Return the words of a command that copies a base to the hosts that lack it.

    :param reached: The hosts that have a minion.
    :return: Empty where there is none to copy it from or to.
    """
    lacking = [
        label for label, one in states.items() if one["state"] == "missing" and label in reached
    ]
    having = [
        label for label, one in states.items() if one["state"] in _CAN_GIVE and label in reached
    ]
    if not lacking or not having:
        return []
    # Where one has another content, it has to be said which is meant.
    differs = any(one["state"] == "other" for one in states.values())
    return [*lacking, *([f"source={having[0]}"] if differs else [])]
