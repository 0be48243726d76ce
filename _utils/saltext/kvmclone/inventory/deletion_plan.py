"""
Decide what a destroy deletes and what it leaves, file by file, before anything is done.

A file is deleted only if the clone's record lists it as made, the clone's definition uses it,
and no other machine, record or image needs it. Files are compared by inode, not by the spelling
of their paths. Reads only; :mod:`.destroy` acts.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from saltext.kvmclone.hypervisor import state_files, unfinished_volumes, volumes
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import file_usage_scan, out_of_reach, snapshots
from saltext.kvmclone.inventory.file_usage import Absence, FileId, FileUsage
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.record import DESTROYING, MADE, MAKING, Record, Volume
from saltext.kvmclone.system import backing_files, filesystems, images

NVRAM = "nvram"


@dataclass(frozen=True)
class FileToDelete:
    """
    A file to delete.

    :param key: The file's identity when that was decided; another file in its place stays.
    :param target: The disk it serves, or ``nvram``.
    :param with_definition: libvirt deletes it when it removes the definition; whether it exists
        cannot be seen from here.
    """

    path: str
    key: FileId
    target: str
    with_definition: bool = False


@dataclass(frozen=True)
class FileToKeep:
    """
    A file that stays.

    :param why: The clause that says why.
    :param shared: It is on no record of the domain, and others use it too.
    """

    path: str
    why: str
    shared: bool = False

    def __str__(self) -> str:
        return f"'{self.path}' stays: {self.why}."


@dataclass(frozen=True)
class DeletionPlan:
    """
    What a destroy of one domain does.

    :param files: What is deleted, the last made first.
    :param kept: What stays.
    :param missing: Recorded files that are gone already, although nobody here deleted them.
    :param unchecked: Clauses about what could not be looked at.
    :param keep_tpm: The TPM's state lies at a path that the definition names, so it may be
        anybody's.
    """

    files: tuple[FileToDelete, ...] = ()
    kept: tuple[FileToKeep, ...] = ()
    missing: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    keep_tpm: bool = False

    def sentences(self) -> tuple[str, ...]:
        """Return what an operator must know of it."""
        return (
            *map(str, self.kept),
            *(
                f"'{path}' is on the record but is missing; if it was moved, it stays where it is."
                for path in self.missing
            ),
            *(f"Not looked at: {what}." for what in self.unchecked),
            *["The state of its TPM stays where its definition says."] * self.keep_tpm,
        )


def draft_path(path: str, record: Record) -> str:
    """Return the path at which a file is written before it is put in place; unique to the clone."""
    return f"{path}.{record.uuid}"


def plan_deletion(
    host: Host,
    handle: DomainHandle,
    record: Record | None,
    force: bool = False,
    usage: FileUsage | None = None,
) -> DeletionPlan:
    """
    Decide what destroying a domain deletes.

    :param record: None for a foreign domain: its files all stay.
    :param force: Leave the clone's own snapshots, and what is out of reach now, where they are.
    :param usage: A scan of the host, if one was just made.
    :raises CloneInUse: Another image stands on one of its disks, or libvirt would delete what
        another machine left under its name; ``force`` never overrides this.
    :raises OwnSnapshots: Only snapshots of its own do; not forced.
    :raises OutOfReach: A file of the clone may be there and cannot be looked at; not forced.
    """
    state_files.require_own(host, handle)
    texts = (handle.definition(), handle.live())
    usage = usage or file_usage_scan.scan(host)
    return Planner(host, handle.name, handle.uuid, texts, record, force, usage).plan()


def plan_deletion_of_undefined(host: Host, record: Record) -> DeletionPlan:
    """
    Decide what to delete for a clone that was undefined by hand while it was made.

    :param record: As the worker that made it remembers it.
    :raises KvmCloneError: As :func:`plan_deletion` does.
    """
    usage = file_usage_scan.scan(host)
    planner = Planner(host, record.name, record.uuid, (), record, False, usage)
    planner.used = {usage.file_id(volume.path) for volume in record.volumes}
    return planner.plan()


class Planner:
    """
    One decision under way.

    :ivar used: Identities of the files that the domain uses.
    :ivar users: Files that other domains use; ``claims`` those on other clones' records.
    """

    def __init__(
        self,
        host: Host,
        name: str,
        uuid: str,
        texts: tuple[str, ...],
        record: Record | None,
        force: bool,
        usage: FileUsage,
    ) -> None:
        self.host = host
        self.name = name
        self.uuid = uuid
        self.record = record
        self.force = force
        self.usage = usage
        self.users = usage.used_by_others(uuid)
        self.claims = usage.claimed_by_others(uuid)
        domains = [domain_xml.read(text, host.folders.stores) for text in texts]
        self.keep_tpm = any("<tpm" in text and domain_xml.names_tpm_state(text) for text in texts)
        #: The store that libvirt would delete with the definition, the first of the texts.
        self.defined = next((d.nvram.path for d in domains[:1] if d.nvram), "")
        #: Paths of the domain's disks and of its variable stores, as its XML spells them.
        self.disks = tuple(dict.fromkeys(path for d in domains for path in self._disks(d)))
        self.stores = tuple(
            dict.fromkeys(d.nvram.path for d in domains if d.nvram and d.nvram.path)
        )
        below = [path for disk in self.disks for path in usage.chain(disk)]  # of a snapshot
        self.used = {self._key(path) for path in (*self.disks, *self.stores, *below)}

    def _disks(self, domain: domain_xml.Domain) -> Iterable[str]:
        paths = (self.usage.path_of(d.path, d.pool, d.volume) for d in domain.disks)
        return filter(None, paths)

    def _key(self, path: str) -> FileId:
        return self.usage.file_id(path)

    def plan(self) -> DeletionPlan:
        found = self.judge(self.record.volumes if self.record else ())
        files, kept = list(found.files), list(found.kept)
        standing = self._require_unused(files, [one.path for one in kept])
        kept += self._keep_snapshots(standing, files)
        judged = {self._key(file.path) for file in files}
        judged |= {self._key(path) for path in (*found.missing, *(one.path for one in kept))}
        for path in (*self.disks, *self.stores):
            if self._key(path) in judged:
                why, shared = self._why_used_stays(path, files), False
            else:
                shared = bool(self._needed_elsewhere(path))
                why = self._needed_elsewhere(path) or "it was not made by us"
            if why and (volumes.exists(self.host, path) or not self.host.local):
                kept.append(FileToKeep(path, why, shared))
            elif why and self.usage.away(path):
                kept.append(FileToKeep(path, self._why_not_ours(path), shared))
        return DeletionPlan(
            tuple(reversed(files)), tuple(kept), found.missing, self.usage.unchecked, self.keep_tpm
        )

    # --- the recorded files -------------------------------------------------------------

    def judge(self, volumes: Iterable[Volume]) -> DeletionPlan:
        """Decide about files of the record, in the order in which they are given."""
        files, kept, missing = list[FileToDelete](), list[FileToKeep](), list[str]()
        for volume in {volume.path: volume for volume in volumes}.values():
            self._judge(volume, files, kept, missing)
        return DeletionPlan(tuple(files), tuple(kept), tuple(missing))

    def _judge(
        self, volume: Volume, files: list[FileToDelete], kept: list[FileToKeep], missing: list[str]
    ) -> None:
        assert self.record is not None
        path = volume.path
        draft = draft_path(path, self.record)
        drafted = self.host.local and os.path.lexists(draft)
        if not self._is_made(volume, draft if drafted else ""):
            pass  # never begun, or somebody else's
        elif not self.host.local and volume.target == NVRAM:
            self._judge_unseen_store(volume, files, kept)
        elif (hidden := self.usage.hidden(path, volume.mount)) or not volumes.exists(
            self.host, path
        ):
            absence = Absence(hidden) if hidden else self.usage.away(path, volume.mount)
            if absence and not self.force:
                raise out_of_reach.refusal(self.host, self.name, absence, path)
            if absence:
                why = f"it was made by us and cannot be looked at now, as {absence}"
                kept.append(FileToKeep(path, why))
            elif (
                volume.state == MADE
                and volume.target != NVRAM  # there is none before the first boot
                and not (self.record.stage == DESTROYING or self.record.under_way)  # cut short
            ):
                missing.append(path)
        else:
            why = self._why_ours_stays(volume)
            if why:
                kept.append(FileToKeep(path, why))
            else:
                files.append(FileToDelete(path, self._key(path), volume.target))
        if drafted and os.path.isfile(draft) and not os.path.islink(draft):
            files.append(FileToDelete(draft, self._key(draft), volume.target))

    def _is_made(self, volume: Volume, draft: str) -> bool:
        """
        Return whether a file was made for the clone.

        A file at the path of a volume that was never begun is somebody else's, and so is a file
        that does not look like what was being made when the worker died.
        """
        if volume.state == MADE:
            return True
        if volume.state != MAKING:
            return False
        exists = volumes.exists(self.host, volume.path)
        if not exists and self.usage.away(volume.path, volume.mount):
            return True  # as far as can be seen
        if volume.target == NVRAM:
            # It is put in place as a hard link to the draft: if both are one file, it is ours.
            return bool(draft) and exists and os.path.samefile(draft, volume.path)
        return unfinished_volumes.resembles(self.host, volume)

    def _judge_unseen_store(
        self, volume: Volume, files: list[FileToDelete], kept: list[FileToKeep]
    ) -> None:
        """Judge a variable store on a remote host, which libvirt deletes with its definition."""
        path = volume.path
        why = self._why_ours_stays(volume)
        if not why and self._key(self.defined) != self._key(path):
            why = "libvirt would delete another file with the definition"
        elif not why and (other := self.usage.named_by_others(self.uuid, path)):
            why = f"it may belong to '{other}', which has the same name"
        if not why:
            files.append(FileToDelete(path, self._key(path), NVRAM, with_definition=True))
        else:
            kept.append(FileToKeep(path, why))

    def _why_ours_stays(self, volume: Volume) -> str:
        """Return why a file on our record is not to be deleted; empty if it is."""
        assert self.record is not None
        path = volume.path
        key = self._key(path)
        if self.host.local and os.path.islink(path):
            return (
                f"a link to '{os.path.realpath(path)}' is there, which we did not make; that "
                "file stays, too"
            )
        if self.host.local and not stat.S_ISREG(os.stat(path).st_mode):
            return "what is there is no longer a regular file"
        why = self._needed_elsewhere(path)
        if why:
            return why
        if key not in self.used and not self.record.may_be_unnamed(volume):
            return f"it is on the record, and '{self.name}' does not use it"
        if not self.record.could_have_made(volume):
            return "the record lists it, but it is not named as our files are"
        # A file named with the clone's uuid is the clone's even if libvirt replaced it (a reset).
        ours = self.record.uuid in os.path.basename(path) or not self.host.local
        if not ours and not filesystems.is_same_file(path, volume.inode):
            return "another file was put in its place since it was made"
        return ""

    def _needed_elsewhere(self, path: str) -> str:
        key = self._key(path)
        if key in self.users:
            return f"'{self.users[key]}' uses it, too"
        if key in self.claims:
            return f"the record of '{self.claims[key]}' lists it, too"
        if user := self.usage.derived_by_others(self.uuid, path):
            return f"libvirt keeps a file of '{user}' under that very name"
        return ""

    def _why_used_stays(self, path: str, files: list[FileToDelete]) -> str:
        """Return why another name of a file that is deleted stays: a symlink or a hard link."""
        if not self.host.local:
            return ""
        file = next((file for file in files if file.key == self._key(path)), None)
        if file is None or (os.path.realpath(path) == file.path and not os.path.islink(path)):
            return ""
        if os.path.realpath(path) == os.path.realpath(file.path):
            return f"it is a link to '{file.path}', which goes" if os.path.islink(path) else ""
        return f"it is another name (a hard link) of '{file.path}', and keeps its content"

    # --- what stands on it --------------------------------------------------------------

    def _require_unused(
        self, going: list[FileToDelete], staying: list[str]
    ) -> snapshots.DiskOverlays:
        """
        Refuse the destroy if others need, or may need, an overlay on one of the clone's files.

        :param going: Files of the record that are deleted, its overlays on the others too.
        :param staying: The other files of the record.
        :return: The clone's own snapshot overlays on them, which stay.
        :raises CloneInUse: Somebody's overlay has one of them as backing file, forced or not.
        :raises OwnSnapshots: Only snapshots of its own do; not forced.
        """
        own = [path for path in self.disks if self._key(path) not in self.users]
        ours, commands = [*own, *(file.path for file in going), *staying], self.host.commands
        keys = {file.key for file in going}
        standing = snapshots.find_overlays(self.usage, self.name, ours, self.claims, keys)
        if standing.others or standing.unused:
            raise snapshots.in_use(standing, self.name, self._is_open, self.usage, commands)
        if standing.own and self.record is not None and not self.force:
            handle = self.host.find(self.name)
            raise snapshots.refusal(
                standing,
                self.name,
                own,
                handle.state() if handle is not None else "shutoff",
                {path: why for path in standing.own if (why := self._lost(path)) is not None},
                self.usage,
                commands,
            )
        return standing

    def _lost(self, path: str) -> str | None:
        """Return why an overlay cannot be read, empty if it is just gone; None if it can."""
        if not volumes.exists(self.host, path):
            return self.usage.away(path).why
        try:
            if self.host.local:
                backing_files.needs(path)
        except FileNotFoundError:
            return "there is a link that leads nowhere"
        except (OSError, ValueError, backing_files.Unreadable) as error:
            return str(getattr(error, "strerror", "") or error)
        return None

    def _is_open(self, image: str) -> bool:
        return self.host.local and bool(images.holder(image))

    def _keep_snapshots(
        self, standing: snapshots.DiskOverlays, files: list[FileToDelete]
    ) -> Iterable[FileToKeep]:
        """Yield the overlays and memory files that the clone's own snapshots leave behind."""
        going = {file.key for file in files}
        for path in standing.own:
            below = [one for one in self.usage.chain(path) if self._key(one) in going]
            there = bool(below) and volumes.exists(self.host, path)
            without = f"; without '{below[0]}', which goes, it cannot be read" if there else ""
            yield FileToKeep(path, self._why_not_ours(path) + without)
        for use in self.usage.memories:
            if use.uuid == self.uuid and (
                not self.host.local or os.path.lexists(use.path) or self.usage.away(use.path)
            ):
                memory = "it holds the memory of a snapshot; "
                yield FileToKeep(use.path, memory + self._why_not_ours(use.path))

    def _why_not_ours(self, path: str) -> str:
        if volumes.exists(self.host, path) or not self.host.local:
            return "it was not made by us"
        away = self.usage.away(path)
        return "it was not made by us, and " + (
            f"cannot be looked at now, as {away}" if away else "was not there any more"
        )
