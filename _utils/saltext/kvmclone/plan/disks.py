"""
Decide what becomes of each disk in the clone, and why.

Pure. Every disk is cloned, shared for a stated reason, left out because the profile says
so, or refused; :mod:`.disk_sources` judges what it consists of. All reasons to refuse are
collected, none stops at the first.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from dataclasses import replace

from saltext.kvmclone.model.cloud_seed import KEEP, Seed
from saltext.kvmclone.model.domain_xml import Disk
from saltext.kvmclone.model.facts import QCOW2, RAW, HostFacts, ImageFacts, PoolFacts, SourceFacts
from saltext.kvmclone.model.request import DiskChanges, Request
from saltext.kvmclone.model.units import exact_size
from saltext.kvmclone.plan.disk_sources import (
    PlanIssues,
    judge,
    kind_refused,
    label,
    skip_line,
    skipping,
)
from saltext.kvmclone.plan.disk_wishes import (
    LONGEST_NAME,
    capacity_of,
    format_of,
    is_empty,
    pool_of,
    shared,
    strategy_of,
    volume_name,
    wish_for,
)
from saltext.kvmclone.plan.planned_disk import (
    BYTES,
    CONVERT,
    DAEMON,
    EMPTY,
    OVERLAY,
    REFUSED,
    SEED,
    PlannedDisk,
)

__all__ = ["BYTES", "CONVERT", "DAEMON", "EMPTY", "OVERLAY", "REFUSED", "SEED", "PlannedDisk"]

#: Types of folder pools in which nobody has tried to make volumes.
_UNTESTED = ("vstorage",)

#: As libvirt's schema has it; the target becomes a part of a file name.
TARGET = re.compile(r"(fd|hd|sd|vd|xvd|ubd|nvme)[A-Za-z0-9_]{1,20}")

#: Bytes that an image can show with QEMU's ordinary clusters of 64 KiB.
LARGEST_QCOW2 = 2**51


def decide(
    disks: tuple[Disk, ...], facts: HostFacts, request: Request, notes: PlanIssues
) -> tuple[PlannedDisk, ...]:
    """Decide about all disks, in order; reasons to refuse and warnings go to ``notes``."""
    targets = [disk.target for disk in disks]
    times = Counter(targets)
    twice = {target for target in times if times[target] > 1}
    for target in sorted(twice):
        notes.conflicts.append(f"The base has two disks '{target}'; give each its own target.")
    return tuple(
        _refused(disk, facts) if disk.target in twice else _decide(disk, facts, request, notes)
        for disk in disks
    )


def _refused(disk: Disk, facts: HostFacts) -> PlannedDisk:
    return PlannedDisk(disk.target, "skip", REFUSED, _shown(disk, facts), format=disk.format)


def _decide(disk: Disk, facts: HostFacts, request: Request, notes: PlanIssues) -> PlannedDisk:
    wish = wish_for(disk, request)
    refused = _refused(disk, facts)
    if not TARGET.fullmatch(disk.target):
        notes.conflicts.append(
            f"{label(disk)} has no target that this version clones (vda, sda, hda …). Give it one "
            "of these in the base."
        )
        return refused
    if not _wish_makes_sense(disk, wish, request, notes):
        return refused
    seed = facts.seeds.get(disk.target)
    if seed is not None and wish.action != "skip" and request.seed != KEEP:
        return _seed_left_out(disk, seed, wish, refused, notes)
    if wish.action == "skip":
        return replace(refused, reason="the profile leaves it out")
    if wish.action == "share" or (shared(disk) and wish.action != "clone"):
        return _share(disk, facts, refused, notes)
    problem = kind_refused(disk, facts.commands)
    if problem:
        notes.conflicts.append(problem)
        return refused
    return _clone(disk, facts, request, refused, notes)


def _seed_left_out(
    disk: Disk, seed: Seed, wish: DiskChanges, refused: PlannedDisk, notes: PlanIssues
) -> PlannedDisk:
    """Leave out a disk with a cloud-init seed, which the clone must not use, or refuse it."""
    where = f"{label(disk)} holds a cloud-init seed ({seed.named})"
    if not seed.alone:
        remedy = (
            f"Start the base and remove it there: rm -r {shlex.quote(seed.folder)}"
            if seed.folder
            else "Remove that partition, or its label, in the base"
        )
        notes.conflicts.append(
            f"{where} beside other things, so the clone would do what it says, and take itself for "
            f"the base. {remedy}; 'seed: keep' lets the clone have it."
        )
        return refused
    if wish.action:
        notes.conflicts.append(
            f"'disks: {disk.target}' asks for action {wish.action}, and the disk is a cloud-init "
            f"seed ({seed.named}), which no clone goes by without 'seed: keep'. Take out one of "
            "the two."
        )
        return refused
    drive = disk.device in ("cdrom", "floppy")
    reason = f"it is the base's cloud-init seed ({seed.named}); 'seed: keep' would keep it"
    return replace(refused, reason=reason, emptied=drive)


def _shown(disk: Disk, facts: HostFacts) -> str:
    source = facts.sources.get(disk.target)
    return disk.path or (source.images[0].path if source and source.images else "")


def _wish_makes_sense(disk: Disk, wish: DiskChanges, request: Request, notes: PlanIssues) -> bool:
    extra = [name for name in ("size", "pool", "strategy", "format") if getattr(wish, name)]
    said = f"'disks: {disk.target}'"
    if wish.action in ("skip", "share") and extra:
        notes.conflicts.append(
            f"{said} asks for action {wish.action} and for {', '.join(extra)}, which only a disk "
            "that is cloned has. Take one of them out."
        )
        return False
    if wish.action == "share" and not shared(disk):
        notes.conflicts.append(
            f"{said} asks to share a disk that both machines would write. Mark it <shareable/> or "
            "<readonly/> in the base if it is meant for that."
        )
        return False
    if wish.action == "clone" and is_empty(disk):
        notes.conflicts.append(f"{said} asks to clone an empty drive. Take that out.")
        return False
    if shared(disk) and extra and wish.action != "clone":
        notes.conflicts.append(
            f"{said} asks for {', '.join(extra)}, but the disk is shared with the base: "
            f"{shared(disk)}. For a disk of its own add 'action: clone'."
        )
        return False
    if wish.format and wish.format != (form := format_of(disk, request)):
        notes.conflicts.append(
            f"{said} asks for format {wish.format}, and the clone's has format {form}; only a disk "
            "that the base does not have can be of another. Take 'format' out."
        )
        return False
    if disk.shareable and wish.strategy == "quick":
        notes.conflicts.append(
            f"{said} asks for an overlay on a disk that others write (<shareable/>). "
            "Use 'strategy: full'."
        )
        return False
    return True


def _share(disk: Disk, facts: HostFacts, refused: PlannedDisk, notes: PlanIssues) -> PlannedDisk:
    if disk.initiator:
        notes.conflicts.append(
            f"{label(disk)} logs in to its iSCSI target as '{disk.initiator}', which one machine "
            f"can be. Take the <initiator> out of the base, {skipping(disk)}"
        )
        return refused
    written = not (disk.readonly or disk.device == "cdrom" or is_empty(disk))
    if disk.shareable and written and disk.format != RAW:
        notes.conflicts.append(
            f"{label(disk)} is <shareable/> and of format '{disk.format}': two machines that write "
            f"one such image destroy it. Make it raw in the base, give the clone one of its own: "
            f"disks: {{{disk.target}: {{action: clone}}}}, {skipping(disk)}"
        )
        return refused
    if disk.shareable and disk.device != "cdrom":
        notes.warnings.append(
            f"{label(disk)} is shared with the base, and written by both. If the clone is not to: "
            f"{skip_line(disk)}."
        )
    if disk.path in facts.missing and not disk.optional:
        notes.warnings.append(
            f"{label(disk)} does not exist, and neither machine starts without it. Make it, or "
            f"leave it out: {skip_line(disk)}."
        )
    return replace(refused, action="share", reason=shared(disk))


def _clone(
    disk: Disk, facts: HostFacts, request: Request, refused: PlannedDisk, notes: PlanIssues
) -> PlannedDisk:
    source = facts.sources.get(disk.target)
    strategy = strategy_of(disk, request)
    quick = strategy == "quick"
    pool = _pool(disk, facts, request, source, notes)
    if not judge(disk, source, quick, facts, notes) or pool is None:
        return refused
    assert source is not None, "judge finds an image"
    top = source.images[0]
    size = _size(disk, top, request, notes)
    if size is None:
        return refused
    if disk.transient:
        notes.warnings.append(
            f"{label(disk)} is transient: what the clone writes, its identity too, is gone "
            "whenever it stops. If it is to stay, take <transient/> out of the base's definition."
        )
    name = volume_name(disk, request)
    destination = os.path.join(pool.path, name)
    check_volume(name, destination, facts, notes)
    method = OVERLAY if quick else _method(disk, top, facts)
    reflink = method == BYTES and _can_share_blocks(source, top, pool)
    action = "overlay" if quick else "reflink" if reflink else "copy"
    return PlannedDisk(
        target=disk.target,
        action=action,
        reason=_reason(disk, request, strategy, action, pool),
        source=refused.source,
        destination=destination,
        format=format_of(disk, request),
        bytes=_bytes(action, method, disk, source),
        pool=pool.name,
        volume=name,
        capacity=size,
        source_capacity=capacity_of(disk, top),
        source_real=top.real or top.path,
        source_format=disk.format,
        source_pool=source.pool,
        method=method,
    )


def check_volume(name: str, destination: str, facts: HostFacts, notes: PlanIssues) -> None:
    """Refuse a volume whose file is there already, or whose name no file can have."""
    if destination in facts.existing:
        user = facts.users.get(destination)  # a clone that was renamed keeps its files' names
        word = f"{user}. Choose another name for the clone, or another pool."
        command = facts.commands.virsh("vol-delete", destination)
        stranger = f"is not ours to overwrite. Look at it, then: {command}"
        notes.conflicts.append(
            f"The volume '{destination}' exists already and {word if user else stranger}"
        )
    if len(os.fsencode(name)) > LONGEST_NAME:
        notes.conflicts.append(
            f"The volume '{name}' would have a longer name than a file can have "
            f"({LONGEST_NAME} bytes). Choose a shorter name for the clone."
        )


def _pool(
    disk: Disk, facts: HostFacts, request: Request, source: SourceFacts | None, notes: PlanIssues
) -> PoolFacts | None:
    name, virsh = pool_of(disk, request, source), facts.commands.virsh
    if not name:
        found = source.images[0].kind if source and source.images else ""
        if source and not source.asleep and found in ("file", "block"):
            folder = os.path.dirname(source.images[0].path)
            words = (os.path.basename(folder) or "files", "dir", "--target", folder)
            notes.conflicts.append(
                f"{label(disk)} is in no active storage pool, so nothing says where the "
                f"clone's goes. Name one ('pool:'), or make it: {virsh('pool-create-as', *words)}"
            )
        return None
    return usable_pool(name, facts, notes)


def usable_pool(name: str, facts: HostFacts, notes: PlanIssues) -> PoolFacts | None:
    """Return the pool of that name; None, with the reason noted, where no volume can go there."""
    virsh = facts.commands.virsh
    there = virsh("pool-list", "--all")
    pool = facts.pools.get(name)
    if pool is None:
        notes.conflicts.append(f"There is no storage pool '{name}'. See: {there}")
    elif not pool.is_folder or pool.type in _UNTESTED:
        notes.conflicts.append(
            f"Storage pool '{name}' is of type '{pool.type}', where this project has not tested "
            f"to make volumes. Name a directory pool with 'pool:': {there}"
        )
    elif not pool.active:
        notes.conflicts.append(
            f"Storage pool '{name}' is not started. Start it: "
            f"{virsh('pool-start', name)}   See all: {there}"
        )
    else:
        return pool
    return None


def _size(disk: Disk, top: ImageFacts, request: Request, notes: PlanIssues) -> int | None:
    """Return the bytes that the clone's guest will see; None where the wish is refused."""
    capacity = capacity_of(disk, top)
    size = wish_for(disk, request).size
    if size is not None and size < capacity:
        notes.conflicts.append(
            f"'disks: {disk.target}' asks for {exact_size(size)}, less than the base's "
            f"{exact_size(capacity)}. A disk can grow, never shrink."
        )
        return None
    form = format_of(disk, request)
    if size is not None and form == QCOW2 and size > LARGEST_QCOW2:
        notes.conflicts.append(
            f"'disks: {disk.target}' asks for {exact_size(size)}, and a qcow2 image has at most "
            f"{exact_size(LARGEST_QCOW2)}. Ask for less."
        )
        return None
    if size is None and strategy_of(disk, request) == "full":
        return capacity
    return -(-(size or capacity) // 1024) * 1024  # libvirt makes new images by the KiB


def _method(disk: Disk, top: ImageFacts, facts: HostFacts) -> str:
    if not (facts.local and top.readable):
        return DAEMON
    whole = disk.format == RAW or (top.header.plain and top.kind == "file")
    return BYTES if whole else CONVERT


def _can_share_blocks(source: SourceFacts, top: ImageFacts, pool: PoolFacts) -> bool:
    return (
        pool.shares_blocks
        and top.kind == "file"
        and bool(pool.filesystem)
        and source.filesystem == pool.filesystem
        and source.copies_on_write == pool.copies_on_write
    )


def _reason(disk: Disk, request: Request, strategy: str, action: str, pool: PoolFacts) -> str:
    wish = wish_for(disk, request)
    if wish.strategy:
        reason = f"the profile says strategy {strategy} for {disk.target}"
    elif wish.action == "clone" and shared(disk):
        reason = f"the profile says action clone for {disk.target}"
    else:
        reason = f"clone_strategy is {strategy}"
    if action == "reflink":
        reason += f"; the file system of pool '{pool.name}' lets both share blocks until written"
    return reason


def _bytes(action: str, method: str, disk: Disk, source: SourceFacts) -> int:
    if action != "copy":
        return 0
    whole_chain = method != BYTES and disk.format != RAW
    counted = source.images if whole_chain else source.images[:1]
    return sum(image.allocation for image in counted)
