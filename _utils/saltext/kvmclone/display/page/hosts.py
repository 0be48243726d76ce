"""Show on the page what each host has and promised. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.display.page.picture import ODD_ANSWER, Picture
from saltext.kvmclone.model import units


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
    :param clones: How many, ``spares`` those of them that are in stock.
    :param cpus: How many are promised for how many that it has.
    :param pools: The gauge of each storage pool by its name.
    """

    label: str
    why: str = ""
    maintenance: bool = False
    also: tuple[str, ...] = ()
    libvirt: str = ""
    clones: int = 0
    spares: int = 0
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
    except ODD_ANSWER:
        return HostRow(label, "gave an answer of an unknown form")


def _answered(label: str, host: Mapping[str, Any]) -> HostRow:
    memory, promised = host["memory"]["total"], host["promised"]
    return HostRow(
        label,
        maintenance=bool(host.get("maintenance")),
        also=tuple(map(str, host.get("also", ()))),
        libvirt=str(host["libvirt"]),
        clones=int(host["clones"]),
        spares=int(host.get("spares", 0)),
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
