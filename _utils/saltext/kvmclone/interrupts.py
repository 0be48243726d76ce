"""
Ctrl-C, SIGTERM and SIGHUP: noticed at once, obeyed where it is safe, and the second time without
delay.

Within :func:`guard` the first signal only sets a mark. A create looks at it wherever it waits
(:func:`check`, :func:`pause`), in whichever thread it runs, and is then taken back undisturbed;
what makes nothing is simply ended. The second signal ends the process there and then, also where
libvirt or a guest keeps it waiting: a thread of its own hears of signals.
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

#: How our commands begin, on the master and on a KVM host.
AT_MASTER, AT_HOST = "salt-run kvmclone", "salt-call kvm_clone"

#: Signals within so many seconds are one: ``timeout`` sends its child two.
ONE_PRESS_S = 0.5

#: Ends the thread that listens; no signal has that number.
_END = b"\0"

#: An unguarded wait is cut into pieces of so many seconds.
_LONGEST_PAUSE_S = 3600.0


class Interrupt(KeyboardInterrupt):
    """Raised where work ends because of a signal; no error, so that no handler mistakes it."""


class _Guard:
    """
    What is known while signals are guarded against.

    :param ours: How our commands begin where the messages are read.
    """

    def __init__(self, ours: str) -> None:
        self.ours = ours
        self.pressed = threading.Event()
        #: How many pieces of work want the main thread to look for itself.
        self.deferred = 0
        #: What is under way, by name, and where: what to say of it at a sudden end.
        self.under_way: dict[str, tuple[str, str]] = {}
        #: Signals go in at the writer; at the bell it is only seen that there was one.
        self.reader, self.writer = os.pipe()
        self.bell, self._rope = os.pipe()
        os.set_blocking(self.writer, False)
        self.first = 0.0
        #: The main thread was interrupted; not a second time by the same press.
        self.raised = False

    def hear(self) -> None:
        """Wait for signals, in a thread of its own, until the end is written or the pipe closed."""
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
            _say(f"Interrupted; being brought to a safe end: {names}. Once more ends at once.")

    def _say_last(self) -> None:
        for name, (what, where) in list(self.under_way.items()):
            left = f"{self.ours}.gc {name}{where}"
            _say(
                f"Ended at once: {what} of '{name}' stopped midway. What is left of it: {left}   "
                f"Remove that: {left} apply=True"
            )

    def close(self) -> None:
        """Close what is left when nobody hears any more."""
        for one in (self.reader, self.bell, self._rope):
            os.close(one)

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """Python's own handler, which runs in the main thread."""
        self.pressed.set()
        if not self.deferred and not self.raised:
            self.raised = _mine.obeyed = True
            raise Interrupt


class _Thread(threading.local):
    """What one thread is at."""

    #: It has been interrupted already, or cleans up: it is left in peace.
    obeyed = False
    shields = 0


_mine = _Thread()
_guard: _Guard | None = None


@contextmanager
def guard(ours: str) -> Iterator[None]:
    """
    Take signals as this module does, until the end of the block.

    In a thread that is not the main one, or where somebody up the stack does so already, nothing
    changes. A signal that is ignored (``nohup``) stays ignored.

    :param ours: How our commands begin where the messages are read.
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
    Name what this thread is at, for a sudden end.

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
    """Raise nothing by itself in the main thread; other threads are never raised in."""
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
    """Clean up undisturbed: in here :func:`check` never raises."""
    _mine.shields += 1
    try:
        with defer():
            yield
    finally:
        _mine.shields -= 1


def command(function: str) -> str:
    """Return one of our commands as it is typed where messages of this process are read."""
    return f"{_guard.ours if _guard is not None else AT_MASTER}.{function}"


def pressed() -> bool:
    """Whether somebody wants an end."""
    return _guard is not None and _guard.pressed.is_set()


def check() -> None:
    """
    End here if somebody wants an end; once in a piece of work, and never within a shield.

    :raises Interrupt: Somebody does.
    """
    if pressed() and not _mine.shields and not _mine.obeyed:
        _mine.obeyed = True
        raise Interrupt


def descriptor() -> int:
    """Return what becomes readable when somebody wants an end; -1 where nobody can."""
    return -1 if _guard is None or _mine.shields or _mine.obeyed else _guard.bell


def pause(seconds: float) -> None:
    """
    Sleep, but for no longer than nobody wants an end.

    :raises Interrupt: Somebody does.
    """
    if _guard is None or _mine.shields or _mine.obeyed:
        time.sleep(seconds)
    else:
        _guard.pressed.wait(min(seconds, _LONGEST_PAUSE_S))
        check()


def _say(sentence: str) -> None:
    # The terminal itself may be gone, and another thread may be in the middle of a line.
    with contextlib.suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), f"\n{sentence}\n".encode())
