"""Paths of the lab, and functions to run commands, keep state files and print progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("KVMCLONE_CACHE") or CHECKOUT / ".cache")
#: Scratch folders of labs. Not in the checkout: QEMU runs as its own user and must get there.
SCRATCH_ROOT = Path("/var/tmp")
LIBVIRT_URI = "qemu:///system"
#: The guests' password of root, ``lab`` (sudo asks for it) and ``nopass`` (sudo does not).
PASSWORD = "kvm-clone-lab"


class LabError(Exception):
    """The lab cannot do what was asked; the message says why and what to do."""


def say(text: str) -> None:
    """Print one line for the person who watches."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a piece of work that takes a while, and print how long it took."""
    say(f"   {what} ...")
    start = time.monotonic()
    yield
    say(f"   {what}: {time.monotonic() - start:.1f} s")


def run(
    command: Sequence[object],
    *,
    input: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Run a command to its end and return what it printed.

    :param input: What it reads; None for nothing.
    :param env: Variables to add to its environment.
    :param timeout: Seconds that it may take.
    :raises LabError: It failed; the message has its last lines.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        input=input.encode() if isinstance(input, str) else input,
        stdin=subprocess.DEVNULL if input is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=None if env is None else {**os.environ, **env},
        cwd=cwd,
        timeout=timeout,
        check=False,
    )
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        tail = (output + done.stderr.decode(errors="replace")).strip().splitlines()[-25:]
        raise LabError(f"{' '.join(words)!r} failed ({done.returncode}):\n" + "\n".join(tail))
    return output


def write(path: Path, text: str, mode: int | None = None) -> Path:
    """Write a text file, and make the folders above it.

    :param mode: Its permission bits; None for the usual ones.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if mode is not None:
        path.chmod(mode)
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Return a state file's content; empty if there is none, or it is damaged."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a state file so that a reader never sees half of it."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    write(half, json.dumps(data, indent=2) + "\n")
    half.replace(path)


def process_start(pid: int) -> int | None:
    """Return when a process started, in the kernel's ticks; None if it is gone.

    A pid is used again after its process ended; pid and start time together are not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def boot_id() -> str:
    """Return the id of this machine's boot, which changes with every boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def wait_until(check: Any, what: str, timeout: float, interval: float = 0.1, hint: str = "") -> Any:
    """Call ``check`` until it returns something true, and return that.

    :param what: What is waited for, for the message.
    :param timeout: Seconds to wait.
    :param interval: Seconds between two calls.
    :param hint: Where to look if it does not come.
    :raises LabError: It did not come in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout:.0f} s for {what}" + (f"; {hint}" if hint else ""))
        time.sleep(interval)
