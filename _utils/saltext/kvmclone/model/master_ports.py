"""
Describe whether a guest reaches its master, and say it in words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: Seconds that one attempt to connect may take.
CONNECT_TIMEOUT_S = 4

#: What a guest may say of a port that it does not reach: the name of the error number, or that of
#: the resolver.
FAULTS = {
    "ECONNREFUSED": "connection refused by",
    "ETIMEDOUT": f"no answer within {CONNECT_TIMEOUT_S} s from",
    "EHOSTUNREACH": "no route to",
    "ENETUNREACH": "no route to",
    "EAI": "the name cannot be resolved for",
}


@dataclass(frozen=True)
class PortCheck:
    """
    Whether a guest reaches one port of its master.

    :param master: Name or address of the master, as the guest's minion has it.
    :param key: The key of the minion's configuration: ``master_port`` or ``publish_port``.
    :param fault: One of :data:`FAULTS`; empty where the guest reaches the port.
    :raises ValueError: It is none of that; a guest tells it, or whoever poses as one.
    """

    master: str
    key: str
    port: int
    fault: str

    def __post_init__(self) -> None:
        if not self.master.isprintable() or len(self.master) > 253:
            raise ValueError("the name of a master is none")
        if self.key not in ("master_port", "publish_port") or self.fault not in ("", *FAULTS):
            raise ValueError("what is told of a port is not known")

    def __str__(self) -> str:
        return f"port {self.port} ({self.key})"


def unreached(checks: Iterable[PortCheck]) -> str:
    """Return a sentence for each master that a guest does not reach; empty if there is none."""
    masters: dict[str, dict[str, list[PortCheck]]] = {}
    for check in checks:
        masters.setdefault(check.master, {}).setdefault(check.fault, []).append(check)
    return " ".join(
        f"The guest does not reach its master '{master}': "
        + "; ".join(f"{FAULTS.get(fault, 'reached:')} {_list(found[fault])}" for fault in found)
        + "."
        for master, found in masters.items()
        if any(found)
    )


def reached(checks: Iterable[PortCheck]) -> str:
    """Return a sentence that says what a guest reaches; empty where nothing is known."""
    found = list(checks)
    masters = ", ".join(dict.fromkeys(f"'{check.master}'" for check in found))
    return f"The guest reaches its master {masters}: {_list(found)}." if found else ""


def _list(checks: list[PortCheck]) -> str:
    return " and ".join(map(str, checks))
