"""
Keep on this machine what one copy of a base between two hosts needs, as long as that lasts.

A folder of root's own, below ``/run``: a boot, which ends every copy, also removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from dataclasses import dataclass, replace

from saltext.kvmclone.model.base_copy import Offered, is_id
from saltext.kvmclone.model.plain import from_plain, to_plain
from saltext.kvmclone.model.record import DEAD, Owner
from saltext.kvmclone.system import files, processes

ROOT = "/run/kvm_clone/copies"

#: Seconds that the other host may take to begin, once everything is ready for it here.
PATIENCE_S = 300.0

_ABOUT, _LOCK = "about.json", "lock"


@dataclass(frozen=True)
class _About:
    """
    What is known of a copy here.

    :param base: Name of the base.
    :param owner: The process at work; none while the other host is waited for, ``until`` then.
    :param lasts: Seconds that all of the other host's work may take.
    :param keys: As the metadata of the base at the source has it, like ``staged``: the base may be
        undefined, or defined anew, while it is copied.
    """

    base: str
    owner: Owner = Owner()
    until: float = 0.0
    lasts: float = 0.0
    keys: str = ""
    staged: tuple[str, ...] = ()


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
    about = replace(_known(copy) or _About(base), base=base)
    _write(copy, replace(about, owner=processes.this_process(), until=0.0))


def note_lasts(copy: str, seconds: float) -> None:
    """
    Note how long the other host's work may take.

    :raises OSError: It cannot be written.
    """
    _write(copy, replace(_about(copy), lasts=seconds))


def lasts(copy: str) -> float:
    """Return the seconds that :func:`note_lasts` noted; 0 if that is not known any more."""
    about = _known(copy)
    return about.lasts if about else 0.0


def note_made(copy: Offered) -> None:
    """
    Note what is about to be made for a copy at the source.

    :raises OSError: It cannot be written: the copy was ended.
    """
    _write(copy.copy, replace(_about(copy.copy), keys=copy.keys, staged=copy.staged))


def made(copy: str) -> Offered:
    """Return what :func:`note_made` noted; nothing if that is not known any more."""
    about = _known(copy)
    return Offered(copy, about.keys, about.staged) if about else Offered(copy)


def wait_for_other(copy: str, seconds: float = PATIENCE_S) -> None:
    """
    Note that the other host comes next, and has some time to do so.

    :raises OSError: It cannot be written: the copy was ended.
    """
    _write(copy, replace(_about(copy), owner=Owner(), until=time.time() + seconds))


def is_dead(copy: str) -> bool:
    """
    Return whether nobody is at work on a copy here any more.

    As long as the other host fetches files, the server that it talks to holds a lock.
    """
    about = _known(copy)
    if about is None:
        return True  # removed, or another boot's
    if about.owner.pid and processes.owner_state(about.owner) != DEAD:
        return False
    return time.time() > about.until and not _is_locked(copy)


def base_of(copy: str) -> str:
    """Return the name of the base that a copy is of; empty where that is not known any more."""
    about = _known(copy)
    return about.base if about else ""


def _write(copy: str, about: _About) -> None:
    files.write(path(copy, _ABOUT), json.dumps(to_plain(about)))


def _about(copy: str) -> _About:
    with open(path(copy, _ABOUT), encoding="utf-8") as source:
        return from_plain(_About, json.load(source))


def _known(copy: str) -> _About | None:
    """Return what is known of a copy; None where that cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return _about(copy)
    return None


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
