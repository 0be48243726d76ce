"""
Describe what a KVM host tells the master of itself and of its domains.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from saltext.kvmclone.model.placement import HostOffer

_UUID = re.compile(r"[0-9a-fA-F-]{36}")


@dataclass(frozen=True)
class CloneReport:
    """
    What a host knows of one of its clones.

    :param stage: As its record has it, see :data:`.record.STAGES`.
    :param request: Digest of the request that it was made from.
    :param minion: Its minion id; empty for none.
    :param fingerprint: Fingerprint of the minion's key; empty for none.
    :param expired: Its ``ttl`` has passed.
    :raises ValueError: That is not a uuid; it becomes the name of a file.
    """

    name: str
    uuid: str
    stage: str
    request: str
    minion: str
    fingerprint: str
    expired: bool = False

    def __post_init__(self) -> None:
        if not _UUID.fullmatch(self.uuid):
            raise ValueError("the uuid of a clone is not a uuid")


@dataclass(frozen=True)
class HostReport:
    """
    What a host, or all of them together, know of some domains.

    :param domains: The names asked for that any domain has, a clone of ours or not.
    :param clones: The clones asked for, and those whose ``ttl`` has passed.
    :param damaged: Domains of which nobody can tell whose they are.
    """

    domains: tuple[str, ...] = ()
    clones: tuple[CloneReport, ...] = ()
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Daemon:
    """
    What a daemon says of itself.

    :param uuid: Uuid of the host; empty where it has none.
    :param name: Name of the host.
    :param mode: ``system`` or ``session``.
    :param user: Whose session it is; empty for none.
    :param domains: Uuids of all domains.
    :param others: Uuids of its pools and networks; asked only where it has no domain.
    """

    uuid: str
    name: str
    driver: str
    mode: str
    user: str
    domains: frozenset[str]
    others: frozenset[str]

    @property
    def kind(self) -> tuple[str, ...]:
        """Return what tells two daemons of one host apart: driver, mode and user."""
        return self.driver, self.mode, self.user

    @property
    def is_empty(self) -> bool:
        """Return True if it has no domain, pool or network to be told from another daemon by."""
        return not self.domains and not self.others


@dataclass(frozen=True)
class Installation:
    """
    What of kvm_clone works on a machine, and what it finds there.

    :param version: Of kvm_clone; ``digest`` is that of the library's files, ``path`` their folder.
    :param other: Another library, with other content, beside the entry points that are loaded;
        empty for none.
    :param salt: Version of Salt; empty where that is not known.
    :param python: Version of Python, without the last number.
    :param lost: Packages that stand where Salt had another Python, and that this one lacks.
    :param clock: The machine's time, seconds since the epoch.
    :param lacking: Packages of the distribution that a copy of a base takes and that are missing.
    :param shut: Why its ssh server lets no copy of a base out; empty where it does, or that was
        not asked.
    """

    version: str
    digest: str
    path: str
    other: str = ""
    salt: str = ""
    python: str = ""
    lost: tuple[str, ...] = ()
    clock: float = 0.0
    lacking: tuple[str, ...] = ()
    shut: str = ""


@dataclass(frozen=True)
class HostCondition:
    """
    What works on a host, how its daemon answers, and what it promised.

    :param clones: The minion id of each clone, by its name; empty for none.
    :param libvirt: Version of the daemon.
    :param security: What confines its guests: ``apparmor``, ``selinux``.
    :param latency: Seconds that it takes for an answer which costs it nothing.
    """

    installation: Installation
    offer: HostOffer
    clones: dict[str, str] = field(default_factory=dict)
    libvirt: str = ""
    security: tuple[str, ...] = ()
    latency: float = 0.0
