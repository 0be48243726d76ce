"""
Put together SNAPSHOT, the answer about one snapshot, and find what unfinished work on one left.

Reads only.
"""

from __future__ import annotations

from collections.abc import Iterable

from saltext.kvmclone.hypervisor import pools, volumes
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import clone_disks, snapshot_files
from saltext.kvmclone.inventory.deletion_plan import NVRAM, FileToDelete, FileToKeep
from saltext.kvmclone.inventory.file_usage import FileUsage
from saltext.kvmclone.model import domain_xml, snapshots
from saltext.kvmclone.model.clone_snapshot import CloneSnapshot, SnapshotDisk
from saltext.kvmclone.model.leftovers import KEPT, Leftover
from saltext.kvmclone.model.record import DESTROYING, FROZEN, Record, Snapshot

#: The kind of a leftover that is unfinished work on a snapshot.
SNAPSHOT = "snapshot"


def tops(host: Host, handle: DomainHandle, record: Record) -> dict[str, str]:
    """Return the file that each recorded disk of a clone writes, as it is defined."""
    domain = domain_xml.read(handle.definition(), host.folders.stores)
    return clone_disks.tops_of(host, domain, record)


def describe(host: Host, handle: DomainHandle, record: Record, label: str) -> list[CloneSnapshot]:
    """
    Return the snapshots of a clone, oldest first.

    :param label: What to call the host; empty for its own name.
    """
    now = snapshots.current(record, tops(host, handle, record)) if record.snapshots else ""
    where = label or host.node_name()
    return [
        view(host, handle.name, where, one, one.label == now) for one in snapshots.finished(record)
    ]


def view(
    host: Host,
    name: str,
    where: str,
    snapshot: Snapshot,
    current: bool,
    warnings: Iterable[str] = (),
) -> CloneSnapshot:
    """
    Return one snapshot of a clone.

    :param where: What its host is called.
    :param current: Whether the clone goes on from it.
    :param warnings: What the operator should know.
    """
    lost = [disk.path for disk in snapshot.disks if not volumes.exists(host, disk.path)]
    lost += [path for path in [snapshot.nvram] if path and not volumes.exists(host, path)]
    return CloneSnapshot(
        name,
        where,
        snapshot.label,
        snapshot.created,
        tuple(
            SnapshotDisk(disk.target, disk.path, _occupied(host, disk.path))
            for disk in snapshot.disks
        ),
        snapshot.state == FROZEN,
        current,
        (*warnings, *(f"'{path}' is not there; without it there is no way back." for path in lost)),
    )


def _occupied(host: Host, path: str) -> int:
    """Return the bytes that a file occupies; 0 where that is not known."""
    return pools.look(host, path).allocation


# --- what unfinished work left --------------------------------------------------------


def is_unfinished(record: Record) -> bool:
    """Return whether the clone is complete, and work on its snapshots is not."""
    return bool(record.under_way) and record.complete and record.stage != DESTROYING


def pieces(
    host: Host, handle: DomainHandle, record: Record, usage: FileUsage, reason: str
) -> list[Leftover]:
    """
    Return what bringing the work on a clone's snapshots to its end would remove.

    :param reason: Why that is unfinished.
    """
    _staying, going = snapshots.settled(record, tops(host, handle, record))
    plan = snapshot_files.plan_removal(host, handle, record, going, usage)
    return rows(handle.name, record, plan.files, plan.kept, reason)


def rows(
    name: str,
    record: Record,
    files: Iterable[FileToDelete],
    kept: Iterable[FileToKeep],
    reason: str,
    removed: bool = False,
) -> list[Leftover]:
    """
    Return the rows of one clone.

    :param removed: Whether it is removed already.
    """
    label = snapshots.doing(record)[1]
    return [
        Leftover(name, SNAPSHOT, label, reason, removed),
        *(
            Leftover(name, NVRAM if file.target == NVRAM else "volume", file.path, reason, removed)
            for file in files
        ),
        *(Leftover(name, KEPT, one.path, f"it stays: {one.why}") for one in kept),
    ]
