"""
Who uses which file on a host, and which image stands on which: gathered once, asked often.

What :mod:`.file_usage_scan` found. What could not be looked at is kept as a sentence and never
passed over, since a destroy is decided by what is *not* here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from saltext.kvmclone.system import filesystems

#: The format of an image that no description tells.
UNKNOWN = "unknown"


#: Pools that are a folder of image files.
FOLDER_POOLS = ("dir", "fs", "netfs", "vstorage")

#: A file, whatever it is called: device and inode of a file, number of a block device, else
#: (remote, or not there) its path.
Identity = tuple[str, int, int] | str


@dataclass(frozen=True)
class Use:
    """
    One file that a domain uses, in any of its descriptions.

    :param format: What the domain takes an image for (``qcow2``); empty where it is no disk.
    """

    domain: str
    uuid: str
    path: str
    key: Identity
    format: str = ""


@dataclass(frozen=True)
class Link:
    """``image`` stands directly on ``below``."""

    image: str
    key: Identity
    below: str
    below_key: Identity


@dataclass(frozen=True)
class Claim:
    """One file that a domain's own record lists as made for it, or as being made."""

    domain: str
    uuid: str
    path: str
    key: Identity


@dataclass(frozen=True)
class Pool:
    """A storage pool; ``path`` is its folder, for pools that are one."""

    name: str
    type: str
    path: str
    active: bool
    raw: Any


@dataclass(frozen=True)
class Absence:
    """
    Whether a file that is not found may well be there all the same: true where it may.

    :param why: One clause, without a full stop; empty where the file is just gone.
    :param pool: The storage pool to start, where that brings the file back; empty otherwise.
    """

    why: str = ""
    pool: str = ""

    def __bool__(self) -> bool:
        return bool(self.why)

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True)
class Census:
    """
    What was found.

    :param unchecked: One clause, without a full stop, for everything that could not be looked
        at.
    :param images: Paths of all volumes and image files that were seen in pools.
    :param volumes: Where the volumes lie that domains name by pool and volume.
    :param derived: Files and folders that libvirt derives from a domain's name or uuid, whether
        they are there or not.
    :param memories: Files that hold the memory of a snapshot; they are among ``uses``, too.
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

    def identity(self, path: str) -> Identity:
        """What the file at ``path`` is, by whatever name."""
        return identity(path, self.local)

    def standing_on(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """The images that stand directly on one of ``paths``; a path without any is missing."""
        found: dict[str, list[str]] = {}
        for path in dict.fromkeys(paths):
            links = self._above.get(self.identity(path), [])
            images = {link.key: link.image for link in reversed(links)}
            if images:
                found[path] = sorted(images.values())
        return found

    def tower(self, path: str) -> dict[Identity, str]:
        """An image with everything that stands on it, up to the top of every chain."""
        found = {self.identity(path): path}
        todo = list(found)
        while todo:
            for link in self._above.get(todo.pop(0), []):
                if link.key not in found:
                    found[link.key] = link.image
                    todo.append(link.key)
        return found

    def used_by_others(self, uuid: str) -> dict[Identity, str]:
        """Files that other domains than ``uuid`` use, with the name of one that does."""
        return {use.key: use.domain for use in reversed(self.uses) if use.uuid != uuid}

    def derived_by_others(self, uuid: str, path: str) -> str:
        """The domain, other than ``uuid``, that libvirt derives a path for; empty for none."""
        while (folder := os.path.dirname(path)) != path:  # so ends "//", too
            for use in self._derived.get(self.identity(path), []):
                if use.uuid != uuid:
                    return use.domain
            path = folder  # it may lie in a folder of that machine's own
        return ""

    def named_by_others(self, uuid: str, path: str) -> str:
        """
        A domain, other than ``uuid``, that a file of that very name belongs to; empty for none.
        Far away a folder may have several names, and nobody can see that from here.
        """
        file = os.path.basename(path)
        others = (use for use in (*self.uses, *self.derived) if use.uuid != uuid)
        return next((use.domain for use in others if os.path.basename(use.path) == file), "")

    def claimed_by_others(self, uuid: str) -> dict[Identity, str]:
        """Files on the records of other clones than ``uuid``, with the name of one such clone."""
        return {one.key: one.domain for one in reversed(self.claims) if one.uuid != uuid}

    def path_of(self, path: str, pool: str, volume: str) -> str:
        """Where a disk lies that is named by its path, or by pool and volume; empty for neither."""
        return path or self.volumes.get((pool, volume), "")

    def away(self, path: str, mount: str = "") -> Absence:
        """See :func:`away`."""
        return away(self.pools, self.local, path, mount)

    def hidden(self, path: str, mount: str) -> str:
        """See :func:`hidden`."""
        return hidden(path, mount) if self.local else ""

    def users(self, path: str) -> list[str]:
        """Names of the domains that use the file."""
        key = self.identity(path)
        return sorted({use.domain for use in self.uses if use.key == key})

    def chain(self, path: str) -> list[str]:
        """The files below an image, nearest first; the image itself is not among them."""
        found: dict[Identity, str] = {}
        todo = [self.identity(path)]
        while todo:
            for link in self._below.get(todo.pop(0), []):
                if link.below_key not in found:
                    found[link.below_key] = link.below
                    todo.append(link.below_key)
        found.pop(self.identity(path), None)
        return list(found.values())

    @cached_property
    def _above(self) -> dict[Identity, list[Link]]:
        return _grouped((link.below_key, link) for link in self.links)

    @cached_property
    def _derived(self) -> dict[Identity, list[Use]]:
        grouped: dict[Identity, list[Use]] = {}
        for use in self.derived:
            grouped.setdefault(use.key, []).append(use)
        return grouped

    @cached_property
    def _below(self) -> dict[Identity, list[Link]]:
        return _grouped((link.key, link) for link in self.links)


def _grouped(pairs: Iterable[tuple[Identity, Link]]) -> dict[Identity, list[Link]]:
    grouped: dict[Identity, list[Link]] = {}
    for key, link in pairs:
        grouped.setdefault(key, []).append(link)
    return grouped


def identity(path: str, local: bool) -> Identity:
    """
    What the file at ``path`` is: the same for its symlinks, hard links and bind mounts.

    :param local: The host's files are ours to look at.
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
    # POSIX lets two slashes at the front mean something else; Linux does not.
    return os.path.normpath(path).replace("//", "/", 1)


def away(pools: Iterable[Pool], local: bool, path: str, mount: str = "") -> Absence:
    """
    Why a file that is not found may well be there all the same, if it may.

    :param local: The host's files are ours to look at.
    :param mount: Where its file system was mounted when it was made.
    """
    folder = os.path.dirname(path)
    holding = [pool for pool in pools if pool.path and _same_folder(pool.path, folder, local)]
    off = [pool.name for pool in holding if not pool.active]
    if local and not os.path.isdir(folder):
        return Absence(f"its folder '{folder}' is not there")
    if local and (why := hidden(path, mount)):
        return Absence(why)
    if off and len(off) == len(holding):
        return Absence(f"the storage pool '{off[0]}' is not running", off[0])
    if not local and not holding:
        return Absence(f"no storage pool over '{folder}' is there to look into it")
    return Absence()


def hidden(path: str, mount: str) -> str:
    """
    Why what stands at a path now is not what was made there; empty where it may be.

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
    return identity(one, local) == identity(other, local)
