"""A terminal, as a person sits at one."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence

from lab.salt import Answer


def at_terminal(
    command: Sequence[str], env: Mapping[str, str], columns: int = 80, timeout: float = 120
) -> Answer:
    """What a command leaves on a screen, in lines; stderr goes there, too."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {key: value for key, value in env.items() if key not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd="/", env=kept
    ) as running:
        os.close(theirs)
        shown = b""
        while part := _read(ours):
            shown += part
        code = running.wait(timeout)
    os.close(ours)
    return Answer(code, shown.decode().replace("\r\n", "\n"), "")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody has it open any more
        return b""
