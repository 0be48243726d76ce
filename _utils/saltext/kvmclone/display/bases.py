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
