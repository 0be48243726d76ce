"""
Work on the snapshots of one clone, so that it can end at any point.

The record is the journal: it says what is under way and who is at work, and lists every new file
before it is made. :mod:`.model.snapshots` says what a worker that died leaves; :func:`settle` ends
that, and whoever works on the snapshots of the clone next begins with it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    ForeignDomain,
    HostError,
    HostUnreachable,
    KvmCloneError,
    SnapshotRefused,
)
from saltext.kvmclone.hypervisor import pools, volumes
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import (
    clone_disks,
    clone_view,
    deletion_plan,
    file_usage_scan,
    snapshot_files,
)
from saltext.kvmclone.inventory.deletion_plan import DeletionPlan
from saltext.kvmclone.lifecycle import destroy, record_store, snapshot_definition
from saltext.kvmclone.lifecycle.snapshot_definition import File
from saltext.kvmclone.model import domain_xml, snapshots
from saltext.kvmclone.model.facts import QCOW2
from saltext.kvmclone.model.record import (
    DEAD,
    DESTROYING,
    ELSEWHERE,
    MADE,
    MAKING,
    WANTED,
    FrozenDisk,
    Owner,
    Record,
    Volume,
)
from saltext.kvmclone.plan.planned_disk import OVERLAY, PlannedDisk
from saltext.kvmclone.system import files, filesystems, processes

log = logging.getLogger(__name__)


class SnapshotWork:
    """
    One piece of work on the snapshots of a clone, under way.

    :param before: The worker that the record named until now, and names again afterwards.
    :ivar record: The record as this work last wrote it.
    """

    def __init__(self, host: Host, handle: DomainHandle, record: Record, before: Owner) -> None:
        self.host = host
        self.handle = handle
        self.record = record
        self.before = before

    def save(self, **changes: Any) -> None:
        """
        Write changes of the record.

        :raises CreateInProgress: Another worker has the clone, or it is being destroyed.
        """
        mine = replace(self.record, **changes)
        self.record = record_store.save(self.handle, self.record, mine)

    def tops(self) -> dict[str, str]:
        """Return the file that each disk on the record will write at the next start."""
        return self._tops(self.handle.definition())

    def running_tops(self) -> dict[str, str]:
        """Return the file that each disk on the record writes as the clone runs."""
        return self._tops(self.handle.live())

    def _tops(self, text: str) -> dict[str, str]:
        domain = domain_xml.read(text, self.host.folders.stores)
        return clone_disks.tops_of(self.host, domain, self.record)

    def switch(self, disks: Iterable[File], **changes: Any) -> None:
        """Define other files for the next start, with changes of the record, in one step."""
        with processes.name_lock(self.handle.name):
            now = record_store.current(self.handle, self.record)
            record = record_store.merged(self.record, replace(self.record, **changes), now)
            snapshot_definition.redefine(self.host, self.handle, disks, record)
            self.record = record

    # --- files -------------------------------------------------------------------------

    def exists(self, path: str) -> bool:
        """Return whether there is a file at a path."""
        return volumes.exists(self.host, path)

    def make_overlay(self, overlay: Volume, frozen: FrozenDisk) -> None:
        """Make an overlay that the record lists as wanted."""
        self._mark(overlay, state=MAKING)
        pool = pools.holder(self.host, overlay.path)
        name = str(pool.name()) if pool is not None else ""
        disk = PlannedDisk(
            overlay.target, "overlay", "", frozen.path, overlay.path, QCOW2, pool=name,
            volume=os.path.basename(overlay.path), capacity=overlay.capacity,
            source_capacity=overlay.capacity, source_real=frozen.path,
            source_format=frozen.format, source_pool=name, method=OVERLAY,
        )  # fmt: skip
        try:
            volumes.create(self.host, disk, lambda: None)
        except HostUnreachable:
            raise  # nobody knows whether it was made: it stays marked as being made
        except KvmCloneError:
            self._mark(overlay, state=WANTED)
            raise
        self.note_made(overlay)

    def copy_store(self, store: str, copy: Volume) -> None:
        """
        Copy the variable store to a file that the record lists as wanted.

        :raises HostError: It cannot be copied.
        """
        self._mark(copy, state=MAKING)
        draft = deletion_plan.draft_path(copy.path, self.record)
        try:
            files.copy(store, copy.path, draft, overwrite=False)
        except FileExistsError as error:
            self._mark(copy, state=WANTED)
            raise _not_copied(store, copy.path, error) from error
        except OSError as error:
            raise _not_copied(store, copy.path, error) from error
        self.note_made(copy)
        os.unlink(draft)

    def put_store_back(self, copy: str) -> None:
        """
        Write a copy of the variable store over the store that the clone has now.

        :raises HostError: It cannot be written.
        """
        store = clone_disks.look(self.host, self.handle, self.record).nvram
        if not store or not copy:
            return
        volume = next(one for one in self.record.volumes if one.path == store)
        if volume.inode:  # it becomes another file
            self._mark(volume, inode="")
        try:
            files.copy(copy, store, deletion_plan.draft_path(store, self.record), overwrite=True)
        except OSError as error:
            raise _not_copied(copy, store, error) from error
        if volume.inode:
            self._mark(volume, inode=filesystems.inode(store))

    def note_made(self, volume: Volume) -> None:
        """Note that a file is there, and what tells it from one that is put in its place."""
        path = volume.path
        mount, inode = filesystems.mount_point(path), filesystems.inode(path)
        self._mark(volume, state=MADE, mount=mount, inode=inode)

    def _mark(self, volume: Volume, **changes: Any) -> None:
        self.save(volumes=snapshots.changed(self.record, volume.path, **changes))

    def remove(self, going: tuple[Volume, ...]) -> DeletionPlan:
        """
        Delete files that nothing needs, as far as nobody else does, and take them off the record.

        :param going: The last made first.
        :return: What was deleted, and what stays.
        """
        if not going:
            return DeletionPlan()
        with destroy.held_open(self.host, self.record):
            usage = file_usage_scan.scan(self.host)
            plan = snapshot_files.plan_removal(self.host, self.handle, self.record, going, usage)
            for file in plan.files:
                record_store.current(self.handle, self.record)
                destroy.delete_file(self.host, file)
        gone = {volume.path for volume in going} - {one.path for one in plan.kept}
        self.save(volumes=snapshots.without_volumes(self.record, gone))
        return plan


@contextmanager
def working(host: Host, handle: DomainHandle, action: str, label: str) -> Iterator[SnapshotWork]:
    """
    Mark that the snapshots of a clone are worked on, until the end of the block.

    What a dead worker left is brought to its end before. If the block fails, so is its own work.

    :raises CreateInProgress: Somebody is at work on the clone.
    """
    under_way = f"{action} {label}"
    with interrupts.work(handle.name, f"'{under_way}'", where=host.commands.where()):
        work = _begin(host, handle, under_way)
        try:
            interrupts.check()
            yield work
            work.save(under_way="", worker=work.before)
        except BaseException:
            with interrupts.shield():
                _end(work)
            raise


def _begin(host: Host, handle: DomainHandle, under_way: str) -> SnapshotWork:
    work, left = _take(host, handle, under_way)
    if left or snapshots.unneeded(work.record, work.tops()):
        try:
            settle(work)
            work.save(under_way=under_way)
        except BaseException:
            destroy.release(handle, work.record)
            raise
    return work


def _take(
    host: Host, handle: DomainHandle, under_way: str, force: bool = False
) -> tuple[SnapshotWork, bool]:
    """
    Make this process the worker on a clone.

    :param under_way: What it is to do, if nothing was left; what was left stays marked.
    :param force: Also where nobody here can tell whether the worker before still lives.
    :return: The work, and whether something was left.
    """
    with processes.name_lock(handle.name):
        record = handle.record()
        if record is None:
            raise ForeignDomain(f"'{handle.name}' carries no record any more.")
        life = processes.owner_state(record.worker)
        busy = record.under_way and life != DEAD and not (force and life == ELSEWHERE)
        if busy or record.stage == DESTROYING or not record.complete:
            raise clone_view.in_progress(record, handle.name, host.commands)
        before, me, left = record.worker, processes.this_process(), record.under_way
        record = replace(record, worker=me, under_way=left or under_way)
        handle.save_record(record)
    return SnapshotWork(host, handle, record, before), bool(left)


def _end(work: SnapshotWork) -> None:
    """Bring work that failed to its end, or leave it to whoever comes next."""
    try:
        settle(work)
        work.save(worker=work.before)
    except (KvmCloneError, OSError) as error:
        log.error("%s: '%s' is left: %s", work.handle.name, work.record.under_way, error)
        destroy.release(work.handle, work.record)


def settle(work: SnapshotWork) -> DeletionPlan:
    """
    Bring what is under way to its end. Can be repeated.

    :return: The files that nothing needed: those that were deleted, and those that stay.
    """
    action, label = snapshots.doing(work.record)
    if action == snapshots.TAKE and work.handle.state() != "shutoff":
        _believe_the_guest(work, label)
    tops = work.tops()
    snapshot = snapshots.find(work.record, label)
    if action == snapshots.ROLLED_BACK and snapshot is not None:
        _require_off(work, label)
        work.put_store_back(snapshot.nvram)
    staying, going = snapshots.settled(work.record, tops)
    done = work.remove(going)
    for file in done.kept:
        log.info("%s: %s", work.handle.name, file)
    work.save(snapshots=staying, under_way="")
    return done


def _require_off(work: SnapshotWork, label: str) -> None:
    """
    Refuse to change the variable store of a machine that was started in the middle of a rollback.

    :raises SnapshotRefused: It is not shut off.
    """
    name, state = work.handle.name, work.handle.state()
    if state != "shutoff":
        raise SnapshotRefused(
            f"'{name}' is {state}, and its rollback to '{label}' is not finished: it has the disks "
            "of the snapshot, and not its UEFI variables.",
            f"Shut it off, then repeat this: {work.host.commands.shut_off(name, state)}",
        )


def _believe_the_guest(work: SnapshotWork, label: str) -> None:
    """Define the overlays of a snapshot that a running guest writes already."""
    running = work.running_tops()
    if snapshots.is_on(work.record, label, running) and work.tops() != running:
        listed = {volume.path: volume for volume in work.record.volumes}
        work.switch([listed[path] for path in running.values()])


def forbids_start(record: Record) -> bool:
    """
    Return whether a clone must not be started because of what is under way.

    After a worker that died it may, unless it died between the disks and the variable store.
    """
    if not record.under_way:
        return False
    halfway = snapshots.doing(record)[0] == snapshots.ROLLED_BACK
    return halfway or processes.owner_state(record.worker) != DEAD


def repair(
    host: Host, handle: DomainHandle, record: Record, token: str, force: bool
) -> DeletionPlan:
    """
    Take over from a worker that died at the snapshots of a clone, and bring its work to an end.

    :param token: The token of that worker.
    :param force: Also where nobody here can tell whether it still lives.
    :return: The files that nothing needed: those that were deleted, and those that stay.
    :raises CreateInProgress: Somebody else is at work on it.
    """
    if record.worker.token != token:
        raise clone_view.in_progress(record, handle.name, host.commands)
    work, _left = _take(host, handle, record.under_way, force)
    try:
        return settle(work)
    except BaseException:
        destroy.release(handle, work.record)
        raise


def _not_copied(source: str, path: str, error: OSError) -> HostError:
    return HostError(
        f"Copying the variable store '{source}' to '{path}' failed: {error.strerror}.",
        "Look at that folder; nothing was overwritten.",
        errno=error.errno or 0,
    )
