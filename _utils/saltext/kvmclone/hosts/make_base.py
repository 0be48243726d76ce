"""
Have a host make a base from an image, and clear up after a worker that died at it.
"""

from __future__ import annotations

import contextlib
import logging

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
            except interrupts.Interrupt:
                with interrupts.shield():
                    left = _removed(host, name, worker)
                raise Interrupted(
                    f"The making of the base '{name}' was interrupted. {left}",
                    "Repeat the command.",
                ) from None
            except KvmCloneError as error:
                # The host undoes its own failures; where its answer was lost, nobody knows.
                if isinstance(error, HostUnreachable):
                    with interrupts.shield():
                        left = _removed(host, name, worker)
                    error.message = f"{error.message.rstrip('.')}. {left}"
                raise
    raise AssertionError("the last round returns or raises")


def _cleared(host: KvmHost, name: str, busy: CreateInProgress) -> bool:
    """Remove what a dead worker left; return False where it lives, or nobody here can tell."""
    work = from_plain(Work, busy.work) if busy.work else None
    if work is None or owner_state_of(work) != DEAD:
        return False
    log.info("%s: removing what a worker left that died", name)
    with contextlib.suppress(NotFound, CreateInProgress):  # another was faster
        host.clear(name, work.worker.token)
    return True


def _removed(host: KvmHost, name: str, worker: Owner) -> str:
    """Remove what there is of our own work, and return a sentence on it."""
    try:
        rollback.persist(lambda: host.clear(name, worker.token))
    except (NotFound, ForeignDomain, CreateInProgress):
        return "Nothing of it is left."
    except KvmCloneError as problem:
        log.error("%s: not undone: %s", name, problem)
        processes.give_up(worker)
        left = commands_of(host).clone("gc", name)
        return f"It could not be removed: {problem.message.rstrip('.')}. What is left: {left}"
    return "What was made of it was removed."
