"""
Choose a fixed address for a clone, or give every reason against the one that is asked for.

Pure. libvirt itself takes a host entry for an address outside of its network, for the
gateway's own, and for one that another guest holds; so everything is checked here, before
anything is written. :mod:`.networks` writes the entry.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from saltext.kvmclone.model.domain_xml import Interface
from saltext.kvmclone.model.facts import NetworkFacts, Subnet
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import Reservation
from saltext.kvmclone.model.request import AddressPick, Request

#: The advice where libvirt hands out no addresses.
_INSTEAD = "Use 'ip_source: qemu-agent' there, or 'ip_source: auto' for a base without an agent."


@dataclass(frozen=True)
class Choice:
    """
    The DHCP host entry that is reserved for a clone, or why none can be.

    :param reservations: At most one.
    :param conflicts: Every reason against it.
    """

    reservations: tuple[Reservation, ...] = ()
    conflicts: tuple[str, ...] = ()


def decide(
    interfaces: tuple[Interface, ...],
    networks: Mapping[str, NetworkFacts],
    request: Request,
    commands: Commands = Commands(),
) -> Choice:
    """
    Choose the address that is reserved for a clone.

    :param interfaces: The clone's own, with their new MAC addresses.
    :param networks: Facts of the libvirt networks that they are on, by name.
    :param commands: How the commands in the reasons are typed.
    """
    if request.ip_source != "reserve":
        if request.address:
            return _refused(
                f"'address: {request.address}' is assigned only with 'ip_source: reserve'; "
                f"this is '{request.ip_source}'."
            )
        return Choice()
    conflicts = list(_beyond(request))
    card = _card(interfaces, networks, request)
    if isinstance(card, str):
        return _refused(*conflicts, card)
    facts = network_of(card, networks)
    if facts is None:
        return _refused(*conflicts, _without_network(card, commands))
    conflicts += _unable(facts, commands)
    if conflicts:
        return _refused(*conflicts)
    address = request.address
    if address:
        conflicts += against(facts, address, card.mac)
        if not fits(address, request.pick):
            conflicts.append(f"'address: {address}' is not what 'pick' asks for.")
    else:
        address = free(facts, request.name, request.pick)
    if not address:
        conflicts.append(_none_free(facts, request.pick))
    if conflicts:
        return _refused(*conflicts)
    name = entry_name(facts, request.name)
    return Choice((Reservation(facts.name, card.mac, address, name),))


def _without_network(card: Interface, commands: Commands) -> str:
    """Return why nothing can be reserved for an interface that no network of libvirt has."""
    if card.kind != "network":
        return (
            f"The clone's interface is on {card.kind} '{card.source}', where libvirt hands out no "
            f"addresses, so none can be reserved. {_INSTEAD}"
        )
    return f"There is no network '{card.source}'. See: {commands.virsh('net-list', '--all')}"


def _refused(*conflicts: str) -> Choice:
    return Choice((), conflicts)


def _beyond(request: Request) -> list[str]:
    """Return what is asked for that no reservation can do."""
    if request.pick.family == "ipv6" or ":" in request.address:
        return [
            "Only IPv4 addresses are reserved: a guest asks for IPv6 under an identifier that "
            "nobody knows before it boots. Use 'ip_source: qemu-agent'."
        ]
    return []


def _card(
    interfaces: tuple[Interface, ...], networks: Mapping[str, NetworkFacts], request: Request
) -> Interface | str:
    """Return the interface that the address is for, or the reason why there is none."""
    if not interfaces:
        return "The clone has no network interface, so no address can be reserved for it."
    wanted = request.pick.interface.lower()
    named = [one for one in interfaces if wanted in (one.source.lower(), one.mac)]
    if wanted and not named:
        there = ", ".join(f"'{one.source}'" for one in interfaces)
        return (
            f"'pick: interface: {request.pick.interface}' names none of the clone's networks "
            f"({there}); before it boots its interfaces have no other names."
        )
    cards = named or list(interfaces)
    within = request.pick.cidr or request.address
    for card in cards:
        facts = network_of(card, networks)
        if within and facts and meets(facts.subnets, within):
            return card
    return cards[0]


def network_of(card: Interface, networks: Mapping[str, NetworkFacts]) -> NetworkFacts | None:
    """
    Return the libvirt network that an interface is on; None where there is none, or it is unknown.

    An interface on a bridge is on the network that has this bridge and hands out addresses there.
    """
    if card.kind == "network":
        return networks.get(card.source)
    on_bridge = (one for one in networks.values() if one.serves and one.bridge == card.source)
    return next(on_bridge, None) if card.kind == "bridge" else None


def meets(subnets: Iterable[Subnet], within: str) -> bool:
    """
    Return whether one of a network's subnets overlaps with another one, or holds an address.

    :param within: That other network, or the address.
    """
    other = ipaddress.ip_network(within)
    return any(
        net.version == other.version and net.overlaps(other)
        for net in (_net(subnet) for subnet in subnets)
    )


def _unable(facts: NetworkFacts, commands: Commands) -> list[str]:
    """Return the reasons why nothing can be reserved in a network at all."""
    conflicts = []
    if not facts.active:
        conflicts.append(
            f"Network '{facts.name}' is not started. "
            f"Start it: {commands.virsh('net-start', facts.name)}"
        )
    if not any(_serves(subnet) for subnet in facts.subnets):
        mode = f" (forward mode '{facts.forward}')" if facts.forward else ""
        conflicts.append(
            f"libvirt hands out no IPv4 addresses in network '{facts.name}'{mode}, so none can be "
            f"reserved. {_INSTEAD}"
        )
    return conflicts


def against(facts: NetworkFacts, address: str, mac: str) -> list[str]:
    """
    Return every reason why an interface cannot have an IPv4 address of a network.

    :param mac: The interface's MAC address; what it holds already is not in its way.
    """
    wanted = ipaddress.IPv4Address(address)
    conflicts = []
    said = f"Address {address}"
    inside = [subnet for subnet in facts.subnets if _v4(subnet) and wanted in _net(subnet)]
    if not inside:
        nets = ", ".join(str(_net(subnet)) for subnet in facts.subnets if _v4(subnet))
        conflicts.append(f"{said} is outside network '{facts.name}' ({nets}).")
    for subnet in inside:
        net = _net(subnet)
        if not subnet.dhcp:
            conflicts.append(f"{said}: libvirt hands out no addresses of {net}.")
        if wanted in (net.network_address, net.broadcast_address) and net.prefixlen < 31:
            kind = "network" if wanted == net.network_address else "broadcast"
            conflicts.append(f"{said} is the {kind} address of {net}.")
        if wanted == ipaddress.ip_interface(subnet.gateway).ip:
            conflicts.append(f"{said} is the host's own on network '{facts.name}'.")
    for entry in facts.entries:
        if entry.address == address and entry.mac != mac:
            owner = f"'{entry.name}' ({entry.mac})" if entry.name else entry.mac
            conflicts.append(f"{said} is reserved for {owner} on network '{facts.name}' already.")
    for lease in facts.leases:
        if lease.address == address and lease.mac != mac:
            conflicts.append(f"{said} is in use: network '{facts.name}' leased it to {lease.mac}.")
    return conflicts


def free(
    facts: NetworkFacts, name: str, pick: AddressPick = AddressPick(), avoid: Collection[str] = ()
) -> str:
    """
    Return a free address of a network; empty where there is none.

    It comes from the ranges that are handed out freely: elsewhere in the subnet an operator
    may have set up machines by hand. Where the search begins depends on the clone's name, so
    that clones that are made at the same moment do not all want the same one.

    :param name: Name of the clone.
    :param pick: Its ``cidr`` limits the choice.
    :param avoid: Addresses that are not to be had, whatever the facts say.
    """
    taken = {entry.address for entry in facts.entries}
    taken |= {lease.address for lease in facts.leases}
    taken |= {str(ipaddress.ip_interface(subnet.gateway).ip) for subnet in facts.subnets}
    taken |= set(avoid)
    spans = [
        span for subnet in facts.subnets if _serves(subnet) for span in _spans(subnet, pick.cidr)
    ]
    total = sum(last - first + 1 for first, last in spans)
    if not total:
        return ""
    begin = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % total
    # One of len(taken) + 1 addresses in a row is free, so the search is short in a /8, too.
    for step in range(min(total, len(taken) + 1)):
        address = str(ipaddress.IPv4Address(_at(spans, (begin + step) % total)))
        if address not in taken:
            return address
    return ""


def _spans(subnet: Subnet, cidr: str) -> list[tuple[int, int]]:
    """
    Return the subnet's ranges as numbers, cut down to what may be given to a guest.

    :param cidr: A network that they must lie in; empty for any.
    """
    net = _net(subnet)
    lowest, highest = int(net.network_address) + 1, int(net.broadcast_address) - 1
    if cidr:
        within = ipaddress.ip_network(cidr)
        lowest = max(lowest, int(within.network_address))
        highest = min(highest, int(within.broadcast_address))
    cut = [
        (
            max(lowest, int(ipaddress.ip_address(first))),
            min(highest, int(ipaddress.ip_address(last))),
        )
        for first, last in subnet.ranges
    ]
    return [(first, last) for first, last in cut if first <= last]


def _at(spans: list[tuple[int, int]], number: int) -> int:
    for first, last in spans:
        if number <= last - first:
            return first + number
        number -= last - first + 1
    raise IndexError(number)


def _none_free(facts: NetworkFacts, pick: AddressPick) -> str:
    ranges = [f"{first} - {last}" for subnet in facts.subnets for first, last in subnet.ranges]
    where = f" within {pick.cidr}" if pick.cidr else ""
    return (
        f"Network '{facts.name}' has no free address{where} in its range "
        f"({', '.join(ranges) or 'none'}). Widen it, or name one of the subnet with 'address:'."
    )


def entry_name(facts: NetworkFacts, name: str) -> str:
    """
    Return the clone's name if the network's DNS can take it; otherwise an empty text.

    libvirt allows each name only once in a network.
    """
    used = {entry.name.lower() for entry in facts.entries}
    return "" if name.lower() in used or not name[0].isalpha() else name


def block_of(facts: NetworkFacts, address: str) -> int:
    """
    Return the index of the ``<ip>`` block that an address belongs to.

    :return: -1 where it belongs to none; libvirt then guesses.
    """
    parsed = ipaddress.ip_address(address)
    for subnet in facts.subnets:
        if parsed in _net(subnet):
            return subnet.index
    return -1


def fits(address: str, pick: AddressPick) -> bool:
    """Return whether an address is of the family and the network that ``pick`` asks for."""
    parsed = ipaddress.ip_address(address)
    if pick.family and pick.family != f"ipv{parsed.version}":
        return False
    return not pick.cidr or parsed in ipaddress.ip_network(pick.cidr)


def _net(subnet: Subnet) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_interface(subnet.gateway).network


def family(subnet: Subnet) -> str:
    """Return the family of a subnet's addresses, ``ipv4`` or ``ipv6``."""
    return "ipv6" if ":" in subnet.gateway else "ipv4"


def _v4(subnet: Subnet) -> bool:
    return family(subnet) == "ipv4"


def _serves(subnet: Subnet) -> bool:
    return subnet.dhcp and _v4(subnet)
