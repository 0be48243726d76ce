"""
Keep on this machine what one copy of a base between two hosts needs, as long as that lasts.

A folder of root's own, below ``/run``: a boot, which ends every copy, also removes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
from typing import Any

from saltext.kvmclone.model.base_copy import is_id
from saltext.kvmclone.model.plain import from_plain
from saltext.kvmclone.model.record import DEAD, Owner
from saltext.kvmclone.system import files, processes

ROOT = "/run/kvm_clone/copies"

#: Seconds that the other host may take to begin, once everything is ready for it here.
PATIENCE_S = 300.0

_ABOUT, _LOCK = "about.json", "lock"


def path(copy: str, *names: str) -> str:
    """Return the path of the folder of a copy, or of something in it."""
    return os.path.join(ROOT, copy, *names)


def make(copy: str, base: str) -> None:
    """
    Make the folder of a copy, with this process as the one at work; it may be there already.

    :param base: Name of the base.
    :raises OSError: It cannot be made.
    """
    os.makedirs(path(copy), mode=0o700, exist_ok=True)
    os.close(os.open(path(copy, _LOCK), os.O_WRONLY | os.O_CREAT, 0o600))
    _note(copy, base, processes.this_process(), 0.0)


def wait_for_other(copy: str, base: str) -> None:
    """Note that the other host comes next, and has :data:`PATIENCE_S` to do so."""
    _note(copy, base, Owner(), time.time() + PATIENCE_S)


def _note(copy: str, base: str, owner: Owner, until: float) -> None:
    about = {"base": base, "owner": dataclasses.asdict(owner), "until": until}
    files.write(path(copy, _ABOUT), json.dumps(about))


def is_dead(copy: str) -> bool:
    """
    Return whether nobody is at work on a copy here any more.

    As long as the other host fetches files, the server that it talks to holds a lock.
    """
    try:
        about = _about(copy)
        owner, until = from_plain(Owner, about["owner"]), from_plain(float, about["until"])
    except (OSError, LookupError, ValueError):
        return True  # removed, or another boot's
    if owner.pid and processes.owner_state(owner) != DEAD:
        return False
    return time.time() > until and not _is_locked(copy)


def base_of(copy: str) -> str:
    """Return the name of the base that a copy is of; empty where that is not known any more."""
    try:
        return from_plain(str, _about(copy)["base"])
    except (OSError, LookupError, ValueError):
        return ""


def _about(copy: str) -> dict[str, Any]:
    with open(path(copy, _ABOUT), encoding="utf-8") as source:
        return from_plain(dict[str, Any], json.load(source))


def _is_locked(copy: str) -> bool:
    with contextlib.suppress(FileNotFoundError), open(path(copy, _LOCK), "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def remove(copy: str) -> bool:
    """Remove the folder of a copy with all in it; return False where there was none."""
    there = os.path.isdir(path(copy))
    shutil.rmtree(path(copy), ignore_errors=True)
    return there and not os.path.lexists(path(copy))


def all_copies() -> list[str]:
    """Return the ids of all copies that have a folder here."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(filter(is_id, os.listdir(ROOT)))
    return []
