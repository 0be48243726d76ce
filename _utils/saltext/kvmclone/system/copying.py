"""
Fill a new image with the contents of another, on this machine.

libvirt has made the file; its contents are written here, without libvirt. That is ten times
faster than the daemon's own copy, as sparse as the source, and ends with the process that asked
for it. Until the last moment the new image keeps the header that libvirt gave it, so that a copy
that was cut off still shows whose it is.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator

from saltext.kvmclone import interrupts
from saltext.kvmclone.system import programs

#: Data is copied in pieces of this many bytes.
PIECE = 64 * 2**20

#: Bytes at the front of an image that are written last: there is the header by which a copy that
#: was cut off is recognised as ours.
FRONT = 65536

#: ``FICLONE``.
_SHARE_BLOCKS = 0x40049409

#: Errors of a kernel that cannot share these blocks, or not between these two files.
_NOT_SHARED = {
    errno.EOPNOTSUPP,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EPERM,
    errno.ETXTBSY,
}


class ConvertFailed(Exception):
    """``qemu-img`` gave up; the text is its last line."""


def share_blocks(source: str, target: str) -> bool:
    """
    Make ``target`` a reflink of ``source``: all blocks are shared until one is written.

    :return: False where the kernel cannot; ``target`` is as it was then.
    :raises OSError: Something else is wrong.
    """
    with open(source, "rb") as original, open(target, "r+b") as copy:
        before = os.fstat(copy.fileno()).st_size
        try:
            fcntl.ioctl(copy.fileno(), _SHARE_BLOCKS, original.fileno())
        except OSError as error:
            if error.errno in _NOT_SHARED:
                return False
            raise
        size = os.fstat(original.fileno()).st_size
        if before > size:
            os.ftruncate(copy.fileno(), size)
        return True


def copy(source: str, target: str) -> None:
    """
    Copy the bytes of a file or block device into an existing file, keeping holes.

    :raises OSError: As the kernel says; ``ENOSPC`` where the file system is full.
    """
    with open(source, "rb") as original, open(target, "r+b") as new:
        reading, writing = original.fileno(), new.fileno()
        size = os.lseek(reading, 0, os.SEEK_END)  # stat knows no size of a block device
        # Behind its front the new file becomes one hole, into which only data is copied.
        os.ftruncate(writing, min(FRONT, size))
        os.ftruncate(writing, size)
        for start, end in _data(reading, size):
            if end > FRONT:
                copy_range(reading, writing, max(start, FRONT), end)
        front = os.pread(reading, min(FRONT, size), 0)
        if front != os.pread(writing, len(front), 0):  # a hole stays one
            os.pwrite(writing, front, 0)


def grow(path: str, size: int) -> None:
    """Make a raw image larger, if it is smaller than ``size`` bytes; the added part is a hole."""
    if os.stat(path).st_size < size:
        os.truncate(path, size)


def can_convert() -> bool:
    """Return whether ``qemu-img`` is installed on this machine."""
    return shutil.which("qemu-img") is not None


def convert(
    source: str, source_format: str, target: str, target_format: str, *, alone: bool = False
) -> None:
    """
    Write what a guest sees of an image, with its backing chain, into an empty image.

    :param target: Exists, is empty, and is at least as large as the guest's disk.
    :param alone: Without the backing chain, whatever the image says of one.
    :raises ConvertFailed: With the last line that ``qemu-img`` wrote.
    """
    words = ["convert", "-n", "--target-is-zero", "-O", target_format]
    if alone and source_format == "qcow2":
        below = "host_device" if stat.S_ISBLK(os.stat(source).st_mode) else "file"
        file = {"driver": below, "filename": source}
        source = "json:" + json.dumps({"driver": source_format, "backing": None, "file": file})
    else:
        words += ["-f", source_format]
    _qemu_img([*words, source, target])


def rebase(image: str, below: str, below_format: str) -> None:
    """
    Let a qcow2 image stand on another file, or on none; a guest sees the same in it as before.

    It can be repeated: until the last moment the image stands on what it stood on.

    :param below: Absolute path; empty for none.
    :param below_format: Format of that; empty for none.
    :raises ConvertFailed: With the last line that ``qemu-img`` wrote.
    """
    words = ["rebase", "-f", "qcow2", "-b", below]
    _qemu_img([*words, *(["-F", below_format] if below else []), image])


def _qemu_img(words: list[str]) -> None:
    """
    Run ``qemu-img``; it ends with this process, and at an interrupt.

    :raises ConvertFailed: With the last line that it wrote.
    """
    code, said = programs.run(["qemu-img", *words])
    if code:
        lines = said.decode(errors="replace").strip().splitlines()
        raise ConvertFailed(lines[-1] if lines else f"exit code {code}")


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches of a file that hold data, as ``(start, end)`` in bytes."""
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole until the end
                return
            if error.errno == errno.EINVAL:  # a block device has no holes
                yield position, size
                return
            raise
        yield start, end
        position = end


def copy_range(source: int, target: int, start: int, end: int, shift: int = 0) -> None:
    """
    Copy a stretch of an open file into another, which has a hole there.

    :param start: Offset of its first byte in the source; ``end`` that of the first byte behind it.
    :param shift: How many bytes further back it stands in the target.
    :raises OSError: As the kernel says; ``EIO`` where the source has become shorter.
    """
    position = start
    while position < end:
        interrupts.check()
        length = min(PIECE, end - position)
        try:
            done = os.copy_file_range(source, target, length, position, position + shift)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            done = _copy_by_hand(source, target, length, position, shift)
        if done == 0:
            raise OSError(errno.EIO, "the source became shorter while it was copied")
        position += done


def _copy_by_hand(source: int, target: int, length: int, position: int, shift: int) -> int:
    """
    Copy a piece of a file as ``copy_file_range`` does, and return its length in bytes.

    Nothing is written for a piece of nothing but zeros: the target has a hole there.
    """
    data = os.pread(source, min(length, 2**18), position)
    if data.strip(b"\0"):
        written = 0
        while written < len(data):
            written += os.pwrite(target, data[written:], position + shift + written)
    return len(data)
