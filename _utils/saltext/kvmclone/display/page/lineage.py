"""Show on the page which clone was made from which base. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.display.clones import STATES
from saltext.kvmclone.display.page.picture import ODD_ANSWER, Picture
from saltext.kvmclone.model import units

#: Clones of one base above which they are shown only on demand.
_MANY = 60

#: Clones of clones that a host may tell of.
_DEEPEST = 40


@dataclass(frozen=True)
class Branch:
    """
    A base, or a clone, with the clones made from it.

    :param words: What is said of it.
    :param alarm: It should be looked at.
    :param changes: What changed in its base since it was made.
    :param count: Number of all clones below it.
    """

    name: str
    words: str
    alarm: bool
    changes: tuple[str, ...]
    clones: tuple[Branch, ...]
    count: int

    @property
    def is_open(self) -> bool:
        """Return whether its clones are shown at once."""
        return self.count <= _MANY


def lineage(picture: Picture) -> list[Branch]:
    """Return the bases with their clones, in the order of the picture."""
    return [_safely(name, base) for name, base in picture.tree.items()]


def _safely(name: str, base: Mapping[str, Any]) -> Branch:
    try:
        return _base(name, base)
    except ODD_ANSWER:
        return Branch(name, "its host gave an answer of an unknown form", True, (), (), 0)


def _base(name: str, base: Mapping[str, Any]) -> Branch:
    clones = _clones(base, 0)
    count = sum(1 + clone.count for clone in clones)
    exists = bool(base.get("exists", True))
    source = base.get("source")
    words = [
        _state(base) if exists else "gone",
        f"on {base['host']}" if base.get("host") else "",
        f"made from {source}" if source else "",
        _sizes(base.get("disks", ())),
        f"{count} clone{'' if count == 1 else 's'}",
    ]
    return Branch(name, _joined(words), not exists, (), clones, count)


def _clones(node: Mapping[str, Any], depth: int) -> tuple[Branch, ...]:
    if depth > _DEEPEST:
        raise ValueError("clones of clones without an end")
    return tuple(_clone(str(name), one, depth) for name, one in node.get("clones", {}).items())


def _clone(name: str, clone: Mapping[str, Any], depth: int) -> Branch:
    clones = _clones(clone, depth + 1)
    failed, drift = bool(clone.get("failed")), bool(clone.get("drift"))
    words = [
        str(clone.get("strategy") or ""),
        _state(clone),
        _sizes(clone.get("disks", ())),
        "in stock" if clone.get("spare") else "",
        f"claimed by {clone['claimed']['by']}" if clone.get("claimed") else "",
        "failed" if failed else "",
        "base changed since" if drift else "",
    ]
    changes = tuple(map(str, clone.get("changes", ())))
    count = sum(1 + one.count for one in clones)
    return Branch(name, _joined(words), failed or drift, changes, clones, count)


def _state(node: Mapping[str, Any]) -> str:
    state = str(node.get("state") or "")
    return STATES.get(state, state)


def _sizes(disks: Iterable[Mapping[str, Any]]) -> str:
    """Return what some disks occupy; empty where that is not known."""
    taken = sum(int(disk["allocation"]) for disk in disks)
    return units.size(taken) if taken else ""


def _joined(words: Iterable[str]) -> str:
    return ", ".join(word for word in words if word)
