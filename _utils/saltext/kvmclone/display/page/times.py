"""Show on the page how long the stages of a create took. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from saltext.kvmclone.display.page.picture import Picture
from saltext.kvmclone.model import units
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.record import STAGES

#: What is done until each stage is reached.
_WORK = {
    "planned": "everything is checked",
    "cloned": "the disks are copied",
    "booted": "the machine is started",
    "addressed": "it starts up and gets an address",
    "enrolled": "a minion is put into it",
    "ready": "the minion answers",
}


@dataclass(frozen=True)
class Part:
    """
    One stage in the bar of a way to copy.

    :param begin: Where it begins, and ``width`` how wide it is, in thousandths of the longest bar.
    """

    stage: str
    begin: float
    width: float
    words: str


@dataclass(frozen=True)
class Bar:
    """One way to copy: what each stage takes half of the clones at most."""

    strategy: str
    count: int
    total: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class StageRow:
    """
    One stage.

    :param usual: What half of the clones took at most, ``slowest`` what the slowest took.
    :param name: The slowest.
    """

    stage: str
    work: str
    usual: str
    slowest: str
    name: str


def bars(picture: Picture) -> list[Bar]:
    """Return a bar for each way to copy, with one scale for all of them."""
    ways: dict[str, list[Clone]] = {}
    for clone in picture.clones.values():
        if clone.timings:
            ways.setdefault(clone.strategy, []).append(clone)
    usual = {way: _medians(some) for way, some in sorted(ways.items())}
    longest = max((sum(found.values()) for found in usual.values()), default=0.0) or 1.0
    return [
        Bar(way, len(ways[way]), units.took(sum(found.values())), _parts(found, longest))
        for way, found in usual.items()
    ]


def _medians(clones: list[Clone]) -> dict[str, float]:
    taken = {stage: _seconds(clones, stage) for stage in STAGES}
    return {stage: statistics.median(times) for stage, times in taken.items() if times}


def _seconds(clones: list[Clone], stage: str) -> list[float]:
    return [max(0.0, clone.timings[stage]) for clone in clones if stage in clone.timings]


def _parts(found: dict[str, float], longest: float) -> tuple[Part, ...]:
    parts: list[Part] = []
    begin = 0.0
    for stage, seconds in found.items():
        width = round(1000 * seconds / longest, 1)
        parts.append(Part(stage, round(begin, 1), width, f"{stage} {units.took(seconds)}"))
        begin += width
    return tuple(parts)


def stages(picture: Picture) -> list[StageRow]:
    """Return every stage that any clone reached, in their order."""
    found = []
    for stage in STAGES:
        having = [(one.timings[stage], key) for key, one in picture.clones.items()
                  if stage in one.timings]  # fmt: skip
        if having:
            slowest, name = max(having)
            usual = statistics.median(seconds for seconds, _key in having)
            row = StageRow(stage, _WORK[stage], units.took(usual), units.took(slowest), name)
            found.append(row)
    return found
