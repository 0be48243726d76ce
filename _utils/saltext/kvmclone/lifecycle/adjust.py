"""
Compare an existing clone with what is asked of it now, and change what can be changed.

Cpus, memory, autostart, description, tags, ttl, the size of disks and the protection of the base
can be changed on an existing clone; its base, strategy and address cannot, and no disk ever
shrinks. Comparing writes nothing; a note says what only the next boot brings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from lxml import etree

from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.hypervisor.constants import (
    AFFECT_CONFIG,
    AFFECT_LIVE,
    BLOCK_RESIZE_BYTES,
    MEMORY_MAXIMUM,
    METADATA_DESCRIPTION,
    VCPU_MAXIMUM,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import file_usage_scan, pending_changes
from saltext.kvmclone.inventory.base_protection import protection
from saltext.kvmclone.inventory.file_usage import FileUsage
from saltext.kvmclone.lifecycle import protect, record_store, unchangeable
from saltext.kvmclone.model import domain_xml, libvirt_xml, redaction
from saltext.kvmclone.model.cloud_seed import KEEP, OWN
from saltext.kvmclone.model.domain_xml import Domain
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan.rewrite import Rewritten, Sizing
from saltext.kvmclone.plan.rewrite.sizing import kibibytes, rewrite_sizing


@dataclass
class Adjustment:
    """
    The differences between a clone and a request.

    :param changes: ``{key: {"old", "new"}}`` of what can be changed.
    :param refused: One sentence for everything that cannot be changed, with what to do.
    :param notes: What the operator should know, such as "from the next boot on".
    :param pending: ``{key: {"old", "new"}}`` of what waits for the next start once the steps are
        done: changes of now and of earlier.
    :param steps: The calls that make the changes, in order; comparing has made none of them.
    """

    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pending: dict[str, dict[str, Any]] = field(default_factory=dict)
    steps: list[Callable[[], object]] = field(default_factory=list)

    def change(self, key: str, old: Any, new: Any, *steps: Callable[[], object]) -> None:
        """Add a difference and the calls that remove it."""
        self.changes[key] = {"old": old, "new": new}
        self.steps += steps

    def as_dict(self) -> dict[str, Any]:
        """Return the adjustment as plain data, without the steps."""
        return {
            "changes": self.changes,
            "refused": self.refused,
            "notes": self.notes,
            "pending": self.pending,
        }


def compare(
    host: Host, handle: DomainHandle, record: Record, request: Request, commands: Commands
) -> Adjustment:
    """
    Return the differences between a clone and a request; write nothing.

    A key that the request leaves open is left as it is.

    :param commands: How the commands in the notes are typed.
    """
    found = Adjustment()
    root = libvirt_xml.parse(handle.definition())
    domain = domain_xml.facts(root)
    found.refused += unchangeable.reasons(root, record, request, commands)
    _cpus(host, handle, domain, record, root, request, found)
    _memory(host, handle, domain, root, request, found)
    if request.seed in (KEEP, OWN) and record.seed not in ("", request.seed):
        found.notes.append(
            "'seed' counts only while a clone is made; this one was made with another and keeps it."
        )
    resized = bool(found.changes)
    _words(host, handle, domain, record, request, found)
    _disks(host, handle, domain, request, found)
    _protection(host, record, request, found)
    if handle.state() != "shutoff":
        after = root if found.refused else _as_asked(root, request)
        found.pending = pending_changes.changes(libvirt_xml.parse(handle.live()), after)
        if found.pending:
            found.notes.append(pending_changes.sentence(handle.name, found.pending, commands))
    elif resized and handle.is_saved():
        found.notes.append(
            "Its memory is saved: its next start goes on with the cpus and memory of then. To "
            f"start it anew instead: {commands.virsh('managedsave-remove', handle.name)}"
        )
    return found


def apply(found: Adjustment) -> None:
    """
    Make the changes of an adjustment, in order.

    :raises HostError: libvirt refused a step; the steps before it hold.
    """
    for step in found.steps:
        step()


def _cpus(
    host: Host,
    handle: DomainHandle,
    domain: Domain,
    record: Record,
    root: etree._Element,
    request: Request,
    found: Adjustment,
) -> None:
    count = request.cpus
    if count is None or (count, count) == (domain.cpus_now, domain.cpus):
        return
    if root.find("vcpus") is not None:
        found.refused.append(
            "'cpus' cannot be changed: the clone fixes which processors are plugged in (<vcpus>)."
        )
        return
    if count != domain.cpus and root.find("./cpu/numa/cell") is not None:
        found.refused.append("'cpus' cannot be changed: the clone fixes its NUMA cells.")
        return
    if count != domain.cpus and root.find("./cpu/topology") is not None:
        _with_topology(host, handle, record, root, request, found)
        return

    def set_cpus() -> None:
        # To shrink, the current number has to be set first; to grow, the maximum.
        flags = [AFFECT_CONFIG, AFFECT_CONFIG | VCPU_MAXIMUM]
        if count == domain.cpus:  # the maximum stays: possible with a fixed topology, too
            flags = [AFFECT_CONFIG]
        for flag in flags if count <= domain.cpus else reversed(flags):
            host.call(handle.raw.setVcpusFlags, count, flag)

    _resize(found, "cpus", (domain.cpus_now, domain.cpus), count, set_cpus)


def _with_topology(
    host: Host,
    handle: DomainHandle,
    record: Record,
    root: etree._Element,
    request: Request,
    found: Adjustment,
) -> None:
    """Change the number of cpus where the topology must make the same: by a new definition."""
    out = Rewritten()
    rewrite_sizing(copy.deepcopy(root), Sizing(request.cpus), out)
    if out.conflicts:
        found.refused += out.conflicts
        return

    def define() -> None:
        record_store.current(handle, record)  # whoever is destroying it has the last word
        fresh = libvirt_xml.parse(handle.definition())
        rewrite_sizing(fresh, Sizing(request.cpus), Rewritten())
        host.define(libvirt_xml.serialize(fresh), request.validate_xml)

    found.changes |= out.changes
    found.steps.append(define)


def _memory(
    host: Host,
    handle: DomainHandle,
    domain: Domain,
    root: etree._Element,
    request: Request,
    found: Adjustment,
) -> None:
    if request.memory is None:
        return
    size, most = kibibytes(request.memory), kibibytes(domain.memory)
    if (size, size) == (kibibytes(domain.memory_now), most):
        return
    if size != most and (why := _fixed_memory(root, request.memory)):
        found.refused.append(f"'memory' cannot be changed: {why}.")
        return

    def set_memory() -> None:
        if size != most:
            host.call(handle.raw.setMemoryFlags, size, AFFECT_CONFIG | MEMORY_MAXIMUM)
        host.call(handle.raw.setMemoryFlags, size, AFFECT_CONFIG)

    # libvirt counts in KiB: sizes that differ by less are the same to it.
    had = [
        request.memory if kibibytes(old) == size else old
        for old in (domain.memory_now, domain.memory)
    ]
    _resize(found, "memory", (had[0], had[1]), request.memory, set_memory)


def _fixed_memory(root: etree._Element, wanted: int) -> str:
    """
    Return why a clone's maximum memory cannot be changed; empty where it can.

    :param wanted: The memory that is asked for, bytes.
    """
    if root.find("./cpu/numa") is not None:
        return "the clone fixes its NUMA cells"
    if root.find("./devices/memory") is not None:
        return "the clone has memory devices (<memory model=…>)"
    limit = libvirt_xml.bytes_of(root.find("maxMemory"))
    if 0 < limit < wanted:
        return f"the clone allows {limit} bytes (<maxMemory>)"
    return ""


def _resize(
    found: Adjustment, key: str, had: tuple[int, int], wanted: int, step: Callable[[], object]
) -> None:
    """
    Add the current and the maximum value to the changes, as far as they differ.

    :param had: What the guest has now, and what it could have at most.
    :param wanted: The new value of both: a number of cpus, or bytes.
    """
    present, most = had
    if present != wanted:
        found.changes[key] = {"old": present, "new": wanted}
    if most not in (present, wanted):
        found.changes[f"{key} maximum"] = {"old": most, "new": wanted}
    found.steps.append(step)


def _as_asked(root: etree._Element, request: Request) -> etree._Element:
    """Return a copy of the definition with the cpus and memory that are asked for."""
    after = copy.deepcopy(root)
    rewrite_sizing(after, Sizing(request.cpus, request.memory), Rewritten())
    return after


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
        flags = AFFECT_CONFIG | (AFFECT_LIVE if handle.state() != "shutoff" else 0)

        def describe() -> None:
            host.call(
                handle.raw.setMetadata,
                METADATA_DESCRIPTION,
                text or None,
                None,
                None,
                flags,
            )

        old = redaction.given_description(domain.description, record.base)
        found.change("description", old, text, describe)
    if request.autostart is not None:
        now = bool(host.call(handle.raw.autostart))
        if now != request.autostart:
            wanted = request.autostart
            found.change("autostart", now, wanted, lambda: handle.set_autostart(wanted))
    _recorded(handle, record, request, found)


def _recorded(handle: DomainHandle, record: Record, request: Request, found: Adjustment) -> None:
    """Compare the tags and the ttl, which stand in the record alone and take effect at once."""
    wanted = record
    if request.tags is not None and request.tags != record.tags:
        wanted = replace(wanted, tags=request.tags)
        found.change("tags", list(record.tags), list(request.tags))
    # A ttl counts from one moment, so asking for the same one again changes nothing.
    since = record.claim.at or record.created
    had = record.expires - since if record.expires else None
    if request.ttl is not None and (had is None or abs(request.ttl - had) >= 1):
        wanted = replace(wanted, expires=since + request.ttl)
        found.change("ttl", had, request.ttl)
    if wanted != record:
        found.steps.append(lambda: record_store.save(handle, record, wanted))


def _disks(
    host: Host, handle: DomainHandle, domain: Domain, request: Request, found: Adjustment
) -> None:
    wishes = {target: wish.size for target, wish in request.disks.items() if wish.size}
    paths = {disk.target: disk.path for disk in domain.disks}
    usage: FileUsage | None = None  # scanned once, and only where a disk is to grow
    for target, size in wishes.items():
        if not paths.get(target):
            found.refused.append(f"'disks' wants {target} to grow, but there is no such disk.")
            continue
        now = int(host.call(handle.raw.blockInfo, target)[0])
        if size < now:
            found.refused.append(
                f"Disk {target} has {now} bytes and cannot shrink to {size}. Take its size out of "
                "'disks', or give a larger one."
            )
        elif size > now:
            usage = usage or file_usage_scan.scan(host)
            if why := _needed_as_it_is(usage, handle, paths[target]):
                found.refused.append(f"Disk {target} cannot grow: {why}.")
                continue
            grow = _growth(host, handle, target, paths[target], size)
            found.change(f"disk {target} size", now, size, grow)


def _protection(host: Host, record: Record, request: Request, found: Adjustment) -> None:
    """Compare the protection of a quick clone's base; a full one does not depend on its base."""
    base = host.with_uuid(record.base_uuid) if request.protect and record.base_uuid else None
    if base is None or record.strategy != "quick" or protection(host, base) is not None:
        return
    paths = [disk.path for disk in record.base_disks]
    try:
        protect.check(host, base, paths)
    except PlanRefused as refusal:
        found.refused.append(f"{refusal.message} {refusal.hint}")
        return
    found.change("protect", False, True, lambda: protect.protect(host, base, paths))


def _needed_as_it_is(usage: FileUsage, handle: DomainHandle, path: str) -> str:
    """Return why an image is not the clone's alone to change; empty where it is."""
    standing = usage.overlays_on([path]).get(path, [])
    if standing:
        return (
            f"{', '.join(standing)} is based on '{path}', which must not change below it. Grow "
            "the overlay above it instead"
        )
    if user := usage.used_by_others(handle.uuid).get(usage.file_id(path)):
        return f"'{user}' uses '{path}', too. Take its size out of 'disks'"
    return ""


def _growth(
    host: Host, handle: DomainHandle, target: str, path: str, size: int
) -> Callable[[], object]:
    def grow() -> None:
        if handle.state() == "shutoff":
            raw = host.call(host.raw.storageVolLookupByPath, path)
            host.call(raw.resize, size, 0)
        else:
            host.call(handle.raw.blockResize, target, size, BLOCK_RESIZE_BYTES)

    return grow
