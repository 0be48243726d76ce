"""
Write YAML for the guest's Salt, and read YAML found in a guest, which may hold anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import yaml

#: Characters of a guest's own grains that are read.
LONGEST = 256 * 1024


class _Loader(yaml.SafeLoader):
    """A loader without merge keys, by which ten lines become gigabytes."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Do nothing: a key ``<<`` then cannot be read."""


def plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a profile's data in plain types for YAML: Salt has dicts of its own."""
    written: dict[str, Any] = json.loads(json.dumps(data, default=str))
    return written


def dump(data: Mapping[str, Any]) -> bytes:
    """
    Return the content of a YAML file for Salt in the guest.

    :param data: As :func:`plain` or :func:`load` returns it.
    """
    # Aliases found in a guest stay aliases: expanded, they are as dangerous as merge keys.
    text: str = yaml.safe_dump(dict(data), default_flow_style=False, sort_keys=False)
    return text.encode()


def load(text: str) -> dict[str, Any] | None:
    """Return the mapping in a text found in a guest; None if there is none to be read."""
    if len(text) > LONGEST:
        return None
    # Malformed text does not always raise a YAMLError.
    with suppress(yaml.YAMLError, ValueError, TypeError, RecursionError):
        found = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
        if isinstance(found, dict):
            dump(found)  # fails now if it is nested too deep to be written
            return found
    return None
