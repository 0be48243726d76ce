"""
Have a host make a base, and clear up after a worker that died at it, or was interrupted.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    AlreadyExists,
    CreateInProgress,
    ForeignDomain,
    HostUnreachable,
    Interrupted,
    KvmCloneError,
    NeverConnected,
    NotFound,
    PlanRefused,
)
from saltext.kvmclone.hosts import rollback
from saltext.kvmclone.hosts.gc import owner_state_of
from saltext.kvmclone.hosts.interfaces import KvmHost, commands_of
from saltext.kvmclone.model.base_request import BaseRequest, Origin
from saltext.kvmclone.model.made_base import MadeBase
from saltext.kvmclone.model.plain import from_plain
from saltext.kvmclone.model.record import DEAD, Owner, Work
from saltext.kvmclone.system import processes

log = logging.getLogger(__name__)

#: How often another worker's remains are cleared before it is somebody else's turn.
_CLEARINGS = 3

#: Seconds that a host gets to destroy a clone whose base is finished, and between two looks.
_DESTROY_TIMEOUT_S, _DESTROY_POLL_S = 30.0, 1.0

#: Errors after which nothing of ours exists.
_REFUSALS = (AlreadyExists, CreateInProgress, NeverConnected, PlanRefused)


def make(host: KvmHost, request: BaseRequest, origin: Origin) -> MadeBase:
    """
    Make a base; remove first what a worker left that died at making it.

    :param origin: Where the image really is.
    :raises Interrupted: A signal arrived; nothing is left.
    :raises KvmCloneError: What the host raised; nothing is left, or the message says what.
    """
    name, worker = request.name, processes.this_process()
    with interrupts.work(name, "the making of a base", where=commands_of(host).where()):
        for clearing in range(_CLEARINGS + 1):
            try:
                return host.base_from(request, origin, worker)
            except CreateInProgress as busy:
                if clearing == _CLEARINGS or not _cleared(host, name, busy):
                    raise
            except _REFUSALS:
                raise
            except (interrupts.Interrupt, KvmCloneError) as error:
                with interrupts.shield():
                    ended = rollback.ended(
                        f"The making of the base '{name}'",
                        error,
                        lambda: _removed(host, name, worker, request.source),
                    )
                raise ended from None
    raise AssertionError("the last round returns or raises")


def promote(host: KvmHost, name: str, base: str) -> dict[str, Any]:
    """
    Make a base of a clone, and destroy the clone.

    :return: As :meth:`.interfaces.KvmHost.promote`.
    :raises Interrupted: A signal arrived; the message says what became of the base.
    :raises KvmCloneError: What the host raised; nothing is left, or the message says what.
    """
    worker = processes.this_process()
    with interrupts.work(base, "the making of a base", where=commands_of(host).where()):
        try:
            return host.promote(name, base, worker)
        except _REFUSALS:
            raise
        except (interrupts.Interrupt, KvmCloneError) as error:
            with interrupts.shield():
                ended = rollback.ended(
                    f"The making of the base '{base}'",
                    error,
                    lambda: _removed(host, base, worker, name),
                )
                lost = isinstance(ended, (Interrupted, HostUnreachable))
                if lost and _is_finished(host, base, name):
                    _await_gone(host, name)
            raise ended from None


def _is_finished(host: KvmHost, name: str, source: str) -> bool:
    """Return whether there is a base of that name and source; False where nobody can tell."""
    try:
        return any((base["name"], base["source"]) == (name, source) for base in host.bases())
    except KvmCloneError:
        return False


def _await_gone(host: KvmHost, name: str) -> None:
    """Wait a while until a host that has finished the base has destroyed its clone as well."""
    deadline = time.monotonic() + _DESTROY_TIMEOUT_S
    while time.monotonic() < deadline and not rollback.is_gone(host, name):
        time.sleep(_DESTROY_POLL_S)


def _cleared(host: KvmHost, name: str, busy: CreateInProgress) -> bool:
    """Remove what a dead worker left; return False where it lives, or nobody here can tell."""
    work = from_plain(Work, busy.work) if busy.work else None
    if work is None or owner_state_of(work) != DEAD:
        return False
    log.info("%s: removing what a worker left that died", name)
    with contextlib.suppress(NotFound, CreateInProgress):  # another was faster
        host.clear(name, work.worker.token)
    return True


def _removed(host: KvmHost, name: str, worker: Owner, source: str) -> str:
    """Remove what there is of our own work, and return a sentence on it."""
    try:
        rollback.persist(lambda: host.clear(name, worker.token))
    except ForeignDomain:
        if _is_finished(host, name, source):
            return f"It was finished before: '{name}' is a base, and stays."
        return f"There is a machine '{name}' that is not of this making; it was left alone."
    except (NotFound, CreateInProgress):
        return "Nothing of it is left."
    except KvmCloneError as problem:
        log.error("%s: not undone: %s", name, problem)
        processes.give_up(worker)
        left = commands_of(host).clone("gc", name)
        return f"It could not be removed: {problem.message.rstrip('.')}. What is left: {left}"
    return "What was made of it was removed."
