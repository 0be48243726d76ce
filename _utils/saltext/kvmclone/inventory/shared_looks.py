"""
Let threads that look at one host at about the same moment share one look.

Nobody gets an older look than one of its own would be: the one that is shared began after each of
them had asked. Whoever asks while a look is under way waits for the next.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from saltext.kvmclone import interrupts

T = TypeVar("T")

#: Seconds between two looks for a Ctrl-C while waiting for another thread.
_WAIT_S = 0.5


class SharedLooks(Generic[T]):
    """The looks of one kind in this process, at whatever host."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[tuple[int, str], _Place[T]] = {}

    def look(self, url: str, work: Callable[[], T]) -> T:
        """
        Return what ``work`` returns, here or in another thread, begun after this was called.

        :param url: The host that it looks at.
        """
        with self._lock:  # a child that was forked has looks, and locks, of its own
            place = self._places.setdefault((os.getpid(), url), _Place())
        return place.look(work)


class _Place(Generic[T]):
    """The looks at one host."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_busy = False
        self._begun = 0
        self._waiting = 0
        #: The last look that was done, in a list, and which it was; none once nobody waits for it.
        self._last: list[T] = []
        self._number = 0

    def look(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns; see :meth:`SharedLooks.look`."""
        with self._changed:
            wanted = self._begun + 1
            self._waiting += 1
            try:
                while self._is_busy and not self._is_done(wanted):
                    self._changed.wait(_WAIT_S)
                    interrupts.check()
                if self._is_done(wanted):
                    return self._last[0]
                self._is_busy = True  # also where the others' look failed
                self._begun = number = self._begun + 1
            finally:
                self._waiting -= 1
                if not self._waiting:
                    self._last = []
        done: list[T] = []
        try:
            done.append(work())
        finally:
            with self._changed:
                self._is_busy = False
                if done and self._waiting:
                    self._last, self._number = done, number
                self._changed.notify_all()
        return done[0]

    def _is_done(self, wanted: int) -> bool:
        return bool(self._last) and self._number >= wanted
