"""
Describe a placement: what a profile wishes, what a host promised, what a clone would take.

Pure. A host's memory counts as taken once it was promised, whatever of it is free at a moment: the
page cache counts as used, and a guest that has not touched its memory yet counts as free.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: The orders of the hosts that fit; ``most-free-memory`` is read as the first.
SPREAD, PACK, FEWEST, ROUND_ROBIN, FIRST = "spread", "pack", "fewest-clones", "round-robin", "first"
ORDERS = (SPREAD, PACK, FEWEST, ROUND_ROBIN, FIRST)


@dataclass(frozen=True)
class Placement:
    """
    The wishes of a profile for the host of a clone (``hosts``, ``placement``).

    :param hosts: Minion ids of the hosts that may be chosen.
    :param expression: Salt target expression that names them instead. Both empty: the profile
        names the host itself.
    :param order: One of :data:`ORDERS`.
    :param apart: Clones with this tag go to different hosts; empty for none.
    :param required: A host that has one already is not chosen at all.
    :param push: A host without the base may be chosen, too; the base is copied there first.
    """

    hosts: tuple[str, ...] = ()
    expression: str = ""
    order: str = SPREAD
    apart: str = ""
    required: bool = False
    push: bool = False

    @property
    def is_wanted(self) -> bool:
        """Return whether a host is to be chosen."""
        return bool(self.hosts or self.expression)


@dataclass(frozen=True)
class HostLimits:
    """
    How much a host may promise (``kvm_clone: hosts:`` of the master).

    :param reserve_memory: Bytes that stay the host's own, ``reserve_disk`` likewise in each pool.
    :param cpu_ratio: Virtual CPUs for each CPU of the host.
    :param memory_ratio: What may be promised, as a multiple of its memory.
    :param disk_ratio: What volumes may still grow to, as a multiple of a pool's free space.
    :param maintenance: No new clone.
    """

    reserve_memory: int = 0
    reserve_disk: int = 0
    cpu_ratio: float = 16.0
    memory_ratio: float = 1.0
    disk_ratio: float = 4.0
    maintenance: bool = False


@dataclass(frozen=True)
class Placed:
    """
    What a host is told of a clone that was placed there.

    :param limits: How much it may promise: it checks that again.
    :param apart: It refuses a clone where it has one with this tag; empty for none.
    :param not_after: It begins no later than this, seconds since the epoch; 0 for any time.
    """

    limits: HostLimits = HostLimits()
    not_after: float = 0.0
    apart: str = ""


@dataclass(frozen=True)
class Need:
    """
    What a clone takes of a host.

    :param memory: Bytes that its guest may have.
    :param cpus: Virtual CPUs.
    :param copies: Bytes that are written at once, by pool.
    :param growth: Bytes that its volumes may take in the end, these among them, by pool.
    """

    memory: int = 0
    cpus: int = 0
    copies: dict[str, int] = field(default_factory=dict)
    growth: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PoolRoom:
    """
    A storage pool as a placement sees it.

    :param capacity: Bytes in all, ``available`` what of it is free.
    :param growth: Bytes that the volumes of clones in it may still grow by.
    :param filesystem: Where it lies; pools with the same one share their room. Empty where that is
        not known.
    """

    capacity: int
    available: int
    growth: int = 0
    filesystem: str = ""


@dataclass(frozen=True)
class HostOffer:
    """
    What a host has, what it has promised, and what one clone would take of it.

    :param memory: Bytes, ``cpus`` CPUs of the host.
    :param promised: Memory and CPUs of all clones that are defined and all guests that run.
    :param clones: Number of clones, ``spares`` of those that are in stock; ``tags`` says how many
        have each tag.
    :param there: Those of the names asked about that a domain has.
    :param has_base: The base is there.
    :param base_disks: Bytes that its disks occupy, by pool; empty where nobody asked for it.
    :param base: What is known of the base without reading its content: two that differ in this
        differ in content.
    :param digest: Digest of the base's content; empty where it is not known.
    :param need: What the clone would take; nothing where the base is missing, and is not to come.
    :param conflicts: Every reason of the plan against it, in words.
    """

    memory: int
    cpus: int
    promised: Need = Need()
    pools: dict[str, PoolRoom] = field(default_factory=dict)
    clones: int = 0
    tags: dict[str, int] = field(default_factory=dict)
    there: tuple[str, ...] = ()
    has_base: bool = True
    base_disks: dict[str, int] = field(default_factory=dict)
    base: str = ""
    digest: str = ""
    spares: int = 0
    need: Need = Need()
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reserved:
    """
    What a create under way will take of a host that does not know of it yet.

    :param name: Name of the clone, ``tags`` its tags.
    :param host: Minion id.
    """

    name: str
    host: str
    need: Need
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """
    What speaks for or against one host.

    :param fits: It may be chosen.
    :param reason: Why it may not be, or in what state it is, in words.
    """

    host: str
    fits: bool
    reason: str


@dataclass(frozen=True)
class Decision:
    """
    The outcome of a placement.

    :param verdicts: One for each host, in the order in which they were given.
    :param order: Those that fit, best first.
    :param unread: A host would fit, if it were known that its base is the same as that of others.
    """

    verdicts: tuple[Verdict, ...]
    order: tuple[str, ...] = ()
    unread: bool = False

    @property
    def chosen(self) -> str:
        """Return the host to take; empty where none fits."""
        return self.order[0] if self.order else ""

    def reasons(self, chosen: str) -> dict[str, dict[str, Any]]:
        """Return of every host whether it is that one, and what speaks for or against it."""
        return {
            one.host: {"chosen": one.host == chosen, "reason": one.reason} for one in self.verdicts
        }
