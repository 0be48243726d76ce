"""Start Salt's programs by an interpreter that has Salt's modules already: see ``preloaded.py``."""

from __future__ import annotations

import functools
import os
import select
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from lab.common import LabError
from lab.typed import request

SERVER = Path(__file__).resolve().parent / "preloaded.py"

#: The exit code of a program whose end nobody was left to see.
LOST = 256


class Program:
    """
    A program that was started; it is asked as :class:`subprocess.Popen` is.

    :param answers: Where its process id comes from, and how it ended.
    """

    def __init__(self, answers: socket.socket) -> None:
        self._answers = answers
        self._lines = answers.makefile("rb")
        self.pid = int(self._lines.readline() or 0)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code; None while it runs."""
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self.returncode = int(self._lines.readline() or LOST)
            self._lines.close()
            self._answers.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait until it has ended, and return its exit code.

        :param timeout: Seconds to wait; None for ever.
        :raises subprocess.TimeoutExpired: It has not ended by then.
        """
        if self.returncode is None:
            select.select([self._answers], [], [], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code


@functools.cache
def of(venv: Path, library: Path | None) -> Programs:
    """
    Return the programs of an environment, which all of this process share.

    :param venv: The environment.
    :param library: See :class:`Programs`.
    """
    return Programs(venv, library)


class Programs:
    """
    Programs of one environment.

    :param venv: The environment.
    :param library: A folder from which kvm_clone's library is imported beforehand; None for none.
    """

    def __init__(self, venv: Path, library: Path | None) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    venv / "bin/python",
                    SERVER,
                    str(theirs.fileno()),
                    *([library] if library else []),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env=os.environ | {"PYTHONWARNINGS": "ignore"},
            )

    @property
    def number(self) -> int:
        """Return the number of the socket that takes requests, for ``typed.py``."""
        return self._requests.fileno()

    def run(
        self, words: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> tuple[int, str, str]:
        """
        Run a program to its end.

        :param words: Its path and its arguments.
        :param timeout: Seconds that it may take.
        :return: Exit code, and what it wrote to its standard output and its standard error.
        :raises subprocess.TimeoutExpired: It took longer, and was killed.
        """
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            program = self.start(words, environment, output, errors)
            try:
                code = program.wait(timeout)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(program.pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), timeout) from None
            if code == LOST:
                raise LabError(f"{words[0]} was not run: the interpreter that forks it has ended")
            texts = []
            for file in (output, errors):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return code, texts[0], texts[1]

    def start(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        output: IO[bytes],
        errors: IO[bytes],
    ) -> Program:
        """
        Start a program, and do not wait for it.

        :param words: Its path and its arguments.
        :param output: An open file for its standard output; ``errors`` likewise.
        """
        with open(os.devnull, "rb") as nothing:
            streams = [nothing.fileno(), output.fileno(), errors.fileno()]
            return Program(request(self._requests, words, environment, "/", streams))
