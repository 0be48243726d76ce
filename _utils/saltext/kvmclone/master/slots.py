"""Let only so many pieces of work of one command go on at the same time, in one place."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from saltext.kvmclone import interrupts

#: Seconds between two looks for a Ctrl-C while waiting for a turn.
_LOOK_S = 0.5


class Slots:
    """
    The turns in some places.

    :param most: How many may be at work in one place.
    """

    def __init__(self, most: int) -> None:
        self._places: dict[str, threading.Semaphore] = defaultdict(
            lambda: threading.Semaphore(most)
        )
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, places: Iterable[str]) -> Iterator[None]:
        """
        Wait for a turn in each of these places, and keep it until the end of the block.

        :raises Interrupt: A signal came while it waited.
        """
        with ExitStack() as held:
            for place in sorted(set(places)):  # in one order, so that no two wait for each other
                with self._lock:
                    semaphore = self._places[place]
                while not semaphore.acquire(timeout=_LOOK_S):
                    interrupts.check()
                held.callback(semaphore.release)
            yield
