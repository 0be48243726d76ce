"""Do many pieces of work at the same time, and say what an interrupt left undone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import Interrupted

T = TypeVar("T")


def each(work: Callable[[Any], T], wanted: Sequence[Any], most: int) -> list[T]:
    """
    Return ``work`` of each item, in their order, several at the same time.

    A Ctrl-C is not raised in these threads: each piece of work looks for it.

    :param most: How many at the same time.
    """
    if not wanted:
        return []
    with interrupts.defer(), ThreadPoolExecutor(max_workers=min(most, len(wanted))) as pool:
        return list(pool.map(work, wanted))


@contextmanager
def meanwhile(
    look: Callable[[], object], every: float, patience: float | None = None
) -> Iterator[None]:
    """
    Do something again and again, in a thread, as long as the block lasts.

    :param every: Seconds between the end of one look and the next.
    :param patience: Seconds to wait at the end for a look that is under way; None for its end.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every):
            look()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(patience)


def require_no_interrupt(name: Any) -> None:
    """
    Refuse to begin a piece of work after the command was interrupted.

    :param name: Name of the clone.
    :raises Interrupted: The command was interrupted before it came to this clone.
    """
    if interrupts.pressed():
        raise _left_alone(name)


@contextmanager
def one_of_several(ended: list[str], name: str, what: str, defers: bool) -> Iterator[None]:
    """
    Protect the work on one machine of several that salt-cloud's core works on, one after another.

    A Ctrl-C does not end it in the middle. The core would then go on with the next machine, which
    is not begun.

    :param ended: The machine at which the command was interrupted; it is added here.
    :param name: Name of the machine.
    :param what: ``the create``, ``the destroy``.
    :param defers: It looks for interrupts itself.
    :raises Interrupted: The command was interrupted, now or at an earlier machine.
    """
    if ended:
        raise _left_alone(name)
    try:
        with interrupts.guard(interrupts.AT_MASTER), interrupts.work(str(name), what, defers):
            try:
                yield
            finally:
                if interrupts.pressed():  # also where it came too late for this one
                    ended.append(name)
    except interrupts.Interrupt:
        raise (nothing_made if defers else half_destroyed)(name) from None


def _left_alone(name: Any) -> Interrupted:
    return Interrupted(
        f"'{name}' was left as it is: the command was interrupted before its turn.",
        "Repeat the command.",
    )


def half_destroyed(name: Any) -> Interrupted:
    """
    Return the error for a destroy that was interrupted.

    :param name: Name of the clone.
    """
    return Interrupted(
        f"The destroy of '{name}' was interrupted: it may be half done, or still run on its host.",
        f"Repeat it: {interrupts.command('destroy')} {name}",
    )


def half_done(name: Any) -> Interrupted:
    """Return what to say of anything else that was interrupted."""
    return Interrupted(
        f"The command for '{name}' was interrupted: it may be half done, or still run on its host.",
        "Repeat the command.",
    )


def nothing_made(name: Any) -> Interrupted:
    """Return what to say of a create that was interrupted before its first step."""
    return Interrupted(
        f"The create of '{name}' was interrupted. Nothing was made.", "Repeat the command."
    )
