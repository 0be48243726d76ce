"""
Find out why a minion is silent, beside the wait for it, and say so before that is over.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import named
from saltext.kvmclone.master import other_key, progress
from saltext.kvmclone.model import master_ports
from saltext.kvmclone.model.guest_minion import GuestMinion

log = logging.getLogger(__name__)

#: Seconds after which a minion that has not answered is silent; one that starts well takes less.
#: What the guest says then is there within 30 s of the start of the wait.
SILENCE_S = 10.0

#: Seconds from one look to the next: meanwhile somebody may open a port. Where a guest was too busy
#: to say anything, it is asked again sooner.
LOOK_AGAIN_S, ASK_AGAIN_S = 60.0, 5.0


class SilentMinion:
    """
    What the guest of a minion that does not answer says of its master and of its own key.

    :param ask: Asks the guest; may take a while, and fail.
    :param judge: Says what is wrong with the key or id that the guest tells; empty for nothing.
    :param now: Seconds on the clock of every later ``now``.
    """

    def __init__(
        self,
        minion_id: str,
        ask: Callable[[], GuestMinion],
        judge: Callable[[GuestMinion], str],
        now: float,
    ) -> None:
        self.minion_id = minion_id
        self._ask_guest = ask
        self._judge = judge
        self._started = now
        self._next = now + SILENCE_S
        self._answers: queue.SimpleQueue[tuple[GuestMinion, str]] = queue.SimpleQueue()
        self._asking = False
        self._told = ""
        #: The last answer, and what is wrong with the minion's key or id by it.
        self.answer, self.misfit = GuestMinion(), ""

    def look(self, now: float) -> bool:
        """
        Ask when it is time to, without waiting; tell what is new of an answer.

        :return: The guest has just said that its minion has the right key and reaches its master.
        """
        is_coming = False
        if not self._answers.empty():
            self._asking = False
            answer, misfit = self._answers.get()
            self.misfit = misfit or self.misfit
            if answer == GuestMinion():  # what it said before stays known
                self._next = min(self._next, now + ASK_AGAIN_S)
            else:
                self.answer, self.misfit = answer, misfit
                ports = answer.ports
                is_coming = bool(ports) and not misfit and not master_ports.unreached(ports)
            self._tell(now)
        if now >= self._next and not self._asking:
            self._next, self._asking = now + LOOK_AGAIN_S, True
            # Nobody waits for it at the end of the process.
            threading.Thread(target=self._ask, daemon=True).start()
        return is_coming

    def _ask(self) -> None:
        answer, misfit = GuestMinion(), ""
        try:
            try:
                answer = self._ask_guest()
            except (Exception, interrupts.Interrupt) as error:  # whatever it is, the wait goes on
                log.info("%s: its guest cannot be asked: %s", self.minion_id, named(error))
            misfit = self._judge(answer)
        except (Exception, interrupts.Interrupt) as error:
            log.info("%s: its key cannot be looked at: %s", self.minion_id, named(error))
        finally:
            self._answers.put((answer, misfit))

    def _tell(self, now: float) -> None:
        """Tell why the minion is silent, where that is known and was not told yet."""
        advice = f"{self.misfit} {other_key.HINT}" if self.misfit else ""
        reason = f"{advice} {master_ports.unreached(self.answer.ports)}".strip()
        if reason and reason != self._told:
            self._told = reason
            log.warning("%s: its minion is waited for. %s", self.minion_id, reason)
            progress.waiting(self.minion_id, now - self._started, reason)

    @property
    def reason(self) -> str:
        """Return what the guest said last, in a sentence; empty where nothing is known."""
        ports = self.answer.ports
        reach = master_ports.unreached(ports) or master_ports.reached(ports)
        return f"{self.misfit} {reach}".strip()
