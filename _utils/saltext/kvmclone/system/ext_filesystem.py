"""
Read names in an ext2, ext3 or ext4 file system from its disk, without mounting it.

Pure, and only as much as it takes to see whether a folder is there and what is in it. Damaged or
hostile contents lead to a wrong answer at worst: every number is bounded before it is used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from saltext.kvmclone.system.guest_disk import Read

_MAGIC = 0xEF53
_ROOT = 2
_64BIT, _META_GROUPS = 0x80, 0x10
_EXTENTS, _INLINE = 0x80000, 0x10000000
_FOLDER, _FILE = 0x4000, 0x8000
_EXTENT_MAGIC = 0xF30A

#: Blocks of one folder that are read; a seed's folder has one.
_MOST_BLOCKS = 32
_DEEPEST = 5


@dataclass(frozen=True)
class _Volume:
    start: int
    block: int
    first: int
    per_group: int
    inode_size: int
    descriptor: int


@dataclass(frozen=True)
class _Inode:
    kind: int
    flags: int
    size: int
    blocks: bytes


def label(read: Read, start: int) -> str | None:
    """Return the label of the file system at ``start``; None where it is not ext2, ext3 or ext4."""
    data = read(start + 1024, 256)
    if struct.unpack_from("<H", data, 56)[0] != _MAGIC:
        return None
    return data[120:136].decode("ascii", "replace").partition("\0")[0]


def entries(read: Read, start: int, path: str) -> Iterator[tuple[str, int]]:
    """Yield name and inode of everything in a folder; nothing where there is no such folder."""
    volume = _volume(read, start)
    if volume is None:
        return
    here = _ROOT
    for part in path.split("/"):
        here = next((inode for name, inode in _in(read, volume, here) if name == part), 0)
        if not here:
            return
    yield from ((n, inode) for n, inode in _in(read, volume, here) if n not in (".", ".."))


def holds(read: Read, start: int, path: str) -> bool:
    """Return whether there is anything at a path; symbolic links on the way are not followed."""
    folder, _, wanted = path.rpartition("/")
    return any(name == wanted for name, _inode in entries(read, start, folder))


def is_file(read: Read, start: int, inode: int) -> bool:
    """Return whether an inode is a plain file."""
    volume = _volume(read, start)
    return volume is not None and _inode(read, volume, inode).kind == _FILE


def _volume(read: Read, start: int) -> _Volume | None:
    data = read(start + 1024, 1024)
    if struct.unpack_from("<H", data, 56)[0] != _MAGIC:
        return None
    first, log_block = struct.unpack_from("<II", data, 20)
    per_group = struct.unpack_from("<I", data, 40)[0]
    features = struct.unpack_from("<I", data, 96)[0]
    inode_size = struct.unpack_from("<H", data, 88)[0] or 128
    descriptor = struct.unpack_from("<H", data, 254)[0] if features & _64BIT else 32
    sane = log_block <= 6 and per_group and 128 <= inode_size <= 4096 and 32 <= descriptor <= 1024
    if not sane or features & _META_GROUPS:
        return None
    return _Volume(start, 1024 << log_block, first, per_group, inode_size, descriptor)


def _inode(read: Read, volume: _Volume, number: int) -> _Inode:
    group, index = divmod(number - 1, volume.per_group)
    at = (volume.first + 1) * volume.block + group * volume.descriptor
    described = read(volume.start + at, 64)
    table = struct.unpack_from("<I", described, 8)[0]
    if volume.descriptor >= 64:
        table |= struct.unpack_from("<I", described, 40)[0] << 32
    data = read(volume.start + table * volume.block + index * volume.inode_size, 128)
    mode, _uid, size = struct.unpack_from("<HHI", data)
    return _Inode(mode & 0xF000, struct.unpack_from("<I", data, 32)[0], size, data[40:100])


def _in(read: Read, volume: _Volume, number: int) -> Iterator[tuple[str, int]]:
    inode = _inode(read, volume, number)
    if inode.kind != _FOLDER:
        return
    if inode.flags & _INLINE:
        yield from _names(inode.blocks[4:])
        return
    for block in _blocks(read, volume, inode)[: min(_MOST_BLOCKS, inode.size // volume.block)]:
        yield from _names(read(volume.start + block * volume.block, volume.block))


def _names(data: bytes) -> Iterator[tuple[str, int]]:
    at = 0
    while at + 8 <= len(data):
        inode, length, name_length = struct.unpack_from("<IHB", data, at)
        if length < 8:
            return
        if inode:
            yield data[at + 8 : at + 8 + name_length].decode("utf-8", "replace"), inode
        at += length


def _blocks(read: Read, volume: _Volume, inode: _Inode) -> list[int]:
    if not inode.flags & _EXTENTS:
        return [block for block in struct.unpack("<12I", inode.blocks[:48]) if block]
    found: list[int] = []
    nodes = [(inode.blocks, 0)]
    while nodes and len(found) < _MOST_BLOCKS:
        data, depth_seen = nodes.pop(0)
        magic, count, _most, depth = struct.unpack_from("<HHHH", data)
        if magic != _EXTENT_MAGIC or depth_seen > _DEEPEST:
            continue
        for at in range(12, min(12 + 12 * count, len(data) - 11), 12):
            if depth:
                low, high = struct.unpack_from("<IH", data, at + 4)
                where = volume.start + (high << 32 | low) * volume.block
                nodes = [*nodes, (read(where, volume.block), depth_seen + 1)][:_MOST_BLOCKS]
            else:
                length, high, low = struct.unpack_from("<HHI", data, at + 4)
                found.extend((high << 32 | low) + more for more in range(min(length, 32)))
    return found[:_MOST_BLOCKS]
