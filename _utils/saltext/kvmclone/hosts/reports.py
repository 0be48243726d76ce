"""
Report the state of a KVM host to others: the mine, the master's queries, the schedule.

Reads only. :mod:`.beacon` runs as a program without Salt and uses this module, so this imports
neither Salt nor anything that does.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from saltext.kvmclone.errors import DamagedRecord, HostError, absent
from saltext.kvmclone.hypervisor.constants import MEMORY_OF_ALL_CELLS, NO_SUPPORT, POOL_RUNNING
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import clone_view, promises
from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.host_reports import CloneReport, Daemon, HostReport
from saltext.kvmclone.model.record import DESTROYING, Record

# --- for the mine -------------------------------------------------------------------


def capacity(host: Host) -> dict[str, Any]:
    """
    Return what a host has: ``cpus``, ``memory``, ``pools``, ``libvirt``, ``clones``, ``promised``.

    Sizes are bytes, ``clones`` is a number, ``spares`` that of those in stock; see :mod:`.promises`
    for what counts as promised.
    """
    offer = promises.look(host)
    promised = {"memory": offer.promised.memory, "cpus": offer.promised.cpus}
    counted = {"clones": offer.clones, "spares": offer.spares}
    return {**_capacity(host), **counted, "promised": promised}


def published(host: Host, label: str) -> dict[str, Any]:
    """
    Return what placement and other states need of a host, for the mine.

    That is :func:`capacity`, and of each clone its state, address, base, profile and tags.

    :param label: What to call the host; empty for its own name.
    """
    return {
        "host": label or host.node_name(),
        **_capacity(host),
        "clones": {
            handle.name: _published_clone(host, handle, record, label)
            for handle, record in clones(host)
        },
    }


def addresses(host: Host, profile: str, tag: str) -> dict[str, str]:
    """
    Return the addresses of the clones that run and have one, by name, without spares in stock.

    :param profile: Only clones of this profile; empty for all.
    :param tag: Only clones with this tag; empty for all.
    """
    wanted = [
        (handle, record)
        for handle, record in clones(host)
        if (not profile or record.profile == profile)
        and (not tag or tag in record.tags)
        and not record.in_stock
    ]
    told = (
        (h.name, clone_view.describe_running(host, h, r, "").address, h.state()) for h, r in wanted
    )
    return {name: address for name, address, state in told if address and state == "running"}


def _capacity(host: Host) -> dict[str, Any]:
    return {
        "libvirt": host.release(),
        "cpus": int(host.call(host.raw.getInfo)[2]),
        "memory": _memory(host),
        "pools": _pools(host),
    }


def _published_clone(
    host: Host, handle: DomainHandle, record: Record, label: str
) -> dict[str, Any]:
    clone = clone_view.describe_running(host, handle, record, label)
    return {
        "state": clone.state,
        "stage": clone.stage,
        "address": clone.address,
        "base": clone.base,
        "profile": clone.profile,
        "tags": list(record.tags),
        "spare": record.in_stock,
        "minion": record.minion.id,
        "expires": record.expires,
    }


def _memory(host: Host) -> dict[str, int]:
    """Return the host's ``total`` memory and what is ``free``, caches included, in bytes."""
    try:
        told = host.call(host.raw.getMemoryStats, MEMORY_OF_ALL_CELLS, 0)
    except HostError as error:
        if error.code != NO_SUPPORT:
            raise
        total = int(host.call(host.raw.getInfo)[1]) * 1024**2
        return {"total": total, "free": int(host.call(host.raw.getFreeMemory))}
    free = sum(int(told.get(key, 0)) for key in ("free", "buffers", "cached"))
    return {"total": 1024 * int(told["total"]), "free": 1024 * free}


def _pools(host: Host) -> dict[str, dict[str, int]]:
    """Return the ``capacity`` and what is ``available`` of the running storage pools, in bytes."""
    found = {}
    for raw in host.call(host.raw.listAllStoragePools, 0):
        try:
            state, capacity, _allocation, available = host.call(raw.info)
        except HostError:  # it was removed in the meantime
            continue
        if state == POOL_RUNNING:
            found[str(raw.name())] = {"capacity": int(capacity), "available": int(available)}
    return found


def clones(host: Host) -> list[tuple[DomainHandle, Record]]:
    """Return every domain of a host that is a clone of ours with its record, sorted by name."""
    found = host.each_domain(lambda handle: (handle, handle.record()))
    ours = [(handle, record) for handle, record in found if record is not None and record.is_clone]
    return sorted(ours, key=lambda pair: pair[0].name)


# --- for the master's questions -----------------------------------------------------


def daemon(host: Host) -> Daemon:
    """Return what tells the daemon behind a url from others."""
    capabilities = libvirt_xml.element(str(host.call(host.raw.getCapabilities)))
    parts = urlsplit(str(host.call(host.raw.getURI)))
    mode = parts.path.strip("/")
    user = parts.username or pwd.getpwuid(os.geteuid()).pw_name
    domains = frozenset(raw.UUIDString() for raw in host.call(host.raw.listAllDomains, 0))
    return Daemon(
        uuid=capabilities.findtext("host/uuid") or "",
        name=host.node_name(),
        driver=str(host.call(host.raw.getType)),
        mode=mode,
        user=user if mode == "session" else "",
        domains=domains,
        others=frozenset() if domains else _pools_and_networks(host),
    )


def _pools_and_networks(host: Host) -> frozenset[str]:
    found: list[str] = []
    for listing in (host.raw.listAllStoragePools, host.raw.listAllNetworks):
        with absent(NO_SUPPORT):  # the driver has none of these
            found += [raw.UUIDString() for raw in host.call(listing, 0)]
    return frozenset(found)


def report_domains(host: Host, names: Iterable[str] = (), ids: Iterable[str] = ()) -> HostReport:
    """
    Return what the host knows for certain of some domains.

    :param names: Names of domains.
    :param ids: Minion ids, which a clone's record may name.
    :return: Among it the clones of ours that match by name, by minion id, or because their ``ttl``
        has passed.
    """
    wanted, minions = set(names), set(ids)
    now = time.time()
    domains: list[str] = []
    clones: list[CloneReport] = []
    damaged: list[str] = []

    def look(handle: DomainHandle) -> None:
        if handle.name in wanted:
            domains.append(handle.name)
        try:
            record = handle.record()
        except DamagedRecord:
            damaged.append(handle.name)
            raise
        if record is None or not record.is_clone:
            return
        over = is_expired(record, now)
        if over or handle.name in wanted or record.minion.id in minions:
            minion = record.minion
            clones.append(
                CloneReport(
                    handle.name, record.uuid, record.stage, record.request, minion.id,
                    minion.fingerprint, over,
                )
            )  # fmt: skip

    host.each_domain(look)
    clones.sort(key=lambda clone: clone.name)
    return HostReport(tuple(sorted(domains)), tuple(clones), tuple(sorted(damaged)))


def is_expired(record: Record, now: float) -> bool:
    """
    Return True if the clone's ``ttl`` has passed; False while it is still being made.

    :param now: Seconds since the epoch.
    """
    if not record.expires or record.expires > now:
        return False
    return record.complete or bool(record.failed) or record.stage == DESTROYING


# --- for the schedule ------------------------------------------------------------------


def expired(host: Host) -> list[str]:
    """Return the names of the clones whose ``ttl`` has passed."""
    now = time.time()
    return [handle.name for handle, record in clones(host) if is_expired(record, now)]
