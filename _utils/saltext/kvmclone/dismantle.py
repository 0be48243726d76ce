"""
Taking a clone away: what may be deleted is decided before anything is touched.

Deleted is only what the clone's record lists and nobody else needs. The record is read
again before every deletion: where it names another worker meanwhile, this one stops. The
definition, which is the journal, goes last, so that a destroy can be repeated at any point.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from dataclasses import dataclass, replace

from saltext.kvmclone import domain_xml, gathering, networks, protect, volumes, workers
from saltext.kvmclone.census import Census
from saltext.kvmclone.codes import NO_DOMAIN
from saltext.kvmclone.errors import (
    CloneInUse,
    CreateInProgress,
    ForeignDomain,
    HostError,
    KvmCloneError,
)
from saltext.kvmclone.host import DomainHandle, Host, absent
from saltext.kvmclone.ownership import ALIVE, DESTROYING, ELSEWHERE, MADE, MAKING, Record, Work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Doom:
    """
    What a destroy will delete and what it will keep, decided before anything is touched.

    :param paths: Files of ours that only this domain uses, the last made first.
    :param kept: One sentence for every file of this domain that stays.
    """

    paths: tuple[str, ...]
    kept: tuple[str, ...]


def draft_of(path: str, record: Record) -> str:
    """Where a file is written before it is put in place whole; no other clone's is called so."""
    return f"{path}.{record.uuid}"


def files_of(host: Host, record: Record) -> list[str]:
    """
    The files that were really made for a clone and still stand, in the order of their making.

    A file at the path of a volume that was never begun is somebody else's, and so is one
    that does not look like what was being made when the worker died.
    """
    found = []
    for volume in record.volumes:
        draft = draft_of(volume.path, record)
        drafted = host.local and os.path.lexists(draft)
        if volume.state == MADE:
            ours = volumes.exists(host, volume.path)
        elif volume.state == MAKING and volume.target == "nvram":
            # Put in place by a second name for the draft: still one file, so it is ours.
            ours = drafted and os.path.exists(volume.path) and os.path.samefile(draft, volume.path)
        else:
            ours = volume.state == MAKING and volumes.resembles(host, volume)
        found += [volume.path] * ours + [draft] * drafted
    return found


def judge(host: Host, handle: DomainHandle, record: Record | None) -> Doom:
    """
    Decide what destroying a domain may delete.

    :param record: None for a foreign domain: its files all stay.
    :raises CloneInUse: Another volume has one of its disks as backing file; ``force``
        never overrides this.
    """
    domain = domain_xml.read(handle.definition())
    used = [disk.path for disk in domain.disks if disk.path]
    nvram = domain.nvram.path if domain.nvram else ""
    ours = files_of(host, record) if record is not None else []
    census = gathering.take(host)
    _require_unused(census, handle.name, used, ours)
    others = census.used_by_others(handle.uuid)
    users = {
        path: others[census.identity(path)]
        for path in [*used, nvram, *ours]
        if census.identity(path) in others
    }
    drafts = [draft_of(v.path, record) for v in record.volumes] if record else []
    doomed = [
        path
        for path in ours
        if path not in users and (path in used or path == nvram or path in drafts)
    ]
    kept = [
        f"'{path}' stays: "
        + (f"'{users[path]}' uses it too." if path in users else "not made by us.")
        for path in used
        if path not in doomed and (path in users or volumes.exists(host, path))
    ]
    kept += [
        f"'{path}' stays: it is ours, and no longer a disk of '{handle.name}'."
        for path in ours
        if path not in doomed and path not in used
    ]
    return Doom(
        tuple(reversed(doomed)), (*kept, *(f"Not looked at: {what}." for what in census.unchecked))
    )


def _require_unused(census: Census, name: str, used: list[str], ours: list[str]) -> None:
    """
    :param used: Files of the definition.
    :param ours: Files of the record.
    :raises CloneInUse: Something stands on one of the files.
    """
    standing = census.standing_on([*used, *ours])
    if not standing:
        return
    named = "; ".join(f"{', '.join(who)} on {path}" for path, who in standing.items())
    above = {census.identity(image) for who in standing.values() for image in who}
    if above <= {census.identity(path) for path in used}:
        commits = "   ".join(
            f"virsh blockcommit {name} {who[0]} --base {path} --active --pivot"
            for path, who in standing.items()
        )
        raise CloneInUse(
            f"'{name}' cannot be destroyed while snapshots of its own stand on its disks: {named}.",
            f"Start it and fold them in, with --base: without that the command writes into the "
            f"clone's own base. {commits}   Nothing was touched.",
        )
    raise CloneInUse(
        f"'{name}' cannot be destroyed: other volumes stand on its disks: {named}.",
        "Destroy the clones made from it first (salt-run kvmclone.tree shows them). "
        "Nothing was touched.",
    )


def destroy(
    host: Host, handle: DomainHandle, force: bool = False, token: str = ""
) -> tuple[str, ...]:
    """
    Destroy a clone with the files that its record lists. Repeatable at any point.

    :param force: Remove a foreign domain too; of that only the definition goes, every
        file stays. Of a clone: although its worker, on another machine, may still live.
    :param token: The word of the worker whose clone this is: the caller is that worker, or
        knows that it is dead.
    :return: What was kept, one sentence each.
    :raises ForeignDomain: Not one of our clones, and not forced.
    :raises CloneInUse: Something stands on its disks.
    :raises CreateInProgress: Somebody is at work on it.
    """
    name = handle.name
    with workers.turn(name):
        record = handle.record()
        if record is None:
            return _destroy_foreign(host, handle, force)
        _require_idle(record, name, force, token)
        _require_definition(handle)
        doom = judge(host, handle, record)
        mine = replace(record, stage=DESTROYING, failed="", worker=workers.this_process())
        handle.save_record(mine)
        try:
            # A create from this very machine either saw the mark, or its overlay is seen here.
            doom = judge(host, handle, record)
        except CloneInUse:
            handle.save_record(record)
            raise
    try:
        if protect.protection(host, handle) is not None:
            protect.unprotect(host, handle)
        handle.power_off()
        _delete(host, handle, mine, doom.paths)
    except BaseException:
        release(handle, mine)
        raise
    return doom.kept


def examine(host: Host, handle: DomainHandle, force: bool = False) -> tuple[str, ...]:
    """
    What :func:`destroy` would keep, one sentence each; it touches nothing, and refuses what
    that would refuse.
    """
    record = handle.record()
    if record is None:
        return _judge_foreign(host, handle, force).kept
    _require_idle(record, handle.name, force, "")
    _require_definition(handle)
    return judge(host, handle, record).kept


def take_back(host: Host, handle: DomainHandle, record: Record) -> list[str]:
    """
    Undo an apply of this very process: delete what it made, the last made first.

    :param record: As far as the apply came.
    :return: The deleted files.
    :raises CreateInProgress: The clone belongs to another worker meanwhile; nothing was done.
    """
    if host.with_uuid(handle.uuid) is None:
        return _take_back_undefined(host, record)
    _require_mine(handle, record)
    record = replace(record, stage=DESTROYING)
    handle.save_record_offline(record)
    paths = tuple(reversed(_unneeded(host, handle.uuid, files_of(host, record))))
    try:
        handle.power_off()
        _delete(host, handle, record, paths)
    except BaseException:
        release(handle, record)
        raise
    return list(paths)


def _take_back_undefined(host: Host, record: Record) -> list[str]:
    """The same where the definition was removed by hand: what this process knows it made."""
    made = replace(record, volumes=tuple(v for v in record.volumes if v.state == MADE))
    paths = _unneeded(host, record.uuid, files_of(host, made))
    for path in reversed(paths):
        volumes.delete(host, path)
    for reservation in record.reservations:
        networks.release(host, reservation)
    return paths


def _unneeded(host: Host, uuid: str, paths: list[str]) -> list[str]:
    """Those of the files that no other domain uses and nothing stands on."""
    census = gathering.take(host)
    others = census.used_by_others(uuid)
    standing = census.standing_on(paths)
    return [p for p in paths if census.identity(p) not in others and p not in standing]


def release(handle: DomainHandle, mine: Record) -> None:
    """
    Give up a piece of work that failed, so that it can be repeated although this process
    lives on.
    """
    try:
        _require_mine(handle, mine)
        handle.save_record(replace(mine, worker=workers.released(mine.worker)))
    except CreateInProgress:
        pass  # somebody else's already
    except KvmCloneError as error:
        log.debug("%s: not released in the record: %s", mine.uuid, error)
        workers.give_up(mine.worker)


def _delete(host: Host, handle: DomainHandle, mine: Record, paths: tuple[str, ...]) -> None:
    """Delete the files, then the definition; what fails keeps the definition."""
    failed: list[KvmCloneError] = []
    nvram = {volume.path for volume in mine.volumes if volume.target == "nvram"}
    for path in paths:
        _require_mine(handle, mine)
        try:
            if host.local or path not in nvram:  # else libvirt deletes it with the definition
                volumes.delete(host, path)
        except KvmCloneError as error:
            failed.append(error)
    for reservation in mine.reservations:
        _require_mine(handle, mine)
        try:
            networks.release(host, reservation)
        except KvmCloneError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    _require_mine(handle, mine)
    handle.power_off()  # somebody may have started it meanwhile
    with absent(NO_DOMAIN):
        handle.undefine(with_nvram=not host.local and bool(nvram & set(paths)))
        handle.power_off()


def _destroy_foreign(host: Host, handle: DomainHandle, force: bool) -> tuple[str, ...]:
    doom = _judge_foreign(host, handle, force)
    if protect.protection(host, handle) is not None:
        protect.unprotect(host, handle)
    handle.power_off()
    with absent(NO_DOMAIN):  # a transient one is gone when it stops
        handle.undefine_only()
    return doom.kept


def _judge_foreign(host: Host, handle: DomainHandle, force: bool) -> Doom:
    if not force:
        raise ForeignDomain(
            f"'{handle.name}' was not made by kvm_clone, so it is not destroyed.",
            f"A clone of Salt's old driver: salt-call kvm_clone.adopt {handle.name}   Anything "
            f"else, if you are sure: virsh undefine {handle.name}   or force=True, which keeps "
            "every one of its disks.",
        )
    doom = judge(host, handle, None)
    _require_nothing_saved(handle)
    return doom


def _require_nothing_saved(handle: DomainHandle) -> None:
    """
    :raises ForeignDomain: Undefining it would lose what it remembers.
    """
    if handle.is_saved():
        raise ForeignDomain(
            f"'{handle.name}' is not ours and has a saved memory image, which would be lost.",
            f"If that is wanted: virsh managedsave-remove {handle.name}   Then repeat the command.",
        )


def _require_definition(handle: DomainHandle) -> None:
    """
    :raises HostError: The definition was removed by hand; once such a domain stops, nothing
        is left that says which files were its own.
    """
    if not handle.is_persistent():
        raise HostError(
            f"'{handle.name}' was undefined by hand while it runs, so it has no journal.",
            f"Define it again, then repeat this: virsh dumpxml {handle.name} > /tmp/domain.xml; "
            "virsh define /tmp/domain.xml",
        )


def _require_idle(record: Record, name: str, force: bool, token: str) -> None:
    """
    :raises CreateInProgress: A worker that lives, or may live, is at work on the clone.
    """
    if token:
        if record.worker.token != token:
            raise CreateInProgress(
                f"'{name}' now belongs to another worker; it was left alone.",
                f"Look at it: salt-run kvmclone.show {name}",
            )
        return
    if record.stage != DESTROYING and (record.failed or record.complete):
        return
    life = workers.life(record.worker)
    if life == ALIVE or (life == ELSEWHERE and not force):
        raise in_progress(record, name)


def in_progress(record: Record, name: str) -> CreateInProgress:
    """The error that says who is at work on a clone, and what to do if nobody is."""
    worker = record.worker
    doing = "destroyed" if record.stage == DESTROYING else "made"
    life = workers.life(worker)
    if life == ELSEWHERE:
        message = (
            f"'{name}' is being {doing} by process {worker.pid} on '{worker.host}', or was when "
            "that stopped; it cannot be told from here."
        )
        hint = (
            f"Repeat the command on '{worker.host}'. If nothing runs there any more: "
            f"salt-run kvmclone.gc {name} apply=True force=True"
        )
    elif life == ALIVE:
        message = f"'{name}' is being {doing} by process {worker.pid} (stage '{record.stage}')."
        hint = f"Wait for it: salt-run kvmclone.show {name}   Or end it: kill {worker.pid}"
    else:
        message = (
            f"'{name}' was being {doing} when {workers.end_of(worker)} (stage '{record.stage}')."
        )
        hint = f"Remove what it left: salt-run kvmclone.gc {name} apply=True"
    work = Work(worker, life, record.stage, record.goal, record.request)
    return CreateInProgress(message, hint, dataclasses.asdict(work))


def _require_mine(handle: DomainHandle, mine: Record) -> None:
    """
    :raises CreateInProgress: The record names another worker now, or is gone.
    """
    now = None
    with absent(NO_DOMAIN):
        now = handle.record()
    if now is None or now.worker.token != mine.worker.token:
        raise CreateInProgress(
            f"'{handle.name}' changed hands while it was taken away; this process stopped there.",
            f"Look at it: salt-run kvmclone.show {handle.name}",
        )
