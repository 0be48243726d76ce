"""Show bases that were made to a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.display import text
from saltext.kvmclone.display.failures import failure
from saltext.kvmclone.display.screen import Screen


def promotions(answer: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show what became of clones that were to become bases.

    :param answer: ``{"bases": {BASE: …}}``, see docs/answers.md.
    """
    lines: list[str] = []
    for name, base in answer["bases"].items():
        lines += promoted(name, base, screen)
    return lines


def promoted(name: str, base: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Show what became of one of them.

    :param name: Name of the base.
    """
    if base.get("error"):
        return failure(name, base["error"], screen)
    words = [f"made from {base['source']}"]
    words += ["which was destroyed"] if base.get("promoted") else []
    words += ["protected"] if base.get("protected") else []
    lines = text.wrapped(f"{name}  {', '.join(words)} on {base['host']}", screen.width, "", "  ")
    disks = [f"{disk['target']} {disk['path']}" for disk in base.get("disks", [])]
    lines += [f"  {line}" for line in disks]
    return lines + text.warnings(base.get("warnings") or (), screen.width)
