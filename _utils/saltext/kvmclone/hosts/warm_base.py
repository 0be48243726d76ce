"""
Have a host warm a base, and clear up where that was interrupted or its answer was lost.
"""

from __future__ import annotations

import functools
import logging

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    CreateInProgress,
    KvmCloneError,
    NeverConnected,
    NotFound,
    PlanRefused,
)
from saltext.kvmclone.hosts import rollback
from saltext.kvmclone.hosts.interfaces import KvmHost, commands_of
from saltext.kvmclone.model.record import Owner
from saltext.kvmclone.model.warmed_base import WarmedBase
from saltext.kvmclone.system import processes

log = logging.getLogger(__name__)

#: Errors after which nothing of ours exists.
_REFUSALS = (CreateInProgress, NeverConnected, NotFound, PlanRefused)


def warm(host: KvmHost, base: str) -> WarmedBase:
    """
    Save the memory of a base on a host.

    :raises Interrupted: A signal arrived; the message says what is left.
    :raises KvmCloneError: What the host raised; nothing is left, or the message says what.
    """
    worker = processes.this_process()
    with interrupts.work(base, "the warming of a base", where=commands_of(host).where()):
        try:
            return host.warm(base, worker)
        except _REFUSALS:
            raise
        except (interrupts.Interrupt, KvmCloneError) as error:
            with interrupts.shield():
                ended = rollback.ended(
                    f"The warming of '{base}'", error, lambda: _removed(host, base, worker)
                )
            raise ended from None


def _removed(host: KvmHost, base: str, worker: Owner) -> str:
    """Remove what there is of our own unfinished work, and return a sentence on it."""
    try:
        mine = [
            item
            for item in rollback.persist(host.unfinished)
            if item.work.worker.token == worker.token
        ]
        for item in mine:
            rollback.persist(functools.partial(host.clear, item.name, worker.token))
    except (NotFound, CreateInProgress):
        return "Nothing unfinished of it is left."
    except KvmCloneError as problem:
        log.error("%s: not undone: %s", base, problem)
        processes.give_up(worker)
        left = commands_of(host).clone("gc")
        return f"It could not be removed: {problem.message.rstrip('.')}. What is left: {left}"
    return "What was made of it was removed." if mine else "Nothing unfinished of it is left."
