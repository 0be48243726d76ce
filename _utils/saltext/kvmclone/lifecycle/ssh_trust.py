"""
Meeting a guest over ssh when nothing vouches for its host key yet.

A machine that is not the clone must not be told a password, and its uuid can only be read
after the login. So before that, everything is asked that needs no word of its own.
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
    """What another domain of the host can be recognised by."""

    name: str
    macs: frozenset[str]
    host_keys: tuple[str, ...]


class FirstContact:
    """
    One first contact.

    :param address: Where the clone is said to be.
    :ivar vouched: The network says that the clone's own card holds the address.
    """

    def __init__(self, host: Host, handle: DomainHandle, address: str) -> None:
        self.host = host
        self.handle = handle
        self.address = address
        self.vouched = False

    def vet(self, key: PublicKey) -> None:
        """
        Before the login: whether the machine there is known to be another.

        Where this machine talks to it directly, the kernel has just resolved the address to
        a card: the clone's, or that of another guest of this host, with which the clone
        shares an address. And another clone shows the host key that is on its own record.

        :param key: The host key that it showed.
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
        """What the operator should know about the key that was recorded."""
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
    """The MAC addresses of a domain's cards."""
    return frozenset(card.mac for card in domain_xml.read(handle.live()).interfaces if card.mac)


def _cards_at(address: str) -> frozenset[str]:
    """Whose the address is to this machine: what matters is where *our* packets go."""
    try:
        with open(arp.TABLE, encoding="ascii") as table:
            entries = arp.parse(table.read())
    except OSError:
        return frozenset()
    return frozenset(entry.mac for entry in entries if entry.address == address)


def _peer_identity(handle: DomainHandle) -> PeerIdentity:
    record = handle.record()
    return PeerIdentity(handle.name, macs(handle), record.host_keys if record else ())
