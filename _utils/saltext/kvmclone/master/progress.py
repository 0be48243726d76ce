"""
Report a master's work: events on its bus, and lines to a person at a terminal.

Only the master's own processes fire these events; what a minion sends under such a tag means
nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import salt.utils.event

from saltext.kvmclone.config import cloud_files
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.config.validate import Problem
from saltext.kvmclone.model import units
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
    return sys.stderr.isatty()


def step(name: str, word: str, elapsed: float) -> None:
    """
    Print one line for a step of making a base, if stderr is a terminal.

    :param elapsed: What the step took, seconds.
    """
    if is_read():
        print(f"{name}: {word:<10}{elapsed:6.1f} s", file=sys.stderr, flush=True)


def copied(what: str, done: int, total: int, elapsed: float) -> None:
    """
    Print how far a copy is, if stderr is a terminal.

    :param what: What is copied, from where, to where.
    :param done: Bytes that are there; ``total`` those that there will be.
    :param elapsed: For how long it has gone on, seconds.
    """
    if is_read():
        text = f"{units.size(done)} of {units.size(total)}"
        print(f"{what}: {text:<22}{elapsed:6.1f} s", file=sys.stderr, flush=True)


def progress(name: str, stage: str, elapsed: float, clone: Clone) -> None:
    """
    Print one line per stage if stderr is a terminal; scripts see the answer alone.

    :param elapsed: What the stage took, seconds.
    """
    if not sys.stderr.isatty():
        return
    detail = {
        "cloned": f"from {clone.base} ({clone.strategy})",
        "addressed": clone.address,
        "ready": f"test.version {clone.minion.version}",
    }.get(stage, "")
    print(f"{name}: {stage:<10}{elapsed:6.1f} s  {detail}".rstrip(), file=sys.stderr, flush=True)


def waiting(name: str, elapsed: float, reason: str) -> None:
    """
    Print why a minion is still waited for, if stderr is a terminal.

    :param elapsed: For how long, seconds.
    """
    if sys.stderr.isatty():
        print(f"{name}: {'waiting':<10}{elapsed:6.1f} s  {reason}", file=sys.stderr, flush=True)
