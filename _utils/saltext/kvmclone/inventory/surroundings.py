"""
Read what a host's clones and their bases need of it: networks, bridges, labels of their files.
"""

from __future__ import annotations

import time
from contextlib import suppress

from saltext.kvmclone.errors import HostError, HostUnreachable, absent
from saltext.kvmclone.hypervisor import networks
from saltext.kvmclone.hypervisor.constants import NO_NETWORK, NO_SUPPORT
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_copies, promises
from saltext.kvmclone.inventory.examination import Examination, Machine
from saltext.kvmclone.inventory.host_findings import Surroundings
from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.facts import NetworkFacts
from saltext.kvmclone.model.host_reports import HostCondition
from saltext.kvmclone.system import bridges, confinement, installation

#: How often the daemon is asked; the fastest answer counts, so that a moment of load does not.
_TRIES = 3


def look(seen: Examination) -> Surroundings:
    """Return what the clones of a host that was examined, and their bases, need of it."""
    host = seen.host
    machines = {machine.uuid: machine for machine, _record in seen.clones}
    bases = (seen.base_of(record) for _machine, record in seen.clones)
    machines |= {base.uuid: base for base in bases if base is not None}
    found = _networks(host, list(machines.values()))
    cards = [card for machine in machines.values() for card in machine.domain.interfaces]
    named = {card.source for card in cards if card.kind == "bridge"}
    named |= {network.bridge for network in found if network.bridge}
    local = host.local
    return Surroundings(
        latency=latency(host),
        delays={name: bridges.delay(name) for name in sorted(named)} if local else {},
        networks=tuple(found),
        closed=_closed(seen, list(machines.values())) if local else {},
        copies=_copies(host),
    )


def condition(host: Host) -> HostCondition:
    """Return what works here, how the daemon answers, and what the host promised."""
    found = host.each_domain(lambda handle: (handle.name, handle.record()))
    return HostCondition(
        installation.look(copies=host.local),
        promises.look(host),
        {name: record.minion.id for name, record in found if record and record.is_clone},
        host.release(),
        _security(host),
        latency(host),
    )


def latency(host: Host) -> float:
    """Return the seconds that the daemon takes for an answer which costs it nothing."""
    took = []
    for _ in range(_TRIES):
        began = time.monotonic()
        host.version()
        took.append(time.monotonic() - began)
    return min(took)


def _networks(host: Host, machines: list[Machine]) -> list[NetworkFacts]:
    """Return the networks of these machines that libvirt runs."""
    cards = [card for machine in machines for card in machine.domain.interfaces]
    names = {card.source for card in cards if card.kind == "network"}
    if on_bridges := {card.source for card in cards if card.kind == "bridge"}:
        with suppress(HostError, HostUnreachable):  # a host may have no daemon for networks
            served = networks.by_bridge(host)
            names |= {served[bridge] for bridge in on_bridges if bridge in served}
    found: list[NetworkFacts] = []
    for name in sorted(names):
        with absent(NO_NETWORK), absent(NO_SUPPORT):  # it may be removed at this moment
            told = networks.facts(host, name, with_leases=True)
            if told is not None and told.active:
                found.append(told)
    return found


def _closed(seen: Examination, machines: list[Machine]) -> dict[str, tuple[str, ...]]:
    """Return the disks of these machines that SELinux keeps from guests, by its switch."""
    if not confinement.is_enforced() or "selinux" not in _security(seen.host):
        return {}
    found: dict[str, set[str]] = {}
    for machine in machines:
        for _target, path in seen.disks(machine):
            if switch := confinement.closed(path):
                found.setdefault(switch, set()).add(path)
    return {switch: tuple(sorted(paths)) for switch, paths in sorted(found.items())}


def _security(host: Host) -> tuple[str, ...]:
    """Return what confines the guests of a daemon."""
    told = libvirt_xml.element(str(host.call(host.raw.getCapabilities)))
    models = (one.text or "" for one in told.findall("./host/secmodel/model"))
    return tuple(model for model in models if model in ("apparmor", "selinux"))


def _copies(host: Host) -> dict[str, tuple[str, ...]]:
    """Return what interrupted copies of bases left, by the base's name."""
    found: dict[str, set[str]] = {}
    for handle, copy in base_copies.dead(host):
        for row in base_copies.rows(handle, copy):
            found.setdefault(row.name, set()).add(row.path)
    return {name: tuple(sorted(paths)) for name, paths in sorted(found.items())}
