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
from saltext.kvmclone.master import progress
from saltext.kvmclone.model import master_ports
from saltext.kvmclone.model.master_ports import PortCheck

log = logging.getLogger(__name__)

#: Seconds after which a minion that has not answered is silent; one that starts well takes less.
#: What the guest says then is there within 30 s of the start of the wait.
SILENCE_S = 10.0

#: Seconds from one look to the next: meanwhile somebody may open a port.
LOOK_AGAIN_S = 60.0


class SilentMinion:
    """
    What the guest of a minion that does not answer says of its master.

    :param ask: Asks the guest; may take a while, and fail.
    :param now: Seconds on the clock of every later ``now``.
    """

    def __init__(self, minion_id: str, ask: Callable[[], list[PortCheck]], now: float) -> None:
        self.minion_id = minion_id
        self._ask_guest = ask
        self._started = now
        self._next = now + SILENCE_S
        self._answers: queue.SimpleQueue[list[PortCheck]] = queue.SimpleQueue()
        self._asking = False
        self._told = ""
        #: The last answer.
        self.checks: list[PortCheck] = []

    def look(self, now: float) -> None:
        """Ask when it is time to, without waiting; tell what is new of an answer."""
        if not self._answers.empty():
            self._asking = False
            self._hear(self._answers.get(), now)
        if now >= self._next and not self._asking:
            self._next, self._asking = now + LOOK_AGAIN_S, True
            # Nobody waits for it at the end of the process.
            threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        checks: list[PortCheck] = []
        try:
            checks = self._ask_guest()
        except (Exception, interrupts.Interrupt) as error:  # whatever it is, the wait goes on
            log.info("%s: its guest cannot be asked: %s", self.minion_id, named(error))
        finally:
            self._answers.put(checks)

    def _hear(self, checks: list[PortCheck], now: float) -> None:
        self.checks = checks or self.checks
        reason = master_ports.unreached(checks)
        if reason and reason != self._told:
            self._told = reason
            log.warning("%s: its minion is waited for. %s", self.minion_id, reason)
            progress.waiting(self.minion_id, now - self._started, reason)

    @property
    def reason(self) -> str:
        """Return what the guest said last, in a sentence; empty where nothing is known."""
        return master_ports.unreached(self.checks) or master_ports.reached(self.checks)
