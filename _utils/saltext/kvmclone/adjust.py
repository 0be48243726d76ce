"""
An existing clone against what is asked of it now: what differs, and mending it.

Power, cpus, memory, autostart, description, tags, ttl, the size of disks and the protection of
the base can be changed on a clone that is there; its base, strategy and address cannot, and no
disk ever shrinks. Looking writes nothing; what only the next boot brings is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from lxml import etree

from saltext.kvmclone import domain_xml, gathering, markup, protect, records
from saltext.kvmclone.census import Census
from saltext.kvmclone.codes import (
    AFFECT_CONFIG,
    BLOCK_RESIZE_BYTES,
    MEMORY_MAXIMUM,
    METADATA_DESCRIPTION,
    VCPU_MAXIMUM,
)
from saltext.kvmclone.domain_xml import Domain
from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.host import DomainHandle, Host
from saltext.kvmclone.ownership import Record
from saltext.kvmclone.request import NetworkWish, Request


@dataclass
class Adjustment:
    """
    What differs between a clone and a request.

    :param changes: ``{key: {"old", "new"}}`` of what can be mended.
    :param refused: One sentence for everything that cannot, with what to do.
    :param notes: What the operator should know, such as "from the next boot on".
    :param steps: The calls that mend it, in order; looking has made none of them.
    """

    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    steps: list[Callable[[], object]] = field(default_factory=list)

    def change(self, key: str, old: Any, new: Any, *steps: Callable[[], object]) -> None:
        """Note a difference and what mends it."""
        self.changes[key] = {"old": old, "new": new}
        self.steps += steps

    def as_dict(self) -> dict[str, Any]:
        """Without the steps."""
        return {"changes": self.changes, "refused": self.refused, "notes": self.notes}


def compare(host: Host, handle: DomainHandle, record: Record, request: Request) -> Adjustment:
    """
    What differs between a clone and what is asked for; writes nothing.

    A key that the request leaves open is left as it is.
    """
    found = Adjustment()
    root = markup.parse(handle.definition())
    domain = domain_xml.facts(root)
    _unchangeable(domain, record, request, found)
    _sizing(host, handle, domain, root, request, found)
    _words(host, handle, domain, record, request, found)
    _disks(host, handle, domain, request, found)
    _protection(host, record, request, found)
    return found


def apply(found: Adjustment) -> None:
    """
    Mend what differs.

    :raises HostError: libvirt refused a step; the ones before it hold.
    """
    for step in found.steps:
        step()


def _unchangeable(domain: Domain, record: Record, request: Request, found: Adjustment) -> None:
    again = f"Destroy it and make it again: salt-call kvm_clone.destroy {domain.name}"
    if request.base_domain != record.base:
        found.refused.append(
            f"It was made from '{record.base}' and cannot become a clone of "
            f"'{request.base_domain}'. {again}"
        )
    if request.clone_strategy != record.strategy:
        found.refused.append(
            f"It was made with 'clone_strategy: {record.strategy}' and cannot become "
            f"'{request.clone_strategy}'. {again}"
        )
    reserved = [reservation.address for reservation in record.reservations]
    if request.address and request.address not in reserved:
        has_now = f"'{reserved[0]}' is reserved for it" if reserved else "None is reserved for it"
        found.refused.append(
            f"'address: {request.address}' can be had only by a new clone. {has_now}. {again}"
        )
    for number, wish in enumerate(request.networks):
        has = domain.interfaces[number] if number < len(domain.interfaces) else None
        if has is None or not _fits(wish, has.kind, has.source, has.mac):
            found.refused.append(
                f"Interface {number} is not as 'networks' wants it; interfaces of a clone that is "
                f"there are left alone. {again}"
            )


def _fits(wish: NetworkWish, kind: str, source: str, mac: str) -> bool:
    wanted = ("bridge", wish.bridge) if wish.bridge else ("network", wish.network)
    return (kind, source) == wanted and wish.mac in ("", mac)


def _sizing(
    host: Host,
    handle: DomainHandle,
    domain: Domain,
    root: etree._Element,
    request: Request,
    found: Adjustment,
) -> None:
    running = handle.state() != "shutoff"
    if request.cpus is not None and request.cpus != domain.cpus:
        if root.find("vcpus") is not None or root.find("./cpu/topology") is not None:
            found.refused.append("'cpus' cannot be changed: the clone fixes its CPU topology.")
        else:
            count = request.cpus

            def set_cpus() -> None:
                # Downwards the present number has to go first, upwards the greatest.
                flags = [AFFECT_CONFIG, AFFECT_CONFIG | VCPU_MAXIMUM]
                for flag in flags if count < domain.cpus else reversed(flags):
                    host.call(handle.raw.setVcpusFlags, count, flag)

            found.change("cpus", domain.cpus, count, set_cpus)
    if request.memory is not None and _kibibytes(request.memory) != _kibibytes(domain.memory):
        if root.find("./cpu/numa") is not None:
            found.refused.append("'memory' cannot be changed: the clone fixes its NUMA cells.")
        else:
            size = _kibibytes(request.memory)

            def set_memory() -> None:
                host.call(handle.raw.setMemoryFlags, size, AFFECT_CONFIG | MEMORY_MAXIMUM)
                host.call(handle.raw.setMemoryFlags, size, AFFECT_CONFIG)

            found.change("memory", domain.memory, request.memory, set_memory)
    if running and {"cpus", "memory"} & set(found.changes):
        found.notes.append(
            "cpus and memory change at its next boot: salt-call kvm_clone.reboot "
            f"does not suffice, stop and start '{domain.name}'."
        )


def _kibibytes(size: int) -> int:
    return -(-size // 1024)


def _words(
    host: Host,
    handle: DomainHandle,
    domain: Domain,
    record: Record,
    request: Request,
    found: Adjustment,
) -> None:
    text = request.description
    if text is not None and text != domain.description:

        def describe() -> None:
            host.call(
                handle.raw.setMetadata,
                METADATA_DESCRIPTION,
                text or None,
                None,
                None,
                AFFECT_CONFIG,
            )

        found.change("description", domain.description, text, describe)
    if request.autostart is not None:
        now = bool(host.call(handle.raw.autostart))
        if now != request.autostart:
            wanted = request.autostart
            found.change("autostart", now, wanted, lambda: handle.set_autostart(wanted))
    _recorded(handle, record, request, found)


def _recorded(handle: DomainHandle, record: Record, request: Request, found: Adjustment) -> None:
    """What stands in the record alone; written at once."""
    wanted = record
    if request.tags is not None and request.tags != record.tags:
        wanted = replace(wanted, tags=request.tags)
        found.change("tags", list(record.tags), list(request.tags))
    # A ttl counts from the making: so the same one is the same moment, however often it is asked.
    had = record.expires - record.created if record.expires else None
    if request.ttl is not None and (had is None or abs(request.ttl - had) >= 1):
        wanted = replace(wanted, expires=record.created + request.ttl)
        found.change("ttl", had, request.ttl)
    if wanted != record:
        found.steps.append(lambda: records.save(handle, record, wanted))


def _disks(
    host: Host, handle: DomainHandle, domain: Domain, request: Request, found: Adjustment
) -> None:
    wishes = {target: wish.size for target, wish in request.disks.items() if wish.size}
    paths = {disk.target: disk.path for disk in domain.disks}
    census: Census | None = None  # taken once, and only where a disk is to grow
    for target, size in wishes.items():
        if not paths.get(target):
            found.refused.append(f"'disks' wants {target} to grow, and there is no such disk.")
            continue
        now = int(host.call(handle.raw.blockInfo, target)[0])
        if size < now:
            found.refused.append(
                f"Disk {target} has {now} bytes; it never shrinks to {size}. Take its size out "
                "of 'disks', or give a greater one."
            )
        elif size > now:
            census = census or gathering.take(host)
            if why := _needed_as_it_is(census, handle, paths[target]):
                found.refused.append(f"Disk {target} cannot grow: {why}.")
                continue
            grow = _growth(host, handle, target, paths[target], size)
            found.change(f"disk {target} size", now, size, grow)


def _protection(host: Host, record: Record, request: Request, found: Adjustment) -> None:
    """What a quick clone stands on; a full one is not hurt by whatever its base does."""
    base = host.with_uuid(record.base_uuid) if request.protect and record.base_uuid else None
    if base is None or record.strategy != "quick" or protect.protection(host, base) is not None:
        return
    paths = [disk.path for disk in record.base_disks]
    try:
        protect.check(host, base, paths)
    except PlanRefused as refusal:
        found.refused.append(f"{refusal.message} {refusal.hint}")
        return
    found.change("protect", False, True, lambda: protect.protect(host, base, paths))


def _needed_as_it_is(census: Census, handle: DomainHandle, path: str) -> str:
    """Why an image is not the clone's alone to change; empty where it is."""
    standing = census.standing_on([path]).get(path, [])
    if standing:
        return (
            f"{', '.join(standing)} stands on '{path}', which must not change below it. Grow "
            "what stands on it instead"
        )
    if user := census.used_by_others(handle.uuid).get(census.identity(path)):
        return f"'{user}' uses '{path}', too. Take its size out of 'disks'"
    return ""


def _growth(
    host: Host, handle: DomainHandle, target: str, path: str, size: int
) -> Callable[[], object]:
    def grow() -> None:
        if handle.state() == "shutoff":
            raw = host.call(host.connection.storageVolLookupByPath, path)
            host.call(raw.resize, size, 0)
        else:
            host.call(handle.raw.blockResize, target, size, BLOCK_RESIZE_BYTES)

    return grow
