"""
Find the addresses of a guest, and choose the ones to report.

Nothing here waits or changes anything; :mod:`.wait_for_address` does. An address counts only if
it belongs to one of the domain's own MAC addresses, so the addresses of bridges inside the
guest are never reported; loopback and link-local addresses are dropped.
"""

from __future__ import annotations

import ipaddress
import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from saltext.kvmclone.errors import HostError, HostUnreachable
from saltext.kvmclone.hypervisor import arp, networks
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.model.clone import Address
from saltext.kvmclone.model.domain_xml import Domain, Interface
from saltext.kvmclone.model.facts import Lease
from saltext.kvmclone.model.record import Reservation
from saltext.kvmclone.model.request import AddressPick
from saltext.kvmclone.plan import reservation

LEASE = "lease"
AGENT = "agent"
ARP = "arp"

#: Which sources each ``ip_source`` asks, in order.
SOURCES: dict[str, tuple[str, ...]] = {
    "ip-learning": (LEASE,),
    "qemu-agent": (AGENT,),
    "arp": (ARP,),
    "auto": (LEASE, AGENT, ARP),
    "reserve": (LEASE, AGENT, ARP),
}

#: Shortest pause between two reads of the host's ARP table where other sources are asked too,
#: seconds.
ARP_POLL_S = 1.0

#: libvirt's DHCP server writes an address that it offers into the ARP table a moment before the
#: guest takes it and a lease shows it. So an ARP entry counts only after this long, seconds.
ARP_ENTRY_AGE_S = 1.0

#: Most addresses, and most characters of an interface name, taken from a guest agent. A guest
#: reports what it likes, and one guest must not make the answer about a host long or unreadable.
MOST_TOLD, LONGEST_INTERFACE = 64, 64


@dataclass(frozen=True)
class SeenAddress:
    """
    An address as one source reported it.

    :param mark: Client id and expiry of the lease, which tell one lease of the same address from
        the next; empty for other sources.
    """

    address: Address
    mark: str


@dataclass(frozen=True)
class AddressFilter:
    """
    Which of a guest's addresses counts.

    :param pick: The profile's filter on addresses.
    :param reserved: The reserved address, the only one that counts then; empty for none.
    """

    pick: AddressPick = AddressPick()
    reserved: str = ""

    def among(self, seen: Iterable[SeenAddress], domain: Domain) -> tuple[SeenAddress, ...]:
        """Return the sightings that count, in the order in which they were seen."""
        return tuple(one for one in seen if self._is(one.address, domain))

    def first(self, seen: Iterable[SeenAddress], domain: Domain) -> tuple[SeenAddress, ...]:
        """Return all sightings, those that count first."""
        count = self.among(seen := tuple(seen), domain)
        return (*count, *(one for one in seen if one not in count))

    def _is(self, address: Address, domain: Domain) -> bool:
        if self.reserved and address.address != self.reserved:
            return False
        if not reservation.fits(address.address, self.pick):
            return False
        # Until the guest names its interface, only the network it is connected to is known.
        card = interface_with_mac(domain, address.mac)
        names = (address.interface, address.mac, card.source if card else "")
        return not self.pick.interface or self.pick.interface.lower() in map(str.lower, names)


def address_filter(pick: AddressPick, reservations: tuple[Reservation, ...] = ()) -> AddressFilter:
    """
    Return which address counts for a clone.

    :param pick: The request's filter on addresses.
    :param reservations: The host entries on the clone's record.
    """
    return AddressFilter(pick, reservations[0].address if reservations else "")


def interface_with_mac(domain: Domain, mac: str) -> Interface | None:
    """Return the domain's interface with that MAC address, or None."""
    return next((card for card in domain.interfaces if card.mac == mac), None)


def look(
    handle: DomainHandle, domain: Domain, ip_source: str, wanted: AddressFilter = AddressFilter()
) -> tuple[SeenAddress, ...]:
    """
    Return every usable address that the sources of ``ip_source`` know now, those that count first.

    :param domain: The facts of the running domain, its MAC addresses among them.
    :param ip_source: A key of :data:`SOURCES`.
    """
    seen = Search(handle, ip_source, wanted, arp_grace=0.0).look(domain)
    return wanted.first(seen, domain)


def usable(address: str) -> bool:
    """
    Return whether other machines can reach the guest at that address.

    Loopback, link-local, multicast and unspecified addresses are not usable. Nor is text that is
    not an address: an agent may say anything, and Python accepts any text as an IPv6 zone.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return "%" not in address and not (
        parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified
    )


def latest(leases: Iterable[Lease]) -> list[Lease]:
    """Return, for each MAC address and family, the lease that expires last."""
    newest: dict[tuple[str, str], Lease] = {}
    for lease in leases:
        key = (lease.mac, lease.family)
        if key not in newest or lease.expires >= newest[key].expires:
            newest[key] = lease
    return list(newest.values())


class Search:
    """
    A search for the addresses of one domain, repeated until the wanted one is seen.

    :param ip_source: A key of :data:`SOURCES`.
    :param wanted: The address to search for; the ARP table is read only while it is not seen.
    :param arp_grace: How long an entry of the ARP table must have stood, seconds.
    """

    def __init__(
        self,
        handle: DomainHandle,
        ip_source: str,
        wanted: AddressFilter = AddressFilter(),
        arp_grace: float = ARP_ENTRY_AGE_S,
    ) -> None:
        self.wanted = wanted
        self._handle = handle
        self._sources = SOURCES[ip_source]
        self._arp_grace = arp_grace if len(self._sources) > 1 else 0.0
        #: libvirt's objects of the networks, by name; None for one that is not there.
        self._networks: dict[str, Any] = {}
        #: Whether libvirt hands out addresses in a network, by its name.
        self._served: dict[str, bool] = {}
        self._arp_asked = -ARP_POLL_S
        self._arp_since: dict[tuple[str, str], float] = {}
        self._arp_seen: list[SeenAddress] = []
        #: Why the ARP table could not be read.
        self._excuse = ""
        self._seen: tuple[SeenAddress, ...] = ()

    def renew(self) -> None:
        """Forget libvirt's network objects, after a reconnect or after some time."""
        self._networks = {}

    def look(self, domain: Domain) -> tuple[SeenAddress, ...]:
        """Return every usable address that is known now, by interface and with IPv4 first."""
        found: list[SeenAddress] = []
        if LEASE in self._sources:
            found += self._leased(domain)
        if AGENT in self._sources:
            found = _merged(found, self._told(domain))
        if ARP in self._sources and not self.wanted.among(found, domain):
            found = _merged(found, self._neighbours(domain))
        order = {interface.mac: number for number, interface in enumerate(domain.interfaces)}
        self._seen = tuple(
            sorted(found, key=lambda s: (order[s.address.mac], s.address.family != "ipv4"))
        )
        return self._seen

    def _leased(self, domain: Domain) -> list[SeenAddress]:
        rows = [
            (card.source, lease)
            for card in domain.interfaces
            if card.mac
            for lease in self._leases(card)
            if lease.mac == card.mac and usable(lease.address)
        ]
        network = {lease.mac: name for name, lease in rows}
        return [
            SeenAddress(
                Address(network[row.mac], row.mac, row.address, row.prefix, row.family, LEASE),
                f"{row.client_id}/{row.expires}",
            )
            for row in latest(lease for _name, lease in rows)
        ]

    def _leases(self, card: Interface) -> list[Lease]:
        host, name = self._handle.connection, self._network_of(card)
        if name and name not in self._networks:
            try:
                self._networks[name] = networks.find(host, name)
            except HostError:  # looked up again once the search is renewed
                self._networks[name] = None
        network = self._networks.get(name)
        return networks.leases(host, network, card.mac) if network is not None else []

    def _network_of(self, card: Interface) -> str:
        """Return the libvirt network that may lease a card an address; empty for none."""
        if card.kind != "bridge":
            return card.source if card.kind == "network" else ""
        try:
            return networks.by_bridge(self._handle.connection).get(card.source, "")
        except HostError:  # asked again at the next look
            return ""

    def _told(self, domain: Domain) -> list[SeenAddress]:
        if not domain.agent_connected:
            return []
        macs = {interface.mac for interface in domain.interfaces}
        try:
            interfaces = self._handle.agent_interfaces()
        except HostError:  # connected, but not answering yet
            return []
        told = (
            Address(_named(interface.name), interface.mac, address, prefix, family, AGENT)
            for interface in interfaces
            if interface.mac in macs
            for address, prefix, family in interface.addresses
            if usable(address)
        )
        return [SeenAddress(address, "") for address in itertools.islice(told, MOST_TOLD)]

    def _neighbours(self, domain: Domain) -> list[SeenAddress]:
        """Return the usable entries of the host's ARP table that have stood for the grace time."""
        now = time.monotonic()
        if self._arp_grace and now < self._arp_asked + ARP_POLL_S:
            return self._arp_seen
        self._arp_asked = now
        told, self._excuse = arp.table(self._handle)
        entries = {
            (entry.mac, entry.address)
            for entry in told
            if interface_with_mac(domain, entry.mac) is not None and usable(entry.address)
        }
        self._arp_since = {entry: self._arp_since.get(entry, now) for entry in sorted(entries)}
        self._arp_seen = [
            SeenAddress(_neighbour(interface_with_mac(domain, mac), mac, address), "")
            for (mac, address), since in self._arp_since.items()
            if now >= since + self._arp_grace
        ]
        return self._arp_seen

    def leasing(self, card: Interface) -> str:
        """Return the network that hands out addresses to a card; empty for none. Never fails."""
        try:
            found = self._network_of(card)
            if card.kind != "network":
                return found
            if card.source not in self._served:
                self._served[card.source] = networks.serves(self._handle.connection, found)
            return found if self._served[card.source] else ""
        except (HostError, HostUnreachable):
            return card.source if card.kind == "network" else ""

    def _no_lease(self, card: Interface) -> str:
        if network := self.leasing(card):
            return f"no DHCP lease for {card.mac} in network '{network}'"
        return f"{card.mac} is on {card.kind} '{card.source}', where libvirt hands out no leases"

    def said(self, domain: Domain) -> str:
        """Return what each source answered, for the error of a timeout."""
        said = []
        if not domain.interfaces:
            said.append("the domain has no network interface")
        told = {(one.address.source, one.address.mac) for one in self._seen}
        if LEASE in self._sources:
            cards = [card for card in domain.interfaces if (LEASE, card.mac) not in told]
            said += [self._no_lease(card) for card in cards]
        if AGENT in self._sources and AGENT not in dict(told):
            said.append(_no_agent(domain))
        if ARP in self._sources and ARP not in dict(told):
            said.append(self._excuse or _no_neighbour(domain))
        if self._seen:
            seen = ", ".join(
                f"{one.address.address} ({one.address.source}, {one.address.interface})"
                for one in self._seen
            )
            reserved = self.wanted.reserved
            why = f"and {reserved} is reserved for it" if reserved else "which 'pick' leaves out"
            said.append(f"seen was {seen}, {why}")
        return "; ".join(said)


def _named(interface: str) -> str:
    """Return a guest's interface name, cut and stripped so that it fits into a line of text."""
    return "".join(filter(str.isprintable, interface[:LONGEST_INTERFACE]))


def _merged(known: list[SeenAddress], more: list[SeenAddress]) -> list[SeenAddress]:
    """
    Return the sightings of both lists, each address once.

    For an address that is in both, the first sighting is kept, under the interface name that the
    guest agent gives.
    """
    names = {
        (one.address.address, one.address.mac): one.address.interface
        for one in more
        if one.address.source == AGENT
    }

    def named(one: SeenAddress) -> SeenAddress:
        where = one.address
        name = names.get((where.address, where.mac), where.interface)
        return replace(one, address=replace(where, interface=name))

    addresses = {one.address.address for one in known}
    return [
        *(named(one) for one in known),
        *(one for one in more if one.address.address not in addresses),
    ]


def _neighbour(card: Interface | None, mac: str, address: str) -> Address:
    family = "ipv6" if ":" in address else "ipv4"
    return Address(card.source if card else "", mac, address, 0, family, ARP)


def _no_agent(domain: Domain) -> str:
    if not domain.has_agent_channel:
        return "the domain has no guest agent channel"
    if not domain.agent_connected:
        return "the guest agent never connected"
    return "the guest agent named no usable address"


def _no_neighbour(domain: Domain) -> str:
    macs = " and ".join(card.mac for card in domain.interfaces)
    return (
        f"the host's ARP table does not know {macs} (it learns a guest that talks with the host "
        "itself)"
    )
