"""Find and end the processes of a Salt world, however deep they have forked."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lab.common import process_start

#: Every process of a Salt world has this in its environment, and so have the processes that it
#: starts. Salt's jobs leave their process group and session, so they are found again only by this.
MARK = "KVMCLONE_LAB"


def end_processes(mark: str, conf: Path) -> None:
    """End the processes that are marked ``mark`` or ``mark:…``, and Salt with a ``-c`` in ``conf``.

    Salt's own processes need the second criterion: they write their titles over the environment
    that ``/proc`` shows (and over that of whatever they fork). The session leaders get a SIGTERM
    and time to end their children; a minion is slow at that, so after a moment all are killed.
    """
    found = marked(mark, conf)
    for pid in found:
        with suppress(ProcessLookupError):
            if os.getsid(pid) == pid:
                os.kill(pid, signal.SIGTERM)
    _wait_gone(found, 2)
    for _ in range(3):  # a process that is killed may just have started another
        found = marked(mark, conf)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _wait_gone(found, 5)


def _wait_gone(found: Mapping[int, int | None], patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if all(process_start(pid) != start for pid, start in found.items()):
            return
        time.sleep(0.05)


def marked(mark: str, conf: Path) -> dict[int, int | None]:
    """Return the processes that :func:`end_processes` ends, each with its start."""
    environment = re.compile(rb"(^|\0)%s=%s(:|\0|$)" % (MARK.encode(), re.escape(mark).encode()))
    title = re.compile(rb"/salt-[a-z]+[\0 ]-c[\0 ]%s([/\0 ]|$)" % re.escape(str(conf)).encode())
    found: dict[int, int | None] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            ours = title.search((folder / "cmdline").read_bytes()) or environment.search(
                (folder / "environ").read_bytes()
            )
        except OSError:
            continue
        start = process_start(int(folder.name))
        if ours and start is not None:
            found[int(folder.name)] = start
    return found
