"""
Roll a clone back to one of its snapshots: fresh overlays on the files that this froze.

Only the sources of its disks and its variable store change. The rest of its definition, its record
and with that its minion key stay as they are now.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import HostError, KvmCloneError, SnapshotRefused
from saltext.kvmclone.hypervisor import power
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import clone_disks, file_usage_scan, snapshot_files
from saltext.kvmclone.inventory.clone_disks import CloneDisks
from saltext.kvmclone.lifecycle import snapshot_checks
from saltext.kvmclone.lifecycle.snapshot_work import SnapshotWork, forbids_start, settle, working
from saltext.kvmclone.model import snapshots
from saltext.kvmclone.model.record import STAGES, Record, Snapshot, Volume
from saltext.kvmclone.system import filesystems, images

log = logging.getLogger(__name__)


def roll_back(
    host: Host, handle: DomainHandle, record: Record, label: str
) -> tuple[Record, tuple[str, ...]]:
    """
    Roll a clone back to a snapshot; it is stopped for that, and started again if it ran.

    :return: The record, and what the operator should know.
    :raises NoSnapshot: There is none of that label.
    :raises CloneInUse: Another image is based on a file that would go.
    :raises KvmCloneError: It failed; unless the message says otherwise the clone is as it was.
    """
    snapshot_checks.require_ready(host, handle, record)
    snapshot_checks.known(host, handle.name, record, label)
    state = handle.state()
    try:
        work, snapshot, told = _lay_fresh_overlays(host, handle, state, label)
    except BaseException:
        if state == "running" and handle.state() == "shutoff":
            with interrupts.shield():
                _start_again(handle)
        raise
    if state != "shutoff":
        _start(handle, label)
    return work.record, (*_earlier_stage(snapshot, record), *told)


def _lay_fresh_overlays(
    host: Host, handle: DomainHandle, state: str, label: str
) -> tuple[SnapshotWork, Snapshot, tuple[str, ...]]:
    """
    Stop a clone and let it write fresh overlays on the files of a snapshot.

    :param state: libvirt's state of the clone.
    :return: The finished work, the snapshot, and what the operator should know.
    """
    with working(host, handle, snapshots.ROLL_BACK, label) as work:
        snapshot = snapshot_checks.known(host, handle.name, work.record, label)
        disks = clone_disks.look(host, handle, work.record)
        _require_whole(work, snapshot, disks)
        snapshot_checks.require_room(
            host, [disk.path for disk in snapshot.disks], store=snapshot.nvram
        )
        overlays = _announce(work, snapshot)
        _require_alone(work, disks, overlays)
        power.change(handle, state, "stop")
        for disk, overlay in zip(snapshot.disks, overlays, strict=True):
            work.make_overlay(overlay, disk)
        handle.power_off()  # somebody may have started it in the meantime
        work.switch(overlays, under_way=f"{snapshots.ROLLED_BACK} {label}")
        handle.power_off()  # likewise: it is to start with what is defined now
        done = settle(work)
    return work, snapshot, (*_later_disks(snapshot, disks), *map(str, done.kept))


def _require_whole(work: SnapshotWork, snapshot: Snapshot, disks: CloneDisks) -> None:
    """
    Refuse a snapshot that cannot be brought back as it was.

    :raises SnapshotRefused: A file of it is gone or damaged, or the clone lacks one of its disks.
    """
    name, commands = work.handle.name, work.host.commands
    faults = [
        f"'{name}' has no disk {disk.target} any more that was made for it"
        for disk in snapshot.disks
        if disk.target not in disks.tops
    ]
    listed = {volume.path: volume for volume in work.record.volumes}
    for disk in snapshot.disks:
        chain, _data, fault = images.chain(disk.path, disk.format, images.look, commands)
        if chain[0].kind != "file":
            faults.append(f"'{disk.path}' is {chain[0].kind}")
        elif fault:
            faults.append(fault)
        elif disk.path not in listed:
            faults.append(f"'{disk.path}' is not on the record")
        elif not filesystems.is_same_file(disk.path, listed[disk.path].inode):
            faults.append(f"another file was put in the place of '{disk.path}'")
        elif disk.path in disks.tops.values():
            faults.append(f"'{name}' writes '{disk.path}' again")
    if snapshot.nvram and not work.exists(snapshot.nvram):
        faults.append(f"'{snapshot.nvram}' is gone")
    if faults:
        ways = ["Bring back what is lost, from a backup."]
        standing = [
            snapshots.standing_on(work.record, disk.path, disks.tops, snapshot.label)
            for disk in snapshot.disks
        ]
        if not any(standing):
            delete = commands.clone("delete_snapshot", name, snapshot.label)
            ways.append(f"Or delete the snapshot: {delete}")
        raise SnapshotRefused(
            f"'{name}' cannot be rolled back to '{snapshot.label}': {'; '.join(faults)}.",
            "   ".join(ways),
        )


def _announce(work: SnapshotWork, snapshot: Snapshot) -> list[Volume]:
    """Write the fresh overlays into the record, before anything is made."""
    overlays = [
        snapshots.new_overlay(
            work.record,
            disk,
            snapshot.label,
            clone_disks.capacity(disk.path, disk.format),
            work.exists,
        )
        for disk in snapshot.disks
    ]
    work.save(volumes=(*work.record.volumes, *overlays))
    return overlays


def _require_alone(work: SnapshotWork, disks: CloneDisks, overlays: Sequence[Volume]) -> None:
    """
    Refuse to lose files that others need.

    :raises CloneInUse: An image that is not the clone's own is based on one of them.
    """
    after = {**disks.tops, **{overlay.target: overlay.path for overlay in overlays}}
    going = [volume.path for volume in snapshots.unneeded(work.record, after)]
    snapshot_checks.require_no_internal_snapshots(work.host, work.handle.name, going)
    usage = file_usage_scan.scan(work.host)
    others = snapshot_files.in_the_way(usage, work.record, going)
    snapshot_checks.require_alone(work.host, work.handle.name, others)


def _start(handle: DomainHandle, label: str) -> None:
    try:
        handle.start()
    except HostError as error:
        told = f"'{handle.name}' was rolled back to '{label}' and does not start: {error.message}"
        raise error.with_message(told) from None


def _start_again(handle: DomainHandle) -> None:
    """Start a clone that was stopped for a rollback which failed, unless it stands in between."""
    try:
        record = handle.record()
        if record is not None and not forbids_start(record):
            handle.start()
    except KvmCloneError as error:
        log.error("%s: not started again: %s", handle.name, error)


def _later_disks(snapshot: Snapshot, disks: CloneDisks) -> list[str]:
    held = {disk.target for disk in snapshot.disks}
    return [
        f"Disk {disk.target} is as it was before the rollback: the snapshot does not hold it."
        for disk in disks.disks
        if disk.target not in held
    ]


def _earlier_stage(snapshot: Snapshot, record: Record) -> list[str]:
    if STAGES.index(snapshot.stage) >= STAGES.index(record.stage):
        return []
    return [
        f"The snapshot was taken at stage '{snapshot.stage}', so what came later up to "
        f"'{record.stage}' is not in the guest."
    ]
