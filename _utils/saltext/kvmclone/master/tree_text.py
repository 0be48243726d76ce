"""Draw the lineage of clones as text for a person. Pure."""

from __future__ import annotations

from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def draw(tree: dict[str, Any]) -> str:
    """
    Draw a tree.

    :param tree: ``{"bases": …}``, see docs/answers.md; keys that are missing are left out
        of the drawing.
    :return: Lines of text, without a newline at the end.
    """
    lines: list[str] = []
    for name, base in tree.get("bases", {}).items():
        if lines:
            lines.append("")
        lines.append(_titled(name, _base_words(base)))
        _branch(lines, base, "", base.get("exists", True))
    return "\n".join(lines) or "no clones"


def human(size: int) -> str:
    """Return a number of bytes in the largest unit that keeps it above one: ``1.5 GiB``."""
    value, unit = float(size), _UNITS[0]
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    digits = 0 if unit == "B" or value >= 100 or value == int(value) else 1
    return f"{value:.{digits}f} {unit}"


def _titled(name: str, words: list[str]) -> str:
    return f"{name}  {', '.join(words)}".rstrip()


def _base_words(base: dict[str, Any]) -> list[str]:
    if not base.get("exists", True):
        return ["gone"]
    return [word for word in (base.get("state", ""),) if word]


def _clone_words(clone: dict[str, Any]) -> list[str]:
    words = [clone.get(key, "") for key in ("strategy", "state", "stage")]
    words.append("failed" if clone.get("failed") else "")
    words.append("base changed since" if clone.get("drift") else "")
    return [word for word in words if word]


def _branch(lines: list[str], node: dict[str, Any], indent: str, exists: bool = True) -> None:
    """Append the disks of a base or clone, what changed, then the clones made from it."""
    clones = list(node.get("clones", {}).items())
    bar = "│  " if clones else "   "
    for disk in node.get("disks", []):
        lines.append(f"{indent}{bar}{_disk(disk, exists)}")
    for sentence in node.get("changes", []):
        lines.append(f"{indent}{bar}! {sentence}")
    for position, (name, clone) in enumerate(clones, start=1):
        last = position == len(clones)
        lines.append(f"{indent}{'└─ ' if last else '├─ '}{_titled(name, _clone_words(clone))}")
        _branch(lines, clone, indent + ("   " if last else "│  "))


def _disk(disk: dict[str, Any], exists: bool) -> str:
    name = " ".join(word for word in (disk.get("target"), disk.get("path")) if word)
    if not disk.get("exists", True):
        return f"{name}  gone" if not exists else f"{name}  missing"
    sizes = f"{human(disk.get('allocation', 0))} of {human(disk.get('capacity', 0))}"
    words = [word for word in (disk.get("format"), sizes) if word]
    if disk.get("backing"):
        words.append(f"on {disk['backing']}")
    return f"{name}  {', '.join(words)}"
