"""
What a host says: about a base, about the place its clone will take, about addresses.

Pure data. :mod:`.survey` and :mod:`.host` ask for it; :mod:`.plan` and :mod:`.addresses`
decide by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class VolumeFacts:
    """
    A source volume, as libvirt describes it. Sizes are bytes.

    :param pool: Name of the pool it lies in.
    :param allocation: What it occupies, and what a copy will.
    :param backing: Path of its own backing file, empty where it has none.
    :param modified: Time of its last change, seconds since the epoch.
    """

    path: str
    pool: str
    format: str
    capacity: int
    allocation: int
    backing: str = ""
    modified: float = 0.0


@dataclass(frozen=True)
class PoolFacts:
    """A storage pool; ``available`` is bytes, ``path`` its folder."""

    name: str
    type: str
    path: str
    active: bool
    available: int


@dataclass(frozen=True)
class HostFacts:
    """
    What the host says about the base and about the place the clone will take.

    :param base_xml: Inactive, secure definition of the base.
    :param base_state: libvirt's state of the base, ``shutoff`` for a usable one.
    :param base_saved: The base has a saved memory image.
    :param local: Files of the host can be read and written directly.
    :param taken: A domain of the clone's name exists.
    :param volumes: The base's disks by path; a disk that no pool knows is missing.
    :param pools: Pools by name: those of the volumes and the one asked for.
    :param existing: Files that already stand where the plan would put new ones.
    """

    base_xml: str
    base_state: str = "shutoff"
    base_saved: bool = False
    local: bool = True
    taken: bool = False
    volumes: Mapping[str, VolumeFacts] = field(default_factory=dict)
    pools: Mapping[str, PoolFacts] = field(default_factory=dict)
    existing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Lease:
    """A DHCP lease of one of libvirt's networks; ``expires`` is seconds since the epoch."""

    mac: str
    address: str
    prefix: int
    family: str
    expires: float
    client_id: str


@dataclass(frozen=True)
class AgentInterface:
    """An interface as the guest agent lists it; addresses are ``(address, prefix, family)``."""

    name: str
    mac: str
    addresses: tuple[tuple[str, int, str], ...]
