"""
Read the header of a disk image: its format, and what else one must know of it.

Pure. A definition only *says* that a disk is ``qcow2``; whether it is, what it stands on,
and whether copying its bytes would copy the whole disk, stands in the image's own header
(QEMU's ``docs/interop/qcow2.txt``).
"""

from __future__ import annotations

import json
import os.path
import struct

from saltext.kvmclone.model.facts import QCOW2, Header

#: Bytes from the start of an image that :func:`parse` wants to see.
LENGTH = 65536


#: The first bytes of each format; a raw disk could begin so too, which is worth a warning.
_MAGIC = {
    b"QFI\xfb": QCOW2,
    b"QED\0": "qed",
    b"KDMV": "vmdk",
    b"# Disk DescriptorFile": "vmdk",
    b"vhdxfile": "vhdx",
}
_VDI = (64, b"\x7f\x10\xda\xbe")

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

#: Longest chain that is followed; QEMU itself would not open a longer one.
LONGEST_CHAIN = 200


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
        backing_format=_text(extensions.get(_BACKING_FORMAT, b"")) if backing else "",
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
    Return the path of the file that an image names as its backing or data file.

    :param backing: As the header has it: a path, absolute or from the image's own folder,
        or one of QEMU's ``json:`` and ``file:`` names.
    :param image: Path of the image.
    :return: An absolute path; empty where it is not a file of this machine (``nbd://…``).
    """
    if backing.startswith("json:"):
        backing = _file_in(backing[len("json:") :])
    elif backing.startswith("file:"):
        backing = backing[len("file:") :]
    elif ":" in backing.split("/", 1)[0]:
        return ""  # another protocol
    return os.path.normpath(os.path.join(os.path.dirname(image), backing)) if backing else ""


def _file_in(text: str) -> str:
    try:
        node = json.loads(text)
    except ValueError:
        return ""
    while isinstance(node, dict):
        for key in ("filename", "file.filename", "file.file.filename"):
            driver = node.get(key.rpartition("filename")[0] + "driver", "file")
            if isinstance(node.get(key), str) and driver in ("file", "host_device"):
                return str(node[key])
        node = node.get("file")
    return ""
