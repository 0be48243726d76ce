"""Follow the chain of sections that one section of a configuration extends. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.config.schema import KeyLocation
from saltext.kvmclone.config.validate import Keys, Problem, Section, merge

#: The only driver whose providers are ours.
DRIVER = "libvirt"


@dataclass(frozen=True)
class Entry:
    """One mapping under one name; a provider has one for each of its drivers."""

    kind: KeyLocation
    name: str
    keys: Keys = field(repr=False)
    place: str
    key_places: Mapping[Any, str] = field(default_factory=dict)

    def problem(self, key: str, text: str, lacking: bool = False) -> Problem:
        """Return a problem with one of the keys, or with the whole where ``key`` is empty."""
        place = self.key_places.get(key, self.place)
        return Problem(place, self.name, key, text, self.kind, lacking)


def entry_of(section: Section, keys: Mapping[Any, Any], number: int = 0) -> Entry:
    """
    Return one of the mappings that a section has under its name.

    :param number: Which of them; a provider has one for each driver.
    """
    places = section.key_places[number] if number < len(section.key_places) else {}
    return Entry(section.kind, section.name, dict(keys), section.place, places)


def is_misspelt(keys: Mapping[str, Any]) -> bool:
    """Return whether the driver was meant to be ours, and is misspelt."""
    driver = keys.get("driver")
    if not isinstance(driver, str) or driver == DRIVER:
        return False
    return bool(difflib.get_close_matches(driver.strip().lower(), [DRIVER], cutoff=0.8))


def driver_extended(keys: Mapping[str, Any]) -> str:
    """Return the driver that a provider gets from ``extends: NAME:DRIVER``; empty for none."""
    return str(keys.get("extends") or "").partition(":")[2]


def lookup(chain: Sequence[Entry], key: str) -> Any:
    """Return the first value that a chain gives a key; None where it gives none."""
    return next((link.keys[key] for link in chain if link.keys.get(key) is not None), None)


def merged(chain: Sequence[Entry]) -> Keys:
    """Return all keys of a chain, each extended section below the one that extends it."""
    keys: Keys = {}
    for link in reversed(chain):
        keys = merge(keys, link.keys)
    keys.pop("extends", None)
    return keys
