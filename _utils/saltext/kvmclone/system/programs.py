"""
Run programs of this machine that end with the process that asked for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess

from saltext.kvmclone import interrupts

_PR_SET_PDEATHSIG = 1


def run(words: list[str]) -> tuple[int, bytes]:
    """
    Run a program; it ends with this process, and at an interrupt.

    :return: Its exit code, and what it wrote to stderr.
    """
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - one call of the C library, no lock
    ) as process:
        try:
            said = _said(process)
        except BaseException:
            process.kill()
            raise
    return process.returncode, said


def _said(process: subprocess.Popen[bytes]) -> bytes:
    """Wait for a process and return what it wrote to stderr; raise at once at an interrupt."""
    while True:
        interrupts.check()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=0.2)[1]


_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """
    Have the kernel kill this process when its parent dies.

    A worker that is killed must not leave a writer behind on a file that gets deleted.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
