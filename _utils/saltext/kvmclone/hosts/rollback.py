"""Undo a create that was not finished, and say what became of its machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    AlreadyExists,
    CreateInProgress,
    ForeignDomain,
    HostFull,
    HostUnreachable,
    Interrupted,
    KeptAfterFailure,
    KvmCloneError,
    NeverConnected,
    NotFound,
    OtherVersion,
    PlanRefused,
    TooLate,
)
from saltext.kvmclone.hosts.create_state import CreateState
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.leftovers import KEPT
from saltext.kvmclone.system import processes

T = TypeVar("T")
log = logging.getLogger(__name__)

#: Errors after which nothing of ours exists.
REFUSALS = (
    AlreadyExists, CreateInProgress, HostFull, KeptAfterFailure, NeverConnected, PlanRefused,
    TooLate,
)  # fmt: skip

#: Seconds for which a rollback is repeated where the host does not answer (a libvirtd that is being
#: restarted).
ROLLBACK_RETRY_TIMEOUT_S = 15.0

ROLLBACK_RETRY_POLL_S = 0.5

_KEPT_HOW = {"running": "kept and runs", "shutoff": "kept, shut off"}


@dataclass(frozen=True)
class Fate:
    """
    What became of the machine of a create that failed.

    :param clone: The clone as it is now; None where none was seen.
    :param sentence: What became of it; empty where nothing was made.
    :param hint: What to do about it.
    :param has_key: The guest stays and has its minion's key, so the master keeps it as well.
    :param was_up: The machine was removed after it had booted, so nobody can look into it.
    """

    clone: Clone | None = None
    sentence: str = ""
    hint: str = ""
    has_key: bool = False
    was_up: bool = False


def persist(work: Callable[[], T]) -> T:
    """
    Do a piece of work, and repeat it for a while where the host does not answer.

    A libvirtd that restarts is back soon.

    :raises HostUnreachable: The host did not answer within :data:`ROLLBACK_RETRY_TIMEOUT_S`.
    """
    deadline = time.monotonic() + ROLLBACK_RETRY_TIMEOUT_S
    while True:
        try:
            return work()
        except HostUnreachable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(ROLLBACK_RETRY_POLL_S)


def is_gone(host: KvmHost, name: str) -> bool:
    """Return whether a host surely has no clone of that name."""
    try:
        host.show(name)
    except NotFound:
        return True
    except KvmCloneError:
        pass
    return False


def ended(
    what: str, error: interrupts.Interrupt | KvmCloneError, remove: Callable[[], str]
) -> KvmCloneError:
    """
    Take back what an interrupt, or an answer that was lost, has left of other work than a create.

    :param what: The work, as the begin of a sentence.
    :param remove: Removes what there is of it, and returns a sentence on that.
    :return: What to raise: it says what became of the work.
    """
    # A failure after a Ctrl-C is a consequence of it: it ends our child processes as well.
    if interrupts.pressed() or not isinstance(error, KvmCloneError):
        log.info("%s, after the interrupt: %s", what, error)
        return Interrupted(f"{what} was interrupted. {remove()}", "Repeat the command.")
    # The host undoes its own failures; where its answer was lost, nobody knows.
    if isinstance(error, HostUnreachable):
        error.message = f"{error.message.rstrip('.')}. {remove()}"
    return error


def failed(create: CreateState, error: KvmCloneError | interrupts.Interrupt) -> Outcome:
    """
    Undo what exists of a create that failed or was interrupted.

    :return: The outcome; its error ends with what became of the machine.
    """
    name = create.request.name
    # A failure after a Ctrl-C is a consequence of it: it ends our child processes as well.
    interrupted = interrupts.pressed() and not isinstance(error, REFUSALS)
    if interrupted or not isinstance(error, KvmCloneError):
        log.info("%s: after the interrupt: %s", name, error)
        after = f" after '{create.stage}'" if create.stage else ""
        error = Interrupted(f"The create of '{name}' was interrupted{after}.")
    fate = roll_back(create, error)
    if fate.sentence:
        # What a script printed last is no sentence to be continued.
        end = "\n" if "\n" in error.message else ". "
        error.message = f"{error.message.rstrip('.')}{end}{fate.sentence}"
    # What the error says to look at is there again once the machine is.
    again = "To look into the machine, repeat this with on_failure=keep." if fate.was_up else ""
    error.hint = "   ".join(filter(None, (again, error.hint, fate.hint)))
    return Outcome(name, create.stage, fate.clone, error)


def roll_back(create: CreateState, error: KvmCloneError) -> Fate:
    """
    Undo what exists of a create, as ``on_failure`` wants it.

    :return: What became of the machine, and what could not be undone.
    """
    if create.stage and create.stage == create.goal:
        return _complete(create)  # and in use: what comes after is not a reason to undo it
    try:
        fate = _undone(create, error)
    except KvmCloneError as problem:
        log.error("%s: %s Not undone: %s", create.request.name, error, problem)
        processes.give_up(create.worker)  # so that others may repeat it while this process lives
        fate = _stuck(create, error, problem)
    except BaseException:  # a second Ctrl-C
        processes.give_up(create.worker)
        raise
    # After the clone, since its minion would submit the key again while it runs.
    key = _remove_key(create, fate.has_key)
    return replace(fate, sentence=f"{fate.sentence} {key}".strip())


def _undone(create: CreateState, error: KvmCloneError) -> Fate:
    """
    Destroy, stop or keep the clone, as far as there is one.

    :raises KvmCloneError: That failed.
    """
    name, token, wish = create.request.name, create.worker.token, create.wish(error)
    if create.clone is None:
        return _undone_unseen(create, error)
    if isinstance(error, OtherVersion):  # half-way through: the host would not undo it either
        processes.give_up(create.worker)
        return Fate(create.clone, f"'{name}' stays as it is.", _go_on(create), has_key=True)
    if wish == "destroy":
        removed = _removed(create) or f"'{name}' was removed."
        return Fate(create.clone.removed(), removed, was_up=create.stage not in ("", "cloned"))
    why, off = f"{error.type}: {error.message}", wish == "stop"
    clone = persist(lambda: create.host.keep(name, token, why, off))
    how = _KEPT_HOW.get(clone.state, f"kept, {clone.state}")
    return Fate(clone, f"'{name}' was {how}.", _go_on(create), has_key=True)


def _undone_unseen(create: CreateState, error: KvmCloneError) -> Fate:
    """
    Destroy the clone that may have been made; the token is that of our clone alone.

    :raises KvmCloneError: That failed.
    """
    name = create.request.name
    if not create.asked:
        return Fate(sentence="Nothing was made." if isinstance(error, Interrupted) else "")
    if create.followed:
        return Fate(sentence="Another create of that name goes on.")
    if isinstance(error, REFUSALS):
        return Fate()
    if create.kept is not None:  # whether it was taken over or not, it stays as it was
        processes.give_up(create.worker)
        gone = isinstance(error, NotFound)
        return Fate() if gone else Fate(None, f"'{name}' is kept as it was.", _go_on(create))
    try:
        # The answer was lost, not necessarily the clone.
        return Fate(sentence=_removed(create) or f"Nothing of '{name}' is left.")
    except (ForeignDomain, CreateInProgress):  # somebody else's; ours is not there
        return Fate()


def _removed(create: CreateState) -> str:
    """
    Remove the clone, and return a sentence that says so; empty where it was gone already.

    :raises KvmCloneError: It is still there, or may be.
    """
    name, token = create.request.name, create.worker.token
    try:
        rows = persist(lambda: create.host.clear(name, token))
    except NotFound:  # an earlier attempt succeeded after all
        return ""
    stays = [f"'{row.path}': {row.reason}." for row in rows if row.kind == KEPT]
    return " ".join([f"'{name}' was removed.", *stays])


def _complete(create: CreateState) -> Fate:
    name = create.request.name
    return Fate(
        create.clone,
        f"'{name}' is complete and stays; only what was to come after it did not.",
        f"Look at it: {create.commands.clone('show', name)}",
    )


def _go_on(create: CreateState) -> str:
    name, commands = create.request.name, create.commands
    return (
        f"Go on: {commands.resume(name, create.request.profile)}   "
        f"Or remove it: {commands.clone('destroy', name)}"
    )


def _stuck(create: CreateState, error: KvmCloneError, problem: KvmCloneError) -> Fate:
    """
    Return what is left of a create that could not be undone.

    :param problem: Why it could not.
    """
    name, commands = create.request.name, create.commands
    kept = create.clone is not None and create.wish(error) != "destroy"
    if isinstance(problem, NotFound):
        gone = create.clone.removed() if create.clone else None
        return Fate(gone, f"'{name}' was removed by somebody else.")
    if isinstance(problem, CreateInProgress):
        return Fate(create.clone, problem.message, problem.hint, kept)
    clone, left = _left(create, problem)
    remove = commands.clone("gc", name, "apply=True")
    if kept:
        what, left = f"'{name}' stays, and that its create failed could not be recorded", ""
        hint = f"Go on: {commands.resume(name, create.request.profile)}   Or remove it: {remove}"
    else:
        what = f"'{name}' could not be removed"
        hint = f"What is left of it: {commands.clone('gc', name)}   Remove that: {remove}"
    if problem.hint != error.hint:  # mostly it is the same that stands in the way
        hint = "   ".join(filter(None, (problem.hint, hint)))
    sentence = f"{what}: {problem.message.rstrip('.')}. {left}".strip()
    return Fate(clone, sentence, hint, kept)


def _left(create: CreateState, problem: KvmCloneError) -> tuple[Clone | None, str]:
    """Return the clone as it is now, as far as the host tells, and a sentence on its pieces."""
    name, unknown = create.request.name, "What is left of it is not known."
    clone = replace(create.clone, state="", addresses=()) if create.clone else None
    if isinstance(problem, HostUnreachable):
        return clone, unknown
    try:
        clone = create.host.show(name)
        pieces = [piece for item in create.host.unfinished(name) for piece in item.pieces]
    except KvmCloneError as error:
        log.info("%s: what is left is not known: %s", name, error)
        return clone, unknown
    told = [f"{one.kind} {one.path}".strip() for one in pieces if one.kind != KEPT]
    return clone, f"Left of it: {', '.join(told)}." if told else unknown


def _remove_key(create: CreateState, kept: bool) -> str:
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
            log.error("%s: its key: %s", create.minion_id, problem)
            return f"The key of '{create.minion_id}' could not be removed: {problem}"
    return ""
