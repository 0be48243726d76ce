"""
Take a snapshot of a clone: freeze the files that it writes, and let it go on with overlays.

No memory is saved. Of a machine that is off the files are as it left them; a running one must have
a guest agent, which freezes its file systems for that moment.
"""

from __future__ import annotations

import filecmp
import time

from saltext.kvmclone.errors import SnapshotRefused
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import clone_disks, clone_view
from saltext.kvmclone.inventory.clone_disks import CloneDisks
from saltext.kvmclone.lifecycle import snapshot_checks, snapshot_definition
from saltext.kvmclone.lifecycle.snapshot_work import SnapshotWork, working
from saltext.kvmclone.model import snapshots
from saltext.kvmclone.model.record import FROZEN, OFF, Record, Snapshot, Volume

_TPM = "The state of its TPM is no part of it: after a rollback that is as it is now."


def take(
    host: Host, handle: DomainHandle, record: Record, label: str
) -> tuple[Record, Snapshot, tuple[str, ...]]:
    """
    Take a snapshot of a clone.

    :param label: Empty for one that is made of the time.
    :return: The record, the snapshot, and what the operator should know.
    :raises SnapshotRefused: It cannot be taken now, it is a spare in stock, or the label is taken.
    :raises KvmCloneError: It failed; the clone is as it was.
    """
    snapshot_checks.require_ready(host, handle, record)
    if record.in_stock:
        raise SnapshotRefused(*clone_view.of_the_stock(record, handle.name))
    label = snapshot_checks.free_label(host, handle.name, record, label)
    state = handle.state()
    if state != "shutoff":
        snapshot_checks.require_quiet(handle, state)
    told: tuple[str, ...] = ()
    with working(host, handle, snapshots.TAKE, label) as work:
        snapshot_checks.free_label(host, handle.name, work.record, label)
        disks = clone_disks.look(host, handle, work.record)
        snapshot_checks.require_disks(handle.name, disks)
        if state != "shutoff" and work.running_tops() != work.tops():
            raise SnapshotRefused(
                f"'{handle.name}' runs with other disks than its next start would have.",
                "Restart it, then repeat the command.",
            )
        snapshot_checks.require_room(host, [disk.path for disk in disks.disks], store=disks.nvram)
        overlays, store = _announce(work, disks, label, state)
        if store is not None:
            work.copy_store(disks.nvram, store)
        for disk, overlay in zip(disks.disks, overlays, strict=True):
            work.make_overlay(overlay, disk)
        if state == "shutoff":
            _switch_off(work, disks, overlays)
        else:
            told = _switch_running(work, disks, overlays, store)
    taken = snapshots.find(work.record, label)
    assert taken is not None
    return work.record, taken, (*disks.left_out, *[_TPM] * disks.has_tpm, *told)


def _announce(
    work: SnapshotWork, disks: CloneDisks, label: str, state: str
) -> tuple[list[Volume], Volume | None]:
    """Write the snapshot and its files into the record, before anything is made."""
    overlays = [
        snapshots.new_overlay(work.record, disk, label, disks.capacities[disk.target], work.exists)
        for disk in disks.disks
    ]
    stores = [
        snapshots.store_copy(work.record, path, label, work.exists)
        for path in [disks.nvram]
        if path
    ]
    snapshot = Snapshot(
        label,
        round(time.time(), 3),
        work.record.stage,
        OFF if state == "shutoff" else FROZEN,
        disks.disks,
        stores[0].path if stores else "",
    )
    work.save(
        volumes=(*work.record.volumes, *stores, *overlays),
        snapshots=(*work.record.snapshots, snapshot),
    )
    return overlays, stores[0] if stores else None


def _switch_off(work: SnapshotWork, disks: CloneDisks, overlays: list[Volume]) -> None:
    """
    Let the next start write the overlays.

    :raises SnapshotRefused: Somebody started the clone in between.
    """
    handle = work.handle
    if handle.state() == "shutoff":
        work.switch(overlays)
        if handle.state() == "shutoff" or work.running_tops() == work.tops():
            return
        work.switch(disks.disks)
    raise SnapshotRefused(
        f"'{handle.name}' was started while its snapshot was taken; there is no snapshot.",
        "Repeat the command.",
    )


def _switch_running(
    work: SnapshotWork, disks: CloneDisks, overlays: list[Volume], store: Volume | None
) -> tuple[str, ...]:
    """
    Let the running guest write the overlays.

    :return: What the operator should know.
    :raises HostError: It was refused, and the guest writes the same files as before.
    """
    snapshot_definition.switch_running(work.handle, overlays)
    tops = work.tops() | {overlay.target: overlay.path for overlay in overlays}
    if work.tops() != tops:
        work.switch(overlays)
    if store is not None and not filecmp.cmp(disks.nvram, store.path, shallow=False):
        return (
            "Its firmware wrote its variables just then; the snapshot holds those from before.",
        )
    return ()
