"""
Carry out a clone plan, and undo it when a step fails.

The definition is the journal. It is written first, with a record of every file that is about to
be made; the record says of each file how far it is, and is updated *before* the call that makes
the next one. So after a crash at any point it says exactly what may exist, and :mod:`.destroy`
may delete that and nothing else.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    CreateInProgress,
    HostError,
    HostUnreachable,
    KvmCloneError,
    PlanRefused,
)
from saltext.kvmclone.hypervisor import networks, volumes
from saltext.kvmclone.hypervisor.constants import OPERATION_FAILED, XML_INVALID_SCHEMA
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_changes, deletion_plan
from saltext.kvmclone.lifecycle import protect, record_store
from saltext.kvmclone.lifecycle.destroy import take_back
from saltext.kvmclone.model import domain_xml, libvirt_xml, redaction
from saltext.kvmclone.model.cloud_seed import OWN
from saltext.kvmclone.model.record import (
    DESTROYING,
    MADE,
    MAKING,
    WANTED,
    Record,
    Reservation,
    Volume,
)
from saltext.kvmclone.model.record_xml import embed
from saltext.kvmclone.plan.disks import SEED
from saltext.kvmclone.plan.planner import ClonePlan, PlannedDisk
from saltext.kvmclone.system import filesystems, seed_image

log = logging.getLogger(__name__)


def apply(
    host: Host,
    plan: ClonePlan,
    seed: Mapping[str, str] = MappingProxyType({}),
    admission: AbstractContextManager[None] | None = None,
) -> tuple[DomainHandle, Record]:
    """
    Make the clone, shut off; undo everything on any failure.

    :param plan: A plan without conflicts.
    :param seed: Files of the clone's own cloud-init seed, where the plan has one.
    :param admission: Entered around the definition; what it raises refuses the clone.
    :return: The domain and its record, at stage ``cloned``.
    :raises PlanRefused: The plan has conflicts, or a file or the base changed since.
    :raises CreateInProgress: The name was taken in the meantime.
    :raises KvmCloneError: A step failed; what was made is deleted again, as far as that worked.
    """
    plan.check()
    started = time.monotonic()
    content = b""
    if plan.request.seed == OWN:
        content = seed_image.build(seed, plan.record.uuid, plan.request.name)
    with admission or nullcontext():
        handle = _define(host, plan)
    journal = _Journal(handle, plan.record)
    try:
        if plan.request.protect:  # once the record is written, since undoing relies on it
            protect.protect(host, host.domain(plan.base), plan.sources, plan.record.uuid)
        for disk in plan.disks:
            if disk.destination:
                interrupts.check()
                _make(host, disk, journal, content)
        if plan.nvram:
            _copy_nvram(*plan.nvram, journal)
        _own_automatic_nvram(plan, journal)
        for wanted in plan.record.reservations:
            networks.reserve(host, wanted, plan.request, journal.reserving)
        _require_base_at_rest(host, plan)
        if plan.request.autostart is not None:
            handle.set_autostart(plan.request.autostart)
        journal.record = journal.record.at("cloned", cloned=time.monotonic() - started)
        journal.save()
    except BaseException as error:
        _undo(host, journal, error)
        raise
    return handle, journal.record


class _Journal:
    """The record while files are made: each is marked before it is made, and again afterwards."""

    def __init__(self, handle: DomainHandle, record: Record) -> None:
        self.handle = handle
        self.record = record

    def making(self, target: str) -> None:
        """Mark and save that the file for ``target`` is made next."""
        if self._volume(target).state != MAKING:  # the first volume was defined in this state
            self._mark(target, state=MAKING)
            self.save()

    def made(self, target: str) -> None:
        """Mark that the file for ``target`` exists and is ours; saved with the next step."""
        mount = inode = ""
        if self.handle.connection.local:
            path = self._volume(target).path
            mount = filesystems.mount_point(path)
            inode = filesystems.inode(path) if target == deletion_plan.NVRAM else ""
        self._mark(target, state=MADE, mount=mount, inode=inode)

    def not_made(self, target: str) -> None:
        """Mark that making the file was refused: whatever stands at its path is not ours."""
        self._mark(target, state=WANTED)

    def done_by(self, target: str, strategy: str) -> None:
        """
        Mark how the file was really made.

        :param strategy: ``overlay``, ``copy`` …
        """
        self._mark(target, strategy=strategy)

    def own(self, volume: Volume) -> None:
        """Add one more file to the clone's volumes."""
        self.record = replace(self.record, volumes=(*self.record.volumes, volume))

    def reserving(self, reservation: Reservation) -> None:
        """Save that this DHCP host entry is made next, instead of the one before."""
        self.record = replace(self.record, reservations=(reservation,))
        self.save()

    def save(self) -> None:
        """
        Write the record into the definition.

        :raises CreateInProgress: Another worker took the clone over; it is left to them.
        :raises NotFound: The clone is gone.
        """
        record_store.current(self.handle, self.record)
        self.handle.save_record_offline(self.record)

    def _volume(self, target: str) -> Volume:
        return next(volume for volume in self.record.volumes if volume.target == target)

    def _mark(self, target: str, **changes: Any) -> None:
        self.record = replace(
            self.record,
            volumes=tuple(
                replace(volume, **changes) if volume.target == target else volume
                for volume in self.record.volumes
            ),
        )


def _define(host: Host, plan: ClonePlan) -> DomainHandle:
    root = libvirt_xml.parse(plan.xml)
    embed(root, plan.record)
    name = plan.request.name
    try:
        return host.define(libvirt_xml.serialize(root), plan.request.validate_xml)
    except HostError as told:
        # libvirt's text may quote the definition and with it secrets; so may the error behind ours.
        error = told.with_message(
            redaction.without(told.message, redaction.hidden_values(plan.xml))
        )
        if error.code == XML_INVALID_SCHEMA:
            raise HostError(
                f"libvirt's schema refuses the definition of '{name}': {error.message}",
                "If the base itself is known to work, set 'validate_xml: no' in the provider.",
                code=error.code,
            ) from None
        if error.code == OPERATION_FAILED and host.find(name) is not None:
            raise CreateInProgress(
                f"Another worker defined '{name}' at the same moment.",
                f"List them: {host.commands.listing()}",
            ) from None
        raise error from None


def _make(host: Host, disk: PlannedDisk, journal: _Journal, content: bytes) -> None:
    journal.making(disk.target)
    there = False

    def made() -> None:
        nonlocal there
        there = True
        journal.made(disk.target)
        if disk.action != "overlay":  # filling it takes a while; an overlay is ready at once
            journal.save()

    try:
        done = volumes.create(host, disk, made)
        if disk.method == SEED:
            volumes.upload(host, disk, content)
    except HostUnreachable:
        raise  # nobody knows whether it was made: it stays marked as being made
    except KvmCloneError:
        if not there:
            journal.not_made(disk.target)
        raise
    if done != disk.action:
        journal.done_by(disk.target, done)


def _copy_nvram(source: str, destination: str, journal: _Journal) -> None:
    """
    Copy the variable store; a base that never booted has none, and libvirt then makes one.

    The copy is written under a name that only this create uses and linked into place whole, so
    that a file at the destination is never a half-written one of ours.

    :param source: Path of the base's variable store.
    :param destination: Path of the clone's.
    :raises PlanRefused: A file appeared at the destination in the meantime.
    :raises HostError: Copying failed.
    """
    if not os.path.exists(source):
        journal.made("nvram")
        return
    journal.making("nvram")
    draft = deletion_plan.draft_path(destination, journal.record)
    try:
        with open(source, "rb") as original, open(draft, "xb") as copy:
            shutil.copyfileobj(original, copy)
            shutil.copymode(source, draft)
        os.link(draft, destination)
        journal.made("nvram")
        journal.save()
        os.unlink(draft)
    except FileExistsError as error:
        journal.not_made("nvram")
        raise PlanRefused(
            f"The NVRAM file '{destination}' appeared in the meantime; it is not ours to "
            "overwrite.",
            "Repeat the command: the next one gets another name.",
        ) from error
    except OSError as error:
        raise HostError(
            f"Copying the NVRAM '{source}' to '{destination}' failed: {error.strerror}.",
            "Look at that folder; nothing was overwritten.",
        ) from error


def _own_automatic_nvram(plan: ClonePlan, journal: _Journal) -> None:
    """
    Record a variable store whose path libvirt chose, and that it makes at the first boot.

    :raises PlanRefused: A file stands at that path already.
    """
    if plan.nvram or domain_xml.read(plan.xml).nvram is None:
        return
    stores = journal.handle.connection.folders.stores
    chosen = domain_xml.read(journal.handle.definition(), stores).nvram
    if chosen and journal.handle.connection.local and os.path.lexists(chosen.path):
        raise PlanRefused(
            f"The NVRAM file '{chosen.path}' exists already; it is not ours to use.",
            "Choose another name for the clone.",
        )
    if chosen and chosen.path and not journal.record.owns(chosen.path):
        journal.own(Volume("nvram", chosen.path, "raw", "fresh"))


def _require_base_at_rest(host: Host, plan: ClonePlan) -> None:
    """
    Refuse a base that did not stay as the plan found it: shut off and unchanged.

    :raises PlanRefused: The base was started or destroyed, or its disks changed, in the meantime.
    """
    base = host.find(plan.base)
    record = base.record() if base else None
    commands = host.commands
    again = "Leave the base alone and repeat the command"
    disks = plan.record.base_disks if host.local else ()
    if base is None or (record is not None and (record.stage == DESTROYING or record.under_way)):
        what, way = "is gone, being destroyed or rolled back, now", "List the domains"
        command = commands.virsh("list", "--all")
    elif not base.was_off and (state := base.state()) != "shutoff":
        what, way = f"is {state} now", again
        command = commands.shut_off(plan.base, state)
    elif changed := [disk.path for disk in disks if base_changes.differs(host, disk)]:
        what, way = f"changed: {', '.join(changed)}", f"{again}. Is it off now? See"
        command = commands.virsh("domstate", plan.base)
    else:
        return
    raise PlanRefused(
        f"The base '{plan.base}' {what}; '{plan.request.name}' was being made from it.",
        f"{way}: {command}",
    )


def _undo(host: Host, journal: _Journal, error: BaseException) -> None:
    """
    Delete what an unfinished apply made.

    What cannot be deleted keeps the definition, and with it the journal, for
    :func:`.destroy.destroy`, which whoever asked for the create tries next.

    :raises HostError: That failed, after a refusal, which would say that nothing is there.
    """
    name = journal.handle.name
    try:
        with interrupts.shield():
            undone = take_back(host, journal.handle, journal.record)
    except KvmCloneError as problem:
        log.error("%s: not undone: %s", name, problem)
        if isinstance(error, PlanRefused):
            raise HostError(error.message, error.hint) from error
    else:
        log.info("%s: undone after %r: %s", name, error, undone)
