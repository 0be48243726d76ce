"""
Warm bases from the master, and remove what was saved of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    ConfigError,
    Interrupted,
    KvmCloneError,
    no_host,
)
from saltext.kvmclone.hosts import warm_base
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master import at_once, base_hosts
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.base_content import BaseState
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.placement import HostLimits

#: Does something with a base on its host, given the label of that; returns the answer about it.
Work = Callable[[KvmHost, str, str], dict[str, Any]]


def warm(fleet: Fleet, names: Sequence[Any], label: str) -> dict[str, Any]:
    """
    Warm bases, one after the other.

    :param label: Label of the host; empty for the only one that has the base.
    :return: ``{"bases": {BASE: WARMED}, "retcode"}``, see docs/answers.md.
    """

    def work(host: KvmHost, name: str, label: str) -> dict[str, Any]:
        return warm_base.warm(host, name, _limits(fleet, label)).as_dict()

    return _each(fleet, names, label, "warm", work)


def unwarm(fleet: Fleet, names: Sequence[Any], label: str) -> dict[str, Any]:
    """Remove the saved memories of bases; see :func:`warm`."""

    def work(host: KvmHost, name: str, _label: str) -> dict[str, Any]:
        return warm_base.unwarm(host, name).as_dict()

    return _each(fleet, names, label, "unwarm", work)


def _each(fleet: Fleet, names: Sequence[Any], label: str, verb: str, work: Work) -> dict[str, Any]:
    if not names:
        raise ConfigError("No base is named.", f"For example: {Commands().clone(verb, 'BASE')}")
    told: dict[str, Any] = {}
    code = 0
    for name in dict.fromkeys(map(str, names)):
        try:
            at_once.require_no_interrupt(name)
            there = _label_of(fleet, name, label, verb)
            host = fleet.everywhere.connect(*fleet.everywhere.ways[there])
            told[name] = work(host, name, there)
        except interrupts.Interrupt:
            told[name], code = _failed(name, at_once.half_done(name)), interrupts.EXIT_CODE
        except Interrupted as error:
            told[name], code = _failed(name, error), interrupts.EXIT_CODE
        except KvmCloneError as error:
            told[name], code = _failed(name, error), code or 1
    return {"bases": told, "retcode": code}


def _failed(name: str, error: KvmCloneError) -> dict[str, Any]:
    return {"name": name, "error": error.as_dict()}


def _limits(fleet: Fleet, label: str) -> HostLimits | None:
    """Return how much a host may promise; None where nobody counts that, as for its clones."""
    settings, (minion, _url) = fleet.placing.settings, fleet.everywhere.ways[label]
    counts = label in fleet.everywhere.chosen_among() or minion in settings.hosts
    return settings.limits(minion) if counts else None


def _label_of(fleet: Fleet, name: str, label: str, verb: str) -> str:
    """
    Return the label of the host that has a base.

    :param label: The host that was named; empty for the only one that has it.
    :raises ConfigError: There is no such host, or several have the base and none was named.
    :raises KvmCloneError: None has it, see :func:`.base_hosts.host_of`.
    """

    def command(one: str) -> str:
        return Commands().clone(verb, name, f"host={one}")

    ways = fleet.everywhere.ways
    if not ways:
        fleet.everywhere.require_all_known()
        raise no_host()
    if label and label not in ways:
        raise ConfigError(
            f"There is no host '{label}' here; there is {', '.join(ways)}.",
            f"Name one: {command(next(iter(ways)))}",
        )
    if label:
        return label
    return base_hosts.host_of(
        fleet.everywhere, name, lambda host: _state_of(host, name, verb), command
    )


def _state_of(host: KvmHost, name: str, verb: str) -> BaseState | None:
    """Return what a host has of a base; what was saved of it counts where that is to be removed."""
    if (there := base_hosts.state_of(host, name)) is not None:
        return there
    saved = host.tree()["bases"].get(name, {}) if verb == "unwarm" else {}
    return BaseState(name) if saved.get("warmed") else None
