"""
Read the facts of images, and of their backing chains, from the files themselves.

Reads only, and only on this machine; where the files are elsewhere, :mod:`.volumes` looks
through libvirt instead and :func:`chain` follows it just the same.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress

from saltext.kvmclone.model import redaction
from saltext.kvmclone.model.facts import RAW, ImageFacts
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.system import image_header
from saltext.kvmclone.system.image_header import LONGEST_CHAIN

#: Returns the facts of the image at a path.
Look = Callable[[str], ImageFacts]

_KINDS = {stat.S_IFREG: "file", stat.S_IFBLK: "block", stat.S_IFDIR: "folder"}

#: ``F_OFD_GETLK``, ``struct flock``, and the byte that QEMU holds a lock on in every image that it
#: writes (``RAW_LOCK_PERM_BASE``, permission "write").
_ASK_FOR_LOCK = 36
_LOCK = struct.Struct("hhqqi4x")
_WRITE_BYTE = 101

#: First byte, and number of bytes, among which QEMU locks some of every image that it has open at
#: all, also of one that another image stands on.
_ALL_BYTES = (100, 200)

#: The kernel's folder of block devices, loop devices among them.
_DEVICES = "/sys/block"

_WRONG = {"missing": "missing", "unreadable": "unreadable", "unseen": "in no active storage pool"}


def look(path: str) -> ImageFacts:
    """
    Return the facts of one image, as it is on this machine.

    :raises PermissionError: It is there, and not for us to read (a network file system).
    """
    if not path.startswith("/"):  # of a pool on the network; here it would be a relative path
        return ImageFacts(path, "elsewhere")
    try:
        return _look(path)
    except (FileNotFoundError, NotADirectoryError):
        return ImageFacts(path, "missing")
    except PermissionError:
        raise
    except (OSError, ValueError):  # a link that leads to itself, a disk that fails, no path
        return ImageFacts(path, "unreadable")


def _look(path: str) -> ImageFacts:
    status = os.stat(path)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "special")
    if kind not in ("file", "block"):
        return ImageFacts(path, kind)
    with open(path, "rb") as image:
        header = image_header.read(image)
        size = image.seek(0, os.SEEK_END)
        written = _is_locked(image.fileno(), _WRITE_BYTE, 1)
    # QEMU takes a relative backing name from where the image was opened, so such an image keeps
    # the name that it was opened by.
    relative = header.backing and not header.backing.startswith(("/", "json:"))
    keeps_its_name = kind == "block" or relative
    return ImageFacts(
        path=path,
        kind=kind,
        real=path if keeps_its_name else os.path.realpath(path),
        header=header,
        size=size,
        allocation=status.st_blocks * 512 if kind == "file" else size,
        # The time of a device is its node's, and tells nothing of what is on it.
        modified=_modified(status) if kind == "file" else 0.0,
        written=written or any(writes for _loop, writes in _loops(path)),
    )


def holder(path: str, loops_only: bool = False) -> str:
    """
    Say who has an image open, under whatever name; empty where nobody is seen.

    Seen are QEMU and its tools, whoever started them, also where they have an image open that
    stands on this one; and the kernel's loop devices.

    :param loops_only: Look for loop devices alone.
    """
    if loops := _loops(path):
        return f"the loop device {loops[0][0]}"
    if loops_only:
        return ""
    return "QEMU or one of its tools" if _is_open(path, *_ALL_BYTES) else ""


def is_written(path: str) -> bool:
    """
    Return whether QEMU or one of its tools has an image file open for writing.

    The question costs one ``open``.
    """
    # Opening a pipe would wait forever.
    return os.path.isfile(path) and _is_open(path, _WRITE_BYTE, 1)


def _is_open(path: str, first: int, length: int) -> bool:
    """Return whether somebody holds a lock on any of these bytes of a file."""
    try:
        with open(path, "rb") as image:
            return _is_locked(image.fileno(), first, length)
    except OSError:  # gone
        return False


def _loops(path: str) -> list[tuple[str, bool]]:
    """Return the loop devices that were made from a file, and whether they may write it."""
    found = []
    for name in os.listdir(_DEVICES) if os.path.isdir(_DEVICES) else ():
        behind = f"{_DEVICES}/{name}/loop/backing_file"
        if not (name.startswith("loop") and os.path.exists(behind)):
            continue
        with suppress(OSError):  # the device is gone, or its file has another name by now
            with open(behind, encoding="utf-8", errors="surrogateescape") as text:
                if not os.path.samefile(text.read().rstrip("\n"), path):
                    continue
            with open(f"{_DEVICES}/{name}/ro", encoding="ascii") as text:
                found.append((f"/dev/{name}", text.read().strip() == "0"))
    return found


def _is_locked(descriptor: int, first: int, length: int) -> bool:
    """Return whether somebody else holds a lock on any of these bytes."""
    question = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, length, 0)
    try:
        kind: int = _LOCK.unpack(fcntl.fcntl(descriptor, _ASK_FOR_LOCK, question))[0]
    except OSError:  # a file system without locks
        return False
    return kind != fcntl.F_UNLCK


def _modified(status: os.stat_result) -> float:
    """Return the time of the last change, equal to what libvirt's text for it reads as."""
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    return float(f"{seconds}.{nanoseconds:09d}")


def chain(
    path: str, form: str, look: Look, commands: Commands = Commands()
) -> tuple[tuple[ImageFacts, ...], tuple[ImageFacts, ...], str]:
    """
    Return an image with its whole backing chain.

    :param path: The image.
    :param form: What the definition says that it is; a raw image stands on nothing, whatever
        its bytes look like.
    :param look: Returns the facts of one image.
    :param commands: How the commands in what is wrong are typed.
    :return: The images from the top down, the data files that some of them have, and what is
        wrong further down; empty where nothing is.
    """
    images: list[ImageFacts] = [look(path)]
    data: list[ImageFacts] = []
    fault = ""
    while form != RAW and images[-1].header.format == form:
        above, header = images[-1], images[-1].header
        if header.data_file and header.data_file != "?":
            data.append(look(image_header.path_of(header.data_file, above.path)))
        if not header.backing:
            break
        below = image_header.path_of(header.backing, above.path)
        if not below:
            fault = (
                f"'{above.path}' is based on '{redaction.path(header.backing)}', which is not a "
                "file on the host, or not certainly one. Flatten it first: qemu-img convert"
            )
            break
        if below in (image.path for image in images) or len(images) >= LONGEST_CHAIN:
            fault = f"the chain of backing files never ends at '{below}'. Fix it: qemu-img rebase"
            break
        found = look(below)
        if found.kind in ("file", "block"):
            images.append(found)
        fault = _wrong_below(above, found, commands)
        if fault:
            break
        form = header.backing_format or found.header.format
    return tuple(images), tuple(data), fault


def _wrong_below(above: ImageFacts, below: ImageFacts, commands: Commands) -> str:
    """Return why an image cannot be used as the backing file of another; empty if it can."""
    path, header = below.path, below.header
    if below.kind not in ("file", "block"):
        what = _WRONG.get(below.kind, "no image")
        return f"'{above.path}' is based on '{path}', which is {what}. Fix it: qemu-img rebase"
    form = above.header.backing_format or header.format
    if form not in (RAW, header.format):
        backing = ("-b", above.header.backing, "-F", header.format)
        rebase = commands.there("qemu-img", "rebase", "-u", *backing, above.path)
        return (
            f"'{above.path}' says that '{path}' is {form}, but that is {header.format}. "
            f"Fix it: {rebase}"
        )
    if form in image_header.RARE:
        return (
            f"its backing file '{path}' is {form}, and what that is based on is not read here. "
            "Convert it: qemu-img convert -O qcow2"
        )
    if form != RAW and (header.corrupt or header.encrypted or header.fault):
        why = header.fault or ("encrypted" if header.encrypted else "corrupt")
        return f"its backing file '{path}' cannot be used: {why}"
    return ""
