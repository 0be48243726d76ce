"""Show which host has which base to a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.display import text
from saltext.kvmclone.display.failures import failure, unreachable
from saltext.kvmclone.display.screen import Screen
from saltext.kvmclone.display.text import Column
from saltext.kvmclone.model import units

_COLUMNS = (
    Column("BASE", 12, names=True), Column("HOST", 12, names=True), Column("CONTENT", 8),
    Column("SIZE", 8, right=True), Column("DIGEST", 12),
)  # fmt: skip

#: Digits of a digest that tell it from others.
_DIGITS = 12

_WORDS = {"other": "OTHER", "unknown": "not read", "copying": "being made"}


def bases(answer: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show every base with what each host has of it.

    :param answer: ``{"bases": {BASE: {HOST: {"state", "digest", "bytes"}}}}``.
    """
    rows = [
        (base if number == 0 else "", host, *_cell(cell))
        for base, hosts in answer["bases"].items()
        for number, (host, cell) in enumerate(hosts.items())
    ]
    lines = text.table(_COLUMNS, rows, screen.width) if rows else ["No bases"]
    for base, hosts in answer["bases"].items():
        for host, cell in hosts.items():
            if cell.get("error"):
                lines += failure(f"{base} on {host}", cell["error"], screen)
        lines += _advice(base, hosts)
    return [*lines, *unreachable(answer.get("unreachable") or {}, screen)]


def removed(answer: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show from where a base was removed, and what stays.

    :param answer: ``{"bases": {BASE: {HOST: {"removed", "kept"}}}}``.
    """
    lines = []
    for base, hosts in answer["bases"].items():
        for host, cell in hosts.items():
            if cell.get("error"):
                lines += failure(f"{base} on {host}", cell["error"], screen)
                continue
            count = len(cell["removed"])
            lines.append(f"{base} removed from {host}, with {count} file{'s' * (count != 1)}")
            for sentence in cell["kept"]:
                lines += text.wrapped(sentence, screen.width, "  ")
    return lines


def _cell(cell: Mapping[str, Any]) -> tuple[str, str, str]:
    size = units.size(cell["bytes"]) if cell["bytes"] else ""
    return _WORDS.get(cell["state"], cell["state"]), size, cell["digest"][:_DIGITS]


def _advice(base: str, hosts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say how a base gets to where it is missing, and how its content becomes known."""
    states = {host: cell["state"] for host, cell in hosts.items() if not cell.get("error")}
    missing = [host for host, state in states.items() if state == "missing"]
    has = [host for host, state in states.items() if state in ("same", "unknown")]
    lines = []
    if missing and has:
        lines += text.hint(f"salt-run kvmclone.push {base} {' '.join(missing)}", "")
    if "unknown" in states.values():
        lines += text.hint(f"salt-run kvmclone.bases {base} hash=True", "")
    return lines
