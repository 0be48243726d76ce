"""
Say which domain uses which file on a host, and which image is whose backing file.

The result of one :mod:`.file_usage_scan`. What could not be looked at is kept as a sentence and
never ignored, since a destroy is decided by what is *not* here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from saltext.kvmclone.model.facts import PoolFacts
from saltext.kvmclone.system import backing_files, filesystems

#: The format of an image whose format no description names.
UNKNOWN = "unknown"

#: A file, whatever its name: device and inode of a file, number of a block device, otherwise
#: (remote, or not there) its path.
FileId = tuple[str, int, int] | str


class Use(NamedTuple):
    """
    One file that a domain uses, in any of its descriptions.

    :param format: The image format that the domain assumes (``qcow2``); empty if it is not a disk.
    """

    domain: str
    uuid: str
    path: str
    key: FileId
    format: str = ""


class Link(NamedTuple):
    """An image and the file directly ``below`` it, its backing file."""

    image: str
    key: FileId
    below: str
    below_key: FileId


class Claim(NamedTuple):
    """One file that a domain's own record lists as made for it, or as being made."""

    domain: str
    uuid: str
    path: str
    key: FileId


@dataclass(frozen=True)
class Pool(PoolFacts):
    """A storage pool, and libvirt's object of it."""

    raw: Any = None


@dataclass(frozen=True)
class Absence:
    """
    Whether a file that is not found may still exist: true if it may.

    :param why: One clause, without a full stop; empty if the file is simply gone.
    :param pool: The storage pool to start, if that brings the file back; empty otherwise.
    """

    why: str = ""
    pool: str = ""

    def __bool__(self) -> bool:
        return bool(self.why)

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True)
class FileUsage:
    """
    The files in use on a host.

    :param unchecked: One clause, without a full stop, for everything that could not be looked at.
    :param images: Paths of all volumes and image files that were seen in pools.
    :param volumes: Paths of the volumes that domains name by pool and volume.
    :param derived: Files and folders that libvirt derives from a domain's name or uuid, whether
        they exist or not.
    :param memories: Files that hold the memory of a snapshot; they are among ``uses`` too.
    """

    local: bool
    uses: tuple[Use, ...] = ()
    links: tuple[Link, ...] = ()
    pools: tuple[Pool, ...] = ()
    images: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    volumes: Mapping[tuple[str, str], str] = field(default_factory=dict)
    derived: tuple[Use, ...] = ()
    memories: tuple[Use, ...] = ()

    def file_id(self, path: str) -> FileId:
        """Return the identity of the file at ``path``, the same for all of its names."""
        return file_id(path, self.local)

    def overlays_on(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """
        Return the images that have one of ``paths`` as backing file, by that path.

        A path that is no backing file is left out.
        """
        found: dict[str, list[str]] = {}
        for path in dict.fromkeys(paths):
            links = self._above.get(self.file_id(path), [])
            images = {link.key: link.image for link in reversed(links)}
            if images:
                found[path] = sorted(images.values())
        return found

    def with_overlays(self, path: str) -> dict[FileId, str]:
        """Return an image and all overlays above it, up to the top of every chain."""
        return backing_files.walk(
            [(self.file_id(path), path)],
            lambda key, _path: [(link.key, link.image) for link in self._above.get(key, [])],
        )

    def used_by_others(self, uuid: str) -> dict[FileId, str]:
        """Return the files that other domains than ``uuid`` use, with the name of one that does."""
        return {use.key: use.domain for use in reversed(self.uses) if use.uuid != uuid}

    def derived_by_others(self, uuid: str, path: str) -> str:
        """
        Return another domain that libvirt derives a path for; empty for none.

        :param uuid: The domain that does not count.
        """
        while (folder := os.path.dirname(path)) != path:  # "//" is its own parent, too
            for use in self._derived.get(self.file_id(path), []):
                if use.uuid != uuid:
                    return use.domain
            path = folder  # the file may lie in a folder that is derived
        return ""

    def named_by_others(self, uuid: str, path: str) -> str:
        """
        Return a domain, other than ``uuid``, that has a file of the same name; empty for none.

        Folders are not compared: on a remote host one may have several paths, which cannot be seen
        from here.
        """
        file = os.path.basename(path)
        others = (use for use in (*self.uses, *self.derived) if use.uuid != uuid)
        return next((use.domain for use in others if os.path.basename(use.path) == file), "")

    def claimed_by_others(self, uuid: str) -> dict[FileId, str]:
        """
        Return the files on other clones' records, with the name of one such clone.

        :param uuid: The clone whose own record does not count.
        """
        return {one.key: one.domain for one in reversed(self.claims) if one.uuid != uuid}

    def path_of(self, path: str, pool: str, volume: str) -> str:
        """Return the path of a disk named by path, or by pool and volume; empty if unknown."""
        return path or self.volumes.get((pool, volume), "")

    def away(self, path: str, mount: str = "") -> Absence:
        """Return why a file that is not found may still exist; see :func:`away`."""
        return away(self.pools, self.local, path, mount)

    def hidden(self, path: str, mount: str) -> str:
        """Return why the file at a path is not the one made there; see :func:`hidden`."""
        return hidden(path, mount) if self.local else ""

    def users(self, path: str) -> list[str]:
        """Return the names of the domains that use the file, sorted."""
        key = self.file_id(path)
        return sorted({use.domain for use in self.uses if use.key == key})

    def chain(self, path: str) -> list[str]:
        """Return the backing files of an image, nearest first, without the image itself."""
        found = backing_files.walk(
            [(self.file_id(path), path)],
            lambda key, _path: [(link.below_key, link.below) for link in self._below.get(key, [])],
        )
        return list(found.values())[1:]

    @cached_property
    def _above(self) -> dict[FileId, list[Link]]:
        return _grouped((link.below_key, link) for link in self.links)

    @cached_property
    def _derived(self) -> dict[FileId, list[Use]]:
        grouped: dict[FileId, list[Use]] = {}
        for use in self.derived:
            grouped.setdefault(use.key, []).append(use)
        return grouped

    @cached_property
    def _below(self) -> dict[FileId, list[Link]]:
        return _grouped((link.key, link) for link in self.links)


def _grouped(pairs: Iterable[tuple[FileId, Link]]) -> dict[FileId, list[Link]]:
    grouped: dict[FileId, list[Link]] = {}
    for key, link in pairs:
        grouped.setdefault(key, []).append(link)
    return grouped


def file_id(path: str, local: bool) -> FileId:
    """
    Return the identity of a file: the same for its symlinks, hard links and bind mounts.

    :param local: Whether the host's files can be looked at from here.
    """
    if local:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            pass
        else:
            if stat.S_ISBLK(status.st_mode):
                return ("device", status.st_rdev, 0)
            return ("file", status.st_dev, status.st_ino)
    # POSIX lets a path with two leading slashes mean something else; Linux does not.
    return os.path.normpath(path).replace("//", "/", 1)


def away(pools: Iterable[Pool], local: bool, path: str, mount: str = "") -> Absence:
    """
    Return why a file that is not found may still exist, if it may.

    :param local: Whether the host's files can be looked at from here.
    :param mount: Where its file system was mounted when it was made.
    """
    folder = os.path.dirname(path)
    holding = [pool for pool in pools if pool.path and _same_folder(pool.path, folder, local)]
    off = [pool.name for pool in holding if not pool.active]
    if local and not os.path.isdir(folder):
        return Absence(f"its folder '{folder}' does not exist")
    if local and (why := hidden(path, mount)):
        return Absence(why)
    if off and len(off) == len(holding):
        return Absence(f"the storage pool '{off[0]}' is not running", off[0])
    if not local and not holding:
        return Absence(f"no storage pool covers '{folder}', so it cannot be checked")
    return Absence()


def hidden(path: str, mount: str) -> str:
    """
    Return why the file at a path now is not the one made there; empty if it may be.

    :param mount: Where its file system was mounted when it was made; empty if unknown.
    """
    if not mount:
        return ""
    if not filesystems.is_mounted(mount):
        return f"nothing is mounted at '{mount}', where it was made"
    if over := filesystems.mounted_over(path, mount):
        return f"what is mounted at '{over}' is not the file system that it was made on"
    return ""


def _same_folder(one: str, other: str, local: bool) -> bool:
    return file_id(one, local) == file_id(other, local)
