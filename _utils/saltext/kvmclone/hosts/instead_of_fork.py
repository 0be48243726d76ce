"""Say of a quick clone that it was made instead of a fork, and warm the base for the next."""

from __future__ import annotations

import contextlib
import dataclasses

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    CreateInProgress,
    KvmCloneError,
    NotWarmed,
    WarmImageUnusable,
)
from saltext.kvmclone.hosts import warm_base
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.model.record import INSTANT
from saltext.kvmclone.model.request import AUTO, Request


def warned(outcome: Outcome, told: str) -> Outcome:
    """Return an outcome with one more warning on its clone."""
    assert outcome.clone is not None
    clone = dataclasses.replace(outcome.clone, warnings=(told, *outcome.clone.warnings))
    return dataclasses.replace(outcome, clone=clone)


def warm_afterwards(host: KvmHost, request: Request, outcome: Outcome) -> Outcome:
    """
    Warm the base after a create that had to go without, where the profile says ``warm: auto``.

    The clone is complete by then, so that a failure, or an interrupt, is a warning.

    :param outcome: Of a create that went well.
    """
    clone = outcome.clone
    wanted = request.clone_strategy == INSTANT and request.warm == AUTO
    if not wanted or clone is None or clone.strategy == INSTANT:
        return outcome
    try:
        # A quick clone may have another reason; and another create may have warmed it by now.
        host.plan(dataclasses.replace(request, instant="require", warm=""))
    except (NotWarmed, WarmImageUnusable):
        try:
            with contextlib.suppress(CreateInProgress):  # somebody else is at it
                warm_base.warm(host, request.base_domain)
        except KvmCloneError as error:
            return warned(outcome, f"The base could not be warmed: {error.message} {error.hint}")
    except KvmCloneError as error:
        return warned(outcome, f"The base was not warmed: {error.message} {error.hint}")
    except interrupts.Interrupt:
        told = "The base was not warmed, since that was interrupted. The next create does it."
        return warned(outcome, told)
    return outcome
