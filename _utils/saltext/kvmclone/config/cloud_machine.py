"""Tell a machine's own keys from those that salt-cloud's core mixes in. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Mapping
from typing import Any

from saltext.kvmclone.config import resolve, stock_keys
from saltext.kvmclone.config.schema import KEYS, KeyLocation, KeySupport
from saltext.kvmclone.config.section_entry import DRIVER
from saltext.kvmclone.config.validate import Keys, Problem, checked_arguments, fault_of
from saltext.kvmclone.errors import ConfigError, SecretInArgument

#: Keys that salt-cloud's core itself adds to those of a machine; they are not checked here.
_OF_THE_CORE = (
    "name", "profile", "provider", "driver", "level", "requires", "os", "inline_script",
    "pub_key", "priv_key", "master_pub", "master_pem", "preseed_minion_keys", "profiles",
)  # fmt: skip


def faults(machine: Mapping[str, Any], settings: Container[str], section: str) -> list[Problem]:
    """
    Return what is wrong with a machine's keys.

    :param machine: What the core hands over (``vm_``).
    :param settings: Names of salt-cloud's own settings, which may stand among them.
    :param section: Name of its profile, for the messages.
    """
    return [
        Problem("salt-cloud", section, key, fault)
        for key, value in machine.items()
        if key not in _OF_THE_CORE and key not in settings and not key.startswith("__")
        if (fault := fault_of(key, value, KeyLocation.PROFILE))
    ]


def own_keys(machine: Mapping[str, Any], settings: Container[str], profile: Keys) -> Keys:
    """
    Return the keys that somebody wrote for the machine, and the core did not mix in.

    Some names are both a profile's key and a setting of salt-cloud's own: of those only what the
    profile itself has counts.

    :param profile: The keys of its profile.
    """
    return {
        key: value
        for key, value in machine.items()
        if key not in _OF_THE_CORE and (key not in settings or key in profile)
    }


def known_keys(machine: Mapping[str, Any]) -> Keys:
    """Return the keys of a machine that are a profile's."""
    return {
        key: value
        for key, value in machine.items()
        if key in KEYS and KEYS[key].fate is KeySupport.HONOURED
    }


def departures(keys: Keys, written: Keys) -> Keys:
    """
    Return the arguments that ask for what a machine's keys have beyond its profile.

    A map or the command line has added them, and a resume reads the profile again. What may not be
    an argument, such as a secret, is left out.

    :raises ConfigError: There is a key among them that is about a profile alone.
    """
    usual = {"deploy": True, "script_args": "", "driver": DRIVER}
    found: Keys = {}
    for key, value in _beyond(keys, {**usual, **written}).items():
        # Of these a path, or a word, is no secret; the other values are refused as arguments.
        if not KEYS[key].visible and key not in ("private_key", "seed"):
            continue
        if key in stock_keys.KEYS:
            checked_arguments({key: value})  # the core itself would pass over it
        with contextlib.suppress(ConfigError, SecretInArgument):
            found |= checked_arguments({key: value})
    return found


def _beyond(keys: Mapping[str, Any], written: Mapping[str, Any]) -> Keys:
    """Return the keys that differ, without what salt-cloud took out of an sdb store."""
    found: Keys = {}
    for key, value in keys.items():
        below = written.get(key)
        if value is None or value == below:
            continue
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            if parts := _beyond(value, below):
                found[key] = parts
        elif not resolve.holds_reference(below):
            found[key] = value
    return found
