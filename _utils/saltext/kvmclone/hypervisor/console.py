"""
Read what a guest writes on its serial console, while its machine is being made.
"""

from __future__ import annotations

import contextlib
import os
import re

from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.model import libvirt_xml

#: Bytes of its end that are kept.
KEPT = 32 * 1024

_PIECE = 4096

#: What moves a terminal's cursor or colours it, and whatever else is not printed.
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")
_UNPRINTED = re.compile(r"[^\x20-\x7e\n]")


class Console:
    """
    The serial console of a running domain of this machine, as far as it was read.

    Somebody has to read it at the time: QEMU keeps nothing of it.
    """

    def __init__(self, handle: DomainHandle) -> None:
        self._said = b""
        self._descriptor = -1
        root = libvirt_xml.parse(handle.live())
        source = root.find("./devices/serial[@type='pty']/source")
        path = source.get("path", "") if source is not None else ""
        if path.startswith("/dev/pts/"):
            with contextlib.suppress(OSError):
                flags = os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
                self._descriptor = os.open(path, flags)

    def read(self) -> None:
        """Take what was written since the last time."""
        while self._descriptor >= 0:
            try:
                piece = os.read(self._descriptor, _PIECE)
            except BlockingIOError:
                return
            except OSError:  # the machine is off
                piece = b""
            if not piece:
                self.close()
                return
            self._said = (self._said + piece)[-KEPT:]

    def lines(self) -> list[str]:
        """Return what was read, line by line, without what only a terminal understands."""
        text = _ESCAPES.sub("", self._said.decode("utf-8", "replace")).replace("\r", "\n")
        return [line for line in _UNPRINTED.sub("", text).split("\n") if line.strip()]

    def close(self) -> None:
        """Stop reading; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
