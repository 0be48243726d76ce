"""Start Salt's programs by an interpreter that has Salt's modules already: see ``preloaded.py``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lab.common import LabError

SERVER = Path(__file__).resolve().parent / "preloaded.py"


class Programs:
    """
    Programs of one environment.

    :param venv: The environment.
    :param environment: The environment variables of the interpreter, which ``/proc`` shows of each
        program as well.
    """

    def __init__(self, venv: Path, environment: Mapping[str, str]) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [venv / "bin/python", SERVER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env=dict(environment),
            )

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
        request = {"words": list(words), "environment": dict(environment), "folder": "/"}
        ours, theirs = socket.socketpair()
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors, ours:
            with theirs, open(os.devnull, "rb") as nothing:
                files = [theirs.fileno(), nothing.fileno(), output.fileno(), errors.fileno()]
                socket.send_fds(self._requests, [json.dumps(request).encode()], files)
            code = self._wait(ours, words, timeout)
            texts = []
            for file in (output, errors):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return code, texts[0], texts[1]

    def _wait(self, answers: socket.socket, words: Sequence[str], timeout: float) -> int:
        with answers.makefile("r") as lines:
            pid = lines.readline()
            answers.settimeout(timeout)
            try:
                code = lines.readline()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.killpg(int(pid), signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), timeout) from None
        if not code:
            raise LabError(f"{words[0]} was not run: the interpreter that forks it has ended")
        return int(code)

    def close(self) -> None:
        """End the interpreter; programs that still run stay."""
        self._requests.close()
        self._process.wait()
