"""
Define CLONE, what every door answers with about one clone. See docs/answers.md.

Pure. The Salt entry points call :meth:`Clone.as_dict`; the library passes the objects themselves.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.model.plain import from_plain, to_plain
from saltext.kvmclone.model.record import Minion
from saltext.kvmclone.model.spares import Claim

#: What master and host know of a clone and CLONE does not hold.
_NOT_IN_CLONE = ("created", "expires", "tags", "failed", "spare", "claim")

#: Stands for the digest of a spare that was read from CLONE.
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Address:
    """
    One address of a guest.

    :param interface: Name of the interface in the guest where known, otherwise the network.
    :param address: Without prefix length.
    :param family: ``ipv4`` or ``ipv6``.
    :param prefix: Prefix length in bits, 0 where it is not known (``arp``).
    :param source: Who said so: ``lease``, ``agent`` or ``arp``.
    """

    interface: str
    mac: str
    address: str
    prefix: int
    family: str
    source: str


@dataclass(frozen=True)
class CloneDisk:
    """One disk of a clone: its file and how it came to be (``overlay``, ``copy`` …)."""

    target: str
    path: str
    format: str
    strategy: str


@dataclass(frozen=True)
class Clone:
    """
    One clone, with the fields of CLONE in docs/answers.md. Times are seconds.

    :param host: What the host is called: its minion id, or its own host name.
    :param state: libvirt's, in the words of :data:`.constants.STATES`; empty for one that is gone.
    :param stage: One of :data:`.record.STAGES`, or ``destroying``; empty for a foreign domain.
    :param address: The one to use; empty where none is known.
    :param drift: Its base changed since it was made.
    :param timings: Seconds that each stage took.
    :param created: When it was made, seconds since the epoch, ``expires`` when its ``ttl`` ends; 0
        for never. These and what follows are no part of CLONE, see :meth:`as_dict`.
    :param failed: Why its create failed, where it was kept.
    :param spare: Of a clone that was made as a spare: digest of what its profile asked then.
    :param claim: Who took it out of the stock.
    """

    name: str
    uuid: str
    host: str
    base: str
    profile: str
    strategy: str
    state: str
    stage: str
    address: str = ""
    addresses: tuple[Address, ...] = ()
    disks: tuple[CloneDisk, ...] = ()
    minion: Minion = Minion()
    warnings: tuple[str, ...] = ()
    drift: bool = False
    timings: dict[str, float] = field(default_factory=dict)
    created: float = 0.0
    expires: float = 0.0
    tags: tuple[str, ...] = ()
    failed: str = ""
    spare: str = ""
    claim: Claim = Claim()

    @property
    def in_stock(self) -> bool:
        """Return whether it is a spare that nobody has claimed, finished or not."""
        return bool(self.spare) and not self.claim.at

    @property
    def origin(self) -> dict[str, str]:
        """Return the profile keys that say what the clone was made from, and how."""
        return {"base_domain": self.base, "clone_strategy": self.strategy}

    def removed(self) -> Clone:
        """Return what can be said of the clone once it was removed: what it was made from."""
        return dataclasses.replace(
            self, state="", address="", addresses=(), disks=(), minion=Minion()
        )

    @classmethod
    def from_dict(cls, plain: Any) -> Clone:
        """
        Return the clone that :meth:`as_dict` made plain, without what that leaves out.

        :raises ValueError: It is no CLONE.
        """
        known = from_plain(dict[str, Any], plain)
        if "claimed" in known:
            known["claim"] = known.pop("claimed")
        if from_plain(bool, known.pop("spare", False)):
            known["spare"] = _UNKNOWN
        return from_plain(cls, known)

    def as_dict(self) -> dict[str, Any]:
        """Return CLONE: plain data, with times in milliseconds' precision."""
        timings = {stage: round(value, 3) for stage, value in self.timings.items()}
        plain: dict[str, Any] = to_plain(dataclasses.replace(self, timings=timings))
        shown = {key: value for key, value in plain.items() if key not in _NOT_IN_CLONE}
        if self.in_stock:
            shown["spare"] = True
        if self.claim.at:
            shown["claimed"] = plain["claim"]
        return shown
