"""Undo a create that was not finished, and say what became of it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    AlreadyExists,
    CreateInProgress,
    ForeignDomain,
    HostUnreachable,
    Interrupted,
    KeptAfterFailure,
    KvmCloneError,
    NeverConnected,
    NotFound,
    OtherVersion,
    PlanRefused,
)
from saltext.kvmclone.hosts.create_state import CreateState
from saltext.kvmclone.system import processes

log = logging.getLogger(__name__)

#: Errors after which nothing of ours exists.
REFUSALS = (AlreadyExists, CreateInProgress, KeptAfterFailure, NeverConnected, PlanRefused)

#: Seconds for which a rollback is repeated where the host does not answer (a libvirtd that is being
#: restarted).
ROLLBACK_RETRY_TIMEOUT_S = 15.0

ROLLBACK_RETRY_POLL_S = 0.5


def persist(work: Callable[[], object]) -> None:
    """
    Do a piece of work, and repeat it for a while where the host does not answer.

    A libvirtd that restarts is back soon.

    :raises HostUnreachable: The host did not answer within :data:`ROLLBACK_RETRY_TIMEOUT_S`.
    """
    deadline = time.monotonic() + ROLLBACK_RETRY_TIMEOUT_S
    while True:
        try:
            work()
            return
        except HostUnreachable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(ROLLBACK_RETRY_POLL_S)


def _became(create: CreateState, failed: bool) -> tuple[str, str]:
    """
    Return what became of a create that was interrupted, and the hint that goes with it.

    :param failed: Undoing it failed; its own hint says what to do.
    """
    name, commands = create.request.name, create.commands
    if failed:
        return "taking it back failed", ""
    if create.stage and create.stage == create.goal:
        look = f"Look at it: {commands.clone('show', name)}"
        return "it is whole and stays, only what was to come after it did not", look
    wish = create.wish(Interrupted(""))
    if create.kept is not None or (create.clone is not None and wish != "destroy"):
        off = wish == "stop" and create.clone is not None
        state = "was switched off and is kept" if off else "is kept as it is"
        hint = (
            f"Go on: {commands.resume(name, create.request.profile)}   "
            f"Or remove it: {commands.clone('destroy', name)}"
        )
        return f"it {state}", hint
    if create.followed:
        return "another create of that name goes on", ""
    if not create.asked:
        return "nothing was made", ""
    return "it was taken back, and nothing of it is left", ""


def failed(create: CreateState, error: KvmCloneError | interrupts.Interrupt) -> KvmCloneError:
    """Undo what exists of a create that failed or was interrupted; return the error to show."""
    if isinstance(error, KvmCloneError):
        # A failure after a Ctrl-C is a consequence of it: it ends our child processes as well.
        if isinstance(error, REFUSALS) or not interrupts.pressed():
            return roll_back(create, error)
        log.info("%s: after the interrupt: %s", create.request.name, error)
    after = f" after '{create.stage}'" if create.stage else ""
    # A kept clone's record keeps the bare error.
    interrupted = roll_back(create, Interrupted(f"'{create.request.name}' was interrupted{after}."))
    became, hint = _became(create, failed=bool(interrupted.hint))
    interrupted.message = f"{interrupted.message.removesuffix('.')}; {became}."
    interrupted.hint = f"{hint} {interrupted.hint}".strip()
    return interrupted


def roll_back(create: CreateState, error: KvmCloneError) -> KvmCloneError:
    """
    Undo what exists of a create, as ``on_failure`` wants it.

    :return: The error to show; its hint says what could not be undone.
    """
    if create.stage == "ready":
        return error  # complete and in use: what comes after is not a reason to undo it
    problems = []
    upgraded = create.clone is not None and isinstance(error, OtherVersion)
    try:
        if upgraded:  # half-way through: the host would not undo it either
            processes.give_up(create.worker)
            # Only the master finds another version at the other end, and it knows the profile.
            resume = create.commands.clone("resume", create.request.name)
            problems.append(f"Then go on: {resume}")
        elif create.clone is not None:
            persist(lambda: _end(create, error))
        elif create.asked and not isinstance(error, REFUSALS):
            # The answer was lost, not necessarily the clone.
            if create.kept is not None:  # whether it was taken over or not, it stays as it was
                processes.give_up(create.worker)
            else:
                persist(lambda: _end_unseen(create))
    except KvmCloneError as problem:
        processes.give_up(create.worker)  # so that others may repeat it while this process lives
        problems.append(
            f"'{create.request.name}' could not be taken back: {problem.message} Repeat that: "
            f"{create.commands.clone('gc', create.request.name, 'apply=True')}"
        )
    except BaseException:  # a second Ctrl-C
        processes.give_up(create.worker)
        raise
    # After the clone, since its minion would submit the key again while it runs.
    kept = upgraded or (create.clone is not None and create.wish(error) != "destroy")
    problems += _remove_key(create, kept)
    if problems:
        error.hint = " ".join([error.hint, *problems]).strip()
        log.error("%s: %s", create.request.name, error)
    return error


def _end(create: CreateState, error: KvmCloneError) -> None:
    """Destroy, stop or keep the clone."""
    name, token, wish = create.request.name, create.worker.token, create.wish(error)
    if wish != "destroy":
        create.host.keep(name, token, f"{error.type}: {error.message}", off=wish == "stop")
        return
    with contextlib.suppress(NotFound):  # an earlier attempt succeeded after all
        create.host.destroy(name, token=token)


def _end_unseen(create: CreateState) -> None:
    """Destroy the clone that may have been made; the token is that of our clone alone."""
    with contextlib.suppress(NotFound, ForeignDomain, CreateInProgress):
        create.host.destroy(create.request.name, token=create.worker.token)


def _remove_key(create: CreateState, kept: bool) -> list[str]:
    """
    Remove the key of the minion that the clone was to become; return what went wrong.

    :param kept: The clone is kept, and its key with it, which is on its record.
    """
    if create.fingerprint and create.master is not None:
        try:
            if not kept:
                create.master.remove(create.minion_id, create.fingerprint)
            create.master.settle(create.minion_id)
        except (KvmCloneError, OSError) as problem:
            return [f"The key of '{create.minion_id}' could not be removed: {problem}"]
    return []
