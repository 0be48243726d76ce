"""
Delete one snapshot of a clone, and keep what other snapshots and the clone itself still need.

An overlay on a file that goes first takes over what it needs of that. Until then nothing is
deleted, so it can end and be repeated at any point.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from saltext.kvmclone.errors import HostError, SnapshotRefused
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import file_usage_scan, snapshot_files
from saltext.kvmclone.lifecycle import snapshot_checks
from saltext.kvmclone.lifecycle.snapshot_work import SnapshotWork, settle, working
from saltext.kvmclone.model import snapshots
from saltext.kvmclone.model.facts import RAW
from saltext.kvmclone.model.record import FrozenDisk, Record, Snapshot, Volume
from saltext.kvmclone.system import copying, filesystems, image_header, images


def delete(
    host: Host, handle: DomainHandle, record: Record, label: str
) -> tuple[Record, Snapshot, tuple[str, ...]]:
    """
    Delete a snapshot.

    :return: The record, the snapshot that it had, and what the operator should know.
    :raises NoSnapshot: There is none of that label.
    :raises SnapshotRefused: The clone runs and is based on it.
    :raises CloneInUse: An image that is not the clone's own is based on it.
    :raises KvmCloneError: It failed; the snapshot is still there, or its files are the last of it.
    """
    snapshot_checks.require_ready(host, handle, record)
    snapshot_checks.known(host, handle.name, record, label)
    with working(host, handle, snapshots.DELETE, label) as work:
        snapshot = snapshot_checks.known(host, handle.name, work.record, label)
        standing = _standing(work, snapshot)
        children = [child for some in standing.values() for child in some]
        _require_ours(work, children)
        snapshot_checks.require_no_internal_snapshots(
            host, handle.name, [child.path for child in children]
        )
        _require_off(work, snapshot, standing)
        usage = file_usage_scan.scan(host)
        frozen = [disk.path for disk in snapshot.disks]
        others = snapshot_files.in_the_way(usage, work.record, frozen)
        snapshot_checks.require_alone(host, handle.name, others)
        for disk in snapshot.disks:
            for child in standing[disk.path]:
                _take_over(work, disk, child)
        done = settle(work)
    return work.record, snapshot, tuple(map(str, done.kept))


def _standing(work: SnapshotWork, snapshot: Snapshot) -> dict[str, tuple[Volume, ...]]:
    """Return the overlays on each file of a snapshot, which would be broken without that."""
    tops = work.tops()
    return {
        disk.path: snapshots.standing_on(work.record, disk.path, tops, snapshot.label)
        for disk in snapshot.disks
    }


def _require_ours(work: SnapshotWork, children: Iterable[Volume]) -> None:
    """
    Refuse to write a file that was not made for the clone.

    A record that was edited by hand may list anything.

    :param children: The overlays that are written.
    :raises SnapshotRefused: One is another file.
    """
    for child in children:
        same = filesystems.is_same_file(child.path, child.inode)
        if os.path.islink(child.path) or not (same and work.record.could_have_made(child)):
            raise SnapshotRefused(
                f"'{child.path}' is on the record and is not the file that was made for "
                f"'{work.handle.name}'.",
                "Bring that back, from a backup; nothing was changed.",
            )


def _require_off(
    work: SnapshotWork, snapshot: Snapshot, standing: dict[str, tuple[Volume, ...]]
) -> None:
    """
    Refuse to change files that the running clone has open.

    :raises SnapshotRefused: It runs, and its disks stand on the snapshot.
    """
    name = work.handle.name
    opened = [child.path for some in standing.values() for child in some if _is_open(child.path)]
    if opened:
        raise SnapshotRefused(
            f"The snapshot '{snapshot.label}' cannot be deleted while '{', '.join(opened)}', which "
            "is based on it, is open"
            + (f", as '{name}' runs." if work.handle.state() != "shutoff" else "."),
            f"Stop it first: {work.host.commands.clone('stop', name)}",
        )


def _is_open(path: str) -> bool:
    return bool(images.holder(path))


def _take_over(work: SnapshotWork, disk: FrozenDisk, child: Volume) -> None:
    """
    Let an overlay hold what it needs of the file that it stands on, and stand on what that does.

    :raises PoolFull: That may not fit.
    :raises HostError: qemu-img failed; the overlay is as it was.
    """
    found = images.look(disk.path)
    snapshot_checks.require_room(work.host, [child.path], found.allocation)
    below, form = "", ""
    if disk.format != RAW and found.header.backing:
        below = image_header.path_of(found.header.backing, disk.path)
        form = found.header.backing_format
        if not below:
            raise SnapshotRefused(
                f"'{disk.path}' is based on something that is not a file.",
                "Delete the snapshots after it first.",
            )
    try:
        copying.rebase(child.path, below, form)
    except (copying.ConvertFailed, OSError) as error:
        raise HostError(
            f"'{child.path}' could not take over what it needs of '{disk.path}': {error}",
            "Nothing was deleted. Is there space? "
            + work.host.commands.there("df", "-h", child.path),
        ) from error
    parent = next(one for one in work.record.volumes if one.path == disk.path)
    work.save(volumes=snapshots.rebased(work.record, child.path, parent))
    volumes.refresh_folder(work.host, os.path.dirname(child.path))
