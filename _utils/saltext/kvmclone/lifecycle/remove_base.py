"""
Remove a base with the files on its record, where nothing stands on it.

The record is the one of its content (see :mod:`.base_content`): the files that it was read from,
as they are now. Of these its own disks go, and its UEFI variables; a backing file stays, since it
may be an image from which somebody makes another base. Before anything is deleted, the files stand
in the definition as those of what is being destroyed: from then on it is no base to any command,
and after a crash ``gc`` goes on.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from saltext.kvmclone.errors import CloneInUse, CreateInProgress, PlanRefused
from saltext.kvmclone.hypervisor.constants import AFFECT_CONFIG, METADATA_ELEMENT
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import (
    base_content,
    base_copies,
    clone_view,
    deletion_plan,
    warm_images,
)
from saltext.kvmclone.inventory.base_content import BaseImage
from saltext.kvmclone.inventory.base_protection import protection
from saltext.kvmclone.inventory.deletion_plan import NVRAM, DeletionPlan
from saltext.kvmclone.lifecycle import destroy
from saltext.kvmclone.model.base_content import RemovedBase
from saltext.kvmclone.model.facts import ImageFacts
from saltext.kvmclone.model.record import (
    BASE,
    DEAD,
    DESTROYING,
    MADE,
    Record,
    Volume,
)
from saltext.kvmclone.model.record_xml import NAMESPACE
from saltext.kvmclone.system import copy_folder, filesystems, processes


def examine(host: Host, handle: DomainHandle) -> RemovedBase:
    """
    Return what :func:`remove` would delete and keep; touch nothing.

    :raises KvmCloneError: What :func:`remove` would raise.
    """
    disks = _require_known(host, handle)
    return _told(_require_removable(host, handle, _record(host, handle, disks)), disks)


def remove(host: Host, handle: DomainHandle) -> RemovedBase:
    """
    Remove a base: its definition, and those files on its record that nobody else uses.

    :raises CloneInUse: Clones stand on it, or somebody has one of its files open.
    :raises CreateInProgress: Somebody makes it, or copies it.
    :raises PlanRefused: It is a clone, runs, is protected, or its files are not on record.
    """
    with ExitStack() as held:
        with processes.name_lock(handle.name):
            disks = _require_known(host, handle)
            record = _record(host, handle, disks)
            _require_removable(host, handle, record)
            held.enter_context(destroy.held_open(host, record))
            # A clone of this base either sees the mark from now on, or its overlay is seen here.
            handle.save_record_offline(record)
            try:
                deletion = deletion_plan.plan_deletion(host, handle, record)
                _require_still(host, handle)
                destroy.require_unheld(handle, record, deletion.files)
            except BaseException:
                _unmark(host, handle)
                raise
        try:
            destroy.delete_all(host, handle, record, deletion)
        except BaseException:
            destroy.release(handle, record)
            raise
    return _told(deletion, disks)


def withdraw(host: Host, handle: DomainHandle, token: str) -> None:
    """
    Make a base of a machine again whose removal was interrupted before it deleted anything.

    :param token: The token of the worker that died at it.
    :raises CreateInProgress: Somebody else is at work on it by now.
    """
    with processes.name_lock(handle.name):
        record = handle.record()
        if record is None or record.worker.token != token:
            raise destroy.changed_hands(handle.name, host.commands)
        _unmark(host, handle)


def _unmark(host: Host, handle: DomainHandle) -> None:
    host.call(handle.raw.setMetadata, METADATA_ELEMENT, None, None, NAMESPACE, AFFECT_CONFIG)


def _told(deletion: DeletionPlan, disks: list[BaseImage]) -> RemovedBase:
    kept = tuple(f"'{path}' stays: it is below a disk of the base." for path in _backing(disks))
    return RemovedBase(tuple(file.path for file in deletion.files), (*deletion.sentences(), *kept))


def _backing(disks: list[BaseImage]) -> tuple[str, ...]:
    """Return the files below the disks of a base: backing files, and the data files of these."""
    below = [image.path for disk in disks for image in (*disk.chain, *disk.data)]
    own = {image.path for disk in disks for image in _own(disk)}
    return tuple(path for path in dict.fromkeys(below) if path not in own)


def _own(disk: BaseImage) -> tuple[ImageFacts, ...]:
    """Return the images that are a disk's own: a data file only where there is one image."""
    return (*disk.chain, *disk.data) if len(disk.chain) == 1 else disk.chain[:1]


def _require_known(host: Host, handle: DomainHandle) -> list[BaseImage]:
    """
    Return the disks of a base, which are as they were when its content was read.

    :raises KvmCloneError: It has none that counts, or cannot be removed as it is.
    """
    name, commands = handle.name, host.commands
    _require_base(host, handle)
    if (state := handle.state()) != "shutoff" or handle.is_saved():
        raise PlanRefused(
            f"The base '{name}' stays: it is {state if state != 'shutoff' else 'saved'}.",
            f"Shut it off first: {commands.shut_off(name, state)}"
            if state != "shutoff"
            else f"Discard what is saved: {commands.virsh('managedsave-remove', name)}",
        )
    if (disks := base_content.known_disks(host, handle)) is None:
        raise PlanRefused(
            f"The base '{name}' stays: which files are its own is not on record, or they changed "
            "since. Nothing else is deleted.",
            f"Have it read first: salt-run kvmclone.bases {name} hash=True",
        )
    return disks


def _record(host: Host, handle: DomainHandle, disks: list[BaseImage]) -> Record:
    """Return the record that a base has while it is removed, with the files that are its own."""
    volumes = [
        _volume(disk.target, image.path, image.header.format)
        for disk in disks
        for image in _own(disk)
    ]
    if store := base_content.store(host, handle.definition()):
        volumes.append(_volume(NVRAM, store, ""))
    return Record(
        handle.uuid,
        base="",
        base_uuid="",
        strategy="full",
        name=handle.name,
        stage=DESTROYING,
        goal=DESTROYING,
        created=time.time(),
        worker=processes.this_process(),
        volumes=tuple(volumes),
        becomes=BASE,
    )


def _volume(target: str, path: str, form: str) -> Volume:
    inode, mount = filesystems.inode(path), filesystems.mount_point(path)
    return Volume(target, path, form or "raw", BASE, MADE, mount=mount, inode=inode)


def _require_base(host: Host, handle: DomainHandle) -> None:
    """Refuse what is a clone, is being made, is being copied, or is warmed."""
    name, record = handle.name, handle.record()
    collect = host.commands.clone("gc", name, "apply=True")
    clone_view.require_no_saved_memory(record, name, host.commands)
    if record is not None and not record.becomes:
        raise PlanRefused(
            f"'{name}' is a clone on this host, and no base.",
            f"To destroy it: {host.commands.clone('destroy', name)}",
        )
    if record is not None and processes.owner_state(record.worker) != DEAD:
        raise clone_view.in_progress(record, name, host.commands)
    if record is not None:
        raise PlanRefused(
            f"'{name}' was being made, or removed, when that was interrupted.",
            f"Remove what there is of it: {collect}",
        )
    if warmed := warm_images.of_base(host, handle.uuid):
        raise CloneInUse(
            f"The base '{name}' stays: it is warmed ('{warmed[0].handle.name}').",
            f"Remove what was saved of it first: {host.commands.clone('unwarm', name)}",
        )
    for copy in base_copies.offered(host, handle):
        if copy_folder.is_dead(copy.copy):
            raise PlanRefused(
                f"The base '{name}' stays: a copy of it to another host was interrupted.",
                f"Remove what that left: {collect}",
            )
        raise CreateInProgress(
            f"The base '{name}' stays: it is being copied to another host.",
            "Repeat this when that is over.",
        )


def _require_still(host: Host, handle: DomainHandle) -> None:
    """Refuse a base that was started, protected or offered since it was looked at."""
    offered = base_copies.offered(host, handle)
    if handle.state() != "shutoff" or protection(host, handle) is not None or offered:
        raise PlanRefused(
            f"The base '{handle.name}' stays: somebody started, protected or copied it just now.",
            f"Look at it: {host.commands.virsh('domstate', handle.name)}",
        )


def _require_removable(host: Host, handle: DomainHandle, record: Record) -> DeletionPlan:
    """
    Return what is deleted; refuse a base that clones stand on, or that is protected.

    :raises CloneInUse: Clones stand on it, or somebody has one of its files open.
    """
    deletion = deletion_plan.plan_deletion(host, handle, record)
    if protection(host, handle) is not None:
        raise PlanRefused(
            f"The base '{handle.name}' stays: it is protected.",
            f"If that may end: {host.commands.on_host('unprotect', handle.name)}",
        )
    if far := [file.path for file in deletion.files if filesystems.is_shared(file.path)]:
        raise PlanRefused(
            f"The base '{handle.name}' stays: '{far[0]}' is on a file system that other hosts may "
            "have, too, and whether one of them uses it is not known here.",
            "This removes its definition alone: "
            f"{host.commands.virsh('undefine', handle.name, '--keep-nvram')}",
        )
    destroy.require_unheld(handle, record, deletion.files)
    return deletion
