"""
Reach one KVM host over libvirt: each operation over one new connection.

Salt forks, and connections do not survive that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from saltext.kvmclone.errors import HostError, HostUnreachable, NeverConnected
from saltext.kvmclone.hosts.interfaces import commands_of
from saltext.kvmclone.hypervisor.connection import Defined
from saltext.kvmclone.hypervisor.constants import NO_DOMAIN
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle.destroy import changed_hands
from saltext.kvmclone.model.hints import AT_MASTER

T = TypeVar("T")
log = logging.getLogger(__name__)


class ConnectedOperation(Host):
    """
    The connection of one operation.

    :param of: The host that is operated on; it is told the number of calls at the end.
    :param name: The domain without which the operation is pointless, so that its end on the way is
        NotFound, or what became of it.
    :param listens: The operation waits for events.
    """

    def __init__(self, of: ReachableHost, name: str = "", listens: bool = False) -> None:
        super().__init__(of.url, listens, commands_of(of))
        self.of = of
        self.name = name
        self.defined = of.defined

    def __exit__(self, *exc: object) -> None:
        error = exc[1]
        try:
            if self.name and isinstance(error, HostError) and error.code == NO_DOMAIN:
                self.domain(self.name)
                raise changed_hands(self.name, self.commands) from error
        finally:
            self.of.calls = self.calls
            self.close()


class ReachableHost:
    """
    A KVM host that this process reaches over libvirt.

    :param url: libvirt URI.
    :param label: What CLONE calls the host: its minion id; empty for its own host name.
    :param ours: How our commands begin where the answers are read.
    """

    def __init__(self, url: str, label: str = "", ours: str = AT_MASTER) -> None:
        self.url = url
        self.label = label
        self.ours = ours
        #: What is known of definitions; see :mod:`.domain_files`.
        self.defined: Defined = {}
        #: Number of libvirt calls of the last operation, for ``bench/``.
        self.calls = 0

    def looked(self, work: Callable[[Host], T]) -> T:
        """Return ``work(host)``, which only reads; repeat it once where the connection breaks."""
        try:
            with ConnectedOperation(self) as host:
                return work(host)
        except NeverConnected:
            raise
        except HostUnreachable as error:
            log.info("asking again: %s", error)
            with ConnectedOperation(self) as host:
                return work(host)
