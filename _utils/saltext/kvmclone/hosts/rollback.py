"""Undo a create that was not finished, and say what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from saltext.kvmclone.errors import HostUnreachable, Interrupted, KvmCloneError
from saltext.kvmclone.model.hints import Commands

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
