"""Show on the page what each host has and promised, and which bases it has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.display.page.picture import Picture
from saltext.kvmclone.model import units
from saltext.kvmclone.model.hints import Commands

#: What stands in the table of bases for each state of docs/answers.md, and for no answer.
MARKS = {"same": "✓", "other": "≠", "unknown": "?", "missing": "–", "copying": "…", "": "·"}

#: States in which a host can give the base to another one.
_CAN_GIVE = ("same", "unknown")


@dataclass(frozen=True)
class Gauge:
    """
    A part of a whole, for a bar.

    :param share: The part, as a fraction of the whole; above 1 where it is more than that.
    :param words: The same in words.
    """

    share: float
    words: str


@dataclass(frozen=True)
class HostRow:
    """
    One host; without an answer ``why`` says what came instead, and the rest is missing.

    :param also: Other names of the same daemon.
    :param cpus: How many are promised for how many that it has.
    :param pools: The gauge of each storage pool by its name.
    """

    label: str
    why: str = ""
    maintenance: bool = False
    also: tuple[str, ...] = ()
    libvirt: str = ""
    clones: int = 0
    memory: Gauge | None = None
    cpus: str = ""
    pools: tuple[tuple[str, Gauge], ...] = ()


def hosts(picture: Picture) -> list[HostRow]:
    """Return the hosts in the order of the picture."""
    return [_host(label, host) for label, host in picture.hosts.items()]


def _host(label: str, host: Mapping[str, Any]) -> HostRow:
    if not host.get("reachable"):
        return HostRow(label, "did not answer")
    try:
        return _answered(label, host)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ):  # a host may say anything
        return HostRow(label, "gave an answer of an unknown form")


def _answered(label: str, host: Mapping[str, Any]) -> HostRow:
    memory, promised = host["memory"]["total"], host["promised"]
    return HostRow(
        label,
        maintenance=bool(host.get("maintenance")),
        also=tuple(map(str, host.get("also", ()))),
        libvirt=str(host["libvirt"]),
        clones=int(host["clones"]),
        memory=_memory(promised["memory"], memory),
        cpus=f"{int(promised['cpus'])} for {int(host['cpus'])}",
        pools=tuple(
            (str(name), _pool(pool["capacity"], pool["available"]))
            for name, pool in host["pools"].items()
        ),
    )


def _memory(promised: int, total: int) -> Gauge:
    share = promised / total if total else 0.0
    return Gauge(share, f"{units.size(promised)} of {units.size(total)}")


def _pool(capacity: int, available: int) -> Gauge:
    share = (capacity - available) / capacity if capacity else 0.0
    return Gauge(share, f"{units.size(available)} free of {units.size(capacity)}")


@dataclass(frozen=True)
class BaseRow:
    """
    One base.

    :param cells: The state on each host and its size in words, in the order of
        :func:`columns`.
    :param wish: What may be wanted next, and ``command`` what to type for it; empty for nothing.
    """

    name: str
    cells: tuple[tuple[str, str], ...]
    wish: str
    command: str


def columns(picture: Picture) -> list[str]:
    """Return the labels of the hosts in the table of bases."""
    asked = sorted({label for states in picture.bases.values() for label in states})
    return list(dict.fromkeys([*picture.hosts, *asked]))


def bases(picture: Picture) -> list[BaseRow]:
    """Return which host has which base, and what to type where that is unequal."""
    rows = []
    for name, states in picture.bases.items():
        cells = [states.get(label, {}) for label in columns(picture)]
        shown = ((str(one.get("state", "")), _size(one.get("bytes", 0))) for one in cells)
        rows.append(BaseRow(name, tuple(shown), *_next(name, states, picture)))
    return rows


def _size(count: int) -> str:
    return units.size(count) if count else ""


def _next(name: str, states: Mapping[str, Mapping[str, Any]], picture: Picture) -> tuple[str, str]:
    """Return the command that compares a base where that was not done, or copies it, and why."""
    having = {label: one["state"] for label, one in states.items() if one["state"] in _CAN_GIVE}
    if len(having) > 1 and "unknown" in having.values():
        return f"Compare {name}", Commands().clone("bases", name, "hash=True")
    lacking = [
        label
        for label, one in states.items()
        if one["state"] == "missing" and label in picture.reached
    ]
    source = next((label for label in having if label in picture.reached), "")
    if not lacking or not source:
        return "", ""
    # Where one has another content, it has to be said which is meant.
    differs = any(one["state"] == "other" for one in states.values())
    words = [f"source={source}"] if differs else []
    return f"Copy {name} to where it is missing", Commands().clone("push", name, *lacking, *words)
