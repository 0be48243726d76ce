"""
Read libvirt's networks and their leases, and make and delete the clones' host entries in them.

``virNetworkUpdate`` answers with one and the same error for a duplicate, an absent entry, a
network that does not run and a bridge. So after such an error the network is read again: its
present XML, and not the error, says what happened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from saltext.kvmclone.errors import HostError, PlanRefused, absent
from saltext.kvmclone.hypervisor import network_xml
from saltext.kvmclone.hypervisor.connection import Connection
from saltext.kvmclone.hypervisor.constants import (
    AFFECT_CONFIG,
    AFFECT_LIVE,
    IPV4,
    NETWORK_ADD_LAST,
    NETWORK_DELETE,
    NETWORK_DHCP_HOST,
    NETWORK_XML_INACTIVE,
    NO_NETWORK,
    NO_SUPPORT,
    OPERATION_INVALID,
)
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.domain_xml import Interface
from saltext.kvmclone.model.facts import HostEntry, Lease, NetworkFacts
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import Reservation
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan import reservation

log = logging.getLogger(__name__)

#: How often to read and update a network that somebody else changes at the same moment.
ATTEMPTS = 5

#: How many addresses to try if others take each of them at the same moment.
_CHOICES = 64


class _Taken(Exception):
    """The address was reserved by, or leased to, another machine since it was chosen."""


# --- reading ------------------------------------------------------------------------


def find(host: Connection, name: str) -> Any | None:
    """Return libvirt's object of the network of that name, or None."""
    with absent(NO_NETWORK):
        return host.call(host.raw.networkLookupByName, name)
    return None


def facts(host: Connection, name: str, with_leases: bool = False) -> NetworkFacts | None:
    """
    Return the facts of the network of that name, or None.

    :param with_leases: Read the DHCP leases too.
    """
    network = find(host, name)
    return _read(host, network, name, with_leases) if network is not None else None


def serves(host: Connection, name: str) -> bool:
    """Return whether libvirt hands out addresses in the network of that name."""
    told = _glance(host, name)
    return told is not None and told.serves


def _glance(host: Connection, name: str) -> NetworkFacts | None:
    """Return what the network of that name hands out as it runs, or None; costs few calls."""
    network = find(host, name)
    return (
        network_xml.read(name, host.call(network.XMLDesc, 0), "") if network is not None else None
    )


def _read(host: Connection, network: Any, name: str, with_leases: bool = False) -> NetworkFacts:
    active = bool(host.call(network.isActive))
    live = str(host.call(network.XMLDesc, 0))
    stored = ""
    if host.call(network.isPersistent):
        stored = str(host.call(network.XMLDesc, NETWORK_XML_INACTIVE)) if active else live
    found = tuple(leases(host, network)) if with_leases and active else ()
    return network_xml.read(name, live, stored, found, active)


def leases(host: Connection, network: Any, mac: str | None = None) -> list[Lease]:
    """
    Return the current DHCP leases of a network.

    :param mac: Only those of this MAC address.
    :return: Empty also if the network is gone or hands out no leases.
    """
    try:
        rows = host.call(network.DHCPLeases, *([mac] if mac else []))
    except HostError as error:
        log.debug("no leases: %s", error.message)
        return []
    return [
        Lease(
            mac=(row.get("mac") or mac or "").lower(),
            address=row["ipaddr"],
            prefix=int(row.get("prefix") or 0),
            family="ipv4" if row.get("type") == IPV4 else "ipv6",
            expires=float(row.get("expirytime") or 0),
            client_id=row.get("clientid") or "",
        )
        for row in rows
    ]


def by_bridge(host: Connection) -> dict[str, str]:
    """
    Return the networks in which libvirt hands out addresses, by the bridges that they are on.

    A card that is put on such a bridge by its name is on that network as well. Asked once over one
    connection.
    """
    if host.bridged is None:
        found: dict[str, str] = {}
        networks: list[Any] = []
        with absent(NO_SUPPORT):  # a daemon that knows nothing of networks
            networks = host.call(host.raw.listAllNetworks, 0)
        for network in networks:
            with absent(NO_NETWORK):  # it may be removed at this moment
                told = network_xml.read(network.name(), host.call(network.XMLDesc, 0), "")
                if told.serves and told.bridge:
                    found[told.bridge] = told.name
        host.bridged = found
    return host.bridged


def survey(
    host: Host, request: Request, interfaces: Iterable[Interface]
) -> dict[str, NetworkFacts]:
    """
    Return the facts of the networks that may hand out the clone's address, by name.

    Empty, and nothing is asked, unless the request wants an address of theirs alone.

    :param interfaces: The base's; networks and bridges that the request names are added to theirs.
    """
    if request.ip_source not in ("reserve", "ip-learning"):
        return {}
    interfaces = tuple(interfaces)
    names = [one.source for one in interfaces if one.kind == "network"]
    names += [wish.network for wish in request.networks]
    bridges = [one.source for one in interfaces if one.kind == "bridge"]
    bridges += [wish.bridge for wish in request.networks]
    if any(bridges):
        served = by_bridge(host)
        names += [served[bridge] for bridge in bridges if bridge in served]
    reserves = request.ip_source == "reserve"
    found: dict[str, NetworkFacts] = {}
    for name in filter(None, dict.fromkeys(names)):
        told = facts(host, name, with_leases=True) if reserves else _glance(host, name)
        if told is not None:
            found[name] = told
    return found


# --- reserving ----------------------------------------------------------------------


def reserve(
    host: Host,
    wanted: Reservation,
    request: Request,
    journal: Callable[[Reservation], None],
) -> Reservation:
    """
    Make the host entry of a clone, live and stored, before it boots.

    :param wanted: The reservation that the plan chose; the record lists it already.
    :param journal: Writes another choice into the record; called *before* the network is touched,
        so that after a crash the record names every entry that may exist.
    :return: What was reserved: another address if somebody else took the first one.
    :raises PlanRefused: The address that the request names is taken, or none is left.
    :raises HostError: libvirt refused for another reason.
    """
    lost: set[str] = set()
    while True:
        try:
            return _add(host, wanted)
        except _Taken as taken:
            lost.add(wanted.address)
            now = facts(host, wanted.network, with_leases=True)
            address = ""
            if not request.address and now is not None and len(lost) < _CHOICES:
                address = reservation.free(now, request.name, request.pick, lost)
            if not address or now is None:
                raise PlanRefused(
                    f"'{request.name}' cannot have an address of its own: {taken}",
                    "Something else took it first. Repeat the command.",
                ) from taken
            name = reservation.entry_name(now, request.name)
            wanted = replace(wanted, address=address, name=name)
            journal(wanted)


def _add(host: Host, wanted: Reservation) -> Reservation:
    """
    Add the host entry wherever the network lacks it, unless another card has the address.

    :return: The entry as made: without a name if that stands for another MAC address by now.
    :raises _Taken: Another card has the address, by reservation or by lease.
    :raises HostError: The network is gone or stopped, or libvirt did not add the entry.
    """
    refusal: HostError | None = None
    for _ in range(ATTEMPTS):
        network = find(host, wanted.network)
        if network is None:
            raise HostError(
                f"The network '{wanted.network}' is gone.",
                f"See: {host.commands.virsh('net-list', '--all')}",
            )
        now = _read(host, network, wanted.network)
        _require_free(now, wanted, host.commands)
        if any(e.name == wanted.name and e.mac != wanted.mac for e in now.entries):
            wanted = replace(wanted, name="")
        flags = _lacking(now, wanted)
        if not flags:
            break
        try:
            _update(
                host,
                network,
                NETWORK_ADD_LAST,
                flags,
                wanted.entry,
                reservation.block_of(now, wanted.address),
            )
            break
        except HostError as error:
            if error.code != OPERATION_INVALID:
                raise
            refusal = error  # somebody changed the network, or it takes no entries at all
    else:
        raise HostError(
            f"libvirt did not reserve {wanted.address} in network '{wanted.network}': "
            f"{refusal.message if refusal else 'it keeps changing'}",
            f"Look at it: {host.commands.virsh('net-dumpxml', wanted.network)}",
        )
    # The DHCP server may have leased it just before it learned of the entry.
    for lease in leases(host, network):
        if lease.address == wanted.address and lease.mac != wanted.mac:
            release(host, wanted)
            raise _Taken(f"{wanted.address} was leased to {lease.mac} in the meantime.")
    return wanted


def _require_free(now: NetworkFacts, wanted: Reservation, commands: Commands) -> None:
    if not now.active:
        raise HostError(
            f"The network '{now.name}' is no longer running.",
            f"Start it: {commands.virsh('net-start', now.name)}",
        )
    for entry in now.entries:
        if entry.address == wanted.address and entry.mac != wanted.mac:
            raise _Taken(f"{wanted.address} is reserved for {entry.mac} now.")


def _lacking(now: NetworkFacts, wanted: Reservation) -> int:
    """Return the flags of the places where the entry is missing: live, stored, both or none."""
    flags = 0
    if wanted.entry not in now.live:
        flags |= AFFECT_LIVE
    if now.stored is not None and wanted.entry not in now.stored:
        flags |= AFFECT_CONFIG
    return flags


def holds(host: Host, made: Reservation) -> bool:
    """Return whether a network has the host entry of a clone."""
    now = facts(host, made.network)
    return now is not None and any(
        (entry.mac, entry.address) == (made.mac, made.address) for entry in now.entries
    )


# --- giving back --------------------------------------------------------------------


def release(host: Host, made: Reservation) -> bool:
    """
    Delete the host entry of a clone, live and stored; repeatable.

    Only an entry for the clone's own MAC and address counts as ours. The lease itself stays with
    the DHCP server until it expires: libvirt has no call to end it.

    :return: Whether there was one.
    :raises HostError: libvirt did not delete it.
    """
    there = False
    refusal: HostError | None = None
    for _ in range(ATTEMPTS):
        network = find(host, made.network)
        if network is None:
            return there
        now = _read(host, network, made.network)
        todo = [
            (flag, entry)
            for flag, entries in ((AFFECT_LIVE, now.live), (AFFECT_CONFIG, now.stored or ()))
            for entry in entries
            if (entry.mac, entry.address) == (made.mac, made.address)
        ]
        if not todo:
            return there
        there = True
        flags = _joined(todo)
        entry = todo[0][1]
        try:
            _update(
                host, network, NETWORK_DELETE, flags, entry, reservation.block_of(now, made.address)
            )
        except HostError as error:
            if error.code != OPERATION_INVALID:
                raise
            refusal = error
    raise HostError(
        f"libvirt did not delete the reservation of {made.address} in network "
        f"'{made.network}': {refusal.message if refusal else 'it keeps coming back'}",
        "By hand: "
        + host.commands.virsh(
            "net-update",
            made.network,
            "delete",
            "ip-dhcp-host",
            network_xml.host_xml(made.entry),
            "--live",
            "--config",
        ),
    )


def _joined(todo: list[tuple[int, HostEntry]]) -> int:
    """Return the flags of all entries that equal the first: as a rule one call deletes both."""
    flags = 0
    for flag, entry in todo:
        if entry == todo[0][1]:
            flags |= flag
    return flags


def _update(
    host: Host, network: Any, command: int, flags: int, entry: HostEntry, block: int
) -> None:
    host.call(network.update, command, NETWORK_DHCP_HOST, block, network_xml.host_xml(entry), flags)
