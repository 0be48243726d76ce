"""
Who is at work on a clone, whether they still live, and whose turn it is.

A clone's record names the process that makes or destroys it: machine, boot, pid and start
time. Only on that very machine can anybody tell whether it still runs, and only there may
its work be taken over; :func:`turn` lets one process at a time decide to.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from saltext.kvmclone.errors import CreateInProgress, HostError
from saltext.kvmclone.ownership import ALIVE, DEAD, ELSEWHERE, Worker

#: Machine-wide and gone after a boot, as the processes that it is about.
LOCKS = "/run/lock"

#: Seconds that :func:`turn` waits for another process to finish its turn.
PATIENCE = 90.0


def this_process(token: str = "") -> Worker:
    """
    This process.

    :param token: The word that only this piece of work knows; a fresh one by default.
    """
    return Worker(
        host=socket.gethostname(),
        boot=_boot(),
        machine=_machine(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        token=token or secrets.token_hex(8),
    )


def life(worker: Worker) -> str:
    """
    Whether a worker still runs.

    :return: :data:`ALIVE`, :data:`DEAD`, or :data:`ELSEWHERE` where that cannot be told
        from here: it ran on another machine or in another container.
    """
    if worker.boot == _boot():
        return ALIVE if _started(worker.pid) == worker.started else DEAD
    # This machine has booted since, if it is this machine: then no process of that time lives.
    same = worker.host == socket.gethostname() and worker.machine == _machine() != ""
    rebooted = worker.boot.partition("/")[0] != _boot().partition("/")[0]
    return DEAD if same and rebooted else ELSEWHERE


@contextmanager
def turn(url: str, name: str) -> Iterator[None]:
    """
    One process of this machine at a time decides about a name.

    :param url: libvirt URI of the daemon.
    :param name: Name of the clone.
    :raises CreateInProgress: Another one took longer than :data:`PATIENCE`.
    """
    word = hashlib.sha256(f"{url} {name}".encode()).hexdigest()[:24]
    path = os.path.join(LOCKS, f"kvm_clone-{word}.lock")
    try:
        descriptor = _open(path)
    except OSError as error:
        raise HostError(
            f"The lock '{path}' cannot be opened: {error.strerror}.",
            f"Look at it, and remove it if it is no plain file: ls -l {path}",
        ) from error
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CreateInProgress(
                        f"Another process on this machine is busy with '{name}'.",
                        f"Look at it: salt-run kvmclone.show {name}",
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    """The lock file; it stays, since removing it would let two in."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        # Without O_CREAT: in a sticky folder the kernel refuses that for another user's file.
        return os.open(path, flags)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o666)
        # A master that runs as user salt and root's minion take turns, whatever the umask.
        os.fchmod(descriptor, 0o666)
        return descriptor


def _boot() -> str:
    """This boot of this machine, and the container that counts its processes."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:
        return f"{source.read().strip()}/{os.stat('/proc/self/ns/pid').st_ino}"


def _machine() -> str:
    """What tells this machine from others of the same name; empty where nothing does."""
    try:
        with open("/etc/machine-id", encoding="ascii") as source:
            return source.read().strip()
    except FileNotFoundError:
        return ""


def _started(pid: int) -> int:
    """Start time of a process in clock ticks since boot; -1 where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as source:
            fields = source.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    # A zombie has ended; only nobody has asked for its exit code yet.
    return -1 if fields[0] in "ZX" else int(fields[19])
