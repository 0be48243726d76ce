"""What rewriting a definition comes to, and the small tools that every concern uses. Pure."""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass, field
from typing import Any

from lxml import etree


@dataclass
class Rewritten:
    """The new definition, what changed in it, and every reason for doubt or refusal."""

    xml: str = ""
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)

    def change(self, key: str, old: Any, new: Any) -> None:
        """Note a change as ``{key: {old, new}}``; equal values are no change."""
        if old != new:
            self.changes[key] = {"old": old, "new": new}


def drop(element: etree._Element, attribute: str) -> str | None:
    """Remove an attribute, if it is there; answers with what it was."""
    value = element.get(attribute)
    if value is not None:
        del element.attrib[attribute]
    return value


def remove(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


def set_text(root: etree._Element, tag: str, value: str, position: int) -> None:
    element = root.find(tag)
    if element is None:
        element = etree.Element(tag)
        root.insert(position, element)
    element.text = value


def own_path(
    element: etree._Element, attribute: str, label: str, base: str, name: str, out: Rewritten
) -> None:
    """Give a path that one domain writes to a name of the clone's own."""
    old = element.get(attribute)
    if not old:
        return
    new = path_for(old, base, name)
    element.set(attribute, new)
    out.change(f"{label} {attribute}", old, new)


def path_for(path: str, base: str, name: str) -> str:
    """
    A path for the clone, made from one of the base's: the base's name in the file name is
    replaced by the clone's, and where it does not occur the clone's name is put in front.

    :param path: Absolute path of a file that belongs to the base.
    :param base: Name of the base.
    :param name: Name of the clone.
    """
    folder, file = os.path.split(path)
    whole_word = rf"(?<![A-Za-z0-9]){re.escape(base)}(?![A-Za-z0-9])"
    renamed, found = re.subn(whole_word, lambda _: name, file, count=1)
    return os.path.join(folder, renamed if found else f"{name}-{file}")
