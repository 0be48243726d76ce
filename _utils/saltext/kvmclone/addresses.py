"""
The addresses of a guest: who knows them, and which one to report.

Nothing here waits or changes anything; :mod:`.arrival` does. An address counts only when
it sits on one of the domain's own MAC addresses, so bridges inside the guest never
answer for it; loopback and link-local addresses are dropped.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from saltext.kvmclone.clone import Address
from saltext.kvmclone.domain_xml import Domain
from saltext.kvmclone.errors import HostError
from saltext.kvmclone.facts import Lease
from saltext.kvmclone.host import DomainHandle

LEASE = "lease"
AGENT = "agent"

#: Which sources each ``ip_source`` asks, in order.
SOURCES: dict[str, tuple[str, ...]] = {
    "ip-learning": (LEASE,),
    "qemu-agent": (AGENT,),
    "auto": (LEASE, AGENT),
}


@dataclass(frozen=True)
class Sighting:
    """
    An address and what tells one handing-out of it from the next.

    :param mark: Client id and expiry of the lease; empty from the agent.
    """

    address: Address
    mark: str


def look(handle: DomainHandle, domain: Domain, ip_source: str) -> tuple[Sighting, ...]:
    """
    Every usable address that the sources of ``ip_source`` know now, best first.

    :param domain: The facts of the running domain, its MAC addresses among them.
    :param ip_source: A key of :data:`SOURCES`.
    """
    found: list[Sighting] = []
    for source in SOURCES[ip_source]:
        seen = _leased(handle, domain) if source == LEASE else _told(handle, domain)
        known = {sighting.address.address for sighting in found}
        found += [sighting for sighting in seen if sighting.address.address not in known]
    order = {interface.mac: number for number, interface in enumerate(domain.interfaces)}
    return tuple(sorted(found, key=lambda s: (order[s.address.mac], s.address.family != "ipv4")))


def usable(address: str) -> bool:
    """Whether somebody else can reach the guest there: not loopback, link-local or the like."""
    parsed = ipaddress.ip_address(address)
    return not (
        parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified
    )


def latest(leases: Iterable[Lease]) -> list[Lease]:
    """Of several leases for one MAC address and family, the one that expires last."""
    newest: dict[tuple[str, str], Lease] = {}
    for lease in leases:
        key = (lease.mac, lease.family)
        if key not in newest or lease.expires >= newest[key].expires:
            newest[key] = lease
    return list(newest.values())


def _leased(handle: DomainHandle, domain: Domain) -> list[Sighting]:
    rows = [
        (interface.source, lease)
        for interface in domain.interfaces
        if interface.kind == "network" and interface.mac
        for lease in handle.host.leases(interface.source, interface.mac)
        if lease.mac == interface.mac and usable(lease.address)
    ]
    network = {lease.mac: name for name, lease in rows}
    return [
        Sighting(
            Address(network[row.mac], row.mac, row.address, row.prefix, row.family, LEASE),
            f"{row.client_id}/{row.expires}",
        )
        for row in latest(lease for _name, lease in rows)
    ]


def _told(handle: DomainHandle, domain: Domain) -> list[Sighting]:
    if not domain.agent_connected:
        return []
    macs = {interface.mac for interface in domain.interfaces}
    try:
        interfaces = handle.agent_interfaces()
    except HostError:  # connected, and not answering yet
        return []
    return [
        Sighting(Address(interface.name, interface.mac, address, prefix, family, AGENT), "")
        for interface in interfaces
        if interface.mac in macs
        for address, prefix, family in interface.addresses
        if usable(address)
    ]


def describe_search(handle: DomainHandle, domain: Domain, ip_source: str) -> str:
    """What was asked for the address and what it said, for the error of a timeout."""
    said = []
    if LEASE in SOURCES[ip_source]:
        networks = [i for i in domain.interfaces if i.kind == "network"]
        if not domain.interfaces:
            said.append("the domain has no network interface")
        for interface in networks:
            said.append(f"no DHCP lease for {interface.mac} in network '{interface.source}'")
        for interface in domain.interfaces:
            if interface.kind != "network":
                said.append(
                    f"{interface.mac} is on {interface.kind} '{interface.source}', "
                    "where libvirt hands out no leases"
                )
    if AGENT in SOURCES[ip_source]:
        if not domain.has_agent_channel:
            said.append("the domain has no guest agent channel")
        elif not domain.agent_connected:
            said.append("the guest agent never connected")
        else:
            said.append("the guest agent named no usable address")
    return "; ".join(said)
