"""
libvirt's networks: reading them, their leases, and the host entries that we make in them.

``virNetworkUpdate`` answers with one and the same error for a duplicate, an absent entry, a
network that does not run and a bridge. So after such an error the network is read again:
what stands there, and not the error, says what happened.
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
    OPERATION_INVALID,
)
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.domain_xml import Interface
from saltext.kvmclone.model.facts import HostEntry, Lease, NetworkFacts
from saltext.kvmclone.model.record import Reservation
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan import reservation

log = logging.getLogger(__name__)

#: How often a network that somebody else changes at the same moment is read again.
ATTEMPTS = 5

#: How many addresses that others took at the same moment are given up for another one.
_CHOICES = 64


class _Taken(Exception):
    """Somebody else reserved the address, or was handed it, since it was chosen."""


# --- reading ------------------------------------------------------------------------


def find(host: Connection, name: str) -> Any | None:
    """libvirt's object of a network, None where there is none of that name."""
    with absent(NO_NETWORK):
        return host.call(host.raw.networkLookupByName, name)
    return None


def facts(host: Host, name: str, with_leases: bool = False) -> NetworkFacts | None:
    """What libvirt says of a network, None where there is none of that name."""
    network = find(host, name)
    return _read(host, network, name, with_leases) if network is not None else None


def _read(host: Host, network: Any, name: str, with_leases: bool = False) -> NetworkFacts:
    active = bool(host.call(network.isActive))
    live = str(host.call(network.XMLDesc, 0))
    stored = ""
    if host.call(network.isPersistent):
        stored = str(host.call(network.XMLDesc, NETWORK_XML_INACTIVE)) if active else live
    found = tuple(leases(host, network)) if with_leases and active else ()
    return network_xml.read(name, live, stored, found, active)


def leases(host: Connection, network: Any, mac: str | None = None) -> list[Lease]:
    """
    What a network handed out, to one card or to all; leases that ran out are left out.

    :return: Empty also where the network is gone or hands nothing out.
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


def survey(
    host: Host, request: Request, interfaces: Iterable[Interface]
) -> dict[str, NetworkFacts]:
    """
    The networks that an address may be reserved in; nothing is asked where none shall be.

    :param interfaces: The base's; those that the request connects elsewhere come on top.
    """
    if request.ip_source != "reserve":
        return {}
    names = [one.source for one in interfaces if one.kind == "network"]
    names += [wish.network for wish in request.networks]
    found = {name: facts(host, name, with_leases=True) for name in dict.fromkeys(names) if name}
    return {name: told for name, told in found.items() if told is not None}


# --- reserving ----------------------------------------------------------------------


def reserve(
    host: Host,
    wanted: Reservation,
    request: Request,
    journal: Callable[[Reservation], None],
) -> Reservation:
    """
    Make the host entry of a clone, live and stored, before it boots.

    :param wanted: What the plan chose; the record lists it already.
    :param journal: Writes another choice into the record; called *before* the network is
        touched, so that after a crash the record names every entry that may exist.
    :return: What was reserved: another address where somebody else took the first one.
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
                    "Somebody was faster. Repeat the command.",
                ) from taken
            name = reservation.entry_name(now, request.name)
            wanted = replace(wanted, address=address, name=name)
            journal(wanted)


def _add(host: Host, wanted: Reservation) -> Reservation:
    """
    :return: As it was made: without a name where that stands for another address meanwhile.
    :raises _Taken: Another card has it, by reservation or by lease.
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
        _require_free(now, wanted)
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
            refusal = error  # somebody changed the network meanwhile, or it never can
    else:
        raise HostError(
            f"libvirt did not reserve {wanted.address} in network '{wanted.network}': "
            f"{refusal.message if refusal else 'it changes all the time'}",
            f"Look at it: {host.commands.virsh('net-dumpxml', wanted.network)}",
        )
    # The DHCP server may have handed it out just before it knew of the entry.
    for lease in leases(host, network):
        if lease.address == wanted.address and lease.mac != wanted.mac:
            release(host, wanted)
            raise _Taken(f"{wanted.address} was leased to {lease.mac} meanwhile.")
    return wanted


def _require_free(now: NetworkFacts, wanted: Reservation) -> None:
    if not now.active:
        raise HostError(
            f"The network '{now.name}' is not started any more.",
            f"Start it: virsh net-start {now.name}",
        )
    for entry in now.entries:
        if entry.address == wanted.address and entry.mac != wanted.mac:
            raise _Taken(f"{wanted.address} is reserved for {entry.mac} meanwhile.")


def _lacking(now: NetworkFacts, wanted: Reservation) -> int:
    """Where the entry is missing: as the network runs, in what its next start will use."""
    flags = 0
    if wanted.entry not in now.live:
        flags |= AFFECT_LIVE
    if now.stored is not None and wanted.entry not in now.stored:
        flags |= AFFECT_CONFIG
    return flags


def holds(host: Host, made: Reservation) -> bool:
    """Whether a network has the host entry of a clone."""
    now = facts(host, made.network)
    return now is not None and any(
        (entry.mac, entry.address) == (made.mac, made.address) for entry in now.entries
    )


# --- giving back --------------------------------------------------------------------


def release(host: Host, made: Reservation) -> bool:
    """
    Delete the host entry of a clone wherever it stands; repeatable.

    Only an entry for the clone's own card and address counts as ours. The lease itself stays
    with the DHCP server until it runs out: libvirt has no call to end it.

    :return: Whether there was one.
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
        f"'{made.network}': {refusal.message if refusal else 'it comes back all the time'}",
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
    """The flags of all equal entries: one call for both sides, as a rule."""
    flags = 0
    for flag, entry in todo:
        if entry == todo[0][1]:
            flags |= flag
    return flags


def _update(
    host: Host, network: Any, command: int, flags: int, entry: HostEntry, block: int
) -> None:
    host.call(network.update, command, NETWORK_DHCP_HOST, block, network_xml.host_xml(entry), flags)
