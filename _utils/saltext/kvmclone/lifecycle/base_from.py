"""
Make a base from a disk image: download, check, convert, boot once, clean.

Until the last step the machine is an unfinished clone that becomes a base: its record lists every
file before it is made, and whatever ends the work, here or by a crash, is undone as for a clone.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import BadImage, HostError, PlanRefused, PoolFull
from saltext.kvmclone.guest import base_setup_script
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle import base_setup, finish_base, journal, record_store
from saltext.kvmclone.lifecycle.journal import Journal
from saltext.kvmclone.model import digests
from saltext.kvmclone.model.base_record import BaseRecord
from saltext.kvmclone.model.base_request import Origin, file_name
from saltext.kvmclone.model.record import DOWNLOAD, Record
from saltext.kvmclone.model.units import exact_size
from saltext.kvmclone.plan import base_definition, base_firmware, base_plan
from saltext.kvmclone.plan.base_definition import DISK, SEED
from saltext.kvmclone.plan.base_plan import NO_EFI, BasePlan
from saltext.kvmclone.plan.planned_disk import ALONE, PlannedDisk
from saltext.kvmclone.system import (
    base_image,
    checksums,
    download,
    filesystems,
    images,
    seed_image,
)
from saltext.kvmclone.system.base_image import Judged

#: Seconds between two looks at whose the machine is, while a download runs.
_OWNER_POLL_S = 5.0

#: Seconds for the cleaned guest to shut down.
_OFF_TIMEOUT_S = 180.0


def make(host: Host, plan: BasePlan, origin: Origin) -> tuple[BaseRecord, Record, tuple[str, ...]]:
    """
    Make the base; undo everything on any failure.

    :param origin: Where the image really is.
    :return: Its record as a base, the last record of its making (with what each step took), and
        what an operator should know.
    :raises KvmCloneError: A step failed; what was made is deleted again, as far as that worked.
    """
    handle = journal.define(host, plan.xml, plan.record, plan.request.validate_xml)
    making = _Making(host, plan, origin, handle)
    try:
        return making.run()
    except BaseException as error:
        journal.undo(host, making.journal, error)
        raise


class _Making:
    """One base under way."""

    def __init__(self, host: Host, plan: BasePlan, origin: Origin, handle: DomainHandle) -> None:
        self.host, self.plan, self.origin = host, plan, origin
        self.request = plan.request
        self.journal = Journal(handle, plan.record)
        self.begun = time.monotonic()
        self.looked = self.begun
        self.identity: tuple[int, ...] = ()

    def run(self) -> tuple[BaseRecord, Record, tuple[str, ...]]:
        """Go through the steps."""
        made = time.time()
        path, digest = self._image()
        judged = self._judged(path)
        self._convert(path, judged)
        self._write_seed()
        self._choose_firmware()
        self.journal.record = self.journal.record.at("cloned")
        self._step("converted")
        warnings = self._boot()
        warnings += finish_base.clean_and_shut_off(
            self.journal.handle, _OFF_TIMEOUT_S, (self.request.name,)
        )
        self._found("cleaned")
        source = BaseRecord(self.plan.record.uuid, self.request.source, digest, made)
        handle, record = self.journal.handle, self.journal.record
        finish_base.finish(self.host, handle, record, source, (SEED,))
        return source, record, warnings

    # --- the image --------------------------------------------------------------------

    def _image(self) -> tuple[str, str]:
        """
        Have the image on this host, with the digest that it must have.

        :return: Its path, and its digest.
        """
        wanted = self.request.digest
        if self.origin.checksums:
            text = download.text(self.origin.checksums)
            name = file_name(self.origin.image)
            wanted = checksums.find(text, name, self.request.checksums)
        path = self.plan.download or self.origin.image
        if self.plan.download:
            self._download(path)
        self.identity = self._identity(path)
        if not self.plan.download and images.is_written(path):
            raise BadImage(
                f"'{path}' is open for writing: a machine runs on it, or a tool changes it.",
                f"Shut that off first: {self.host.commands.there('fuser', '-v', path)}",
            )
        try:
            with open(path, "rb") as file:
                digest = checksums.of(file, digests.algorithm_of(wanted), self._told)
        except OSError as error:
            commands = self.host.commands
            raise base_image.unreadable(path, self.request.source, error, commands) from error
        checksums.require(wanted, digest, self.request.source)
        self._step("downloaded" if self.plan.download else "read")
        return path, digest

    def _download(self, path: str) -> None:
        self.journal.making(DOWNLOAD)
        try:
            file = open(path, "x+b", opener=lambda name, flags: os.open(name, flags, 0o600))
        except OSError as error:
            self.journal.not_made(DOWNLOAD)
            raise _appeared(path, error) from error
        with file:
            self.journal.made(DOWNLOAD)
            self.journal.save()
            download.fetch(self.origin.image, file, self._room(), self._told)

    def _identity(self, path: str) -> tuple[int, ...]:
        return base_image.identity(path, self.request.source, self.host.commands)

    def _require_unchanged(self, path: str) -> None:
        """
        Refuse an image that is opened by its name several times, and is not the same any more.

        :raises BadImage: It was changed, or another file was put in its place.
        """
        if self._identity(path) != self.identity:
            raise BadImage(
                f"'{self.request.source}' was changed while it was read. Nothing of it was kept.",
                "Leave it alone, and repeat the command. "
                f"Who has it open? {self.host.commands.there('fuser', '-v', path)}",
            )

    def _told(self, _done: int = 0, _total: int = 0) -> None:
        """Look now and then whether the machine is still ours; otherwise this raises."""
        if time.monotonic() - self.looked > _OWNER_POLL_S:
            self.looked = time.monotonic()
            record_store.current(self.journal.handle, self.journal.record)

    def _room(self) -> int:
        folder = self.plan.pool.path
        return max(0, filesystems.of(folder).available - base_plan.RESERVE)

    def _judged(self, path: str) -> Judged:
        """
        Return what the image is, once nothing speaks against it.

        :raises BadImage: It cannot be taken.
        :raises PoolFull: The pool has no room for what its guest may write.
        """
        source, pool = self.request.source, self.plan.pool.name
        judged = base_image.judge(path, source, self.host.commands)
        if judged.capacity > self._room():
            raise PoolFull(
                f"The disk in '{source}' may take {exact_size(judged.capacity)}, and the storage "
                f"pool '{pool}' has {self._room() >> 20} MiB free.",
                f"Make room, or name another: pool=NAME. See: "
                f"{self.host.commands.virsh('pool-info', pool)}",
            )
        if 0 < self.request.size < judged.capacity:
            raise PlanRefused(
                f"The disk in '{source}' has {exact_size(judged.capacity)}; it can be made larger, "
                f"not {exact_size(self.request.size)}.",
                "Leave the size out, or ask for more: disks='{vda: {size: 20GiB}}'",
            )
        base_image.check_tables(path, judged, source)
        return judged

    def _convert(self, path: str, judged: Judged) -> None:
        """Make the disk, as large as it is to be; the image itself is not needed any more then."""
        capacity = max(judged.capacity, self.request.size)
        capacity = -(-capacity // 512) * 512
        self.journal.record = base_plan.with_disk_of(self.plan, self.journal.record, capacity)
        disk = PlannedDisk(
            target=DISK,
            action="copy",
            reason="",
            source=self.request.source,
            destination=self.plan.files.disk,
            format="qcow2",
            bytes=judged.capacity,
            pool=self.plan.pool.name,
            volume=os.path.basename(self.plan.files.disk),
            capacity=capacity,
            source_capacity=judged.capacity,
            source_real=path,
            source_format=judged.format,
            method=ALONE,
        )
        interrupts.check()
        try:
            journal.make_volume(self.host, disk, self.journal)
        except PoolFull as error:
            info = self.host.commands.virsh("pool-info", self.plan.pool.name)
            raise PoolFull(
                error.message, f"Make room, or name another: pool=NAME. See: {info}"
            ) from error
        self._require_unchanged(path)
        if self.plan.download:
            self.journal.save()
            handle, record = self.journal.handle, self.journal.record
            self.journal.record = finish_base.delete_files(self.host, handle, record, (DOWNLOAD,))

    # --- the machine ------------------------------------------------------------------

    def _write_seed(self) -> None:
        folders = base_plan.folders_of(self.request)
        salt = "folder" if "salt" in folders else self.request.salt
        about = {"instance-id": self.plan.record.uuid, "local-hostname": self.request.name}
        files = {
            "user-data": base_setup_script.user_data("packages" in folders, salt),
            "meta-data": json.dumps(about) + "\n",
        }
        named = {"packages": base_setup_script.PACKAGES, "salt": base_setup_script.SALT}
        path = self.plan.files.seed
        self.journal.making(SEED)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            self.journal.not_made(SEED)
            raise _appeared(path, error) from error
        self.journal.made(SEED)
        self.journal.save()
        seed_image.write(path, files, {named[key]: folder for key, folder in folders.items()})

    def _choose_firmware(self) -> None:
        """
        Give the machine a UEFI firmware where its disk needs one.

        :raises PlanRefused: The host has none.
        """
        wanted = self.request.firmware
        if wanted == "auto":
            wanted = base_firmware.needed(base_image.start_of(self.plan.files.disk))
        if wanted != base_firmware.EFI:
            return
        if not self.plan.machine.efi:
            raise PlanRefused(f"'{self.request.source}' boots with UEFI alone.", NO_EFI)
        self.journal.save()
        xml = base_definition.with_efi(self.journal.handle.definition())
        self.journal.handle = self.host.define(xml, self.request.validate_xml)
        journal.own_automatic_nvram(self.journal)

    def _boot(self) -> tuple[str, ...]:
        """
        Boot the machine for the only time, and wait until it has installed what it was told to.

        :return: What cloud-init complains of.
        """
        handle, record = self.journal.handle, self.journal.record
        # Before the start: from the stage, gc knows that nobody but us has started it.
        self.journal.record = record_store.save(handle, record, record.at("booted"))
        handle.start()
        self._found("booted")
        warnings = base_setup.wait(handle, self.journal.record, self.request.timeout)
        self._found("installed")
        return warnings

    # --- telling ----------------------------------------------------------------------

    def _took(self, step: str) -> Record:
        now = time.monotonic()
        took, self.begun = now - self.begun, now
        record = self.journal.record
        return replace(record, timings={**record.timings, step: took})

    def _step(self, step: str) -> None:
        """Record what a step took, while the machine is off."""
        self.journal.record = self._took(step)
        self.journal.save()

    def _found(self, step: str) -> None:
        """Record what a step took, once the machine has been started."""
        before = self.journal.record
        self.journal.record = record_store.save(self.journal.handle, before, self._took(step))


def _appeared(path: str, error: OSError) -> PlanRefused | HostError:
    if isinstance(error, FileExistsError):
        return PlanRefused(
            f"The file '{path}' appeared in the meantime; it is not ours to overwrite.",
            "See what it is, or choose another name.",
        )
    return HostError(
        f"The file '{path}' cannot be made: {error.strerror}.", "Look at the pool's folder."
    )
