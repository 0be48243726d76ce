"""Say on the page what is wrong, worst first, each with the command that mends it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.display import text
from saltext.kvmclone.display.page.picture import Picture

#: Levels in order; ``unseen`` is what could not be looked at, so that there may be worse.
DANGER, UNSEEN, PROBLEM, NOTE = LEVELS = ("danger", "unseen", "problem", "note")

#: A hint that says something before its command: ``Update it: salt kvm01 …``.
_BEFORE_COMMAND = re.compile(r"(.*?[:?]) ([a-z/].*)", re.DOTALL)


@dataclass(frozen=True)
class Step:
    """
    One thing to do next.

    :param words: What is said of it, ``command`` what to type; either may be empty.
    """

    words: str
    command: str


@dataclass(frozen=True)
class Problem:
    """
    One thing that is not as it should be.

    :param level: One of :data:`LEVELS`.
    :param name: What it is about, ``host`` where that is; empty for the master's own.
    :param kind: As docs/answers.md has it: the kind of a finding, or the type of an error.
    """

    level: str
    name: str
    host: str
    kind: str
    message: str
    steps: tuple[Step, ...]


def problems(picture: Picture) -> dict[str, list[Problem]]:
    """Return what is wrong by level, worst first; levels without any are left out."""
    found = [*_findings(picture), *_unseen(picture)]
    by_level = {level: [one for one in found if one.level == level] for level in LEVELS}
    return {level: some for level, some in by_level.items() if some}


def _findings(picture: Picture) -> Iterator[Problem]:
    for item in picture.findings:
        yield Problem(
            item["level"] if item["level"] in LEVELS else PROBLEM,
            str(item["name"]),
            str(item.get("host") or ""),
            str(item["kind"]),
            str(item["message"]),
            (Step("", str(item["hint"])),) if item.get("hint") else (),
        )


def _unseen(picture: Picture) -> Iterator[Problem]:
    for label, error in picture.unseen.items():
        yield Problem(UNSEEN, label, "", str(error["type"]), str(error["message"]), _steps(error))


def _steps(error: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return what the hint of an error says to do, each command apart from the words before it."""
    parts = text.hint_parts(str(error.get("hint") or ""))
    split = [(_BEFORE_COMMAND.fullmatch(part), part) for part in parts]
    return tuple(Step(*found.groups()) if found else Step(part, "") for found, part in split)
