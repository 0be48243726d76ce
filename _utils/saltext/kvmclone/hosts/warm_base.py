"""
Have a host warm a base, and clear up where that was interrupted, its answer was lost, or an earlier
worker died at it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable
from typing import TypeVar

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    CreateInProgress,
    HostFull,
    KvmCloneError,
    NeverConnected,
    NotFound,
    PlanRefused,
)
from saltext.kvmclone.hosts import rollback
from saltext.kvmclone.hosts.gc import owner_state_of
from saltext.kvmclone.hosts.interfaces import KvmHost, commands_of
from saltext.kvmclone.model.placement import HostLimits
from saltext.kvmclone.model.plain import from_plain
from saltext.kvmclone.model.record import DEAD, Owner, Work
from saltext.kvmclone.model.warmed_base import UnwarmedBase, WarmedBase
from saltext.kvmclone.system import processes

T = TypeVar("T")
log = logging.getLogger(__name__)

#: How often another worker's remains are cleared before it is somebody else's turn.
_CLEARINGS = 3

#: Errors after which nothing of ours exists.
_REFUSALS = (CreateInProgress, HostFull, NeverConnected, NotFound, PlanRefused)


def warm(host: KvmHost, base: str, limits: HostLimits | None = None) -> WarmedBase:
    """
    Save the memory of a base on a host; remove first what a worker left that died at it.

    :param limits: How much the host may promise; None for any amount.
    :raises CreateInProgress: Somebody is at it, or nobody here can tell.
    :raises Interrupted: A signal arrived; the message says what is left.
    :raises KvmCloneError: What the host raised; nothing is left, or the message says what.
    """
    worker = processes.this_process()
    with interrupts.work(base, "the warming of a base", where=commands_of(host).where()):
        try:
            return _cleared_first(host, lambda: host.warm(base, worker, limits))
        except _REFUSALS:
            raise
        except (interrupts.Interrupt, KvmCloneError) as error:
            with interrupts.shield():
                ended = rollback.ended(
                    f"The warming of '{base}'", error, lambda: _removed(host, base, worker)
                )
            raise ended from None


def unwarm(host: KvmHost, base: str) -> UnwarmedBase:
    """
    Remove the saved memories of a base, also one whose worker died at it.

    :raises CreateInProgress: Somebody is warming it, or nobody here can tell.
    """
    return _cleared_first(host, lambda: host.unwarm(base))


def _cleared_first(host: KvmHost, work: Callable[[], T]) -> T:
    """
    Do a piece of work, where need be after what a dead worker left that stands in its way.

    The host by itself removes that of its own workers. A runner lives on the master, so that only
    the master can tell that one is dead.
    """
    for _clearing in range(_CLEARINGS):
        try:
            return work()
        except CreateInProgress as busy:
            left = from_plain(Work, busy.work) if busy.work else None
            if left is None or owner_state_of(left) != DEAD:
                raise
            log.info("removing what a worker left that died at warming a base: %s", busy)
            with contextlib.suppress(NotFound, CreateInProgress):  # another was faster
                _clear(host, left.worker)
    return work()


def _clear(host: KvmHost, worker: Owner) -> bool:
    """Remove the unfinished work of one worker, and return whether there was any."""
    # Its machine is called after the base and its generation, which only the host knows.
    mine = [
        item for item in rollback.persist(host.unfinished) if item.work.worker.token == worker.token
    ]
    for item in mine:
        rollback.persist(functools.partial(host.clear, item.name, worker.token))
    return bool(mine)


def _removed(host: KvmHost, base: str, worker: Owner) -> str:
    """Remove what there is of our own unfinished work, and return a sentence on it."""
    try:
        was_there = _clear(host, worker)
    except (NotFound, CreateInProgress):
        return "Nothing unfinished of it is left."
    except KvmCloneError as problem:
        log.error("%s: not undone: %s", base, problem)
        processes.give_up(worker)
        left = commands_of(host).clone("gc")
        return f"It could not be removed: {problem.message.rstrip('.')}. What is left: {left}"
    return "What was made of it was removed." if was_there else "Nothing unfinished of it is left."
