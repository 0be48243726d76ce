"""Make a quick clone where a fork failed, say so on it, and warm the base for the next fork."""

from __future__ import annotations

import contextlib
import dataclasses

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    CreateInProgress,
    ForkFailed,
    KvmCloneError,
    NotWarmed,
    WarmImageUnusable,
)
from saltext.kvmclone.hosts import rollback, warm_base
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.model.record import INSTANT
from saltext.kvmclone.model.request import AUTO, PREFER, Request

#: What a fork meets whose saved memory changed after it was planned.
_NO_MEMORY = (NotWarmed, WarmImageUnusable)


def is_wanted(host: KvmHost, request: Request, failed: KvmCloneError | None) -> bool:
    """
    Return whether a quick clone takes the place of a fork, which is seen to be gone.

    :param failed: How the create of the fork ended.
    """
    if request.clone_strategy != INSTANT:
        return False
    prefers = request.instant == PREFER and isinstance(failed, (ForkFailed, *_NO_MEMORY))
    warms = request.warm == AUTO and isinstance(failed, _NO_MEMORY)
    return (prefers or warms) and rollback.is_gone(host, request.name)


def explained(outcome: Outcome, failed: KvmCloneError | None) -> Outcome:
    """Return the outcome of a quick clone, which says why there is no fork."""
    why = failed.message if failed is not None else ""
    return _warned(outcome, f"Made as a quick clone instead of a fork. {why}")


def _warned(outcome: Outcome, told: str) -> Outcome:
    if outcome.clone is None:
        return outcome
    clone = dataclasses.replace(outcome.clone, warnings=(told, *outcome.clone.warnings))
    return dataclasses.replace(outcome, clone=clone)


def warm_afterwards(host: KvmHost, request: Request, outcome: Outcome) -> Outcome:
    """
    Warm the base after a create that had to go without, where the profile says ``warm: auto``.

    The clone is complete by then, so that a failure, or an interrupt, is a warning.

    :param outcome: Of the create, as it ended.
    """
    clone = outcome.clone
    wanted = request.clone_strategy == INSTANT and request.warm == AUTO
    if not wanted or outcome.error or clone is None or clone.strategy == INSTANT:
        return outcome
    try:
        # A quick clone may have another reason; and another create may have warmed it by now.
        host.plan(dataclasses.replace(request, instant="require", warm=""))
    except _NO_MEMORY:
        try:
            with contextlib.suppress(CreateInProgress):  # somebody else is at it
                limits = request.placed.limits if request.placed is not None else None
                warm_base.warm(host, request.base_domain, limits)
        except KvmCloneError as error:
            return _warned(outcome, f"The base could not be warmed: {error.message} {error.hint}")
    except KvmCloneError as error:
        return _warned(outcome, f"The base was not warmed: {error.message} {error.hint}")
    except interrupts.Interrupt:
        told = "The base was not warmed, since that was interrupted. The next create does it."
        return _warned(outcome, told)
    return outcome
