"""
Report a master's work: events on its bus, and lines to a person at a terminal.

Only the master's own processes fire these events; what a minion sends under such a tag means
nothing.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import salt.utils.event

from saltext.kvmclone.config import cloud_files
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.config.validate import Problem
from saltext.kvmclone.display import live_lines
from saltext.kvmclone.display.live_lines import LiveLines
from saltext.kvmclone.display.terminal import printable
from saltext.kvmclone.model.clone import Clone

log = logging.getLogger(__name__)


def fire(opts: Mapping[str, Any], word: str, data: Mapping[str, Any]) -> None:
    """
    Fire ``salt/kvm_clone/WORD`` on the master's bus.

    :param word: ``NAME/STAGE`` for what became of a clone.
    """
    with salt.utils.event.get_master_event(opts, opts["sock_dir"], listen=False) as bus:
        if not bus.fire_event(dict(data), f"salt/kvm_clone/{word}"):
            log.warning("the event %s could not be fired", word)


#: What this process has warned of already: the reactor's worker reads the configuration again and
#: again.
_said: set[str] = set()


def catalogue(opts: Mapping[str, Any], pillar: Mapping[str, Any] | None = None) -> Catalogue:
    """
    Return what is configured; warn of what is wrong, which is an error only for who uses it.

    :param pillar: Of a KVM host; a master has none.
    """
    found = cloud_files.read(opts, pillar)
    configuration(found.problems.found)
    return found


def configuration(problems: Iterable[Problem]) -> None:
    """Warn once of each section that is wrong, and will be refused only where it is used."""
    news = [text for text in dict.fromkeys(map(str, problems)) if text not in _said]
    _said.update(news)
    for text in news:
        log.warning("the configuration of kvm_clone: %s", text)
    if news and sys.stderr.isatty():
        count = "One problem" if len(news) == 1 else f"{len(news)} problems"
        words = f"{count} in the configuration; whatever does not use these sections works."
        print(f"{words} See: salt-run kvmclone.profiles", file=sys.stderr, flush=True)


def is_read() -> bool:
    """Return whether a person reads at a terminal what is printed on the way."""
    # What older versions of rich put in the place of stderr says that it is no terminal.
    return _lines is not None or sys.stderr.isatty()


#: What is shown of the pieces of work of :func:`several`; None outside its block, or without rich.
_lines: LiveLines | None = None

#: When the pieces of work began of which no living line is shown, by name.
_begun: dict[str, float] = {}


@contextmanager
def several(names: Sequence[str]) -> Iterator[None]:
    """
    Show one living line for each of several pieces of work in the block, where that can be.

    Otherwise a line is printed at each step, if stderr is a terminal.
    """
    global _lines
    with live_lines.lines(names) as _lines:
        try:
            yield
        finally:
            _lines = None
            _begun.clear()


def working(name: str, word: str, detail: str = "") -> None:
    """
    Say what one of several pieces of work is at.

    :param word: The step that it is at, or what became of it.
    """
    begun = _begun.setdefault(name, time.monotonic())
    _tell(name, word, time.monotonic() - begun, detail)


def begun(name: str) -> None:
    """Note that one of several pieces of work has its turn; no plain line says that."""
    if _lines is not None:
        _lines.tell(name, "begun")


def ended(name: str, error: str = "") -> None:
    """
    Note that one of several pieces of work has ended; no plain line says that.

    :param error: Type of the error, where it failed.
    """
    if _lines is not None:
        if error:
            _lines.tell(name, "failed", error)
        _lines.end(name)


def step(name: str, word: str, elapsed: float) -> None:
    """
    Say that a step of making a base is done.

    :param elapsed: What the step took, seconds.
    """
    _tell(name, word, elapsed)


def progress(name: str, stage: str, elapsed: float, clone: Clone) -> None:
    """
    Say that a clone reached a stage, if stderr is a terminal; scripts see the answer alone.

    :param elapsed: What the stage took, seconds.
    """
    detail = {
        "cloned": f"from {clone.base} ({clone.strategy})",
        "addressed": clone.address,
        "ready": f"test.version {clone.minion.version}",
    }.get(stage, "")
    _tell(name, stage, elapsed, detail)


def waiting(name: str, elapsed: float, reason: str) -> None:
    """
    Say why a minion is still waited for.

    :param elapsed: For how long, seconds.
    """
    _tell(name, "waiting", elapsed, reason)


def _tell(name: str, word: str, elapsed: float, detail: str = "") -> None:
    """Renew the living line of a piece of work, or print a plain one, if stderr is a terminal."""
    if not is_read():
        return
    detail = " ".join(printable(detail).split())  # a guest may have said it
    if _lines is None or not _lines.tell(name, word, detail):
        print(live_lines.line(name, word, elapsed, detail), file=sys.stderr, flush=True)
