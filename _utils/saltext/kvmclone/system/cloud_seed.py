"""
Recognise a cloud-init seed on a disk, by its label and not by the name of its file.

Pure. A disk is looked at through :data:`.guest_disk.Read`: file systems on the whole disk, on its
partitions, and, where they are ext2 to ext4, the seed folders inside them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice

from saltext.kvmclone.model.cloud_seed import Seed
from saltext.kvmclone.system import ext_filesystem
from saltext.kvmclone.system.guest_disk import Read

#: Labels by which cloud-init knows the seeds of its data sources: NoCloud, ConfigDrive,
#: OpenNebula, RbxCloud and OVF.
LABELS = {"cidata", "config-2", "context", "cloudmd", "ovf-transport", "ovfenv", "ovf env"}

#: Folders in which cloud-init looks for seeds, in the root file system or in one for /var.
_FOLDERS = ("var/lib/cloud/seed", "lib/cloud/seed", "config-drive")

_SECTOR = 512
_MOST_PARTITIONS = 128
#: Names in a folder of seeds that are looked at; a hostile one may hold thousands.
_MOST_ENTRIES = 32


def find(read: Read) -> Seed | None:
    """Return the first seed on a disk; None where there is none."""
    for label in labels(read, 0):
        if label.lower() in LABELS:
            return Seed(label)
    found = list(partitions(read))
    for number, start in found:
        for label in labels(read, start):
            if label.lower() in LABELS:
                return Seed(label, number, alone=len(found) == 1)
    for start in (0, *(start for _, start in found)):
        if folder := _folder(read, start):
            return Seed(folder=folder, alone=False)
    return None


def labels(read: Read, start: int) -> Iterator[str]:
    """Yield the labels of the file system that begins at byte ``start`` of the disk."""
    for descriptor in range(16):  # of ISO 9660; one of them may be Joliet's
        data = read(start + 32768 + descriptor * 2048, 2048)
        if data[1:6] != b"CD001" or data[0] == 255:
            break
        if data[0] in (1, 2):
            joliet = data[0] == 2 and data[88:90] == b"%/"
            yield _text(data[40:72], "utf-16-be" if joliet else "ascii")
    yield from _fat(read, start)
    if (volume := ext_filesystem.label(read, start)) is not None:
        yield volume


def _text(data: bytes, encoding: str = "ascii") -> str:
    return data.decode(encoding, "replace").partition("\0")[0].strip()


def _fat(read: Read, start: int) -> Iterator[str]:
    boot = read(start, _SECTOR)
    wide = boot[82:87] == b"FAT32"
    if boot[510:] != b"\x55\xaa" or not (wide or boot[54:57] == b"FAT"):
        return
    yield _text(boot[71:82] if wide else boot[43:54])
    size, each, reserved, copies, entries = struct.unpack_from("<HBHBH", boot, 11)
    length = struct.unpack_from("<I", boot, 36)[0] if wide else 0
    table = struct.unpack_from("<H", boot, 22)[0] or length
    root = reserved + copies * table
    if wide:
        entries, root = 512, root + (struct.unpack_from("<I", boot, 44)[0] - 2) * each
    folder = read(start + max(root, 0) * size, 32 * min(entries, 512))
    for at in range(0, len(folder) - 31, 32):
        if folder[at] == 0:
            break
        if folder[at] != 0xE5 and folder[at + 11] & 0x3F == 0x08:
            yield _text(folder[at : at + 11])


def partitions(read: Read) -> Iterator[tuple[int, int]]:
    """Yield number and first byte of each partition."""
    boot = read(0, 2 * _SECTOR)
    if boot[510:512] != b"\x55\xaa" or boot[54:57] == b"FAT" or boot[82:87] == b"FAT32":
        return
    if boot[_SECTOR : _SECTOR + 8] == b"EFI PART":
        at, count, size = struct.unpack_from("<QII", boot, _SECTOR + 72)
        if not 128 <= size <= 4096:
            return
        for number in range(min(count, _MOST_PARTITIONS)):
            entry = read(at * _SECTOR + number * size, 40)
            if any(entry[:16]):
                yield number + 1, struct.unpack_from("<Q", entry, 32)[0] * _SECTOR
        return
    for number in range(4):
        entry = boot[446 + 16 * number :][:16]
        if entry[4] in (0x05, 0x0F, 0x85):
            yield from _logical(read, struct.unpack_from("<I", entry, 8)[0])
        elif entry[4] not in (0, 0xEE):
            yield number + 1, struct.unpack_from("<I", entry, 8)[0] * _SECTOR


def _logical(read: Read, first: int) -> Iterator[tuple[int, int]]:
    """Yield the partitions that are chained within an extended one."""
    here = first
    for number in range(5, 5 + _MOST_PARTITIONS):
        table = read(here * _SECTOR, _SECTOR)
        if table[510:] != b"\x55\xaa":
            return
        if table[450]:
            yield number, (here + struct.unpack_from("<I", table, 454)[0]) * _SECTOR
        following = struct.unpack_from("<I", table, 470)[0]
        if not table[466] or not following:
            return
        here = first + following


def _folder(read: Read, start: int) -> str:
    """Return the folder inside a file system that holds a seed; empty where none does."""
    for folder in _FOLDERS:
        for name, entry in islice(ext_filesystem.entries(read, start, folder), _MOST_ENTRIES):
            if ext_filesystem.is_file(read, start, entry):
                return f"/{folder}"
            if any(ext_filesystem.entries(read, start, f"{folder}/{name}")):
                return f"/{folder}/{name}"
    return ""
