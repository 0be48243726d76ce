"""
Check the names that a clone may have.

Pure. The name becomes a libvirt domain, part of volume file names, a host name and a
minion id, so it is held against the strictest of these before anything happens.
"""

from __future__ import annotations

import re
import reprlib
from typing import TypeGuard

from saltext.kvmclone.errors import InvalidName

#: Longest name, in characters; the limit of a DNS name.
LONGEST_NAME = 253

#: Longest part between two dots, in characters; the limit of a DNS label.
LONGEST_LABEL = 63

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")

_MINION_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")

_RULE = (
    "A name is made of letters, digits, dots and hyphens; each part between dots begins "
    f"with a letter or digit and has at most {LONGEST_LABEL} characters, "
    f"{LONGEST_NAME} in all."
)

#: What the shell leaves among the names of a list or mapping that nobody quoted.
_OF_A_VALUE = "{}[]\"',:"

#: A range of names, as :mod:`.name_ranges` reads it.
_RANGE = re.compile(r"\[[0-9]+[-,][0-9,-]+\]")


def check(name: object) -> str:
    """
    Return the name, once it is known to be usable.

    :param name: What the user gave; anything but text means that YAML or the command
        line has already turned it into something else.
    :raises InvalidName: It cannot be used; with the first reason found.
    """
    if not isinstance(name, str):
        word = _as_typed(name)
        raise InvalidName(
            f"The name {reprlib.repr(name)} was read as {_described(name)}, not as text.",
            f'Quote it, in YAML name: "{word}", on the command line name=\'"{word}"\'.',
        )
    if not name:
        raise InvalidName("The name is empty.", _RULE)
    if len(name) > LONGEST_NAME:
        raise InvalidName(
            f"The name {name[:40]!r}... has {len(name)} characters, and at most {LONGEST_NAME} are "
            "allowed.",
            _RULE,
        )
    for label in name.split("."):
        if not label:
            raise InvalidName(f"The name {name!r} has an empty part between its dots.", _RULE)
        if not _LABEL.fullmatch(label):
            raise InvalidName(f"The name {name!r} cannot be used: {_fault(label)}.", _way_out(name))
        if len(label) > LONGEST_LABEL:
            raise InvalidName(
                f"The part {label[:40]!r}... of the name has {len(label)} characters, "
                f"and at most {LONGEST_LABEL} are allowed.",
                _RULE,
            )
    return name


def is_minion_id(value: object) -> TypeGuard[str]:
    """
    Return whether a value can be a minion id.

    Salt uses it as a file name, as a pattern and in lists of targets, where an id with a comma, a
    star or a slash would stand for several minions or none.
    """
    return (
        isinstance(value, str)
        and len(value) <= LONGEST_NAME
        and _MINION_ID.fullmatch(value) is not None
    )


def _described(value: object) -> str:
    """Describe what YAML made of a value, in the words of its documentation."""
    if value is None:
        return "nothing (null)"
    words = {bool: "a boolean", int: "an integer", float: "a number with a fraction"}
    words |= {list: "a list", dict: "a mapping"}
    return words.get(type(value), f"a {type(value).__name__}")


def _as_typed(value: object) -> str:
    """Return a value that YAML read as no text, as somebody may have typed it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "yes", False: "no"}[value]
    return reprlib.repr(value) if isinstance(value, (int, float)) else "007"


def _way_out(name: str) -> str:
    """Return the hint for a name with a character that names cannot have."""
    if _RANGE.search(name):
        return (
            "This command takes one name at a time. Ranges are for the commands of the master that "
            "take several: create, resume, start, stop, reboot, show, destroy."
        )
    if any(character in _OF_A_VALUE for character in name):
        example = "disks='{vda: {size: 20GiB}}'"
        return f"If it is part of a value, put quotes around all of that: {example}. {_RULE}"
    near = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-")
    return f"{_RULE} For example: {near}" if _LABEL.fullmatch(near.replace(".", "")) else _RULE


def _fault(label: str) -> str:
    """Say why a part of a name is refused."""
    if label.startswith("-"):
        return "a part begins with '-'"
    stranger = next(character for character in label if not _LABEL.fullmatch("a" + character))
    return f"it contains {stranger!r}"
