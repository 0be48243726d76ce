"""
Tell whether the process that works on a clone still runs, and let one at a time decide.

A clone's record names the process that makes or destroys it: machine, boot, pid and start
time. Only on that very machine can anybody tell whether it still runs, and only there may
its work be taken over; :func:`name_lock` lets one process at a time decide to.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import CreateInProgress, HostError
from saltext.kvmclone.model.record import ALIVE, DEAD, ELSEWHERE, Owner

log = logging.getLogger(__name__)

#: Folder of the lock files: machine-wide and emptied at a boot, which also ends all processes.
LOCKS = "/run/lock"

#: Seconds that :func:`name_lock` waits for another process.
NAME_LOCK_TIMEOUT_S = 90.0


def this_process() -> Owner:
    """Return this process as the worker of a record, with a word that only this work knows."""
    return Owner(
        host=socket.gethostname(),
        boot=_boot(),
        machine=_machine(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        token=secrets.token_hex(8),
    )


def owner_state(worker: Owner) -> str:
    """
    Return whether a worker still runs.

    :return: :data:`ALIVE`, :data:`DEAD`, or :data:`ELSEWHERE` where that cannot be told
        from here: it ran on another machine or in another container.
    """
    if worker.boot and not worker.pid:
        return DEAD  # it wrote that itself when it gave up, see :func:`released`
    if worker.boot == _boot():
        runs = _started(worker.pid) == worker.started and not _gave_up(worker)
        return ALIVE if runs else DEAD
    # If it is this machine and that has booted since, no process of that time still runs.
    same = worker.host == socket.gethostname() and worker.machine == _machine()
    same = same and worker.machine != ""  # a machine without an id is like every other
    rebooted = worker.boot.partition("/")[0] != _boot().partition("/")[0]
    return DEAD if same and rebooted else ELSEWHERE


def owner_end(worker: Owner) -> str:
    """Say how a dead worker's work ended, as the rest of the sentence "… when"."""
    if not worker.pid:
        return "that failed"
    lives = worker.boot == _boot() and _started(worker.pid) == worker.started
    return f"process {worker.pid} {'gave it up' if lives else 'died'}"


def released(worker: Owner) -> Owner:
    """Return the same piece of work without a process: it failed, and anybody may repeat it."""
    return replace(worker, pid=0, started=0)


def give_up(worker: Owner) -> None:
    """
    Note on this machine that work of this process has ended, if its record cannot say so.

    A process that lives on (a minion with threads) would otherwise hold the clone for good. The
    note stays until this machine boots: one empty file for each rollback that failed.
    """
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
        os.close(os.open(_path("ended", worker.token), flags, 0o644))
    except OSError as error:
        log.warning("process %s keeps its work on a clone until it ends: %s", worker.pid, error)


def _gave_up(worker: Owner) -> bool:
    try:
        said = os.stat(_path("ended", worker.token), follow_symlinks=False)
        return said.st_uid in (0, os.stat(f"/proc/{worker.pid}").st_uid)
    except FileNotFoundError:
        return False


@contextmanager
def name_lock(name: str) -> Iterator[None]:
    """
    Let one process of this machine at a time decide about a clone, until the end of the block.

    The lock is by the name alone, on whichever daemon: one and the same daemon has many spellings
    (with a socket, by its name or its address), and none that is sure to stay the same. A name on
    two hosts is rare, since it is a minion id; then one waits a moment for the other.

    :param name: Name of the clone.
    :raises CreateInProgress: Another process took longer than :data:`NAME_LOCK_TIMEOUT_S`.
    :raises HostError: The lock cannot be opened.
    """
    path = _path("lock", name)
    descriptor = _locked(path, name)
    try:
        yield
    finally:
        # Removed before it is unlocked: a process that waits for this file sees that, and opens
        # a new one.
        with contextlib.suppress(PermissionError):  # another user's; it stays for the next process
            if _stands_at(descriptor, path):
                os.unlink(path)
        # A process that was forked in between has the file open, too: closing it is not enough.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _locked(path: str, name: str) -> int:
    """Lock the file at ``path`` for this process alone, and return its descriptor."""
    deadline = time.monotonic() + NAME_LOCK_TIMEOUT_S
    while True:
        interrupts.check()
        try:
            descriptor = _open(path)
        except OSError as error:
            raise HostError(
                f"The lock '{path}' cannot be opened: {error.strerror}.",
                "Look at it on that machine, and remove it if it is not a regular file: "
                + shlex.join(["ls", "-ld", path]),
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _stands_at(descriptor, path):  # otherwise the process that had it has removed it
                return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise CreateInProgress(
                    f"Another process on this machine is busy with '{name}'.",
                    f"Look at it: {interrupts.command('show')} {name}",
                ) from None
            time.sleep(0.05)
        os.close(descriptor)


def _open(path: str) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            # Without O_CREAT: in a sticky folder the kernel refuses that for another user's file.
            return os.open(path, flags)
        except FileNotFoundError:
            pass
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue  # somebody was faster
        # A master that runs as user salt and root's minion share the file, whatever the umask.
        os.fchmod(descriptor, 0o666)
        return descriptor


def _stands_at(descriptor: int, path: str) -> bool:
    """Return whether an open file is still the one at its path."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _path(kind: str, word: str) -> str:
    digest = hashlib.sha256(word.encode()).hexdigest()[:24]
    return os.path.join(LOCKS, f"kvm_clone-{digest}.{kind}")


def _boot() -> str:
    """Return the id of this machine's boot, and the number of the namespace of process ids."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:
        return f"{source.read().strip()}/{os.stat('/proc/self/ns/pid').st_ino}"


def _machine() -> str:
    """Return what tells this machine from others of the same name; empty where nothing does."""
    try:
        with open("/etc/machine-id", encoding="ascii") as source:
            return source.read().strip()
    except FileNotFoundError:
        return ""


def _started(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot; -1 where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as source:
            fields = source.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    # A zombie has ended; nobody has collected its exit code yet.
    return -1 if fields[0] in "ZX" else int(fields[19])
