"""Show bases that were made to a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.display import text
from saltext.kvmclone.display.failures import failure
from saltext.kvmclone.display.screen import Screen
from saltext.kvmclone.model import units


def made(answer: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show what became of bases that were to be made.

    :param answer: ``{"bases": {BASE: …}}``, see docs/answers.md.
    """
    lines: list[str] = []
    for name, base in answer["bases"].items():
        lines += one(name, base, screen)
    return lines


def warmed(answer: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show what became of bases that were to be warmed, or not to stay warm.

    :param answer: ``{"bases": {BASE: …}}``, see docs/answers.md.
    """
    return [line for name, base in answer["bases"].items() for line in _warmed(name, base, screen)]


def one_warmed(base: Mapping[str, Any], screen: Screen) -> list[str]:
    """Show one such base, as a host answers with it."""
    return _warmed(base["name"], base, screen)


def _warmed(name: str, base: Mapping[str, Any], screen: Screen) -> list[str]:
    if base.get("error"):
        return failure(name, base["error"], screen)
    if "removed" in base:
        count = len(base["removed"])
        told = (
            f"{name}  not warm any more on {base['host']}: {count} file{'s' * (count != 1)} removed"
        )
        return [*text.wrapped(told, screen.width, "", "  "), *(f"  {one}" for one in base["kept"])]
    took = sum((base.get("timings") or {}).values())
    told = (
        f"{name}  warmed on {base['host']} in {units.span(took)}, generation {base['generation']}, "
        f"{units.size(base['bytes'])}"
    )
    lines = [*text.wrapped(told, screen.width, "", "  "), f"  {base['path']}"]
    return lines + text.warnings(base.get("warnings") or (), screen.width)


def one(name: str, base: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show what became of one base.

    :param name: Its name in the answer.
    """
    if base.get("error"):
        return failure(name, base["error"], screen)
    dry = screen.options.get("test") is True
    words = [f"{'would be ' if dry else ''}made from {base['source']}"]
    words += ["which was destroyed"] if base.get("promoted") else []
    words += ["protected"] if base.get("protected") else []
    took = sum((base.get("timings") or {}).values())
    when = f" in {units.span(took)}" if took else ""
    told = f"{name}  {', '.join(words)} on {base['host']}{when}"
    lines = text.wrapped(told, screen.width, "", "  ")
    lines += [f"  {base['digest']}"] if base.get("digest") else []
    disks = [f"{disk['target']} {disk['path']}" for disk in base.get("disks", [])]
    lines += [f"  {line}" for line in disks]
    return lines + text.warnings(base.get("warnings") or (), screen.width)
