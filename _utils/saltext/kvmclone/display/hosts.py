"""Show hosts, and profiles with their providers, to a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.display import text
from saltext.kvmclone.display.failures import unreachable
from saltext.kvmclone.display.screen import Screen
from saltext.kvmclone.display.text import Column
from saltext.kvmclone.model import units

_HOSTS = (
    Column("HOST", 12, names=True), Column("LIBVIRT", 7), Column("CPUS", 4, right=True),
    Column("MEMORY", 8, right=True), Column("PROMISED", 8, right=True),
    Column("CLONES", 6, right=True), Column("POOLS (FREE)", 22),
)  # fmt: skip
_PROFILES = (
    Column("PROFILE", 10), Column("PROVIDER", 8), Column("BASE", 10), Column("CLONE", 5),
    Column("ADDRESS FROM", 6), Column("WRITTEN IN", 12),
)  # fmt: skip
_PROVIDERS = (Column("PROVIDER", 10), Column("HOST", 8), Column("URL", 12))


def hosts(answer: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show every host: what it has and has promised, or why it did not answer.

    :param answer: ``{"hosts": {HOST: …}}``.
    """
    there = {label: host for label, host in answer["hosts"].items() if host["reachable"]}
    down = {label: host["error"] for label, host in answer["hosts"].items() if label not in there}
    rows = [(*_host(label, host), ", ".join(_pools(host))) for label, host in there.items()]
    if text.natural_width(_HOSTS, rows) > screen.width:
        rows = [row for label, host in there.items() for row in _by_pool(label, host)]
    lines = text.table(_HOSTS, rows, screen.width) if rows else []
    for label, host in there.items():
        if also := host.get("also"):
            said = f"{label} is also reached as {', '.join(also)}"
            lines += text.wrapped(said, screen.width, "", "  ")
    lines += [f"{label} is in maintenance" for label in there if there[label].get("maintenance")]
    for label, host in answer["hosts"].items():
        if reason := host.get("reason"):
            words = "is chosen" if host["chosen"] else "is not chosen"
            lines += text.reason(f"{label} {words}: {reason}", screen.width, "", "  ")
    return [*lines, *unreachable(down, screen)] or ["No host is configured."]


def _host(label: str, host: Mapping[str, Any]) -> tuple[str, ...]:
    memory = host["memory"]
    spares = f", {host['spares']} spare" if host.get("spares") else ""
    return (
        label, host["libvirt"], str(host["cpus"]), units.size(memory["total"]),
        units.size(host["promised"]["memory"]), f"{host['clones']}{spares}",
    )  # fmt: skip


def _pools(host: Mapping[str, Any]) -> list[str]:
    """Return what is free in each pool."""
    return [f"{name} {units.size(pool['available'])}" for name, pool in host["pools"].items()]


def _by_pool(label: str, host: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of a host with a pool in each."""
    own = _host(label, host)
    first, *more = _pools(host) or [""]
    return [(*own, first), *((*[""] * len(own), pool) for pool in more)]


def _of_provider(keys: Mapping[str, Any]) -> str:
    hosts = keys.get("hosts") or keys.get("host", "")
    return hosts if isinstance(hosts, str) else ", ".join(hosts)


def profiles(answer: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show the profiles and providers, and all that is wrong with others.

    :param answer: ``{"profiles": …, "providers": …, "warnings": […], "problems": […]}``.
    """
    lines = []
    rows = [
        (
            name,
            str(keys["provider"]),
            str(keys.get("base_domain", "")),
            str(keys.get("clone_strategy", "full")),
            str(keys.get("ip_source", "auto")),
            text.cut_path(str(keys["place"]), 24),
        )
        for name, keys in answer["profiles"].items()
    ]
    lines += text.table(_PROFILES, rows, screen.width) if rows else ["No profiles"]
    providers = [
        (name, _of_provider(keys), str(keys.get("url", "")))
        for name, keys in answer["providers"].items()
    ]
    lines += ["", *text.table(_PROVIDERS, providers, screen.width)] if providers else []
    lines += text.warnings(answer["warnings"], screen.width, "")
    if problems := answer["problems"]:
        lines += ["", f"{text.counted(len(problems), 'problem')}; all else can be used:"]
        lines += text.warnings(problems, screen.width)
    return lines
