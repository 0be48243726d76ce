"""
Show one line for each of several pieces of work at a terminal, renewed in place.

By the package rich, where that is installed.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

#: How often the lines are renewed, per second.
_REFRESHES = 4

#: Lines of the screen that stay free: for the prompt, and for what else is printed.
_FREE_LINES = 2


@dataclass
class _Line:
    """
    What is known of one piece of work.

    :param begun: When it began, seconds of the monotonic clock; 0 before.
    """

    word: str = "queued"
    detail: str = ""
    begun: float = 0.0
    ended: float = 0.0

    @property
    def elapsed(self) -> float:
        """Return the seconds that it has taken so far."""
        return (self.ended or time.monotonic()) - self.begun if self.begun else 0.0


def line(name: str, word: str, elapsed: float, detail: str) -> str:
    """
    Return what a person reads of one piece of work.

    :param elapsed: Seconds.
    """
    return f"{name}: {word:<10}{elapsed:6.1f} s  {detail}".rstrip()


@dataclass
class LiveLines:
    """
    What is known of several pieces of work; rich renders it.

    :param names: Theirs, in the order of the lines.
    """

    names: Sequence[str]
    _lines: dict[str, _Line] = field(init=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._lines = {name: _Line() for name in self.names}

    def tell(self, name: str, word: str, detail: str = "") -> bool:
        """Renew a line; return False for a name that has none."""
        with self._lock:
            known = self._lines.get(name)
            if known is None:
                return False
            known.word, known.detail = word, detail
            known.begun = known.begun or time.monotonic()
            return True

    def end(self, name: str) -> None:
        """Let the time of a piece of work stand still: it has ended."""
        with self._lock:
            if name in self._lines:
                self._lines[name].ended = time.monotonic()

    def rows(self, height: int) -> list[str]:
        """
        Return the lines; where there is no room for all, those of the work under way, and a count.

        :param height: How many lines there is room for.
        """
        width = max(map(len, self.names), default=0)
        with self._lock:
            known = list(self._lines.items())
            under_way = [name for name, one in known if one.begun and not one.ended]
            ended = sum(1 for _name, one in known if one.ended)
            rows = {
                name: line(f"{name:<{width}}", one.word, one.elapsed, one.detail)
                for name, one in known
            }
        if len(rows) <= height:
            return list(rows.values())
        count = f"{len(rows)} in all: {ended} ended, {len(under_way)} under way"
        return [*(rows[name] for name in under_way[: max(height - 1, 0)]), count]

    def __rich_console__(self, console: Any, _options: Any) -> Iterable[Any]:
        from rich.text import Text  # noqa: PLC0415 - see lines()

        for row in self.rows(console.size.height - _FREE_LINES):
            yield Text(row, no_wrap=True, overflow="ellipsis")


@contextmanager
def lines(names: Sequence[str]) -> Iterator[LiveLines | None]:
    """
    Show lines for the block, which are gone at its end.

    :return: None where nobody sees them: the answer or they go elsewhere than to a terminal, the
        terminal cannot move its cursor, or rich is not installed.
    """
    if not (sys.stderr.isatty() and sys.stdout.isatty() and importlib.util.find_spec("rich")):
        yield None
        return
    # It takes a tenth of a second to import, and few commands need it.
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    console = Console(stderr=True)
    if console.is_dumb_terminal or not console.is_terminal:
        yield None
        return
    shown, stderr = LiveLines(names), sys.stderr
    logging_there = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is stderr
    ]
    with Live(
        shown,
        console=console,
        refresh_per_second=_REFRESHES,
        transient=True,
        redirect_stdout=False,  # else what is printed there would go to stderr
    ):
        try:
            for handler in logging_there:  # above the lines, as whatever else is printed there
                handler.setStream(sys.stderr)
            yield shown
        finally:
            for handler in logging_there:
                handler.setStream(stderr)
