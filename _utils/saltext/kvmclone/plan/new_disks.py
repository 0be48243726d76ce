"""
Plan the empty disks that the profile gives a clone and its base does not have. Pure.
"""

from __future__ import annotations

import os

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.domain_xml import Disk
from saltext.kvmclone.model.facts import QCOW2, HostFacts, PoolFacts
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.model.units import exact_size
from saltext.kvmclone.plan.disk_sources import PlanIssues
from saltext.kvmclone.plan.disks import LARGEST_QCOW2, TARGET, check_volume, usable_pool
from saltext.kvmclone.plan.planned_disk import EMPTY, PlannedDisk
from saltext.kvmclone.plan.rewrite.disks import bus_of

#: Bytes of a qcow2 image in which nothing was written yet: its header and tables.
_EMPTY_QCOW2 = 2**18

#: The bus of a disk by the first letters of its target, where the base has none such.
_BUSES = {"vd": "virtio", "sd": "sata", "hd": "ide"}


def targets(disks: tuple[Disk, ...], request: Request) -> list[str]:
    """Return the targets of the disks that the profile names and the base does not have."""
    return sorted(set(request.disks) - {disk.target for disk in disks})


def volume_name(request: Request, target: str) -> str:
    """Return the name of the volume of a new disk."""
    return f"{request.name}-{target}.{request.disks[target].format or QCOW2}"


def decide(
    disks: tuple[Disk, ...],
    planned: tuple[PlannedDisk, ...],
    facts: HostFacts,
    request: Request,
    notes: PlanIssues,
) -> tuple[PlannedDisk, ...]:
    """
    Return the empty disks that the clone gets.

    :param disks: The base's.
    :param planned: What becomes of those; a new disk goes into the pool of the first of them.
    :param notes: Gets reasons to refuse, and warnings.
    """
    pool = next((disk.pool for disk in planned if disk.pool), "")
    found = (
        _decide(target, disks, pool, facts, request, notes) for target in targets(disks, request)
    )
    return tuple(disk for disk in found if disk is not None)


def _decide(
    target: str,
    disks: tuple[Disk, ...],
    first_pool: str,
    facts: HostFacts,
    request: Request,
    notes: PlanIssues,
) -> PlannedDisk | None:
    wish, bus = request.disks[target], _bus(target, facts)
    if reason := _unclear(target, bus, disks, request):
        notes.conflicts.append(reason)
        return None
    assert wish.size is not None, "without a size it is refused"
    pool = _pool(target, request, first_pool, facts, notes)
    if pool is None:
        return None
    form = wish.format or QCOW2
    volume = volume_name(request, target)
    destination = os.path.join(pool.path, volume)
    check_volume(volume, destination, facts, notes)
    capacity = -(-wish.size // 1024) * 1024  # libvirt makes new images by the KiB
    if capacity > pool.available:
        notes.warnings.append(
            f"Disk {target} may grow to {exact_size(capacity)}, and storage pool '{pool.name}' has "
            f"{pool.available / 2**30:.1f} GiB free: its guest would stop when that is used up. "
            "Make room, or ask for less."
        )
    return PlannedDisk(
        target=target,
        action="copy",
        reason=f"the base has no {target}; it is empty, as the profile says",
        source="",
        destination=destination,
        format=form,
        bytes=_EMPTY_QCOW2 if form == QCOW2 else 0,
        pool=pool.name,
        volume=volume,
        capacity=capacity,
        method=EMPTY,
        bus=bus,
    )


def _pool(
    target: str, request: Request, first: str, facts: HostFacts, notes: PlanIssues
) -> PoolFacts | None:
    wish = request.disks[target]
    name = wish.pool or request.pool or first
    if name:
        return usable_pool(name, facts, notes)
    size = exact_size(wish.size or 0)
    notes.conflicts.append(
        f"Disk {target} is a new one, and nothing says in which storage pool. Name it: "
        f"disks: {{{target}: {{size: {size}, pool: default}}}}"
    )
    return None


def _unclear(target: str, bus: str, disks: tuple[Disk, ...], request: Request) -> str:
    """Say why a disk that the base does not have is none that could be made; empty if it is."""
    wish = request.disks[target]
    has = ", ".join(disk.target for disk in disks) or "none"
    said = f"'disks' names '{target}', which the base does not have. It has: {has}."
    if not (bus and TARGET.fullmatch(target)):
        return f"{said} A new one is called vdb, sdb or hdb."
    if not wish.size or wish.action or wish.strategy:
        return (
            f"{said} For a new, empty one give it a 'size', and no 'action' or 'strategy': "
            f"disks: {{{target}: {{size: 10GiB}}}}"
        )
    if wish.size > LARGEST_QCOW2 and wish.format in ("", QCOW2):
        return (
            f"'disks: {target}' asks for {exact_size(wish.size)}, and a qcow2 image has at most "
            f"{exact_size(LARGEST_QCOW2)}. Ask for less."
        )
    return ""


def _bus(target: str, facts: HostFacts) -> str:
    """
    Return the bus of a new disk: that of the base's disks of such a name, else the usual one.

    :return: Empty for a target that no new disk has.
    """
    root = libvirt_xml.shared(facts.base_xml)
    prefix = target[:2] if target[:2] in _BUSES else ""
    for device in ("disk", "cdrom"):
        for disk in root.findall("./devices/disk"):
            place = disk.find("target")
            name = place.get("dev", "") if place is not None else ""
            if prefix and name.startswith(prefix) and disk.get("device", "disk") == device:
                return bus_of(disk)
    if prefix == "sd" and root.find("./devices/controller[@type='scsi']") is not None:
        return "scsi"
    kind = root.find("./os/type")
    if prefix == "hd" and kind is not None and "q35" in kind.get("machine", ""):
        return "sata"  # such a machine has no IDE
    return _BUSES.get(prefix, "")
