"""
Destroy a clone; which files may be deleted is decided before anything is touched.

Only files that the clone's record lists and that nobody else needs are deleted. The record is
read again before every deletion: where it names another worker by then, this one stops. The
definition, which is the journal, goes last, so that a destroy can be repeated at any point.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from saltext.kvmclone.errors import (
    CloneInUse,
    CreateInProgress,
    HostError,
    KvmCloneError,
    OutOfReach,
    absent,
)
from saltext.kvmclone.hypervisor import networks, volumes
from saltext.kvmclone.hypervisor.constants import NO_DOMAIN
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import clone_view, deletion_plan
from saltext.kvmclone.inventory.base_protection import protection
from saltext.kvmclone.inventory.deletion_plan import FileToDelete, FileToKeep
from saltext.kvmclone.inventory.file_usage import file_id
from saltext.kvmclone.lifecycle import destroy_foreign, protect
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import ALIVE, DESTROYING, ELSEWHERE, MADE, Record, Reservation
from saltext.kvmclone.system import images, processes

log = logging.getLogger(__name__)

#: Seconds that a tool which only inspects an image may have it open.
_SHORT_OPEN_S = 3.0


@dataclass(frozen=True)
class DestroyResult:
    """
    The result of a destroy.

    :param files: The files that it deleted.
    :param reservations: The DHCP host entries that it released.
    :param unprotected: Name of the base that it made writable again; empty for none.
    :param kept: The files of the domain that stay.
    :param sentences: What an operator must know.
    """

    files: tuple[FileToDelete, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    unprotected: str = ""
    kept: tuple[FileToKeep, ...] = ()
    sentences: tuple[str, ...] = ()


def destroy(
    host: Host, handle: DomainHandle, force: bool = False, token: str = ""
) -> DestroyResult:
    """
    Destroy a clone with the files that its record lists. Can be repeated at any point.

    :param force: For a foreign domain: remove its definition; every file stays. For a clone: go on
        although its worker, on another machine, may still live, and although some of its files are
        out of reach, or belong to snapshots; these files stay.
    :param token: The token of the worker whose clone this is: the caller, or one known to be dead.
    :raises ForeignDomain: Not one of our clones, and not forced.
    :raises CloneInUse: Another image depends on its disks; for snapshots of its own only if not
        forced.
    :raises CreateInProgress: Somebody is at work on it.
    :raises OutOfReach: A file of it may be there and cannot be looked at; not forced.
    :raises HostError: It was undefined by hand while it runs, or a file cannot be deleted.
    """
    with ExitStack() as held:
        with processes.name_lock(handle.name):
            record = handle.record()
            if record is None:
                return DestroyResult(sentences=destroy_foreign.destroy(host, handle, force))
            _require_idle(record, handle.name, force, token, host.commands)
            _require_definition(handle)
            _judge(host, handle, record, force, token)
            if record.complete:
                protect.confirm(host, record)
            # A create of the same name waits while leftovers are removed (the goal stays the
            # create's), and is refused while somebody destroys the clone for good.
            goal = record.goal if token else DESTROYING
            me = processes.this_process()
            mine = replace(record, stage=DESTROYING, goal=goal, failed="", worker=me)
            mine = _mark(handle, mine, record)
            held.enter_context(held_open(host, record))
            try:
                # A create that clones this clone either saw the mark, or its overlay is seen here.
                deletion = deletion_plan.plan_deletion(host, handle, record, force)
            except (CloneInUse, OutOfReach):
                _mark(handle, record, mine)
                raise
        try:
            if protection(host, handle) is not None:
                protect.unprotect(host, handle)
            handle.power_off()
            require_unheld(handle, record, deletion.files)
            gone = delete_all(host, handle, mine, deletion)
        except BaseException:
            release(handle, mine)
            raise
    return replace(gone, kept=deletion.kept, sentences=deletion.sentences())


@contextmanager
def held_open(host: Host, record: Record) -> Iterator[None]:
    """
    Hold the recorded files open while their deletion is decided and carried out.

    As long as a file is open, its inode is not reused, so no file that is put in its place can be
    taken for it.
    """
    paths = [volume.path for volume in record.volumes] if host.local else []
    with ExitStack() as held:
        for path in [*paths, *(deletion_plan.draft_path(path, record) for path in paths)]:
            with suppress(OSError):
                descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
                held.callback(os.close, descriptor)
        yield


def examine(host: Host, handle: DomainHandle, force: bool = False) -> tuple[str, ...]:
    """
    Return what :func:`destroy` would keep, one sentence each; touch nothing.

    :raises KvmCloneError: What :func:`destroy` would raise before it deletes anything.
    """
    record = handle.record()
    if record is None:
        return destroy_foreign.examine(host, handle, force)
    _require_idle(record, handle.name, force, "", host.commands)
    _require_definition(handle)
    return _judge(host, handle, record, force).sentences()


def take_back(host: Host, handle: DomainHandle, record: Record) -> list[str]:
    """
    Undo an apply of this very process: delete what it made, the last made first.

    :param record: The record as far as the apply came.
    :return: Paths of the deleted files.
    :raises CreateInProgress: The clone belongs to another worker by now; nothing was done.
    """
    if host.with_uuid(handle.uuid) is None:
        return _take_back_undefined(host, record)
    _require_mine(handle, record)
    mine = record
    with held_open(host, record):
        try:
            deletion = deletion_plan.plan_deletion(host, handle, record)
            mine = _mark(handle, replace(record, stage=DESTROYING), record)
            handle.power_off()
            gone = delete_all(host, handle, mine, deletion)
        except BaseException:
            release(handle, mine)
            raise
    for sentence in deletion.sentences():
        log.info("%s: %s", handle.name, sentence)
    return [file.path for file in gone.files]


def _mark(handle: DomainHandle, mine: Record, before: Record) -> Record:
    """
    Write into the record who is at work from now on.

    Where the disk that libvirt writes the record to is full, the work goes on without: it is what
    frees space. If this process dies, the record still lists every file.

    :param before: The record as it was read.
    :return: The record as libvirt has it now.
    """
    try:
        handle.save_record(mine)
    except HostError as error:
        if not error.no_room:
            raise
        log.warning("%s: no room to write its record: %s", handle.name, error.message)
        now = handle.record()  # libvirt may remember what it could not write
        return mine if now is not None and now.worker.token == mine.worker.token else before
    return mine


def _take_back_undefined(host: Host, record: Record) -> list[str]:
    """
    Delete what this process knows it made, where the definition was removed by hand.

    :return: Paths of the deleted files.
    """
    made = replace(record, volumes=tuple(v for v in record.volumes if v.state == MADE))
    with held_open(host, made):
        files = deletion_plan.plan_deletion_of_undefined(host, made).files
        for file in files:
            delete_file(host, file)
    for reservation in record.reservations:
        networks.release(host, reservation)
    protect.withdraw(host, record)
    return [file.path for file in files]


def release(handle: DomainHandle, mine: Record) -> None:
    """Give up work that failed, so that it can be repeated while this process lives on."""
    try:
        _require_mine(handle, mine)
        handle.save_record(replace(mine, worker=processes.released(mine.worker)))
    except CreateInProgress:
        pass  # the clone belongs to another worker already
    except KvmCloneError as error:
        log.debug("%s: not released in the record: %s", mine.uuid, error)
        processes.give_up(mine.worker)


def delete_all(
    host: Host, handle: DomainHandle, mine: Record, deletion: deletion_plan.DeletionPlan
) -> DestroyResult:
    """
    Delete the files, then the definition; keep the definition if anything fails.

    :raises KvmCloneError: The first file or reservation that could not be deleted.
    :raises CreateInProgress: The record names another worker by now, or is gone.
    """
    failed: list[KvmCloneError] = []
    deleted: list[FileToDelete] = []
    for file in deletion.files:
        _require_mine(handle, mine)
        try:
            if file.with_definition or delete_file(host, file):
                deleted.append(file)
        except KvmCloneError as error:
            failed.append(error)
    released: list[Reservation] = []
    for reservation in mine.reservations:
        _require_mine(handle, mine)
        try:
            released += [reservation] * networks.release(host, reservation)
        except KvmCloneError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    _require_mine(handle, mine)
    unprotected = protect.withdraw(host, mine)
    handle.power_off()  # somebody may have started it in the meantime
    with absent(NO_DOMAIN):
        with_nvram = any(file.with_definition for file in deletion.files)
        handle.undefine(with_nvram, deletion.keep_tpm)
        handle.power_off()
    return DestroyResult(tuple(deleted), tuple(released), unprotected)


def delete_file(host: Host, file: FileToDelete) -> bool:
    """
    Delete a file that the plan lists, unless another was put in its place since.

    :return: False where it was gone already.
    :raises HostError: Another file stands there now, or it cannot be deleted.
    """
    if not host.local:
        return volumes.delete(host, file.path)
    if not os.path.lexists(file.path):
        return volumes.delete(host, file.path)  # libvirt's pool may still list it
    if os.path.islink(file.path) or file_id(file.path, True) != file.key:
        raise HostError(
            f"'{file.path}' was replaced by another file at that very moment; it was left alone.",
            "Look at it, and move it away if it is not the clone's: "
            f"{host.commands.there('ls', '-l', file.path)}   Then repeat the command.",
        )
    return volumes.delete(host, file.path)


def _require_definition(handle: DomainHandle) -> None:
    """
    Refuse a domain without a persistent definition.

    :raises HostError: The definition was removed by hand; once such a domain stops, nothing is
        left that says which files were its own.
    """
    if not handle.is_persistent():
        redefine = handle.connection.commands.redefine(handle.name)
        raise HostError(
            f"'{handle.name}' was undefined by hand while it runs, so it has no journal.",
            f"Define it again, then repeat this: {redefine}",
        )


def _judge(
    host: Host, handle: DomainHandle, record: Record, force: bool, token: str = ""
) -> deletion_plan.DeletionPlan:
    """
    Return the deletion plan, and refuse files that somebody has open; touch nothing.

    While the clone itself runs, not every other user of a file can be told apart from it. Of what
    is unfinished, the worker may fill a file at this moment: it stops once the record is marked.

    :param token: The token of the worker whose clone this is; empty for none.
    :raises CloneInUse: Another image depends on its disks, or somebody has a file open.
    :raises OutOfReach: A file of the clone may be there and cannot be looked at; not forced.
    """
    deletion = deletion_plan.plan_deletion(host, handle, record, force)
    if record.complete or not token:
        require_unheld(handle, record, deletion.files, running=handle.state() != "shutoff")
    return deletion


def require_unheld(
    handle: DomainHandle, record: Record, files: tuple[FileToDelete, ...], running: bool = False
) -> None:
    """
    Refuse to delete files that somebody has open.

    :param running: The clone itself has its files open, so only loop devices can be told apart.
    :raises CloneInUse: Somebody has a file open that no domain of this libvirt names: another
        libvirt, a backup, whoever attached or mounted it by hand.
    """
    if not handle.connection.local:
        return
    deadline = time.monotonic() + (
        _SHORT_OPEN_S if record.complete else volumes.VOLUME_BUSY_TIMEOUT_S
    )
    for file in files:
        while who := images.holder(file.path, loops_only=running):
            if time.monotonic() > deadline:
                there = handle.connection.commands.there
                raise CloneInUse(
                    f"'{handle.name}' cannot be destroyed: {who} has '{file.path}' open, or an "
                    "image that is based on it. No file was deleted.",
                    "Find out who that is, and let it finish: "
                    f"{there('fuser', '-v', file.path)}   {there('losetup', '-j', file.path)}",
                )
            time.sleep(0.2)


def _require_idle(record: Record, name: str, force: bool, token: str, commands: Commands) -> None:
    """
    Refuse a clone that a worker is, or may be, at work on.

    :param token: The token of the worker whose clone this is; empty for none.
    :raises CreateInProgress: A worker that lives, or may live, is at work on the clone; or the
        token is not that of its worker.
    :raises ForeignDomain: It is the saved memory of a base.
    """
    if token:
        if record.worker.token != token:
            raise CreateInProgress(
                f"'{name}' now belongs to another worker; it was left alone.",
                f"Look at it: {commands.clone('show', name)}",
            )
        return
    settled = record.stage != DESTROYING and not record.under_way
    if settled and (record.failed or record.complete):
        if not record.is_clone:
            raise clone_view.no_clone(record, name, commands)
        return
    life = processes.owner_state(record.worker)
    if life == ALIVE or (life == ELSEWHERE and not force):
        raise clone_view.in_progress(record, name, commands)


def _require_mine(handle: DomainHandle, mine: Record) -> None:
    """
    Refuse to go on with a clone that is no longer this worker's.

    :raises CreateInProgress: The record names another worker now, or is gone.
    """
    now = None
    with absent(NO_DOMAIN):
        now = handle.record()
    if now is None or now.worker.token != mine.worker.token:
        raise changed_hands(handle.name, handle.connection.commands)


def changed_hands(name: str, commands: Commands) -> CreateInProgress:
    """Return the error that says that another worker decides about a clone by now."""
    return CreateInProgress(
        f"'{name}' was taken over by another worker during the destroy; this process stopped.",
        f"List them: {commands.listing()}",
    )
