"""
Tell how much space a folder's file system has, and whether its files can share blocks.

Reads only, and only on this machine. Whether blocks can be shared is asked of the file
system itself and never tried out, since planning writes nothing.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import struct
from dataclasses import dataclass
from itertools import accumulate

MOUNTS = "/proc/self/mountinfo"

#: ``XFS_IOC_FSGEOMETRY_V1``: every kernel with XFS knows it. ``flags`` stand at byte 92.
_XFS_GEOMETRY = 0x80705864
_XFS_GEOMETRY_LENGTH = 112
_XFS_FLAGS_AT = 92
_XFS_SHARES_BLOCKS = 1 << 20

#: ``FS_IOC_GETFLAGS``, and the attribute ``C`` of ``chattr``.
_GET_ATTRIBUTES = 0x80086601
_NO_COPY_ON_WRITE = 0x00800000

#: ``FS_IOC_GETVERSION``: the number of an inode is soon given to another file, with another
#: generation.
_GET_GENERATION = 0x80087601


#: File systems that other machines may have mounted, too; so may those of FUSE.
_SHARED = (
    "9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "gpfs", "lustre", "nfs", "nfs4", "ocfs2",
    "smb3", "virtiofs",
)  # fmt: skip


@dataclass(frozen=True)
class Mount:
    """
    One line of mountinfo.

    :param device: ``MAJOR:MINOR`` of the file system; equal for every mount of one.
    :param root: The folder of that file system that is seen there.
    """

    point: str
    device: str
    type: str
    root: str = "/"


@dataclass(frozen=True)
class Filesystem:
    """
    The file system that holds a folder.

    :param id: Equal for folders on one file system; empty where nothing is known.
    :param available: Free bytes.
    :param shares_blocks: Files can share blocks until one of them is written (reflink).
    """

    id: str = ""
    type: str = ""
    available: int = 0
    shares_blocks: bool = False


def of(folder: str) -> Filesystem:
    """
    Return what is known about the file system of a folder of this machine.

    :raises OSError: There is no such folder, or it cannot be looked at.
    """
    real = os.path.realpath(folder)
    room = os.statvfs(real)
    mount = covering(_mounts(), real)
    if mount is None:
        return Filesystem(available=room.f_bavail * room.f_frsize)
    return Filesystem(
        id=mount.device,
        type=mount.type,
        available=room.f_bavail * room.f_frsize,
        shares_blocks=mount.type == "btrfs" or (mount.type == "xfs" and _xfs_shares_blocks(real)),
    )


def mount_point(path: str) -> str:
    """Return where the file system of a local file or folder is mounted; empty if unknown."""
    mount = covering(_mounts(), os.path.realpath(path))
    return mount.point if mount is not None else ""


def is_shared(path: str) -> bool:
    """Return whether other machines may have the file system of a file, too."""
    mount = covering(_mounts(), os.path.realpath(path))
    return mount is not None and (mount.type in _SHARED or mount.type.startswith("fuse."))


def is_mounted(point: str) -> bool:
    """Return whether any file system is mounted at exactly this path."""
    mount = covering(_mounts(), point)
    return mount is not None and mount.point == point


def mounted_over(path: str, mount: str) -> str:
    """
    Return where something was mounted that hides a file, so that another stands at its path.

    :param path: The file.
    :param mount: Mount point of the file system that the file is on.
    :return: Empty where it is the same file, as below a folder that is mounted at itself.
    """
    folder, name = os.path.split(path)  # a symbolic link at the path itself is not a mount
    return hiding(_mounts(), os.path.join(os.path.realpath(folder), name), mount)


def hiding(mounts: str, path: str, mount: str) -> str:
    """
    Return what :func:`mounted_over` does, for given mounts.

    :param mounts: The text of ``/proc/self/mountinfo``.
    """
    now, then = covering(mounts, path), covering(mounts, mount)
    if now is None or then is None or now.point == then.point:
        return ""
    below = os.path.normpath(os.path.join(then.root, os.path.relpath(now.point, then.point)))
    return "" if (now.device, now.root) == (then.device, below) else now.point


def _mounts() -> str:
    with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as source:
        return source.read()


def covering(mounts: str, path: str) -> Mount | None:
    """
    Return the mount that holds a path: the longest mount point above it, of equal ones the last.

    :param mounts: The text of ``/proc/self/mountinfo``.
    :param path: An absolute path without symbolic links.
    """
    above = {"/", *accumulate(path.split("/"), "{}/{}".format)}
    best: Mount | None = None
    for line in mounts.splitlines():
        fields = line.split(" ", 5)
        if len(fields) < 6 or (point := _unescaped(fields[4])) not in above:
            continue
        after = fields[5].partition(" - ")[2]
        if after and (best is None or len(point) >= len(best.point)):
            best = Mount(point, fields[2], after.partition(" ")[0], _unescaped(fields[3]))
    return best


def _unescaped(field: str) -> str:
    if "\\" not in field:
        return field
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)


def copies_on_write(path: str) -> bool:
    """
    Return whether a file, or every new file of a folder, is copied on write.

    Only btrfs may overwrite in place instead (``chattr +C``); two files can share blocks only where
    both are of one kind.
    """
    answer = bytearray(8)
    if not _ask(path, _GET_ATTRIBUTES, answer):
        return True
    attributes: int = struct.unpack_from("=I", answer)[0]
    return not attributes & _NO_COPY_ON_WRITE


def inode(path: str) -> str:
    """
    Return number and generation of a file's inode; empty where there is no file.

    They tell a file from one that is put in its place. The device is not part of it: its number
    may be another after a reboot.
    """
    answer = bytearray(8)
    generation = "0"
    if _ask(path, _GET_GENERATION, answer):
        generation = str(struct.unpack_from("=I", answer)[0])
    try:
        return f"{os.stat(path).st_ino}.{generation}"
    except OSError:
        return ""


def is_same_file(path: str, known: str) -> bool:
    """
    Return whether the file at a path is still the one that it was.

    :param known: What :func:`inode` said of it; empty for a file that nobody looked at, which
        counts as the same.
    """
    return not known or inode(path) == known


def _xfs_shares_blocks(folder: str) -> bool:
    answer = bytearray(_XFS_GEOMETRY_LENGTH)
    if not _ask(folder, _XFS_GEOMETRY, answer):
        return False
    flags: int = struct.unpack_from("=I", answer, _XFS_FLAGS_AT)[0]
    return bool(flags & _XFS_SHARES_BLOCKS)


def _ask(path: str, question: int, answer: bytearray) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.ioctl(descriptor, question, answer, True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def nobody_may_write(path: str) -> bool:
    """Return whether a file is read-only for everybody, by its mode."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
