"""Undo a create that was not finished, and say what became of it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

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
from saltext.kvmclone.model.hints import Commands
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


@dataclass(frozen=True)
class InterruptedCreate:
    """
    A create that was interrupted, as it stands after that.

    :param stage: The last stage that was reached, ``""`` before the first.
    :param there: A clone had been made.
    :param asked: The host was asked to make one.
    :param followed: The clone is another worker's, which goes on making it.
    :param wish: ``on_failure``, as it was carried out.
    :param goal: The stage that the create was to reach.
    :param profile: Name of its profile; empty for none.
    :param commands: Ours, as they are typed where the error is read.
    """

    name: str
    stage: str
    there: bool
    asked: bool
    followed: bool
    wish: str
    goal: str
    profile: str
    commands: Commands

    def error(self) -> Interrupted:
        """Return the bare error, as a kept clone's record keeps it."""
        after = f" after '{self.stage}'" if self.stage else ""
        return Interrupted(f"'{self.name}' was interrupted{after}.")

    def tell(self, error: KvmCloneError) -> None:
        """
        Add to the error what became of the clone.

        :param error: Has a hint already if undoing the create failed.
        """
        became, hint = self._became(bool(error.hint))
        error.message = f"{error.message.removesuffix('.')}; {became}."
        error.hint = f"{hint} {error.hint}".strip()

    def _became(self, failed: bool) -> tuple[str, str]:
        name = self.name
        if failed:
            return "taking it back failed", ""
        if self.stage and self.stage == self.goal:
            look = f"Look at it: {self.commands.clone('show', name)}"
            return "it is whole and stays, only what was to come after it did not", look
        if self.there and self.wish != "destroy":
            state = "was switched off and is kept" if self.wish == "stop" else "is kept as it is"
            hint = (
                f"Go on: {self.commands.resume(name, self.profile)}   "
                f"Or remove it: {self.commands.clone('destroy', name)}"
            )
            return f"it {state}", hint
        if self.followed:
            return "another create of that name goes on", ""
        if not self.asked:
            return "nothing was made", ""
        return "it was taken back, and nothing of it is left", ""


def failed(create: CreateState, error: KvmCloneError | interrupts.Interrupt) -> KvmCloneError:
    """Undo what exists of a create that failed or was interrupted; return the error to show."""
    if isinstance(error, KvmCloneError):
        # A failure after a Ctrl-C is a consequence of it: it ends our child processes as well.
        if isinstance(error, REFUSALS) or not interrupts.pressed():
            return roll_back(create, error)
        log.info("%s: after the interrupt: %s", create.request.name, error)
    cut = InterruptedCreate(
        create.request.name, create.stage, create.clone is not None, create.asked,
        create.followed, create.wish(Interrupted("")), create.goal, create.request.profile,
        create.commands,
    )  # fmt: skip
    interrupted = roll_back(create, cut.error())
    cut.tell(interrupted)
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
            resume = create.commands.clone("resume", create.request.name)
            problems.append(f"Then go on: {resume}")
        elif create.clone is not None:
            persist(lambda: _end(create, error))
        elif create.kept is not None:  # whether it was taken over or not, it stays as it was
            processes.give_up(create.worker)
        elif create.asked and not isinstance(error, REFUSALS):
            # The answer was lost, not necessarily the clone. The token is that of our clone alone.
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
    problems += _remove_key(create, error)
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
    with contextlib.suppress(NotFound, ForeignDomain, CreateInProgress):
        create.host.destroy(create.request.name, token=create.worker.token)


def _remove_key(create: CreateState, error: KvmCloneError) -> list[str]:
    """
    Remove the key of the minion that the clone was to become; return what went wrong.

    A kept clone keeps its key, which is on its record and is removed with it.
    """
    upgraded = isinstance(error, OtherVersion)
    kept = create.clone is not None and (upgraded or create.wish(error) != "destroy")
    if create.fingerprint and create.master is not None:
        try:
            if not kept:
                create.master.remove(create.minion_id, create.fingerprint)
            create.master.settle(create.minion_id)
        except (KvmCloneError, OSError) as problem:
            return [f"The key of '{create.minion_id}' could not be removed: {problem}"]
    return []
