"""
Carry out several calls at the same time, and tell of each that ends without waiting for the rest.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

#: Seconds that a call which has ended waits for others, so that what ends at about the same moment
#: is told together.
GATHER_S = 0.2

#: What became of some calls, by the call's number in decimal digits: JSON has no other keys.
Told = dict[str, Any]


def carry_out(
    work: Callable[[Any], Any], calls: Sequence[Any], tell: Callable[[Told], object]
) -> Told:
    """
    Return ``work`` of each call, by the call's number from 0 on.

    Each has a thread of its own, so that none waits for another. The threads do not keep the
    process alive: a job that is to end does not wait for a guest.

    :param work: It raises nothing.
    :param tell: Called with what became of some calls while others still go on.
    """
    ended: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def run(number: int, call: Any) -> None:
        ended.put((str(number), work(call)))

    for pair in enumerate(calls):
        threading.Thread(target=run, args=pair, daemon=True).start()
    answers: Told = {}
    while len(answers) < len(calls):
        news = _next(ended, len(calls) - len(answers))
        answers |= news
        if len(answers) < len(calls):
            tell(news)
    return answers


def _next(ended: queue.SimpleQueue[tuple[str, Any]], most: int) -> Told:
    """Return the next calls that end, at least one of them."""
    news = dict([ended.get()])
    deadline = time.monotonic() + GATHER_S
    while len(news) < most and (left := deadline - time.monotonic()) > 0:
        try:
            news |= [ended.get(timeout=left)]
        except queue.Empty:
            break
    return news
