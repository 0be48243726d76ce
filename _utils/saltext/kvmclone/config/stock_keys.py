"""
Define the values of ``spares`` and ``spare_names``, and say what cannot stand beside them.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.config import value_types
from saltext.kvmclone.config.value_types import ValueType, WrongPart
from saltext.kvmclone.errors import InvalidName
from saltext.kvmclone.model import spares
from saltext.kvmclone.model.name_ranges import MOST_NAMES
from saltext.kvmclone.model.spares import ID, Stock

#: The keys themselves: about a profile, and nothing that one machine can be given.
KEYS = ("spares", "spare_names")

#: What stands for the digits of a spare's name where a pattern is checked.
_ANY = "0" * spares.ID_DIGITS


def _parse_names(value: Any) -> str:
    pattern = value_types.WORD.parse(value)
    try:
        spares.name_of(pattern, _ANY)
    except InvalidName as error:
        raise WrongPart(f"{value_types.shortened(value)}: {error.message.rstrip('.')}") from None
    return pattern


SPARES = value_types.integer(0, MOST_NAMES, 3)
SPARE_NAMES: ValueType[str] = ValueType(
    f"a name with {ID} in it once, in quotes", f"'ci-{ID}'", _parse_names
)


def stock(values: Mapping[str, Any]) -> Stock:
    """
    Return the spares that typed values ask for.

    :param values: ``spares`` and ``spare_names`` as :data:`SPARES` and :data:`SPARE_NAMES` give
        them.
    """
    return Stock(values.get("spares", 0), values.get("spare_names", ""))


def faults(keys: Mapping[str, Any], profile: str) -> dict[str, str]:
    """
    Return why no spares can be kept, by key; nothing for most profiles.

    :param keys: All keys of a profile, as they were written. Arguments are no part of them, since
        they are about one machine.
    :param profile: Its name.
    """
    if keys.get("spares") in (None, 0, "0"):
        return {}
    found = {}
    if keys.get("deploy") is False or keys.get("bootstrap") == "none":
        found["spares"] = (
            "needs a minion in each of them, and there is none with deploy: False or bootstrap: "
            "none"
        )
    elif keys.get("address") or _has_mac(keys):
        found["spares"] = (
            "cannot stand beside a fixed address or mac, which only one machine can have"
        )
    if not keys.get("spare_names"):
        try:
            spares.name_of(Stock().pattern(profile), _ANY)
        except InvalidName:
            found["spare_names"] = (
                f"is missing: no machine can be called {Stock().pattern(profile)!r}. For example: "
                f"spare_names: {SPARE_NAMES.example}"
            )
    return found


def _has_mac(keys: Mapping[str, Any]) -> bool:
    networks = keys.get("networks")
    return isinstance(networks, (list, tuple)) and any(
        isinstance(network, Mapping) and network.get("mac") for network in networks
    )
