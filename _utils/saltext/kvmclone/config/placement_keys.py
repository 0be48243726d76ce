"""
Define the values of ``hosts`` and ``placement``, and read the master's limits for its hosts.

Pure. The limits stand in the master's configuration: ``kvm_clone: hosts:``, ``at_once``,
``at_once_per_host``, ``at_once_per_pool``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from saltext.kvmclone.config import value_types
from saltext.kvmclone.config.value_types import ValueType, WrongPart
from saltext.kvmclone.model.names import is_minion_id
from saltext.kvmclone.model.placement import ORDERS, SPREAD, HostLimits, Placement

#: What another tool calls ``spread``, though what is free at a moment is not what counts.
_MOST_FREE = "most-free-memory"

#: Stands for every host in ``kvm_clone: hosts:``.
EVERY = "*"


def _parse_hosts(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value_types.WORD.parse(value)
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError("not of this kind")
    for item in value:
        if not is_minion_id(item):
            raise WrongPart(
                f"{value_types.shortened(item)} in the list is no minion id; a target expression "
                "stands alone, as text"
            )
    if twice := sorted({item for item in value if list(value).count(item) > 1}):
        raise WrongPart(f"{', '.join(twice)} stands in the list twice")
    return tuple(value)


_WISH = value_types.record(
    "{order: spread, apart: db}",
    order=value_types.choice(*ORDERS, _MOST_FREE),
    apart=value_types.WORD,
    required=value_types.BOOLEAN,
    push=value_types.BOOLEAN,
)


def _parse_placement(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"order": _WORD.parse(value)}
    parsed = _WISH.parse(value)
    if parsed.get("required") and not parsed.get("apart"):
        raise WrongPart("required needs apart: the tag of the clones that go to different hosts")
    return parsed


_WORD = value_types.choice(*ORDERS, _MOST_FREE)
HOSTS: ValueType[Any] = ValueType(
    "a Salt target expression or a list of minion ids", "[kvm01, kvm02]", _parse_hosts
)
PLACEMENT: ValueType[Any] = ValueType(
    f"one of {', '.join(_WORD.words)}, or a mapping of order, apart, required, push",
    SPREAD,
    _parse_placement,
    _WORD.words,
)


def placement(values: Mapping[str, Any]) -> Placement:
    """
    Return the wishes for a host that typed values make.

    :param values: ``hosts`` and ``placement`` as :data:`HOSTS` and :data:`PLACEMENT` give them.
    """
    wish = values.get("placement", {})
    named = values.get("hosts", ())
    order = wish.get("order", SPREAD)
    return Placement(
        hosts=named if isinstance(named, tuple) else (),
        expression=named if isinstance(named, str) else "",
        order=SPREAD if order == _MOST_FREE else order,
        apart=wish.get("apart", ""),
        required=wish.get("required", False),
        push=wish.get("push", False),
    )


# --- the master's configuration -------------------------------------------------------


def _parse_amount(kind: ValueType[int]) -> ValueType[int]:
    """Return the kind of a size that may be 0."""
    return ValueType(
        kind.expected,
        kind.example,
        lambda value: 0 if value in (0, "0") and value is not False else kind.parse(value),
    )


_HOST = value_types.record(
    "{reserve: {memory: 4GiB}}",
    reserve=value_types.record(
        "{memory: 4GiB, disk: 50GiB}",
        memory=_parse_amount(value_types.MEMORY),
        disk=_parse_amount(value_types.DISK_SIZE),
    ),
    cpu_ratio=value_types.FACTOR,
    memory_ratio=value_types.FACTOR,
    disk_ratio=value_types.FACTOR,
    maintenance=value_types.BOOLEAN,
)


@dataclass(frozen=True)
class FleetSettings:
    """
    How much the hosts may promise, and how much is done at the same time.

    :param hosts: Limits of the hosts that have their own, by minion id.
    :param every: The limits of every other host.
    :param at_once: Number of clones that one command works on at the same time.
    :param at_once_per_host: Of these, on one host.
    :param at_once_per_pool: Of these, those whose disks are being copied into one pool.
    """

    hosts: Mapping[str, HostLimits] = field(default_factory=dict)
    every: HostLimits = HostLimits()
    at_once: int = 20
    at_once_per_host: int = 8
    at_once_per_pool: int = 2

    def limits(self, host: str) -> HostLimits:
        """Return the limits of a host."""
        return self.hosts.get(host, self.every)


_NUMBERS = {
    one.name: value_types.integer(1, 1000, int(str(one.default)))
    for one in fields(FleetSettings)
    if one.name.startswith("at_once")
}


def settings(section: Any) -> tuple[FleetSettings, list[tuple[str, str]]]:
    """
    Return the settings in the master's ``kvm_clone:``, and all that is wrong with them.

    :param section: As it was written; None for none.
    :return: The settings, and ``(key, what is wrong)`` for each fault.
    """
    written = section if isinstance(section, Mapping) else {}
    faults: list[tuple[str, str]] = []
    numbers = {
        key: value
        for key, kind in _NUMBERS.items()
        if (value := _typed(key, kind, written.get(key), faults)) is not None
    }
    for key in written:
        near = difflib.get_close_matches(str(key), ("hosts", *_NUMBERS), 1, 0.85)
        if near and key not in ("hosts", *_NUMBERS):
            faults.append((str(key), f"there is no such key; did you mean '{near[0]}'?"))
    hosts = written.get("hosts")
    if hosts is not None and not isinstance(hosts, Mapping):
        faults.append(("hosts", "is not a mapping (MINION ID: KEYS, or '*' for every host)"))
        hosts = None
    parsed: dict[str, dict[str, Any]] = {}
    for name, keys in (hosts or {}).items():
        if name != EVERY and not is_minion_id(name):
            text = f"{value_types.shortened(name)} is neither a minion id nor '*' for every host"
            faults.append(("hosts", text))
        elif (value := _typed(f"hosts:{name}", _HOST, keys, faults)) is not None:
            parsed[name] = value
    common = parsed.pop(EVERY, {})
    every = _limits(HostLimits(), common)
    own = {name: _limits(every, keys) for name, keys in parsed.items()}
    return FleetSettings(own, every, **numbers), faults


def _typed(key: str, kind: ValueType[Any], value: Any, faults: list[tuple[str, str]]) -> Any:
    """Return a value in its type; None for none, or one that is wrong, which is noted."""
    if value is None:
        return None
    if fault := kind.fault(value):
        faults.append((key, f"{fault}. For example: {kind.example_for(value)}"))
        return None
    return kind.parse(value)


def _limits(below: HostLimits, keys: Mapping[str, Any]) -> HostLimits:
    """Return the limits of a host: its own keys, and for the others those of every host."""
    own = {name: value for name, value in keys.items() if name != "reserve"}
    for name, amount in keys.get("reserve", {}).items():
        own[f"reserve_{name}"] = amount
    return replace(below, **own)
