"""A ``salt-run`` that goes on by itself while a test looks on, until it ends or is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess

from lab.salt import SaltWorld


def started(world: SaltWorld, *words: str) -> subprocess.Popen[str]:
    """
    A ``salt-run`` with a process group of its own.

    It hears Ctrl-C also where whoever runs these tests ignores it (a job in the background),
    and tells where it stands when it is aborted.
    """
    command = world.command("salt-run", "--out=json", "-l", "error", *words)
    return subprocess.Popen(
        ["env", "--default-signal=INT", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**world.environment("command"), "PYTHONFAULTHANDLER": "1"},
        start_new_session=True,
    )


def interrupted(process: subprocess.Popen[str], patience: float = 90) -> str:
    """
    Press Ctrl-C and wait for the end; twice, since Python itself drops one that comes while it
    cleans up after an import.

    :param patience: Seconds.
    :return: All that it said.
    """
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        try:
            return "".join(process.communicate(timeout=patience))
        except subprocess.TimeoutExpired:
            continue
    os.kill(process.pid, signal.SIGABRT)
    told = "".join(process.communicate())
    raise AssertionError(f"{patience:g} s after Ctrl-C it still ran:\n{told}")
