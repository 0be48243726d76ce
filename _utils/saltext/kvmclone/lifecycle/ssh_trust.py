"""
Judge a guest over ssh at first contact, when nothing vouches for its host key yet.

A machine that is not the clone must not be told a password, and its uuid can only be read after
the login. So everything that can be checked without the guest's own word is checked before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from saltext.kvmclone.errors import WrongGuest
from saltext.kvmclone.guest.channel import PublicKey
from saltext.kvmclone.guest.ssh import SshChannel
from saltext.kvmclone.hypervisor import arp
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model import domain_xml


@dataclass(frozen=True)
class PeerIdentity:
    """
    The marks by which another domain of the host is recognised.

    :param name: Name of the domain.
    :param macs: MAC addresses of its interfaces.
    :param host_keys: The ssh host keys on its record; empty where it has no record.
    """

    name: str
    macs: frozenset[str]
    host_keys: tuple[str, ...]


class FirstContact:
    """
    One first contact over ssh.

    :param address: The address at which the clone was seen.
    :ivar vouched: The ARP table says that one of the clone's own interfaces holds the address.
    """

    def __init__(self, host: Host, handle: DomainHandle, address: str) -> None:
        self.host = host
        self.handle = handle
        self.address = address
        self.vouched = False

    def vet(self, key: PublicKey) -> None:
        """
        Refuse, before the login, a machine that is known to be another guest of this host.

        Where this host talks to the machine directly, the kernel has just resolved the address to
        a MAC address: the clone's, or that of another guest with which the clone shares an
        address. And another clone shows the host key that is on its own record.

        :param key: The host key that the machine showed.
        :raises WrongGuest: It is another guest of this host.
        """
        cards = _cards_at(self.address)
        self.vouched = bool(cards & macs(self.handle))
        if self.vouched:
            return
        for other in self.host.each_domain(_peer_identity):
            if other.name != self.handle.name and (
                cards & other.macs or key.line in other.host_keys
            ):
                raise WrongGuest(
                    f"the machine at {self.address} is '{other.name}'; it was not logged in to",
                    "Clones that share a machine-id share an address. Make them one after the "
                    "other, use 'ip_source: reserve', or install qemu-guest-agent in the base.",
                )

    def warning(self, channel: SshChannel) -> str:
        """Return what the operator should know about the host key that was recorded."""
        text = f"The guest's ssh host key {channel.host_key.fingerprint} was recorded at first "
        text += "contact: "
        text += (
            "only its MAC address vouches for it." if self.vouched else "nothing vouches for it."
        )
        if channel.auth_method == "password":
            text += (
                " The password was sent before the guest could show its uuid; a private_key, or "
                "qemu-guest-agent in the base, avoids that."
            )
        return text


def macs(handle: DomainHandle) -> frozenset[str]:
    """Return the MAC addresses of a domain's network interfaces."""
    return frozenset(card.mac for card in domain_xml.read(handle.live()).interfaces if card.mac)


def _cards_at(address: str) -> frozenset[str]:
    """
    Return the MAC addresses under which this host's ARP table lists an address.

    What matters is where *our* packets go. Empty where the table cannot be read.
    """
    try:
        with open(arp.TABLE, encoding="ascii") as table:
            entries = arp.parse(table.read())
    except OSError:
        return frozenset()
    return frozenset(entry.mac for entry in entries if entry.address == address)


def _peer_identity(handle: DomainHandle) -> PeerIdentity:
    record = handle.record()
    return PeerIdentity(handle.name, macs(handle), record.host_keys if record else ())
