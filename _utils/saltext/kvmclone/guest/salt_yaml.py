"""
YAML for the guest's Salt, and the YAML that is found in a guest, which may hold anything.
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
    """Without merge keys, by which ten lines become gigabytes."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Left out: a key ``<<`` is then one that cannot be read."""


def plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a profile says as YAML can write it: Salt hands out ordered and other dicts."""
    written: dict[str, Any] = json.loads(json.dumps(data, default=str))
    return written


def dump(data: Mapping[str, Any]) -> bytes:
    """
    A file for Salt in the guest.

    :param data: As :func:`plain` or :func:`load` gives it.
    """
    # The aliases of a guest stay aliases: written out, they are what merge keys are.
    text: str = yaml.safe_dump(dict(data), default_flow_style=False, sort_keys=False)
    return text.encode()


def load(text: str) -> dict[str, Any] | None:
    """A mapping that was found in a guest; None where it is none, or cannot be read."""
    if len(text) > LONGEST:
        return None
    # Not all that may be wrong with it is a YAMLError.
    with suppress(yaml.YAMLError, ValueError, TypeError, RecursionError):
        found = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
        if isinstance(found, dict):
            dump(found)  # what is nested too deep to be written is told now
            return found
    return None
