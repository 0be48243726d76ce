"""
Describe what interrupted work left behind, and which of it is removed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.model.record import Minion, Work
from saltext.kvmclone.model.spares import Claim

#: The kind of a leftover that is not removed.
KEPT = "kept"


@dataclass(frozen=True)
class Leftover:
    """
    One thing that may be removed; see ``gc`` in docs/answers.md.

    :param name: The clone that it belongs to.
    :param kind: ``domain``, ``volume``, ``nvram``, ``dhcp host``, ``protection``, ``key``,
        ``snapshot`` for the unfinished work on one, ``removal`` of a base that stays, ``ssh key``
        and ``copy`` of a copy between hosts, ``reservation`` on the master for a clone that nobody
        makes any more; ``kept`` for what is not removed.
    :param path: Its file, or the one that it stands in; for a key the minion id, for a DHCP host
        entry its network, MAC and address, for a protection or a removal the base, for a snapshot
        its label, for a reservation the host, for a domain nothing.
    :param reason: Why it is one, or why it stays.
    """

    name: str
    kind: str
    path: str
    reason: str
    removed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the plain form; see docs/answers.md."""
        return dataclasses.asdict(self)

    @property
    def is_stuck(self) -> bool:
        """
        Return whether this is a domain that is not removed.

        A file that is kept for a good reason does not count as a failure.
        """
        return self.kind == KEPT and not self.path

    def stays(self, why: str) -> Leftover:
        """
        Return the same leftover as one that is not removed.

        :param why: The reason.
        """
        return dataclasses.replace(self, kind=KEPT, reason=why, removed=False)


@dataclass(frozen=True)
class Unfinished:
    """
    A clone that is being made or destroyed, or was when its worker died.

    :param work: The work on it, seen from the KVM host.
    :param minion: The minion that it would have become.
    :param pieces: What a destroy would remove: the domain, its files, and the rest; then what
        it would keep.
    :param refused: Why a destroy would be refused; empty where it would not.
    :param yields: With ``force`` it would not be refused.
    :param base: What it was made from, ``profile`` by which profile, and ``overrides`` with
        which arguments.
    :param failed: Why it failed, where it was kept.
    :param repairs: The machine is complete and stays: a clone, of which only the work on one of its
        snapshots is brought to an end, or a base that is not removed after all; ``pieces`` are what
        that removes.
    :param becomes: What is being made of it instead of a clone; see :mod:`.record`.
    :param spare: What it has of a spare, and ``claim`` who has it already; see :mod:`.record`.
    """

    name: str
    work: Work
    minion: Minion
    pieces: tuple[Leftover, ...]
    base: str = ""
    profile: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    failed: str = ""
    running: bool = False
    refused: str = ""
    yields: bool = False
    repairs: bool = False
    becomes: str = ""
    spare: str = ""
    claim: Claim = Claim()
