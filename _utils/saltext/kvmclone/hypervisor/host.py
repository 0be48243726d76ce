"""
Look up and define the domains of one libvirt daemon.

A :class:`Host` is a :class:`.connection.Connection` with the lookups on top.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from typing import TypeVar

from saltext.kvmclone.errors import DamagedRecord, NotFound, absent
from saltext.kvmclone.hypervisor.connection import Connection
from saltext.kvmclone.hypervisor.constants import DEFINE_VALIDATE, NO_DOMAIN
from saltext.kvmclone.hypervisor.domain import DomainHandle

log = logging.getLogger(__name__)

T = TypeVar("T")


class Host(Connection):
    """One KVM host: a connection to its libvirt daemon, and the domains there."""

    def node_name(self) -> str:
        """Return the KVM host's own name."""
        return str(self.call(self.raw.getHostname))

    def version(self) -> int:
        """Return the version of the daemon's libvirt as one number: 9.0.5 is 9000005."""
        return int(self.call(self.raw.getLibVersion))

    def release(self) -> str:
        """Return the version of the daemon's libvirt as people write it."""
        number = self.version()
        return f"{number // 10**6}.{number // 1000 % 1000}.{number % 1000}"

    def find(self, name: str) -> DomainHandle | None:
        """Return the domain of that name, or None."""
        with absent(NO_DOMAIN):
            return DomainHandle(self, self.call(self.raw.lookupByName, name))
        return None

    def with_uuid(self, uuid: str) -> DomainHandle | None:
        """Return the domain with that uuid, whatever its name, or None."""
        with absent(NO_DOMAIN):
            return DomainHandle(self, self.call(self.raw.lookupByUUIDString, uuid))
        return None

    def domain(self, name: str) -> DomainHandle:
        """
        Return the domain of that name.

        :raises NotFound: There is none; the message names a clone that was renamed.
        """
        found = self.find(name)
        if found is None:
            raise NotFound(
                f"There is no domain '{name}' at {self.url}.{self._meant(name)}",
                f"List them: {self.commands.virsh('list', '--all')}",
            )
        return found

    def _meant(self, name: str) -> str:
        """Name the clone that was made under a name, or a domain of nearly that name."""

        def look(handle: DomainHandle) -> tuple[str, str]:
            record = handle.record()
            return handle.name, record.name if record is not None else ""

        now = {made: called for called, made in self.each_domain(look)}
        if name in now:
            return f" The clone that was made as '{name}' is now called '{now[name]}'."
        near = difflib.get_close_matches(name, now.values(), n=1, cutoff=0.75)
        return f" Did you mean '{near[0]}'?" if near else ""

    def each_domain(self, look: Callable[[DomainHandle], T]) -> list[T]:
        """
        Call ``look`` for every domain and return the results.

        A domain that vanishes in between is left out; so is one with a damaged record, with a
        warning in the log.
        """
        told: list[T] = []
        for raw in self.call(self.raw.listAllDomains, 0):
            try:
                with absent(NO_DOMAIN):
                    told.append(look(DomainHandle(self, raw)))
            except DamagedRecord as error:
                log.warning("%s", error)
        return told

    def uuids(self, flag: int) -> frozenset[str]:
        """
        Return the uuids of the domains of one kind, in one call for all of them.

        :param flag: ``virConnectListAllDomainsFlags``.
        """
        listed = self.call(self.raw.listAllDomains, flag)
        return frozenset(DomainHandle(self, raw).uuid for raw in listed)

    def define(self, xml: str, validate: bool) -> DomainHandle:
        """
        Define a domain.

        A name that is taken under another uuid fails with
        :data:`.constants.OPERATION_FAILED`, so a definition
        also serves as the lock on its name.

        :param validate: Check the XML against libvirt's schema first.
        :raises HostError: libvirt refused.
        """
        flags = DEFINE_VALIDATE if validate else 0
        return DomainHandle(self, self.call(self.raw.defineXMLFlags, xml, flags))

    def restore(self, path: str) -> None:
        """
        Start the domain whose definition and memory a saved image has.

        :param path: The image, which libvirt leaves where it is.
        :raises HostError: libvirt or QEMU refused.
        """
        self.call(self.raw.restoreFlags, path, None, 0)
