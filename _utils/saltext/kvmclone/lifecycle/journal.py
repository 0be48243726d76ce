"""
Keep the journal of what is being made for a domain, and go back when a step fails.

The definition is the journal. It is written first, with a record of every file that is about to
be made; the record says of each file how far it is, and is updated *before* the call that makes
the next one. So after a crash at any point it says exactly what may exist, and :mod:`.destroy`
may delete that and nothing else.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    CreateInProgress,
    HostError,
    HostUnreachable,
    KvmCloneError,
    PlanRefused,
    absent,
)
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.constants import (
    NO_DOMAIN,
    OPERATION_FAILED,
    XML_INVALID_SCHEMA,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import deletion_plan
from saltext.kvmclone.lifecycle import record_store
from saltext.kvmclone.lifecycle.destroy import take_back
from saltext.kvmclone.model import domain_xml, libvirt_xml, redaction
from saltext.kvmclone.model.record import MADE, MAKING, WANTED, Record, Reservation, Volume
from saltext.kvmclone.model.record_xml import embed
from saltext.kvmclone.plan.planned_disk import SEED, PlannedDisk
from saltext.kvmclone.system import filesystems

log = logging.getLogger(__name__)


class Journal:
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


def define(host: Host, xml: str, record: Record, validate: bool) -> DomainHandle:
    """
    Define a domain with the record of all that is about to be made for it.

    :param xml: The definition, without the record.
    :param validate: Check the XML against libvirt's schema first.
    :raises CreateInProgress: Another worker took the name at the same moment.
    :raises HostError: libvirt refused.
    """
    root = libvirt_xml.parse(xml)
    embed(root, record)
    name = record.name
    try:
        return host.define(libvirt_xml.serialize(root), validate)
    except HostError as told:
        # libvirt's text may quote the definition and with it secrets; so may the error behind ours.
        error = told.with_message(redaction.without(told.message, redaction.hidden_values(xml)))
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


def make_volume(host: Host, disk: PlannedDisk, journal: Journal, content: bytes = b"") -> None:
    """
    Make and fill the volume of one planned disk, journalled.

    :param content: Of the clone's own cloud-init seed, where the disk is that.
    :raises KvmCloneError: See :func:`.volumes.create`.
    """
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


def own_automatic_nvram(journal: Journal) -> None:
    """
    Record a variable store whose path libvirt chose, and that it makes at the first boot.

    :raises PlanRefused: A file stands at that path already.
    """
    stores = journal.handle.connection.folders.stores
    chosen = domain_xml.read(journal.handle.definition(), stores).nvram
    if chosen and journal.handle.connection.local and os.path.lexists(chosen.path):
        raise PlanRefused(
            f"The NVRAM file '{chosen.path}' exists already; it is not ours to use.",
            "Choose another name.",
        )
    if chosen and chosen.path and not journal.record.owns(chosen.path):
        journal.own(Volume("nvram", chosen.path, "raw", "fresh"))


def undo(host: Host, journal: Journal, error: BaseException) -> None:
    """
    Delete what an unfinished apply made.

    What cannot be deleted keeps the definition, and with it the journal, for
    :func:`.destroy.destroy`, which whoever asked for the create tries next; of what was to become
    a base the error says so.

    :raises HostError: That failed, after a refusal, which would say that nothing is there.
    """
    name = journal.handle.name
    try:
        with interrupts.shield():
            undone = take_back(host, journal.handle, journal.record)
    except KvmCloneError as problem:
        log.error("%s: not undone: %s", name, problem)
        left = journal.record.becomes and not isinstance(problem, CreateInProgress)
        if left and isinstance(error, KvmCloneError):
            error.hint += f"   What was made is left: {host.commands.clone('gc', name)}"
        if isinstance(error, PlanRefused):
            raise HostError(error.message, error.hint) from error
    else:
        log.info("%s: undone after %r: %s", name, error, undone)


def undo_stored(host: Host, handle: DomainHandle, error: BaseException) -> None:
    """
    Delete what was made of a base, or of a warmed one, by the record that is stored.

    What cannot be deleted is left to ``gc``, and the error says so.
    """
    name = handle.name
    try:
        with interrupts.shield():
            record = None
            with absent(NO_DOMAIN):  # whoever had it made may have cleared it
                record = handle.record()
            if record is not None:
                undone = take_back(host, handle, record)
                log.info("%s: undone after %r: %s", name, error, undone)
    except KvmCloneError as problem:
        log.error("%s: not undone: %s", name, problem)
        if isinstance(error, KvmCloneError) and not isinstance(problem, CreateInProgress):
            error.hint += f"   What was made is left: {host.commands.clone('gc', name)}"
