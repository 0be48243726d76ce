"""
What a destroy will delete and what it will leave, file by file, decided before anything is done.

A file is deleted only if the clone's record lists it as made, the clone's definition uses it,
and no other machine, record or image needs it. Files are told apart by what they are and not
by how somebody spells them. Reads only; :mod:`.dismantle` acts.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from saltext.kvmclone import domain_xml, filesystems, gathering, kept_state, markup, volumes
from saltext.kvmclone.census import Absence, Census, Identity
from saltext.kvmclone.domain_xml import Domain
from saltext.kvmclone.errors import CloneInUse, OutOfReach
from saltext.kvmclone.findings import AT_HOST, Commands
from saltext.kvmclone.host import DomainHandle, Host
from saltext.kvmclone.images import holder
from saltext.kvmclone.ownership import DESTROYING, MADE, MAKING, Record, Volume

NVRAM = "nvram"


@dataclass(frozen=True)
class Doomed:
    """
    A file that goes.

    :param key: What the file was when that was decided; another one in its place stays.
    :param target: The disk it serves, or ``nvram``.
    :param with_definition: libvirt deletes it when it removes the definition; whether there is
        one cannot be seen from here.
    """

    path: str
    key: Identity
    target: str
    with_definition: bool = False


@dataclass(frozen=True)
class Kept:
    """
    A file that stays, and the clause that says why.

    :param shared: It is on no record of the domain, and others use it, too.
    """

    path: str
    why: str
    shared: bool = False

    def __str__(self) -> str:
        return f"'{self.path}' stays: {self.why}."


@dataclass(frozen=True)
class Doom:
    """
    The verdict on one domain.

    :param files: What goes, the last made first.
    :param kept: What stays.
    :param missing: Recorded files that are gone already, though nobody here deleted them.
    :param unchecked: Clauses about what could not be looked at.
    :param keep_tpm: The state of its TPM lies where the definition says, and may be anybody's.
    """

    files: tuple[Doomed, ...] = ()
    kept: tuple[Kept, ...] = ()
    missing: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    keep_tpm: bool = False

    def sentences(self) -> tuple[str, ...]:
        """What an operator must know of it."""
        return (
            *map(str, self.kept),
            *(
                f"'{path}' is on the record and was not there; wherever it was moved to, it stays."
                for path in self.missing
            ),
            *(f"Not looked at: {what}." for what in self.unchecked),
            *["The state of its TPM stays where its definition says."] * self.keep_tpm,
        )


def draft_of(path: str, record: Record) -> str:
    """Where a file is written before it is put in place whole; no other clone's is called so."""
    return f"{path}.{record.uuid}"


def judge(
    host: Host,
    handle: DomainHandle,
    record: Record | None,
    force: bool = False,
    census: Census | None = None,
) -> Doom:
    """
    Decide what destroying a domain deletes.

    :param record: None for a foreign domain: its files all stay.
    :param force: Leave what is out of reach now where it is.
    :param census: Where it was taken just now.
    :raises CloneInUse: Another image stands on one of its disks, or libvirt would delete what
        another machine left under its name; ``force`` never overrides this.
    :raises OutOfReach: A file of the clone may be there and cannot be looked at; not forced.
    """
    kept_state.require_own(host, handle)
    texts = (handle.definition(), handle.live())
    census = census or gathering.take(host)
    return _Judging(host, handle.name, handle.uuid, texts, record, force, census).doom()


def judge_undefined(host: Host, record: Record) -> Doom:
    """
    The same for a clone whose definition was removed by hand while it was made.

    :param record: As the worker that made it remembers it.
    """
    judging = _Judging(host, record.name, record.uuid, (), record, False, gathering.take(host))
    judging.used = {judging.census.identity(volume.path) for volume in record.volumes}
    return judging.doom()


class _Judging:
    """
    One verdict under way.

    :ivar used: What the files are that the domain uses, by whatever name.
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
        census: Census,
    ) -> None:
        self.host = host
        self.name = name
        self.uuid = uuid
        self.record = record
        self.force = force
        self.census = census
        self.users = census.used_by_others(uuid)
        self.claims = census.claimed_by_others(uuid)
        domains = [domain_xml.read(text, host.folders.stores) for text in texts]
        self.keep_tpm = any("<tpm" in text and _names_tpm_state(text) for text in texts)
        #: The store that libvirt would delete with the definition, which stands first.
        self.defined = next((d.nvram.path for d in domains[:1] if d.nvram), "")
        #: What the domain uses, as it spells it: its disks, then its variable store.
        self.disks = tuple(dict.fromkeys(path for d in domains for path in self._disks(d)))
        self.stores = tuple(
            dict.fromkeys(d.nvram.path for d in domains if d.nvram and d.nvram.path)
        )
        self.used = {self._key(path) for path in (*self.disks, *self.stores)}

    def _disks(self, domain: Domain) -> Iterable[str]:
        for disk in domain.disks:
            path = self.census.path_of(disk.path, disk.pool, disk.volume)
            if path:
                yield path

    def _key(self, path: str) -> Identity:
        return self.census.identity(path)

    def doom(self) -> Doom:
        files: list[Doomed] = []
        kept: list[Kept] = []
        missing: list[str] = []
        listed = self.record.volumes if self.record else ()
        for volume in {volume.path: volume for volume in listed}.values():
            self._judge(volume, files, kept, missing)
        self._require_unused([file.path for file in files] + [one.path for one in kept])
        judged = {self._key(file.path) for file in files}
        judged |= {self._key(path) for path in (*missing, *(one.path for one in kept))}
        for path in (*self.disks, *self.stores):
            if self._key(path) in judged:
                why, shared = self._why_used_stays(path, files), False
            else:
                shared = bool(self._needed_elsewhere(path))
                why = self._needed_elsewhere(path) or "it was not made by us"
            if why and (volumes.exists(self.host, path) or not self.host.local):
                kept.append(Kept(path, why, shared))
        return Doom(
            tuple(reversed(files)),
            tuple(kept),
            tuple(missing),
            tuple(self.census.unchecked),
            self.keep_tpm,
        )

    # --- one recorded file --------------------------------------------------------------

    def _judge(
        self, volume: Volume, files: list[Doomed], kept: list[Kept], missing: list[str]
    ) -> None:
        assert self.record is not None
        path = volume.path
        draft = draft_of(path, self.record)
        drafted = self.host.local and os.path.lexists(draft)
        if not self._is_made(volume, draft if drafted else ""):
            pass  # never begun, or somebody else's
        elif not self.host.local and volume.target == NVRAM:
            self._judge_unseen_store(volume, files, kept)
        elif (hidden := self.census.hidden(path, volume.mount)) or not volumes.exists(
            self.host, path
        ):
            absence = Absence(hidden) if hidden else self.census.away(path, volume.mount)
            if absence and not self.force:
                raise self._out_of_reach(absence, path)
            if absence:
                why = f"it was made by us and cannot be looked at now, as {absence}"
                kept.append(Kept(path, why))
            elif (
                volume.state == MADE
                and volume.target != NVRAM  # there is none before the first boot
                and self.record.stage != DESTROYING  # deleted by the destroy before this one
            ):
                missing.append(path)
        else:
            why = self._why_ours_stays(volume)
            if why:
                kept.append(Kept(path, why))
            else:
                files.append(Doomed(path, self._key(path), volume.target))
        if drafted and os.path.isfile(draft) and not os.path.islink(draft):
            files.append(Doomed(draft, self._key(draft), volume.target))

    def _is_made(self, volume: Volume, draft: str) -> bool:
        """
        Whether a file was made for the clone.

        What stands at the path of a volume that was never begun is somebody else's, and so is
        a file that does not look like what was being made when the worker died.
        """
        if volume.state == MADE:
            return True
        if volume.state != MAKING:
            return False
        exists = volumes.exists(self.host, volume.path)
        if not exists and self.census.away(volume.path, volume.mount):
            return True  # for all that can be seen
        if volume.target == NVRAM:
            # Put in place by a second name for the draft: still one file, so it is ours.
            return bool(draft) and exists and os.path.samefile(draft, volume.path)
        return volumes.resembles(self.host, volume)

    def _judge_unseen_store(self, volume: Volume, files: list[Doomed], kept: list[Kept]) -> None:
        """Over a remote url nobody can look; libvirt deletes a store with its definition."""
        path = volume.path
        why = self._why_ours_stays(volume)
        if not why and self._key(self.defined) != self._key(path):
            why = "libvirt would delete another file with the definition"
        elif not why and (other := self.census.named_by_others(self.uuid, path)):
            why = f"it may be the one of '{other}', which is called the same"
        if not why:
            files.append(Doomed(path, self._key(path), NVRAM, with_definition=True))
        else:
            kept.append(Kept(path, why))

    def _why_ours_stays(self, volume: Volume) -> str:
        """Why a file on our record is not to be deleted; empty where it is."""
        assert self.record is not None
        path = volume.path
        key = self._key(path)
        if self.host.local and os.path.islink(path):
            return (
                f"a link to '{os.path.realpath(path)}' stands there, which we did not make; that "
                "file stays, too"
            )
        if self.host.local and not stat.S_ISREG(os.stat(path).st_mode):
            return "what stands there is no plain file any more"
        why = self._needed_elsewhere(path)
        if why:
            return why
        if key not in self.used:
            return f"it is on the record, and '{self.name}' does not use it"
        if not self.record.could_have_made(volume):
            return "the record lists it, but it is not called as our files are"
        # Under the clone's uuid it is the clone's, too, where libvirt made it anew (a reset store).
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
        if user := self.census.derived_by_others(self.uuid, path):
            return f"libvirt keeps a file of '{user}' under that very name"
        return ""

    def _why_used_stays(self, path: str, files: list[Doomed]) -> str:
        """What is left of a file that goes, where the domain calls it by another name."""
        if not self.host.local:
            return ""
        file = next((file for file in files if file.key == self._key(path)), None)
        if file is None or (os.path.realpath(path) == file.path and not os.path.islink(path)):
            return ""
        if os.path.realpath(path) == os.path.realpath(file.path):
            return f"it is a link to '{file.path}', which goes" if os.path.islink(path) else ""
        return f"it is another name (a hard link) of '{file.path}', and keeps what that held"

    def _out_of_reach(self, absence: Absence, path: str) -> OutOfReach:
        return OutOfReach(
            f"'{path}' was made for '{self.name}' and cannot be looked at now: {absence}. "
            "Nothing was touched.",
            f"{self._way_to(absence, path)}   Then repeat the command. If that file is lost "
            "for good, let it lie wherever it is: "
            f"{Commands(self.host.url, AT_HOST).clone('destroy', self.name)} force=True",
        )

    def _way_to(self, absence: Absence, path: str) -> str:
        """The command that brings a file back into reach."""
        virsh = Commands(self.host.url).virsh
        if absence.pool:
            return virsh("pool-start", absence.pool)
        if self.host.local and os.path.isdir(os.path.dirname(path)):
            return f"See what is mounted there: {shlex.join(['findmnt', '-T', path])}"
        if self.host.local:
            return f"Mount what is missing: {shlex.join(['ls', '-ld', os.path.dirname(path)])}"
        return virsh("pool-list", "--all")

    # --- what stands on it --------------------------------------------------------------

    def _require_unused(self, ours: list[str]) -> None:
        """
        :param ours: Files of the record.
        :raises CloneInUse: Something stands on a file of the clone.
        """
        own = [path for path in self.disks if self._key(path) not in self.users]
        standing = self.census.standing_on([*own, *ours])
        if not standing:
            return
        named = "; ".join(f"{', '.join(who)} on {path}" for path, who in standing.items())
        images = list(dict.fromkeys(image for who in standing.values() for image in who))
        users = {image: self._users_above(image) for image in images}
        if all(self._top(image) and not users[image] for image in images):
            commits = "   ".join(
                shlex.join(["virsh", "blockcommit", self.name, self._top(who[0]), "--base", path])
                + " --active --pivot"
                for path, who in standing.items()
            )
            raise CloneInUse(
                f"'{self.name}' cannot be destroyed while snapshots of its own stand on its disks: "
                f"{named}.",
                f"Start it and fold them in, with --base: without that the command writes into the "
                f"clone's own base. {commits}   Nothing was touched.",
            )
        others = sorted(set().union(*users.values()))
        unused = [image for image in images if not (users[image] or self._top(image))]
        idle = dict.fromkeys(path for one in unused for path in self.census.tower(one).values())
        opened = [image for image in idle if self.host.local and holder(image)]
        left = [image for image in idle if image not in opened]
        hint = f"Destroy the clones made from it first: {', '.join(others)}. " if others else ""
        if opened:
            hint += f"Somebody has some of them open: {shlex.join(['fuser', '-v', *opened])}   "
        elif left:
            hint += (
                f"No machine uses {', '.join(left)}; a snapshot may have left that. If nobody "
                f"needs it: {shlex.join(['rm', *left])}   Then repeat the command."
            )
        raise CloneInUse(
            f"'{self.name}' cannot be destroyed: other volumes stand on its disks: {named}.",
            f"{hint} See also: salt-run kvmclone.tree   Nothing was touched.",
        )

    def _top(self, image: str) -> str:
        """The clone's own disk that an image is, or is below; empty for none."""
        tower = self.census.tower(image)
        own = (path for path in self.disks if self._key(path) not in self.users)
        return next((path for path in own if self._key(path) in tower), "")

    def _users_above(self, image: str) -> set[str]:
        """
        The other machines that need an image. A definition names the top of a chain alone; what
        lies between is needed as well.
        """
        tower = self.census.tower(image)
        users = {name for path in tower.values() for name in self.census.users(path)}
        users |= {self.claims[key] for key in tower if key in self.claims}
        return users - {self.name}


def _names_tpm_state(text: str) -> bool:
    """Whether a definition says where a TPM keeps its state; libvirt would delete it there."""
    return markup.parse(text).find("./devices/tpm/backend/source") is not None
