"""
Handle Ctrl-C, SIGTERM and SIGHUP: note the first, end the process at the second.

Within :func:`guard` the first signal only sets a flag. A create looks at it wherever it waits
(:func:`check`, :func:`pause`), in whichever thread it runs, and is then rolled back undisturbed;
what makes nothing is simply ended. The second signal ends the process at once, also where
libvirt or a guest keeps it waiting: a thread of its own receives the signals.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: Exit code of what was interrupted, as a shell gives it after Ctrl-C.
EXIT_CODE = 130

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: The first words of our commands, on the master and on a KVM host.
AT_MASTER, AT_HOST = "salt-run kvmclone", "salt-call kvm_clone"

#: Signals within so many seconds count as one: ``timeout`` sends its child two.
ONE_PRESS_S = 0.5

#: Ends the thread that listens; no signal has that number.
_END = b"\0"

#: A guarded :func:`pause` ends after so many seconds at the latest.
_LONGEST_PAUSE_S = 3600.0


class Interrupt(KeyboardInterrupt):
    """
    The end of work because of a signal.

    It is not an ``Exception``, so that no handler takes it for a failure.
    """


class _Guard:
    """
    The state of one :func:`guard`.

    :param ours: The first words of our commands where the messages are read.
    """

    def __init__(self, ours: str) -> None:
        self.ours = ours
        self.pressed = threading.Event()
        #: How many blocks there are in which the main thread is not to be interrupted.
        self.deferred = 0
        #: The work under way, by clone name: what to call it at a sudden end, and where it is.
        self.under_way: dict[str, tuple[str, str]] = {}
        #: Python writes signal numbers to the writer; the bell is readable from the first one on.
        self.reader, self.writer = os.pipe()
        self.bell, self._rope = os.pipe()
        os.set_blocking(self.writer, False)
        self.first = 0.0
        #: The main thread was interrupted; it is not interrupted again.
        self.raised = False

    def hear(self) -> None:
        """Read signal numbers until the end is written; to be run in a thread of its own."""
        while (heard := os.read(self.reader, 1)) not in (b"", _END):
            if heard[0] in SIGNALS:
                now = time.monotonic()
                if not self.first:
                    self.first = now
                    self.pressed.set()
                    os.write(self._rope, b"!")
                    self._say_first()
                elif now - self.first >= ONE_PRESS_S:
                    self._say_last()
                    os._exit(EXIT_CODE)

    def _say_first(self) -> None:
        if self.under_way:
            names = ", ".join(list(self.under_way))
            _say(f"Interrupted; being brought to a safe end: {names}. A second one stops at once.")

    def _say_last(self) -> None:
        for name, (what, where) in list(self.under_way.items()):
            left = f"{self.ours}.gc {name}{where}"
            _say(
                f"Stopped at once, in the middle of {what} of '{name}'. See what is left: {left}   "
                f"Remove it: {left} apply=True"
            )

    def close(self) -> None:
        """Close the remaining descriptors once the listening thread has ended."""
        for one in (self.reader, self.bell, self._rope):
            os.close(one)

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """
        Handle a signal in the main thread: raise, unless that is deferred or was done already.
        """
        self.pressed.set()
        if not self.deferred and not self.raised:
            self.raised = _mine.obeyed = True
            raise Interrupt


class _Thread(threading.local):
    """The interrupt state of one thread."""

    #: It has been interrupted already, and is not interrupted again in this piece of work.
    obeyed = False
    shields = 0


_mine = _Thread()
_guard: _Guard | None = None


@contextmanager
def guard(ours: str) -> Iterator[None]:
    """
    Handle signals as this module describes, until the end of the block.

    In a thread that is not the main one, or where a caller does so already, nothing changes. A
    signal that is ignored (``nohup``) stays ignored.

    :param ours: The first words of our commands where the messages are read.
    """
    global _guard
    if _guard is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    mine = _Guard(ours)
    before: dict[signal.Signals, Any] = {}
    wakeup = signal.set_wakeup_fd(mine.writer, warn_on_full_buffer=False)
    _mine.obeyed = False
    _guard = mine
    listener = threading.Thread(target=mine.hear, name="interrupts", daemon=True)
    listener.start()
    try:
        for number in SIGNALS:
            # None: a handler in C, which Python could not put back.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, mine.handle)
        yield
    finally:
        mine.deferred += 1
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        _guard = None
        with contextlib.suppress(BlockingIOError):
            os.write(mine.writer, _END)  # a child that somebody forked may hold the pipe open
        os.close(mine.writer)
        listener.join()
        mine.close()


@contextmanager
def work(name: str, what: str, deferred: bool = True, where: str = "") -> Iterator[None]:
    """
    Register what this thread is working on, so that a sudden end can name it.

    :param name: Name of the clone.
    :param what: ``the create``, ``the destroy``.
    :param deferred: It looks for interrupts itself, so that none is raised in the middle of a step.
    :param where: What a command for it takes beside the name, such as `` url=URL``.
    """
    _mine.obeyed = False
    if _guard is not None:
        _guard.under_way[name] = what, where
    try:
        with defer() if deferred else contextlib.nullcontext():
            yield
    finally:
        if _guard is not None:
            _guard.under_way.pop(name, None)


@contextmanager
def defer() -> Iterator[None]:
    """
    Keep a signal from raising in the main thread; :func:`check` still raises.

    Other threads are never interrupted by a signal itself.
    """
    here = _guard if threading.current_thread() is threading.main_thread() else None
    if here is not None:
        here.deferred += 1
    try:
        yield
    finally:
        if here is not None:
            here.deferred -= 1


@contextmanager
def shield() -> Iterator[None]:
    """Protect a cleanup from interrupts: within the block :func:`check` never raises."""
    _mine.shields += 1
    try:
        with defer():
            yield
    finally:
        _mine.shields -= 1


def command(function: str) -> str:
    """
    Return one of our commands as it is typed where messages of this process are read.

    :param function: Name of the function, with its arguments if any.
    """
    return f"{_guard.ours if _guard is not None else AT_MASTER}.{function}"


def pressed() -> bool:
    """Return whether a signal has asked this process to end."""
    return _guard is not None and _guard.pressed.is_set()


def check() -> None:
    """
    Raise an interrupt if a signal has arrived; once per piece of work, never within a shield.

    :raises Interrupt: A signal has arrived.
    """
    if pressed() and not _mine.shields and not _mine.obeyed:
        _mine.obeyed = True
        raise Interrupt


def descriptor() -> int:
    """
    Return a file descriptor that becomes readable at the first signal.

    :return: -1 without a guard, within a shield, and once this thread was interrupted.
    """
    return -1 if _guard is None or _mine.shields or _mine.obeyed else _guard.bell


def pause(seconds: float) -> None:
    """
    Sleep, but only until a signal arrives.

    :param seconds: How long; within a guard one hour at most.
    :raises Interrupt: A signal has arrived.
    """
    if _guard is None or _mine.shields or _mine.obeyed:
        time.sleep(seconds)
    else:
        _guard.pressed.wait(min(seconds, _LONGEST_PAUSE_S))
        check()


def _say(sentence: str) -> None:
    # The terminal may be gone, and another thread may be in the middle of a line.
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), f"\n{sentence}\n".encode())


def heed(error: BaseException) -> None:
    """
    Raise the Ctrl-C or SIGTERM that an error hides; do nothing where it hides none.

    When a signal interrupts a Salt client, the client closes its connection on the way out, may
    fail at that, and then raises only the second failure (``SyncWrapper.__exit__``); the interrupt
    is in its ``__context__``.

    :raises KeyboardInterrupt: The error was raised while this one was handled.
    :raises SystemExit: Likewise.
    """
    below: BaseException | None = error
    seen: set[int] = set()
    while below is not None and id(below) not in seen:
        if isinstance(below, (KeyboardInterrupt, SystemExit)):
            raise below
        seen.add(id(below))
        below = below.__context__
