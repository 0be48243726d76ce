"""
Read the KVM host's ARP table.

libvirt reports it (``interfaceAddresses`` with source ARP). On recent kernels libvirt 9 fails
at that ("wrong nlmsg len", seen on Linux 6.18). On the host itself the kernel's own table is
then read; for a remote host there is no other way.
"""

from __future__ import annotations

from dataclasses import dataclass

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.hypervisor.connection import is_local
from saltext.kvmclone.hypervisor.constants import ADDRESSES_FROM_ARP
from saltext.kvmclone.hypervisor.domain import DomainHandle

#: The kernel's table, IPv4 only; anybody may read it.
TABLE = "/proc/net/arp"

#: ``ATF_COM``: the entry holds a MAC address.
_COMPLETE = 2


@dataclass(frozen=True)
class Neighbour:
    """One ARP entry: the interface with that MAC address answers for that address."""

    mac: str
    address: str


def table(handle: DomainHandle) -> tuple[list[Neighbour], str]:
    """
    Return the entries of the KVM host's ARP table that belong to a domain.

    :return: The entries (if read from the kernel, those of other machines too), and why the table
        could not be read, empty if it could.
    """
    try:
        found = handle.connection.call(handle.raw.interfaceAddresses, ADDRESSES_FROM_ARP, 0)
    except HostError as error:
        if not is_local(handle.connection.url):
            return [], f"the host's ARP table could not be read: {error.message}"
        return _kernels()
    return [
        Neighbour((value.get("hwaddr") or "").lower(), entry["addr"])
        for value in (found or {}).values()
        for entry in value.get("addrs") or ()
    ], ""


def _kernels() -> tuple[list[Neighbour], str]:
    try:
        with open(TABLE, encoding="ascii") as lines:
            return parse(lines.read()), ""
    except OSError as error:
        return [], f"the host's ARP table could not be read: {error.strerror}"


def parse(text: str) -> list[Neighbour]:
    """
    Return the complete entries of ``/proc/net/arp``.

    :param text: The file's content.
    """
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 4 and int(fields[2], 16) & _COMPLETE:
            found.append(Neighbour(fields[3].lower(), fields[0]))
    return found
