"""
Read what a guest sees on its disk, from the images that the disk consists of.

Pure: the bytes come from functions that are handed in. It serves to look at labels and names on
a disk, which takes a few kilobytes; an image may have been written by a hostile guest, so every
read is bounded and nothing is followed but the tables of qcow2 themselves.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence

from saltext.kvmclone.model.facts import QCOW2

#: Returns a number of bytes at an offset; fewer, or none, behind the end.
Read = Callable[[int, int], bytes]

#: Bytes that are read at once, and kept.
PAGE = 65536
_PAGES_KEPT = 16
#: A page that no file reaches; a damaged table may point there.
_LAST_PAGE = 2**62 // PAGE

_HEAD = struct.Struct(">4sIQIIQIIQ")
_OFFSET = 0x00FFFFFFFFFFFE00
_COMPRESSED, _ZEROS = 1 << 62, 1
#: Incompatible features under which the tables mean the same: dirty, corrupt, another compression.
_SAME_TABLES = 0b1011
_ANOTHER_COMPRESSION = 0b1000


class UnreadableImage(Exception):
    """The contents of an image cannot be read here; its text says why."""


def view(layers: Sequence[tuple[str, Read]]) -> Read:
    """
    Return a reader of what the guest sees on a disk.

    :param layers: Format and reader of each image, the disk's own first, then its backing files.
    :raises UnreadableImage: An image has features that are not understood here.
    """
    below: Read | None = None
    for form, read in reversed(layers):
        below = _Qcow2(paged(read), below).read if form == QCOW2 else paged(read)
    if below is None:
        raise UnreadableImage("there is no image")
    return below


def paged(read: Read) -> Read:
    """Return a reader that fetches whole pages, each once."""
    pages: dict[int, bytes] = {}

    def page(number: int) -> bytes:
        if number >= _LAST_PAGE:
            return b""
        if number not in pages:
            if len(pages) >= _PAGES_KEPT:
                pages.pop(next(iter(pages)))
            pages[number] = read(number * PAGE, PAGE)
        return pages[number]

    def read_pages(offset: int, length: int) -> bytes:
        first, last = offset // PAGE, (offset + length - 1) // PAGE
        data = b"".join(page(number).ljust(PAGE, b"\0") for number in range(first, last + 1))
        start = offset - first * PAGE
        return data[start : start + length]

    return read_pages


class _Qcow2:
    """One qcow2 image, with a reader of what it stands on."""

    def __init__(self, read: Read, below: Read | None) -> None:
        self._raw, self._below = read, below
        head = read(0, 104)
        _magic, version, _at, _length, bits, _size, crypt, self._l1_size, self._l1_at = (
            _HEAD.unpack_from(head)
        )
        features = struct.unpack_from(">Q", head, 72)[0] if version >= 3 else 0
        if crypt or not 9 <= bits <= 21 or features & ~_SAME_TABLES:
            raise UnreadableImage("it is encrypted, or of a kind that is not read here")
        self._bits, self._cluster = bits, 1 << bits
        self._zstd = bool(features & _ANOTHER_COMPRESSION)

    def read(self, offset: int, length: int) -> bytes:
        """Return the guest's bytes at an offset."""
        found = b""
        while len(found) < length:
            at = offset + len(found)
            within = at % self._cluster
            found += self._piece(at, within, min(length - len(found), self._cluster - within))
        return found

    def _piece(self, at: int, within: int, length: int) -> bytes:
        number, entries = at // self._cluster, self._cluster // 8
        table = 0
        if number // entries < self._l1_size:
            table = self._entry(self._l1_at + number // entries * 8) & _OFFSET
        entry = self._entry(table + number % entries * 8) if table else 0
        if entry & _COMPRESSED:
            return self._inflated(entry)[within : within + length].ljust(length, b"\0")
        if entry & _ZEROS:
            return bytes(length)
        if entry & _OFFSET:
            return self._raw((entry & _OFFSET) + within, length)
        return self._below(at, length) if self._below is not None else bytes(length)

    def _entry(self, at: int) -> int:
        return int(struct.unpack(">Q", self._raw(at, 8))[0])

    def _inflated(self, entry: int) -> bytes:
        if self._zstd:
            raise UnreadableImage("it is compressed in a way that is not read here")
        shift = 62 - (self._bits - 8)
        start = entry & ((1 << shift) - 1)
        sectors = (entry >> shift & ((1 << (self._bits - 8)) - 1)) + 1
        try:
            data = self._raw(start, sectors * 512 - start % 512)
            return zlib.decompressobj(-15).decompress(data, self._cluster)
        except zlib.error as error:
            raise UnreadableImage("a compressed part of it is damaged") from error
