"""Choose the machines that one command is about, and ask before it is about many of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from saltext.kvmclone.config.placement_keys import FleetSettings
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.master import clone_list
from saltext.kvmclone.master.all_hosts import with_failures
from saltext.kvmclone.master.fleet import Fleet

T = TypeVar("T")

#: So many machines are stopped or destroyed by one command without a question.
MOST_UNASKED = 10

#: Words that answer the question with yes.
_YES = ("y", "yes")

#: So many names stand in the question.
_NAMES_SHOWN = 6


@dataclass(frozen=True)
class Chosen:
    """
    The machines that a command is about.

    :param names: Names of clones; anything that was typed as one.
    :param failed: Errors of hosts that did not say which clones they have, by label.
    """

    names: Sequence[Any]
    failed: Mapping[str, Any] = field(default_factory=dict)

    def completed(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return an answer with the hosts that did not say which clones they have."""
        return with_failures(answer, dict(self.failed), "unreachable")


def carry_out(
    fleet: Fleet,
    verb: str,
    names: Sequence[Any],
    only: Mapping[str, Any],
    yes: bool,
    work: Callable[[Fleet, Any], Outcome],
) -> tuple[Chosen, list[Outcome]]:
    """
    Do something with machines, once it is certain that all of them are meant.

    :param verb: What is done: ``stop``, ``destroy`` …; ``work`` does it with one of them.
    :param names: What was typed as names, ``only`` as a selection; see :func:`choose`.
    :param yes: The question before many machines is answered already.
    :return: The machines, and what became of each.
    :raises ConfigError: What :func:`choose` and :func:`require_yes` raise; nothing was done.
    """
    chosen = choose(fleet, names, only)
    require_yes(fleet.opts, verb, chosen.names, yes)
    return chosen, each(fleet, lambda name: work(fleet, name), chosen.names)


def choose(fleet: Fleet, names: Sequence[Any], only: Mapping[str, Any]) -> Chosen:
    """
    Return the machines that a command names, or those that a selection fits.

    :param names: What was typed as names.
    :param only: ``tag``, ``host``, ``profile``, ``base``; None for any.
    :raises ConfigError: There are names as well as a selection, or no such host.
    """
    given = {key: value for key, value in only.items() if value is not None}
    if not given:
        return Chosen(names)
    words = ", ".join(f"{key}={value}" for key, value in given.items())
    if names:
        shown = ", ".join(map(str, names[:_NAMES_SHOWN]))
        raise ConfigError(
            f"Which machines? Both names ({shown}) and a selection ({words}) were given.",
            "Give the names alone, or the selection alone.",
        )
    if empty := [key for key, value in given.items() if value == ""]:
        raise ConfigError(f"{empty[0]}= is empty.", f"Name the {empty[0]} that is meant.")
    listed = fleet.everywhere.listing(clone_list.selection(None, None, given))
    found = dict.fromkeys(clone["name"] for clone in listed["clones"].values())
    return Chosen(tuple(found), listed.get("unreachable") or {})


def require_yes(opts: Mapping[str, Any], verb: str, names: Sequence[Any], yes: bool) -> None:
    """
    Ask the person at the terminal before a command is about many machines.

    :param opts: The master's configuration, as the command has it.
    :param verb: What is done with them: ``stop``, ``destroy`` …
    :param yes: The question is answered already.
    :raises ConfigError: The answer is not yes, or nobody can be asked.
    """
    if yes or len(names) <= MOST_UNASKED:
        return
    answered = "To do it without the question: yes=True"
    if not _is_somebody_there(opts):
        raise ConfigError(
            f"Nothing was done: {verb} of {len(names)} machines is done only after a question, and "
            "nobody can be asked here.",
            answered,
        )
    shown = ", ".join(map(str, names[:_NAMES_SHOWN]))
    more = f" and {len(names) - _NAMES_SHOWN} more"
    sys.stderr.write(f"{verb.capitalize()} {len(names)} machines ({shown}{more})? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in _YES:
        raise ConfigError("Nothing was done: the answer was not yes.", answered)


def _is_somebody_there(opts: Mapping[str, Any]) -> bool:
    """Return True if a person typed this command, and reads and writes at a terminal."""
    if opts.get("__cli") != "salt-run" or opts.get("async"):
        return False
    try:
        return sys.stdin.isatty() and sys.stderr.isatty()
    except (AttributeError, ValueError):  # closed, or not a file
        return False


def each(fleet: Fleet, work: Callable[[Any], T], names: Sequence[Any]) -> list[T]:
    """Return what became of each machine; several are worked on at the same time."""
    if len(names) < 2:
        return [work(name) for name in names]
    try:
        most = fleet.placing.settings.at_once
    except ConfigError:  # wrong limits keep nobody from stopping a machine
        most = FleetSettings.at_once
    return fleet.calls.each(work, names, most)
