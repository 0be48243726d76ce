"""
List the kinds of findings of a doctor, and how bad each is. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.config.problems import Problems

#: Levels: data is at risk; something does not work or is left over; worth knowing.
DANGER, PROBLEM, NOTE = "danger", "problem", "note"

#: Every kind of finding with its level, worst first.
KINDS = {
    "base-running": DANGER,
    "committed-into-base": DANGER,
    "base-changed": DANGER,
    "base-shared": DANGER,
    "nvram-shared": DANGER,
    "disk-missing": DANGER,
    "base-saved": DANGER,
    "pool-inactive": PROBLEM,
    "selinux-denies": PROBLEM,
    "dhcp-range-full": PROBLEM,
    "libvirt-slow": PROBLEM,
    "clock-differs": PROBLEM,
    "sync-stale": PROBLEM,
    "library-differs": PROBLEM,
    "library-twice": PROBLEM,
    "package-lost": PROBLEM,
    "bases-differ": PROBLEM,
    "warm-unusable": PROBLEM,
    "over-promised": PROBLEM,
    "duplicate-mac": PROBLEM,
    "record-damaged": PROBLEM,
    "failed": PROBLEM,
    "unfinished": PROBLEM,
    "spare-unusable": PROBLEM,
    "claim-over": PROBLEM,
    "snapshot-incomplete": PROBLEM,
    "volume-unused": PROBLEM,
    "volume-without-clone": PROBLEM,
    "overlay-unused": PROBLEM,
    "protected-without-base": PROBLEM,
    "name-twice": PROBLEM,
    "key-without-machine": PROBLEM,
    "copy-left": PROBLEM,
    "spares-failed": PROBLEM,
    "spares-not-refilled": PROBLEM,
    "configuration": PROBLEM,
    "not-checked": PROBLEM,
    "base-differs": NOTE,
    "copied-record": NOTE,
    "adoptable": NOTE,
    "base-unread": NOTE,
    "bridge-delay": NOTE,
    "no-push": NOTE,
    "host-uuid-twice": NOTE,
    "daemon-twice": NOTE,
}


@dataclass(frozen=True)
class Finding:
    """
    One thing that is not as it should be.

    :param kind: One of :data:`KINDS`; stable, for scripts.
    :param name: The clone, base, pool or file that it is about.
    :param hint: The next command to type, and nothing else, so that it can be pasted.
    """

    kind: str
    name: str
    message: str
    hint: str

    @property
    def level(self) -> str:
        """Return ``danger``, ``problem`` or ``note``."""
        return KINDS[self.kind]

    def as_dict(self) -> dict[str, Any]:
        """Return the plain form, with the level."""
        return {**dataclasses.asdict(self), "level": self.level}


def exit_code(levels: Collection[str], unseen: bool) -> int:
    """
    Return the exit code for the worst of some findings, as monitoring systems count.

    :param levels: Levels of what was found.
    :param unseen: A host could not be looked at, so that there may be worse.
    :return: 2 for danger, 3 where that cannot be ruled out, 1 for a problem, 0 for notes at most.
    """
    if DANGER in levels:
        return 2
    if unseen:
        return 3
    return int(PROBLEM in levels)


def of_configuration(problems: Problems, hint: str) -> list[Finding]:
    """Return every problem of a configuration as a finding."""
    return [
        Finding("configuration", problem.section or problem.place, str(problem), hint)
        for problem in dict.fromkeys(problems.found)
    ]


def in_order(found: list[Finding]) -> list[Finding]:
    """Return the findings in order, worst first, then by name."""
    rank = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(found, key=lambda finding: (rank[finding.kind], finding.name))


def in_words(names: list[str]) -> str:
    """Return the names as ``'a', 'b' and 'c'``."""
    quoted = [f"'{name}'" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
