"""Show what is left over, and what is not as it should be, to a person. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from saltext.kvmclone.display import text
from saltext.kvmclone.display.failures import unreachable
from saltext.kvmclone.display.screen import Screen
from saltext.kvmclone.display.text import Column

_LOADED = (
    Column("MACHINE", 10, names=True), Column("KVM_CLONE", 5), Column("SALT", 6),
    Column("LIBVIRT", 6), Column("ANSWERS IN", 8, right=True), Column("PATH", 12),
)  # fmt: skip

#: The kind of a LEFTOVER that is not removed.
_KEPT = "kept"


def leftovers(
    found: Iterable[Mapping[str, Any]], errors: Mapping[str, Any], screen: Screen
) -> list[str]:
    """
    Show what interrupted work left: what, why, and the command that removes it.

    :param found: LEFTOVERs, with ``host`` where several were asked; empty for the master.
    :param errors: An error for each host that was not looked at, by its label.
    """
    by_name: dict[tuple[str, str | None], list[Mapping[str, Any]]] = {}
    for row in found:
        by_name.setdefault((row["name"], row.get("host")), []).append(row)
    lines = [line for (name, _host), rows in by_name.items() for line in _of(name, rows, screen)]
    if not lines and not errors:
        lines = ["Nothing is left over."]
    return [*lines, *unreachable(errors, screen)]


def _of(name: str, rows: list[Mapping[str, Any]], screen: Screen) -> list[str]:
    lines = [f"{name} on {rows[0]['host'] or 'the master'}" if "host" in rows[0] else name]
    why = ""
    for row in rows:
        done = "stays: " if row["kind"] == _KEPT else "removed: " if row["removed"] else ""
        kind = "" if row["kind"] in (_KEPT, "domain") else f"{row['kind']} "
        lines.append(f"  {done}{kind}{row['path'] or 'the machine'}")
        if row["reason"] != why:
            why = row["reason"]
            lines += text.wrapped(why, screen.width, "    ")
    if any(row["kind"] != _KEPT and not row["removed"] for row in rows):
        lines += text.hint(f"Remove it: {screen.command('gc', name, 'apply=True')}")
    return lines


def findings(
    found: Iterable[Mapping[str, Any]],
    errors: Mapping[str, Any],
    screen: Screen,
    loaded: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """
    Show what is not as it should be, worst first, each with the next command.

    :param found: FINDINGs, with ``host`` where several were asked.
    :param errors: An error for each host that was not looked at, by its label.
    :param loaded: LOADED of each machine, by its label; the master's is empty.
    """
    lines: list[str] = []
    for item in found:
        where = f" on {item['host']}" if item.get("host") else ""
        lines.append(f"{item['level']}: {item['kind']}  {item['name']}{where}")
        lines += text.wrapped(item["message"], screen.width, "  ")
        lines += text.hint(item["hint"])
    if not lines and not errors:
        lines = ["No problems were found."]
    lines += unreachable(errors, screen)
    if loaded:
        rows = [_machine(label, told) for label, told in loaded.items()]
        lines += ["", *text.table(_LOADED, rows, screen.width)]
    return lines


def _machine(label: str, told: Mapping[str, Any]) -> tuple[str, ...]:
    answers = f"{told['latency'] * 1000:.1f} ms" if told.get("libvirt") else ""
    return (
        label or "the master", told.get("version", ""), told.get("salt", ""),
        told.get("libvirt", ""), answers, told.get("path", ""),
    )  # fmt: skip


def report(answer: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show where the page is, and what is not on it.

    :param answer: ``{"report": PATH}``, sometimes with ``unreachable``.
    """
    return [answer["report"], *unreachable(answer.get("unreachable") or {}, screen)]
