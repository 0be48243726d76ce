"""
Read the header of a disk image: its format, and what else one must know of it.

A definition only *says* that a disk is ``qcow2``; whether it is, what it stands on,
and whether copying its bytes would copy the whole disk, stands in the image's own header
(QEMU's ``docs/interop/qcow2.txt``).
"""

from __future__ import annotations

import json
import os.path
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from saltext.kvmclone.model.facts import QCOW2, Header

#: Bytes from the start of an image that :func:`parse` wants to see.
LENGTH = 65536

#: Bytes that tell every format, and all of it but for qcow2.
_FIRST = 512

_QCOW = b"QFI\xfb"

#: The first bytes of each format; a raw disk could begin so too, which is worth a warning.
_MAGIC = {
    _QCOW + b"\0\0\0\1": "qcow",  # the format before it
    _QCOW: QCOW2,
    b"QED\0": "qed",
    b"KDMV": "vmdk",
    b"# Disk DescriptorFile": "vmdk",
    b"vhdxfile": "vhdx",
}
_VDI = (64, b"\x7f\x10\xda\xbe")

#: Formats that may have backing files or extents, of which the header is not read here.
RARE = ("qcow", "qed", "vmdk")

_FIXED = struct.Struct(">4sIQIIQIIQQIIQ")
_FEATURES = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA
_DATA_FILE = 0x44415441

_DIRTY, _CORRUPT, _EXTERNAL_DATA = 1, 2, 4
#: Incompatible features that we know the meaning of: the three above, another compression, and
#: extended L2 entries.
_KNOWN_FEATURES = 0b11111
_BITMAPS = 1

#: Options of a ``json:`` name, or of the ``file`` in it, that leave a whole file of one format.
_WHOLE_FILE = {
    "driver", "filename", "node-name", "read-only", "auto-read-only", "force-share", "locking",
    "cache.direct", "cache.no-flush", "aio", "discard", "detect-zeroes",
}  # fmt: skip

_PATH_WITHIN = re.compile(r"(?:^|:)(/[^/:][^:]*)")

#: Longest chain that is followed; QEMU itself would not open a longer one.
LONGEST_CHAIN = 200


def read(image: BinaryIO) -> Header:
    """Return the facts that an open image's first bytes give; see :func:`parse`."""
    start = image.read(_FIRST)
    if start.startswith(_QCOW):
        start += image.read(LENGTH - len(start))
    return parse(start)


def parse(data: bytes) -> Header:
    """
    Return the facts that the first :data:`LENGTH` bytes of an image give.

    It never fails: what cannot be believed is reported in ``fault``.
    """
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return _qcow2(data) if name == QCOW2 else Header(format=name)
    at, magic = _VDI
    return Header(format="vdi") if data[at : at + len(magic)] == magic else Header()


def _qcow2(data: bytes) -> Header:
    if len(data) < _FIXED.size:
        return _broken("it ends within its header")
    _magic, version, backing_at, backing_length, _cluster_bits, capacity, crypt, *rest = (
        _FIXED.unpack_from(data)
    )
    snapshots = rest[-2]  # after two tables, each with its size; before where the snapshots are
    if version not in (2, 3):
        return _broken(f"it is of version {version}")
    incompatible = autoclear = 0
    extensions_at = _FIXED.size
    if version == 3:
        if len(data) < _FIXED.size + _FEATURES.size:
            return _broken("it ends within its header")
        incompatible, _compatible, autoclear, _order, extensions_at = _FEATURES.unpack_from(
            data, _FIXED.size
        )
    if backing_at and (backing_length > 1023 or backing_at + backing_length > len(data)):
        return _broken("the name of its backing file is outside its header")
    extensions = _extensions(data, extensions_at)
    backing = _text(data[backing_at : backing_at + backing_length]) if backing_at else ""
    has_data_file = bool(incompatible & _EXTERNAL_DATA)
    return Header(
        format=QCOW2,
        capacity=capacity,
        backing=backing,
        backing_format=_backing_format(backing, extensions),
        data_file=(_text(extensions.get(_DATA_FILE, b"")) or "?") if has_data_file else "",
        encrypted=crypt != 0,
        dirty=bool(incompatible & _DIRTY),
        corrupt=bool(incompatible & _CORRUPT),
        snapshots=snapshots,
        plain=not (
            backing
            or snapshots
            or has_data_file
            or autoclear & _BITMAPS
            or incompatible & ~_KNOWN_FEATURES
        ),
    )


def _backing_format(backing: str, extensions: dict[int, bytes]) -> str:
    if not backing:
        return ""
    if written := _text(extensions.get(_BACKING_FORMAT, b"")):
        return written
    try:
        return _read(backing).format
    except ValueError:  # it leads nowhere
        return ""


def _broken(why: str) -> Header:
    return Header(format=QCOW2, plain=False, fault=why)


def _extensions(data: bytes, start: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while start + _EXTENSION.size <= len(data):
        kind, length = _EXTENSION.unpack_from(data, start)
        start += _EXTENSION.size
        if kind == 0 or start + length > len(data):
            break
        found.setdefault(kind, data[start : start + length])
        start += (length + 7) // 8 * 8
    return found


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "surrogateescape")


def path_of(backing: str, image: str) -> str:
    """
    Return the path of the file that QEMU opens where an image names its backing or data file.

    :param backing: As the header has it: a path, absolute or from the image's own folder,
        or one of QEMU's ``json:`` and ``file:`` names.
    :param image: Path of the image.
    :return: An absolute path; empty where the name is not, or not surely, that of one whole file
        of this machine (``nbd://…``, a part of a file, a ``json:`` that goes on to name a chain).
    """
    try:
        name = _read(backing)
    except ValueError:
        return ""
    return _absolute(os.path.dirname(image), name.files[0]) if name.certain else ""


def files_named(backing: str, folders: set[str]) -> list[str]:
    """
    Return the paths of all files that a backing or data file's name may mean, rather one too many.

    :param backing: As for :func:`path_of`, whose result is always among them.
    :param folders: What a relative name is relative to.
    :raises ValueError: It is not valid JSON behind ``json:``.
    """
    files = _read(backing).files
    return list(dict.fromkeys(_absolute(start, f) for f in files for start in sorted(folders)))


def _absolute(folder: str, name: str) -> str:
    # POSIX lets a path with two leading slashes mean something else; Linux does not.
    return os.path.normpath(os.path.join(folder, name)).replace("//", "/", 1)


@dataclass(frozen=True)
class _Name:
    """
    The meaning of a backing file's name.

    :param files: Every file that it may mean, as it is written.
    :param certain: QEMU opens the first of them as a whole, and nothing else. It is absolute, or
        starts in the image's folder; behind ``file:`` and ``json:`` it would start elsewhere.
    :param format: The format that the name itself gives to the file; empty for none.
    """

    files: tuple[str, ...]
    certain: bool = False
    format: str = ""


def _read(backing: str) -> _Name:
    """
    Return the meaning of a backing file's name.

    :raises ValueError: It is not valid JSON behind ``json:``.
    """
    protocol, colon, rest = backing.partition(":")
    if not colon or "/" in protocol:
        return _Name((backing,) if backing else (), bool(backing))
    if protocol == "file":
        return _Name((rest,) if rest else (), rest.startswith("/"))
    if protocol != "json":
        # Some lead to files: host_device:/dev/sdb, blkdebug:RULES:/a/image, nbd:unix:/a/socket.
        return _Name(tuple(_PATH_WITHIN.findall(rest)))
    try:
        options = list(_options(json.loads(rest)))
    except (ValueError, RecursionError):
        # The error's text quotes the name, which may hold a password.
        raise ValueError("its backing name is not valid JSON") from None
    files = [str(value) for key, value in options if _is_file(key, value)]
    written = dict(options)
    return _Name(
        # libvirt takes "file:" there for a protocol, and QEMU for the beginning of the name.
        tuple(dict.fromkeys(name for file in files for name in (file, file.removeprefix("file:")))),
        certain=(
            len(files) == 1
            and str(written.get("file.filename")).startswith("/")
            and {key.removeprefix("file.") for key in written} <= _WHOLE_FILE
            and written.get("file.driver", "file") in ("file", "host_device")
            and len(written) == len(options)  # otherwise two notations name two files
        ),
        format=str(written.get("driver", "")),
    )


def _options(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the options in a ``json:`` name with QEMU's other notation for them, with dots."""
    if isinstance(value, list):
        value = {str(number): inner for number, inner in enumerate(value)}
    if not isinstance(value, dict) or not value:
        yield name, value
        return
    for key, inner in value.items():
        yield from _options(inner, f"{name}.{key}" if name else key)


def _is_file(key: str, value: Any) -> bool:
    named = key.rpartition(".")[2] == "filename"
    return isinstance(value, str) and value != "" and (named or value.startswith("/"))
