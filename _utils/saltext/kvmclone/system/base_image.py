"""
Judge a file that is to become the disk of a base, before anything else opens it.

The file comes from the network, or from whoever made it: an image may name any file of this host
as its backing or data file, and a reader that guesses formats would follow it. So the format is
read from the header here, and given to every tool by name.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from dataclasses import dataclass
from typing import BinaryIO

from saltext.kvmclone.errors import BadImage
from saltext.kvmclone.model.facts import QCOW2, RAW, Header
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.system import guest_disk, image_header

#: Bytes that a guest may see of an image at most.
MOST_CAPACITY = 2 * 2**40

_SECTOR = 512

#: Bytes from the front of a disk within which every partition table lies.
_TABLE = 34 * _SECTOR

#: First bytes of what people take for a disk image, with what it is and what to do about it.
_OTHERS = {
    b"\xfd7zXZ\0": ("compressed by xz", "unpack it: xz -d FILE"),
    b"\x1f\x8b": ("compressed by gzip", "unpack it: gzip -d FILE"),
    b"BZh": ("compressed by bzip2", "unpack it: bzip2 -d FILE"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it: zstd -d FILE"),
    b"PK\3\4": ("a zip archive", "unpack it: unzip FILE"),
    b"<": ("a web page, or another text", "look at what that address serves"),
    b"{": ("a text", "look at what that address serves"),
}

#: File systems that fill a whole disk, by what stands where.
_FILE_SYSTEMS = ((1080, b"\x53\xef"), (0, b"XFSB"), (65600, b"_BHRfS_M"))

_ISO_AT, _ISO = 32769, b"CD001"
_TAR_AT, _TAR = 257, b"ustar"

_CHECK_TIMEOUT_S = 600.0
#: What ``qemu-img check`` exits with for a sound image, and for one with clusters nobody uses.
_SOUND = (0, 3)


@dataclass(frozen=True)
class Judged:
    """
    An image that can be taken.

    :param format: ``qcow2`` or ``raw``.
    :param capacity: Bytes that its guest sees, in whole sectors.
    """

    format: str
    capacity: int


def identity(path: str, shown: str, commands: Commands = Commands()) -> tuple[int, ...]:
    """
    Return what tells a file from another one, and from itself once it was written; open nothing.

    :raises BadImage: It is not there, or opening it might wait forever, or have an effect.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise unreadable(path, shown, error, commands) from error
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise _refused(
            shown,
            "it is neither a file nor a block device",
            f"Look at it: {commands.there('ls', '-ld', path)}",
        )
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def unreadable(path: str, shown: str, error: OSError, commands: Commands) -> BadImage:
    """Return what to raise for an image that cannot be read."""
    return BadImage(
        f"'{shown}' cannot be read on the KVM host: {error.strerror}.",
        f"Look at it: {commands.there('ls', '-l', path)}",
    )


def judge(path: str, shown: str, commands: Commands = Commands()) -> Judged:
    """
    Return what an image is; read it, and start nothing that does.

    :param path: The file.
    :param shown: What a message may call it.
    :raises BadImage: It cannot be taken.
    """
    name = path if shown == path else "FILE"
    converting = commands.there("qemu-img", "convert", "-O", QCOW2, name, f"{name}.whole.qcow2")
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            header = image_header.read(file)
            if header.format == QCOW2:
                return _qcow2(header, shown, converting)
            if header.format != RAW:
                raise _refused(
                    shown,
                    f"it is a {header.format} image",
                    f"Convert it, where you trust it: {converting}",
                )
            return _raw(file, size, shown)
    except OSError as error:
        raise BadImage(
            f"'{shown}' cannot be read: {error.strerror}.",
            f"A path is one of the KVM host: {commands.there('ls', '-l', path)}",
        ) from error


def check_tables(path: str, judged: Judged, shown: str) -> None:
    """
    Have ``qemu-img`` check that the tables of a qcow2 image are sound and it was not cut off.

    Where clusters are missing at its end, a guest would read zeros, and nobody would notice.

    :raises BadImage: It is damaged.
    """
    if judged.format != QCOW2:
        return
    words = ["qemu-img", "check", "-f", QCOW2, "--output=json", path]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CHECK_TIMEOUT_S,
            check=False,
        )
        told = json.loads(done.stdout or b"{}")
    except (OSError, ValueError, subprocess.SubprocessError):
        return  # the conversion, which comes next, says what is wrong
    end = int(told.get("image-end-offset") or 0)
    with open(path, "rb") as file:  # a block device has no size of its own
        size = file.seek(0, os.SEEK_END)
    if done.returncode in _SOUND and end <= size:
        return
    if done.returncode in (*_SOUND, 2):
        raise _refused(
            shown,
            "it was cut off, or is damaged otherwise",
            "Get it again, and give its digest: sha256=DIGEST",
        )


def _qcow2(header: Header, shown: str, converting: str) -> Judged:
    for name, what in ((header.backing, "backing"), (header.data_file, "data")):
        if name:
            raise _refused(
                shown,
                f"it names a {what} file, which would be read from this host",
                f"Make one image of both, where you trust them: {converting}",
            )
    if header.fault or header.corrupt or header.encrypted:
        why = header.fault or ("it is encrypted" if header.encrypted else "it is marked corrupt")
        raise _refused(shown, why, "Get it again from its vendor.")
    return _judged(QCOW2, header.capacity, shown)


def _raw(file: BinaryIO, size: int, shown: str) -> Judged:
    file.seek(0)
    start = file.read(2**17)
    if size < 2**16:
        raise _refused(shown, f"it has {size} bytes", "Look at what is there.")
    for magic, (what, way) in _OTHERS.items():
        if start.lstrip().startswith(magic) if magic in (b"<", b"{") else start.startswith(magic):
            raise _refused(shown, f"it is {what}", f"{way[0].upper()}{way[1:]}")
    if start[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        raise _refused(shown, "it is a tar archive", "Unpack it: tar -xf FILE")
    if start[_ISO_AT : _ISO_AT + len(_ISO)] == _ISO:
        raise _refused(
            shown,
            "it is an installer's medium (ISO 9660)",
            "Take the vendor's cloud image, which is a disk that boots by itself.",
        )
    table = start[510:512] == b"\x55\xaa" or start[512:520] == b"EFI PART"
    if not table and not any(start[at:].startswith(magic) for at, magic in _FILE_SYSTEMS):
        raise _refused(
            shown,
            "it has neither a partition table nor a file system",
            "Is it a qcow2 or raw image of a disk?",
        )
    return _judged(RAW, size, shown)


def start_of(path: str) -> bytes:
    """
    Return the first sectors that a guest sees of a qcow2 image of our own, with its partitions.

    :return: Empty where they cannot be read.
    """
    with open(path, "rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        try:
            return guest_disk.view([(QCOW2, read)])(0, _TABLE)
        except guest_disk.UnreadableImage:
            return b""


def _judged(form: str, capacity: int, shown: str) -> Judged:
    if not 0 < capacity <= MOST_CAPACITY:
        raise _refused(
            shown,
            f"its guest would see a disk of {capacity} bytes, and {MOST_CAPACITY} are the most",
            "Get another image.",
        )
    return Judged(form, -(-capacity // _SECTOR) * _SECTOR)


def _refused(shown: str, why: str, hint: str) -> BadImage:
    return BadImage(f"'{shown}' cannot become a base: {why}. Nothing of it was kept.", hint)
