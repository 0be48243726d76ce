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

#: Does something with a base on its host; returns the answer about it.
Work = Callable[[KvmHost, str], dict[str, Any]]


def warm(fleet: Fleet, names: Sequence[Any], label: str) -> dict[str, Any]:
    """
    Warm bases, one after the other.

    :param label: Label of the host; empty for the only one that has the base.
    :return: ``{"bases": {BASE: WARMED}, "retcode"}``, see docs/answers.md.
    """
    return _each(
        fleet, names, label, "warm", lambda host, name: warm_base.warm(host, name).as_dict()
    )


def unwarm(fleet: Fleet, names: Sequence[Any], label: str) -> dict[str, Any]:
    """Remove the saved memories of bases; see :func:`warm`."""
    return _each(fleet, names, label, "unwarm", lambda host, name: host.unwarm(name).as_dict())


def _each(fleet: Fleet, names: Sequence[Any], label: str, verb: str, work: Work) -> dict[str, Any]:
    if not names:
        raise ConfigError("No base is named.", f"For example: {Commands().clone(verb, 'BASE')}")
    told: dict[str, Any] = {}
    code = 0
    for name in dict.fromkeys(map(str, names)):
        try:
            at_once.require_no_interrupt(name)
            told[name] = work(_host_of(fleet, name, label, verb), name)
        except interrupts.Interrupt:
            told[name], code = _failed(name, at_once.half_done(name)), interrupts.EXIT_CODE
        except Interrupted as error:
            told[name], code = _failed(name, error), interrupts.EXIT_CODE
        except KvmCloneError as error:
            told[name], code = _failed(name, error), code or 1
    return {"bases": told, "retcode": code}


def _failed(name: str, error: KvmCloneError) -> dict[str, Any]:
    return {"name": name, "error": error.as_dict()}


def _host_of(fleet: Fleet, name: str, label: str, verb: str) -> KvmHost:
    """
    Return the host that has a base.

    :param label: Its label; empty for the only one that has it.
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
        return fleet.everywhere.connect(*ways[label])
    found = base_hosts.host_of(
        fleet.everywhere, name, lambda host: _state_of(host, name, verb), command
    )
    return fleet.everywhere.connect(*ways[found])


def _state_of(host: KvmHost, name: str, verb: str) -> BaseState | None:
    """Return what a host has of a base; what was saved of it counts where that is to be removed."""
    if (there := base_hosts.state_of(host, name)) is not None:
        return there
    saved = host.tree()["bases"].get(name, {}) if verb == "unwarm" else {}
    return BaseState(name) if saved.get("warmed") else None
