"""
Warm a base: boot a quick clone of it without a network, make it ready, and save its memory.

The clone is made as every other is, so that its record lists each file before that is made; it is
unfinished, and ``gc`` removes it, until its memory is saved and what that was saved with is on
record. From then on it is never started again: its overlay, its variable store and its saved
memory belong together to the byte, and forks stand on them.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import count

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    CloneInUse,
    HostError,
    KvmCloneError,
    PlanRefused,
    PoolFull,
)
from saltext.kvmclone.guest import warming
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.hypervisor.constants import (
    AFFECT_CONFIG,
    METADATA_ELEMENT,
    OFF_SAVED,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import clone_view, deletion_plan, host_facts, warm_images
from saltext.kvmclone.inventory.warm_images import WarmImage
from saltext.kvmclone.lifecycle import create, finish_base, record_store
from saltext.kvmclone.lifecycle.destroy import destroy
from saltext.kvmclone.lifecycle.journal import Journal, undo_stored
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.record import DEAD, MADE, MEMORY, STAGES, Owner, Record
from saltext.kvmclone.model.units import exact_size
from saltext.kvmclone.model.warm_record import (
    NAMESPACE,
    PREFIX,
    Circumstances,
    WarmRecord,
    name_of,
    to_xml,
)
from saltext.kvmclone.plan import warm_plan
from saltext.kvmclone.plan.clone_plan import ClonePlan
from saltext.kvmclone.system import filesystems, processes, saved_image

log = logging.getLogger(__name__)

#: Seconds that the guest may take to boot until its agent answers.
AGENT_TIMEOUT_S = 600.0

_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH

#: Bytes that QEMU saves besides the memory of the guest, and that stay free in the pool.
_RESERVE = 256 * 2**20


#: Refuses a machine that the host has no room for; entered around its definition.
Admission = Callable[[ClonePlan], AbstractContextManager[None]]


def warm(
    host: Host, name: str, worker: Owner, admission: Admission = lambda _plan: nullcontext()
) -> tuple[WarmImage, tuple[str, ...]]:
    """
    Save the memory of a base for forks; then remove those saved before on which no fork stands.

    What a dead worker left at it is removed first.

    :param name: Name of the base.
    :param worker: The process that does it, for the record.
    :param admission: What it raises refuses the machine that is booted.
    :return: What was saved, and what the operator should know.
    :raises CreateInProgress: Somebody is warming it.
    :raises PlanRefused: It cannot be warmed; all reasons are in the message.
    :raises KvmCloneError: A step failed; what was made is deleted again, as far as that worked.
    """
    base = host.domain(name)
    _require_base(host, base)
    before = [one for one in warm_images.of_base(host, base.uuid) if not _cleared(host, one)]
    plan = _plan(host, base, before, worker)
    plan.check()
    _require_room(host, plan)
    depends = warm_images.circumstances(host, base.definition())
    handle, record = create.apply(host, plan, admission=admission(plan))
    try:
        record, left = _boot(handle, record)
        record = _save(host, handle, record)
        saved = _saved_with(record, depends)
        record = _finish(host, handle, record, saved)
    except BaseException as error:
        undo_stored(host, handle, error)
        raise
    kept = [told for one in before if (told := _superseded(host, one))]
    return WarmImage(handle, record, saved), (*plan.warnings, *left, *kept)


def unwarm(host: Host, name: str) -> deletion_plan.DeletionPlan:
    """
    Remove all saved memories of a base, or none.

    :param name: Name of the base, which may be gone, or be another's by now.
    :return: What was deleted, and what stays.
    :raises CloneInUse: Forks stand on one of them; nothing was removed.
    :raises CreateInProgress: Somebody is warming it; nothing was removed.
    :raises NotFound: There is neither such a base nor anything that was saved of it.
    :raises ForeignDomain: It is itself the saved memory of a base.
    """
    base = host.find(name)
    images = warm_images.left_of(host, name)
    if base is not None:
        clone_view.require_no_saved_memory(base.record(), name, host.commands)
        images += warm_images.of_base(host, base.uuid)
    if not images and base is None:
        host.domain(name)  # raises
    for image in images:
        _require_idle(host, image)
        _require_unused(host, image, name)
    files: list[deletion_plan.FileToDelete] = []
    kept: list[deletion_plan.FileToKeep] = []
    for image in images:
        gone = destroy(host, image.handle, token=image.record.worker.token)
        files += gone.files
        kept += gone.kept
    return deletion_plan.DeletionPlan(tuple(files), tuple(kept))


# --- what is refused ------------------------------------------------------------------


def _require_base(host: Host, base: DomainHandle) -> None:
    """
    Refuse what is no base; write nothing.

    :raises PlanRefused: It is a clone, or the saved memory of another.
    """
    if base.record() is not None:
        raise PlanRefused(
            f"'{base.name}' is no base, but was made by kvm_clone from one, or is being made.",
            f"Which bases there are: {host.commands.clone('tree')}",
        )


def _plan(host: Host, base: DomainHandle, before: list[WarmImage], worker: Owner) -> ClonePlan:
    """Return the plan of the next generation, under a name that nobody has."""
    newest = max((image.generation for image in before), default=0)
    names = (name_of(base.name, number) for number in count(newest + 1))
    name = next(name for name in names if host.find(name) is None)
    request = warm_plan.request_for(base.name, name, host.url)
    plan = warm_plan.compute(host_facts.facts(host, request, False), request, worker)
    path = plan.record.memory
    if host.local and path and os.path.lexists(path):
        there = f"'{path}' is there already, and was not made for this."
        plan = replace(plan, conflicts=(*plan.conflicts, there))
    return plan


def _require_room(host: Host, plan: ClonePlan) -> None:
    """
    Refuse a file system that has no room for the whole memory.

    :raises PoolFull: It has none.
    """
    folder = os.path.dirname(plan.record.memory)
    needed = domain_xml.read(plan.xml).memory + _RESERVE
    free = filesystems.of(folder).available
    if free < needed:
        raise PoolFull(
            f"The memory of '{plan.base}' may take {exact_size(needed)}, and there are "
            f"{free >> 20} MiB free in '{folder}'.",
            f"Make room there: {host.commands.there('df', '-h', folder)}",
        )


def _require_idle(host: Host, image: WarmImage) -> None:
    """
    Refuse a saved memory that somebody is at work on.

    :raises CreateInProgress: Its worker lives, or may live.
    """
    record = image.record
    if not record.complete and processes.owner_state(record.worker) != DEAD:
        raise clone_view.in_progress(record, image.handle.name, host.commands)


def _require_unused(host: Host, image: WarmImage, base: str) -> None:
    """
    Refuse to remove a saved memory that forks stand on.

    :raises CloneInUse: They do; nothing was removed.
    """
    try:
        deletion_plan.plan_deletion(host, image.handle, image.record)
    except CloneInUse as error:
        raise CloneInUse(
            f"The base '{base}' stays warm: forks stand on '{image.handle.name}'. {error.message}",
            error.hint,
        ) from error


def _cleared(host: Host, image: WarmImage) -> bool:
    """
    Remove what a dead worker left; return False for what was finished.

    :raises CreateInProgress: Its worker lives, or may live.
    """
    if image.record.complete:
        return False
    _require_idle(host, image)
    log.info("%s: removing what a worker left that died", image.handle.name)
    destroy(host, image.handle, token=image.record.worker.token)
    return True


# --- what is done ---------------------------------------------------------------------


def _boot(handle: DomainHandle, record: Record) -> tuple[Record, tuple[str, ...]]:
    """
    Boot the machine for the only time, and make its guest ready.

    :return: The record as it was saved, and what an operator should know.
    """
    begun = time.monotonic()
    # Before the start: from the stage, gc knows that nobody but us has started it.
    record = record_store.save(handle, record, record.at("booted"))
    handle.start()
    with AgentChannel(handle.agent) as channel:
        finish_base.await_agent(handle, channel, AGENT_TIMEOUT_S, "warmed")
        warming.await_settled(channel)
        booted = time.monotonic()
        left = warming.make_ready(channel)
    took = {"booted": booted - begun, "made_ready": time.monotonic() - booted}
    return record_store.save(handle, record, record.at("booted", **took)), left


def _save(host: Host, handle: DomainHandle, record: Record) -> Record:
    """
    Save the memory; the machine is off afterwards.

    :return: The record, which lists the file as made.
    :raises HostError: libvirt refused, or wrote what cannot be forked.
    """
    journal = Journal(handle, record_store.current(handle, record))
    path, begun = record.memory, time.monotonic()
    journal.making(MEMORY)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        journal.not_made(MEMORY)
        journal.save()  # what was made is taken back by the record that is stored
        raise HostError(
            f"The file '{path}' cannot be made: {error.strerror}.",
            f"Look at its folder: {host.commands.there('ls', '-l', os.path.dirname(path))}",
        ) from error
    journal.made(MEMORY)
    handle.save_record(journal.record)
    interrupts.check()
    handle.save_memory(path)
    state, reason = host.call(handle.raw.state)[:2]
    if handle.state() != "shutoff" or reason != OFF_SAVED:
        raise HostError(
            f"'{handle.name}' is {handle.state()} since its memory was saved ({state}, {reason}): "
            "somebody started or stopped it.",
            "Leave it alone, and repeat the command.",
        )
    os.chmod(path, 0o600)
    _forbid_writing(journal.record)
    took = time.monotonic() - begun
    return record_store.save(handle, journal.record, journal.record.at("booted", saved=took))


def _forbid_writing(record: Record) -> None:
    """
    Make the disks and the variable store read-only, so that no start by hand can change them.

    QEMU runs without the privilege to write what file modes forbid; forks only read them.
    """
    for volume in record.volumes:
        if volume.target != MEMORY and volume.state == MADE and os.path.isfile(volume.path):
            os.chmod(volume.path, stat.S_IMODE(os.stat(volume.path).st_mode) & ~_WRITE)


def _saved_with(record: Record, depends: Circumstances) -> WarmRecord:
    """
    Return what a memory that was just saved is to be known by.

    :raises HostError: libvirt wrote it in a form that is not known here.
    """
    path = record.memory
    try:
        head = warm_images.head_digest(path)
    except saved_image.UnknownLayout as error:
        raise HostError(
            f"The saved memory '{path}' {error}.",
            "Have memories saved as they are: set save_image_format to 'raw' in "
            "/etc/libvirt/qemu.conf, restart libvirtd, and repeat the command.",
        ) from error
    files = tuple(warm_images.files_of(record))
    return WarmRecord(record.uuid, time.time(), head, depends, files)


def _finish(host: Host, handle: DomainHandle, record: Record, saved: WarmRecord) -> Record:
    """Record what the memory was saved with, then that it is finished."""
    text = to_xml(saved)
    host.call(handle.raw.setMetadata, METADATA_ELEMENT, text, PREFIX, NAMESPACE, AFFECT_CONFIG)
    return record_store.save(handle, record, record.at(STAGES[-1]))


def _superseded(host: Host, image: WarmImage) -> str:
    """Remove a saved memory that a newer one replaces; return why it stays, empty if it is gone."""
    name = image.handle.name
    try:
        destroy(host, image.handle, token=image.record.worker.token)
    except CloneInUse:
        return f"'{name}', which was saved before, stays as long as forks stand on it."
    except KvmCloneError as error:
        log.warning("%s: not removed: %s", name, error)
        return f"'{name}', which was saved before, is left to gc: {error.message}"
    return ""
