"""
Read and write the part of a saved image of libvirt that stands before QEMU's stream.

``virsh save`` writes a header of 92 bytes (libvirt's ``qemu_saveimage.h``), then the definition
with a final NUL, then a *cookie* in which libvirt notes what the definition does not say, zeros up
to the length that the header gives, and last the memory of the machine as QEMU streams it.
libvirt itself takes no other name, uuid or address for a saved machine, so that whoever wants those
changed has to write a header of his own. What is not known here down to the last byte is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from saltext.kvmclone.system import copying

#: The first bytes of an image, and of one that is still being written.
MAGIC = b"LibvirtQemudSave"
_PARTIAL = b"LibvirtQemudPart"

#: Magic, version, length of all that stands between header and stream, whether the machine ran,
#: format of the stream, where in this length the cookie begins (0: there is none), unused.
_HEADER = struct.Struct("<16s5I56s")

_VERSION = 2

#: The stream is not compressed, and not in several parts.
_RAW = 0

#: Longest definition with its cookie that is read, in bytes; libvirt's own has some ten thousand.
LONGEST = 16 * 2**20

#: The stream is moved by multiples of this many bytes, so that a file system can share its blocks.
_BLOCK = 4096


class UnknownLayout(ValueError):
    """This is no saved image, or not one whose every byte before the stream is understood."""


@dataclass(frozen=True)
class SavedImage:
    """
    What stands before the stream.

    :param xml: The definition of the machine, as it ran.
    :param cookie: libvirt's notes on it, in XML; empty for none.
    :param was_running: The machine ran; otherwise it was paused.
    :param length: Bytes from the end of the header to the stream.
    """

    xml: str
    cookie: str = ""
    was_running: bool = True
    length: int = 0

    @property
    def stream_at(self) -> int:
        """Return the offset of QEMU's stream in the file, in bytes."""
        return _HEADER.size + self.length

    def with_xml(self, xml: str) -> SavedImage:
        """
        Return the same with another definition.

        The stream stays where it is if there is room, and moves by whole blocks if there is not.
        """
        changed = dataclasses.replace(self, xml=xml)
        missing = max(0, len(changed._texts()) - self.length)
        return dataclasses.replace(changed, length=self.length + -(-missing // _BLOCK) * _BLOCK)

    def pack(self) -> bytes:
        """
        Return the bytes of the file before QEMU's stream.

        :raises ValueError: ``length`` is too small for the texts, or one of them has a NUL.
        """
        if "\0" in self.xml or "\0" in self.cookie:
            raise ValueError("a text of a saved image cannot have a NUL in it")
        texts = self._texts()
        if len(texts) > self.length:
            raise ValueError("the texts of a saved image are longer than their room")
        cookie_at = len(self.xml.encode()) + 1 if self.cookie else 0
        numbers = (_VERSION, self.length, int(self.was_running), _RAW, cookie_at)
        return _HEADER.pack(MAGIC, *numbers, b"") + texts.ljust(self.length, b"\0")

    def _texts(self) -> bytes:
        texts = (self.xml, self.cookie) if self.cookie else (self.xml,)
        return b"".join(text.encode() + b"\0" for text in texts)


def read(image: BinaryIO) -> SavedImage:
    """
    Read what stands before the stream of an open saved image.

    :param image: At its first byte; afterwards at the first of QEMU's stream.
    :raises UnknownLayout: It cannot be understood completely; the text says what is wrong, and
        goes on a sentence that begins with the name of the file: ``… is of version 3``.
    """
    header = image.read(_HEADER.size)
    if header.startswith(_PARTIAL):
        raise UnknownLayout("was not written to its end")
    if not header.startswith(MAGIC):
        raise UnknownLayout("is no saved image of libvirt")
    if len(header) < _HEADER.size:
        raise UnknownLayout("ends within its header")
    _magic, version, length, running, stream_format, cookie_at, unused = _HEADER.unpack(header)
    if version != _VERSION:
        raise UnknownLayout(f"is of version {version}, and only {_VERSION} is known here")
    if stream_format != _RAW:
        raise UnknownLayout("is compressed or in several parts (save_image_format of qemu.conf)")
    if running not in (0, 1) or unused.strip(b"\0"):
        raise UnknownLayout("has something in its header that is not known here")
    if not 0 < length <= LONGEST:
        raise UnknownLayout("gives an impossible length of its definition")
    data = image.read(length)
    if len(data) < length:
        raise UnknownLayout("ends within its definition")
    xml, cookie = _texts(data, cookie_at)
    return SavedImage(xml, cookie, bool(running), length)


def _texts(data: bytes, cookie_at: int) -> tuple[str, str]:
    """
    Return definition and cookie, where nothing but zeros is besides them.

    :param cookie_at: Where the cookie begins; 0 for none.
    """
    xml, _nul, rest = data.partition(b"\0")
    cookie = b""
    if cookie_at:
        if cookie_at != len(xml) + 1:
            raise UnknownLayout("has its cookie at another place than behind its definition")
        cookie, _nul, rest = rest.partition(b"\0")
    if not xml or bool(cookie) != bool(cookie_at) or rest.strip(b"\0") or not data.endswith(b"\0"):
        raise UnknownLayout("has other texts before its stream than are known here")
    try:
        return xml.decode(), cookie.decode()
    except UnicodeDecodeError:
        raise UnknownLayout("has a definition that is not in UTF-8") from None


def write(source: str, target: str, xml: str, made: Callable[[], None] = lambda: None) -> None:
    """
    Copy a saved image, with another definition in it.

    Blocks of the stream are shared where the file system can. Until the last moment the copy has
    the mark of an image that is being written, which libvirt restores nothing from.

    :param target: Path of the copy, which is not there yet; its owner alone may read it.
    :param made: Called once the file is there, and empty.
    :raises UnknownLayout: The source cannot be understood completely.
    :raises OSError: As the kernel says; part of the copy may be there then.
    """
    with (
        open(source, "rb") as original,
        open(target, "xb", opener=functools.partial(os.open, mode=0o600)) as copy,
    ):
        made()
        before = read(original)
        after = before.with_xml(xml)
        reading, writing = original.fileno(), copy.fileno()
        size = os.fstat(reading).st_size
        shift = after.stream_at - before.stream_at
        os.ftruncate(writing, size + shift)
        # Blocks can be shared from where one begins.
        first_block = min(size, -(-before.stream_at // _BLOCK) * _BLOCK)
        copying.copy_range(reading, writing, before.stream_at, first_block, shift)
        copying.copy_range(reading, writing, first_block, size, shift)
        front = after.pack()
        os.pwrite(writing, _PARTIAL + front[len(_PARTIAL) :], 0)
        os.pwrite(writing, MAGIC, 0)
