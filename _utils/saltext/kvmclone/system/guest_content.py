"""
Hash what a guest sees on a disk, whatever format and chain of images it is kept in.

``qemu-nbd`` reads the images. A stretch of zeros counts like a hole, and holes are not read, so
that a sparse disk takes as long as what is on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator

from saltext.kvmclone import interrupts
from saltext.kvmclone.system.programs import die_with_parent

PROGRAM = "qemu-nbd"

#: Pieces of this many bytes count as zeros or not; part of what the digest is.
BLOCK = 65536
_ZEROS = bytes(BLOCK)

#: Bytes that are asked for at once, as many as the protocol allows, and seconds that the server may
#: take to begin.
_PIECE, _START_TIMEOUT_S = 32 * 2**20, 30.0

# The protocol: doc/proto.md of the NBD project.
_OPTION, _OPTION_REPLY = 0x49484156454F5054, 0x0003E889045565A9
_GO, _STRUCTURED = 7, 8
_ACK, _INFO = 1, 3
_REQUEST, _CHUNK = 0x25609513, 0x668E33EF
_READ, _DISCONNECT = 0, 2
_NONE, _DATA, _HOLE = 0, 1, 2
_LAST_CHUNK = 1


class UnreadableContent(Exception):
    """What a guest sees on a disk cannot be read; the text says why."""


def can_read() -> bool:
    """Return whether ``qemu-nbd`` is installed on this machine."""
    return shutil.which(PROGRAM) is not None


def digest(path: str, image_format: str) -> tuple[int, str]:
    """
    Return the size of a disk as the guest sees it, bytes, and the SHA-256 of what is on it.

    :param image_format: What the definition says that the image is.
    :raises UnreadableContent: It cannot be read to its end.
    """
    found = hashlib.sha256()
    with _served(path, image_format) as (process, server):
        try:
            size = _begin(server)
            for start, data in _pieces(server, size):
                _add(found, start, data)
            server.sendall(struct.pack(">IHHQQI", _REQUEST, 0, _DISCONNECT, 0, 0, 0))
        except (OSError, struct.error) as error:
            raise UnreadableContent(_said(process) or f"{PROGRAM}: {error}") from error
    return size, found.hexdigest()


def file_digest(path: str) -> str:
    """
    Return the SHA-256 of a file.

    :raises OSError: It cannot be read.
    """
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            found.update(piece)
    return found.hexdigest()


def _add(found: hashlib._Hash, start: int, data: bytearray) -> None:
    """Add a piece to the digest: each block that is not zeros, with its place."""
    for at in range(0, len(data), BLOCK):
        block = bytes(data[at : at + BLOCK])
        if block != _ZEROS[: len(block)]:
            found.update(struct.pack("<Q", start + at))
            found.update(block)


@contextlib.contextmanager
def _served(
    path: str, image_format: str
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """Have the image served for the block, and yield the server with a connection to it."""
    with tempfile.TemporaryDirectory(prefix="kvm_clone-") as folder:
        address = os.path.join(folder, "nbd")
        words = [PROGRAM, "--read-only", "--discard=ignore", f"--socket={address}"]
        with subprocess.Popen(
            [*words, f"--format={image_format}", "--", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one call of the C library, no lock
        ) as process:
            try:
                with _connected(process, address) as server:
                    yield process, server
            finally:
                process.kill()


def _connected(process: subprocess.Popen[bytes], address: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        interrupts.check()
        try:
            server.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            if process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            server.close()
            raise UnreadableContent(_said(process) or f"{PROGRAM} does not begin") from None
        return server


def _said(process: subprocess.Popen[bytes]) -> str:
    """Return the last line that a server complained with; empty for none."""
    try:
        said = process.communicate(timeout=2)[1]
    except subprocess.TimeoutExpired:  # it does not end, so it said nothing of an end
        process.kill()
        said = process.communicate()[1]
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _begin(server: socket.socket) -> int:
    """Agree on the protocol; return the size of the disk."""
    _received(server, 18)
    server.sendall(struct.pack(">I", 3))
    server.sendall(struct.pack(">QII", _OPTION, _STRUCTURED, 0))
    if _option_reply(server)[0] != _ACK:
        raise UnreadableContent(f"this {PROGRAM} is too old")
    server.sendall(struct.pack(">QIIIH", _OPTION, _GO, 6, 0, 0))
    size = 0
    while True:
        kind, data = _option_reply(server)
        if kind == _ACK:
            return size
        if kind != _INFO:
            raise UnreadableContent(f"{PROGRAM} does not serve it")
        if struct.unpack_from(">H", data)[0] == 0:
            size = struct.unpack_from(">HQ", data)[1]


def _option_reply(server: socket.socket) -> tuple[int, bytearray]:
    magic, _option, kind, length = struct.unpack(">QIII", _received(server, 20))
    if magic != _OPTION_REPLY:
        raise UnreadableContent(f"{PROGRAM} speaks another protocol")
    return kind, _received(server, length)


def _pieces(server: socket.socket, size: int) -> Iterator[tuple[int, bytearray]]:
    """Yield the pieces of the disk that hold data, with their places."""
    for start in range(0, size, _PIECE):
        interrupts.check()
        length = min(_PIECE, size - start)
        server.sendall(struct.pack(">IHHQQI", _REQUEST, 0, _READ, start, start, length))
        data = _answer(server, start, length)
        if data is not None:
            yield start, data


def _answer(server: socket.socket, start: int, length: int) -> bytearray | None:
    """Return what was asked for; None for nothing but a hole."""
    found: bytearray | None = None
    while True:
        magic, flags, kind, handle, size = struct.unpack(">IHHQI", _received(server, 20))
        if magic != _CHUNK or handle != start:
            raise UnreadableContent(f"{PROGRAM} speaks another protocol")
        if kind == _DATA:
            (offset,) = struct.unpack(">Q", _received(server, 8))
            found = bytearray(length) if found is None else found
            view = memoryview(found)[offset - start : offset - start + size - 8]
            _receive_into(server, view)
        elif kind in (_NONE, _HOLE):
            _received(server, size)
        else:
            said = bytes(_received(server, size))[6:].decode(errors="replace")
            raise UnreadableContent(f"it cannot be read at {start}: {said}")
        if flags & _LAST_CHUNK:
            return found


def _received(server: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    _receive_into(server, memoryview(data))
    return data


def _receive_into(server: socket.socket, view: memoryview) -> None:
    while len(view):
        got = server.recv_into(view)
        if not got:
            raise ConnectionError("it ended")
        view = view[got:]
