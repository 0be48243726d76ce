"""
Describe where an answer is shown, and what is known of it beyond its own data. Pure.

The data of an answer is the same for everybody. What only the screen shows besides it (when a clone
was made, what it was doing before) waits here for the outputter, which runs in the same process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from saltext.kvmclone.model.hints import AT_MASTER, Commands
from saltext.kvmclone.model.request import DEFAULT_URL

if TYPE_CHECKING:  # a minion without lxml shows its requests, too
    from saltext.kvmclone.model.clone import Clone

#: Name of the outputter, ``_output/kvm_clone.py``.
OUTPUTTER = "kvm_clone"


@dataclass(frozen=True)
class Screen:
    """
    A terminal, and the command that was typed there.

    :param width: Characters in a line.
    :param now: Seconds since the epoch.
    :param function: Name of the function, without its module.
    :param names: What was given by position, ``options`` what was given by keyword.
    :param ours: How our commands begin there, see :class:`.hints.Commands`.
    :param minion: The minion that answered; empty where that is the machine itself.
    """

    width: int
    now: float
    function: str
    names: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    ours: str = AT_MASTER
    minion: str = ""

    def command(self, verb: str, *words: str) -> str:
        """Return one of our commands as it is typed at this terminal."""
        commands = Commands(str(self.options.get("url") or DEFAULT_URL), self.ours, self.minion)
        return commands.on_host(verb, *words) if self.minion else commands.clone(verb, *words)


@dataclass(frozen=True)
class Note:
    """
    What is known of a clone beyond CLONE.

    :param clone: The clone, with what :meth:`.clone.Clone.as_dict` leaves out.
    :param before: Its state, in libvirt's words, before the command; empty where it was not seen.
    """

    clone: Clone
    before: str = ""


_notes: dict[str, Note] = {}


def note(key: str, clone: Clone, before: str = "") -> Clone:
    """
    Note what is known of a clone, for the outputter, and return the clone.

    :param key: What it is called in the answer.
    :param before: See :class:`Note`.
    """
    _notes[key] = Note(clone, before)
    return clone


def noted(key: str) -> Note | None:
    """Return what was noted of a clone; None for nothing."""
    return _notes.get(key)
