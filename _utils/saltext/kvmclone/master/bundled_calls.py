"""
Send calls to one KVM host that come at about the same moment as one Salt job.

The clones of a batch are worked on by a thread each, and they reach a stage together. While the
first of them opens its way to the master's bus, the calls of others join it; the host carries them
out side by side, and tells what became of each as soon as it is known. So none waits for another,
and a call that no other joins is the job that it would be alone.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import KvmCloneError
from saltext.kvmclone.hosts.operations import SEVERAL
from saltext.kvmclone.hosts.remote_server import FUNCTION
from saltext.kvmclone.master import at_once, signed_call

T = TypeVar("T")

#: Most calls in one job: each has a thread and a connection to libvirt on the host.
MOST_CALLS = 32

#: A job is sent as soon as no other call has joined it for so many seconds, and after so many
#: seconds at the latest. To open the way to the bus takes longer than the first.
LULL_S, LONGEST_WAIT_S = 0.02, 0.2

#: Seconds between two looks for a Ctrl-C while waiting for an answer.
LOOK_S = 0.5


class _Unwanted(Exception):
    """Nobody waits for the answers any more."""


class _Call:
    """
    One call, and what the host said to it.

    :param asked: The arguments of :func:`.remote_server.serve`.
    """

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self.asked = asked
        self.is_wanted = True
        self._ended = threading.Event()
        self._told: Any = None
        self._error: BaseException | None = None

    @property
    def has_ended(self) -> bool:
        """Return whether it is known what became of the call."""
        return self._ended.is_set()

    def end(self, told: Any = None, error: BaseException | None = None) -> None:
        """Note what the host said, or why it is not known; only the first time counts."""
        if not self.has_ended:
            self._told, self._error = told, error
            self._ended.set()

    def result(self) -> Any:
        """
        Wait for what the host says, and return it.

        :raises Interrupt: A signal came while it waited.
        """
        try:
            while not self._ended.wait(LOOK_S):
                interrupts.check()
        finally:
            self.is_wanted = False
        if isinstance(self._error, KvmCloneError):
            raise copy.copy(self._error)  # others raise it, too, and add to what it says
        if self._error is not None:
            raise self._error
        return self._told


class _Bundle:
    """One job in the making, and then under way."""

    def __init__(self, opts: Mapping[str, Any], minion_id: str, url: str) -> None:
        self.opts, self.minion_id, self.url = opts, minion_id, url
        self.lock = threading.Lock()
        #: Under the lock: no more calls join.
        self.is_closed = False
        self.calls: list[_Call] = []
        self.begun = self.joined = time.monotonic()

    def join(self, call: _Call) -> bool:
        """Add a call, unless it comes too late for that; return whether it did not."""
        with self.lock:
            if self.is_closed:
                return False
            self.calls.append(call)
            self.joined = time.monotonic()
            self.is_closed = len(self.calls) == MOST_CALLS
            return True

    def run(self) -> None:
        """Send the job, and hand every answer to the call that it is for."""
        error: BaseException | None = None
        try:
            with interrupts.shield():  # who waits for the answers looks for signals
                signed_call.ask_in_parts(
                    self.opts, self.minion_id, FUNCTION, self._close, self._take, self._look
                )
        except _Unwanted:
            pass
        except BaseException as failed:  # an interrupt, too: whoever waits is told of it
            error = failed
        with self.lock:
            self.is_closed = True
        for call in self.calls:
            call.end(error=error)

    def _close(self, parts: str) -> Mapping[str, Any]:
        """
        Let no other call join, and return what to ask the host.

        :param parts: Word of the tag of the answer's parts.
        """
        while not self.is_closed:
            now = time.monotonic()
            if (left := min(self.joined + LULL_S, self.begun + LONGEST_WAIT_S) - now) > 0:
                time.sleep(left)
                continue
            with self.lock:
                self.is_closed = True
        self._look()
        if len(self.calls) == 1:
            return self.calls[0].asked
        asked = [
            {"operation": call.asked["operation"], "arguments": call.asked["arguments"]}
            for call in self.calls
        ]
        arguments = {"calls": asked, "parts": parts}
        return {"operation": SEVERAL, "arguments": arguments, "url": self.url}

    def _take(self, told: Any) -> bool:
        """
        Hand out a proven answer, or a part of one.

        :return: Whether it was the last.
        """
        if len(self.calls) == 1:
            self.calls[0].end(told)
        elif isinstance(told, dict) and isinstance(answers := told.get("answers"), dict):
            for number, call in enumerate(self.calls):
                if str(number) in answers:
                    call.end(answers[str(number)])
        else:  # a host of another version says one thing to all of them
            for call in self.calls:
                call.end(told)
        return all(call.has_ended for call in self.calls)

    def _look(self) -> None:
        if not any(call.is_wanted for call in self.calls):
            raise _Unwanted


class BundledCalls:
    """
    What one command asks of KVM hosts.

    :param opts: The master's configuration.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self.opts = opts
        self._lock = threading.Lock()
        #: The last bundle for each minion and url; None outside of :meth:`each`.
        self._bundles: dict[tuple[str, str], _Bundle] | None = None

    def each(self, work: Callable[[Any], T], wanted: Sequence[Any], most: int) -> list[T]:
        """
        Do :func:`.at_once.each`; what is asked of one host at about the same moment is one job.

        :param most: How many at the same time.
        """
        self._bundles = {}
        try:
            return at_once.each(work, wanted, most)
        finally:
            self._bundles = None

    def ask(self, minion_id: str, asked: Mapping[str, Any]) -> Any:
        """
        Ask a host for one operation, and return its answer, as :func:`.signed_call.ask` does.

        :param minion_id: The minion id of the KVM host.
        :param asked: The arguments of :func:`.remote_server.serve`.
        :raises HostUnreachable: It does not answer.
        :raises Unproven: Something answered that need not be that minion.
        """
        bundles = self._bundles
        if bundles is None:
            return signed_call.ask(self.opts, minion_id, FUNCTION, asked, patient=True)
        call, place = _Call(asked), (minion_id, str(asked["url"]))
        with self._lock:
            bundle = bundles.get(place)
            if bundle is None or not bundle.join(call):
                bundle = bundles[place] = _Bundle(self.opts, *place)
                bundle.join(call)
                threading.Thread(target=bundle.run, daemon=True).start()
        return call.result()
