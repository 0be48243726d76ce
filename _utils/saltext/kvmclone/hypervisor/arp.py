"""
Who lives where, as the KVM host's own ARP table has it.

libvirt tells it (``interfaceAddresses`` with source ARP). On recent kernels libvirt 9 fails
at that ("wrong nlmsg len", seen on Linux 6.18). On the host itself the kernel is then asked
directly; from elsewhere there is no other way.
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
    """One entry: the card with that MAC address answers for that address."""

    mac: str
    address: str


def table(handle: DomainHandle) -> tuple[list[Neighbour], str]:
    """
    What the ARP table of the KVM host says of a domain's cards.

    :return: The entries, on the host itself also those of others; and why the table could
        not be read, empty where it could.
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
    """The complete entries of ``/proc/net/arp``."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 4 and int(fields[2], 16) & _COMPLETE:
            found.append(Neighbour(fields[3].lower(), fields[0]))
    return found
