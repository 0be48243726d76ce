"""Draw the lineage of clones as text for a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.display import text
from saltext.kvmclone.display.failures import unreachable
from saltext.kvmclone.display.screen import Screen
from saltext.kvmclone.model import units


def tree(answer: Mapping[str, Any], screen: Screen) -> list[str]:
    """
    Draw bases with the clones made from them, and name the hosts that did not answer.

    :param answer: ``{"bases": …}``, see docs/answers.md; keys that are missing are left out
        of the drawing.
    """
    lines: list[str] = []
    for name, base in answer["bases"].items():
        if lines:
            lines.append("")
        lines.append(_titled(name, _base_words(base)))
        _branch(lines, base, "", screen.width, base.get("exists", True))
    errors = answer.get("unreachable") or {}
    return [*lines, *unreachable(errors, screen)] or ["No clones"]


def _titled(name: str, words: list[str]) -> str:
    return f"{name}  {', '.join(words)}".rstrip()


def _base_words(base: Mapping[str, Any]) -> list[str]:
    where = f"on {base['host']}" if base.get("host") else ""
    state = base.get("state", "") if base.get("exists", True) else "gone"
    made = f"made from {base['source']}" if base.get("source") else ""
    return [word for word in (state, where, made, _warm(base)) if word]


def _warm(base: Mapping[str, Any]) -> str:
    """Return whether forks can be made of a base; empty for one that is not warmed."""
    saved = base.get("warmed") or []
    if not saved:
        return ""
    why = saved[0].get("unusable", "")
    return f"warmed, but {why}" if why else f"warmed ({units.size(saved[0].get('bytes', 0))})"


def _clone_words(clone: Mapping[str, Any]) -> list[str]:
    words = [clone.get(key, "") for key in ("strategy", "state", "stage")]
    words.append("in stock" if clone.get("spare") else "")
    words.append(f"claimed by {clone['claimed']['by']}" if clone.get("claimed") else "")
    words.append("failed" if clone.get("failed") else "")
    words.append("base changed since" if clone.get("drift") else "")
    return [word for word in words if word]


def _branch(
    lines: list[str], node: Mapping[str, Any], indent: str, width: int, exists: bool = True
) -> None:
    """Append the disks of a base or clone, what changed, then the clones made from it."""
    clones = list(node.get("clones", {}).items())
    bar = f"{indent}{'│' if clones else ' '}  "
    for disk in node.get("disks", []):
        lines.append(f"{bar}{_disk(disk, width - len(bar), exists)}")
    for sentence in node.get("changes", []):
        lines += text.wrapped(sentence, width, f"{bar}! ", f"{bar}  ")
    for position, (name, clone) in enumerate(clones, start=1):
        last = position == len(clones)
        lines.append(f"{indent}{'└─ ' if last else '├─ '}{_titled(name, _clone_words(clone))}")
        _branch(lines, clone, indent + ("   " if last else "│  "), width)


def _disk(disk: Mapping[str, Any], room: int, exists: bool) -> str:
    """Return a disk in one line; folders are left out where the line would be too long."""
    if disk.get("exists", True):
        sizes = [units.size(disk.get(key, 0)) for key in ("allocation", "capacity")]
        said = ", ".join(word for word in (disk.get("format"), " of ".join(sizes)) if word)
    else:
        said = "missing" if exists else "gone"
    target, path = disk.get("target", ""), disk.get("path", "")
    on = f", on {disk['backing']}" if disk.get("backing") else ""
    line = _titled(f"{target} {path}".strip(), [said]) + on
    if len(line) <= room:
        return line
    short = f"{target} {text.cut_path(path, 0)}".strip()
    # What it stands on is drawn above it, as a rule.
    return _titled(short, [said])
