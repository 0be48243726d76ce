"""
Find what interrupted work left behind on one host, and what of it a destroy would remove.

A create or destroy that is not finished, or the work on a snapshot, is somebody's work in progress,
or a leftover if its worker is dead. So is a saved memory of a base that a newer one has replaced,
once no fork stands on it. Reads only; :mod:`.gc` removes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from saltext.kvmclone.errors import CloneInUse, KvmCloneError, OutOfReach, OwnSnapshots, absent
from saltext.kvmclone.hypervisor import networks
from saltext.kvmclone.hypervisor.constants import NO_DOMAIN
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import (
    clone_snapshots,
    deletion_plan,
    file_usage_scan,
    warm_images,
)
from saltext.kvmclone.inventory.base_protection import held_for
from saltext.kvmclone.inventory.deletion_plan import NVRAM, DeletionPlan, FileToDelete, FileToKeep
from saltext.kvmclone.inventory.file_usage import FileUsage
from saltext.kvmclone.model.leftovers import KEPT, Leftover, Unfinished
from saltext.kvmclone.model.record import (
    ALIVE,
    DEAD,
    DESTROYING,
    ELSEWHERE,
    Minion,
    Record,
    Reservation,
    Work,
)
from saltext.kvmclone.system import filesystems, processes


def find(host: Host, name: str = "") -> list[Unfinished]:
    """
    Return every unfinished create or destroy on a host, by name.

    :param name: Only this clone; even if its create failed and it was kept.
    """

    saved: set[str] = set()

    def look(handle: DomainHandle) -> tuple[DomainHandle, Record] | None:
        record = handle.record()
        if record is not None and not record.is_clone:
            saved.add(handle.name)
        if record is not None and clone_snapshots.is_unfinished(record):
            return handle, record
        if record is None or (record.complete and record.stage != DESTROYING):
            return None
        kept = record.failed and record.stage != DESTROYING and not name
        return None if kept else (handle, record)

    if name:
        handle = host.find(name)
        found = [look(handle)] if handle else []
    else:
        found = host.each_domain(look)
    there = sorted((item for item in found if item), key=lambda item: item[0].name)
    # Looked for only where there are any: most hosts have none, and each look is a call.
    old = [one for one in warm_images.superseded(host) if one.handle.name in saved] if saved else []
    usage = file_usage_scan.scan(host) if there or old else None
    items = []
    for handle, record in there:
        with absent(NO_DOMAIN):  # somebody may finish it at this moment
            items.append(_unfinished(host, handle, record, usage))
    for image in old:
        with absent(NO_DOMAIN):
            item = _superseded(host, image.handle, image.record, usage)
            items += [] if item.refused else [item]  # forks stand on it
    return items


def _superseded(
    host: Host, handle: DomainHandle, record: Record, usage: FileUsage | None
) -> Unfinished:
    """Return a saved memory that a newer one of the same base has replaced, as a leftover."""
    item = _unfinished(host, handle, record, usage)
    why = f"a newer saved memory of '{record.base}' has replaced it, and no fork stands on it"
    pieces = tuple(
        piece if piece.kind == KEPT else dataclasses.replace(piece, reason=why)
        for piece in item.pieces
    )
    work = dataclasses.replace(item.work, life=DEAD)  # whoever saved it has finished
    return dataclasses.replace(item, work=work, pieces=pieces)


def _unfinished(
    host: Host, handle: DomainHandle, record: Record, usage: FileUsage | None
) -> Unfinished:
    name = handle.name
    life = processes.owner_state(record.worker)
    work = Work(record.worker, life, record.stage, record.goal, record.request)
    if clone_snapshots.is_unfinished(record) and usage is not None:
        reason = _reason(record, life)
        refused = ""
        try:
            left = clone_snapshots.pieces(host, handle, record, usage, reason)
        except OutOfReach as error:  # which force would not overrule
            refused = f"{error.message} {error.hint}"
            left = clone_snapshots.rows(name, record, (), (), reason)
        return Unfinished(name, work, Minion(), tuple(left), refused=refused, repairs=True)
    deletion, refusal = _judge(host, handle, record, usage)
    if isinstance(refusal, CloneInUse) and base_is_whole(host, record):
        row = stays_base(name, f"{_reason(record, life)}, and it is in use: it stays a base")
        return Unfinished(name, work, Minion(), (row,), repairs=True, becomes=record.becomes)
    return Unfinished(
        name=name,
        work=work,
        minion=record.minion,
        pieces=tuple(
            listed(
                name,
                _reason(record, life),
                deletion.files,
                [made for made in record.reservations if networks.holds(host, made)],
                held_for(host, record),
                deletion.kept,
            )
        ),
        base=record.base,
        profile=record.profile,
        overrides=json.loads(record.overrides or "{}"),
        failed=record.failed,
        # A fork that was interrupted runs since nobody but its create has restored it.
        running=not record.fork_begun and (handle.state() != "shutoff" or handle.is_saved()),
        refused=f"{refusal.message} {refusal.hint}" if refusal else "",
        yields=isinstance(refusal, (OutOfReach, OwnSnapshots)),
        becomes=record.becomes,
        spare=record.spare,
        claim=record.claim,
    )


def base_is_whole(host: Host, record: Record) -> bool:
    """Return whether this is a removal of a base that has not deleted any file yet."""
    files = record.volumes
    return (
        host.local
        and record.removes_base
        and all(filesystems.is_same_file(file.path, file.inode) for file in files)
    )


def base_stays(host: Host, handle: DomainHandle, record: Record) -> bool:
    """Return whether a base is in use whose removal was interrupted before it deleted anything."""
    if not base_is_whole(host, record):
        return False
    _deletion, refusal = _judge(host, handle, record, None)
    return isinstance(refusal, CloneInUse)


def stays_base(name: str, reason: str, removed: bool = False) -> Leftover:
    """
    Return the row of a base that is not removed after all.

    :param removed: Whether it is a base again already.
    """
    return Leftover(name, "removal", name, reason, removed)


def _reason(record: Record, life: str) -> str:
    doing = "destroyed" if record.stage == DESTROYING else "made"
    if clone_snapshots.is_unfinished(record):
        doing = f"changed ('{record.under_way}')"
    worker = record.worker
    return {
        DEAD: f"it was being {doing} when {processes.owner_end(worker)}",
        ALIVE: f"process {worker.pid} is at work: it is being {doing}",
        ELSEWHERE: f"being {doing} from '{worker.host}', or was; not known here",
    }[life] + f" (stage '{record.stage}')"


def _judge(
    host: Host, handle: DomainHandle, record: Record, usage: FileUsage | None
) -> tuple[DeletionPlan, KvmCloneError | None]:
    """Return what a destroy would do, and the error with which it would be refused."""
    try:
        return deletion_plan.plan_deletion(host, handle, record, usage=usage), None
    except (OutOfReach, OwnSnapshots) as error:
        return deletion_plan.plan_deletion(host, handle, record, True, usage), error
    except CloneInUse as error:
        return DeletionPlan(), error


def listed(
    name: str,
    reason: str,
    files: Iterable[FileToDelete],
    reservations: Iterable[Reservation],
    base: str,
    kept: Iterable[FileToKeep],
    removed: bool = False,
) -> list[Leftover]:
    """
    Return the rows of one clone.

    :param reason: Why its work is unfinished.
    :param base: The base that is made writable again; empty for none.
    :param kept: The files that stay.
    :param removed: Whether all that is removed already.
    """
    rows = [Leftover(name, "domain", "", reason)]
    rows += [
        Leftover(name, NVRAM if file.target == NVRAM else "volume", file.path, reason)
        for file in files
    ]
    rows += [
        Leftover(name, "dhcp host", f"{made.network} {made.mac} {made.address}", reason)
        for made in reservations
    ]
    rows += [Leftover(name, "protection", base, reason)] * bool(base)
    rows = [dataclasses.replace(row, removed=removed) for row in rows]
    return rows + [
        Leftover(name, KEPT, one.path, f"it stays: {one.why}") for one in kept if not one.shared
    ]
