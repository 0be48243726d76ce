"""
Tell the names of machines from their keys in a salt-cloud map.

In YAML one step of indentation decides: ``- web1:`` with ``deploy: false`` below it is a machine
without a minion; with ``deploy`` beside ``web1`` it is two machines, as salt-cloud reads it, the
second called ``deploy``. Pure; :mod:`.map_files` reads the files.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.config.schema import KEYS, KeyLocation
from saltext.kvmclone.config.validate import fault_of

#: salt-cloud's old names for keys of a machine in a map; its core still takes them.
OLD_KEYS = {f"map_{key}": key for key in ("grains", "master", "minion", "requires", "volumes")}

#: Where something stands in a map: the profile, the number of the list's item, the name.
Position = tuple[Any, ...]


@dataclass(frozen=True)
class Entry:
    """One machine, as it is written; ``keys`` may be anything."""

    profile: Any
    name: Any
    keys: Any
    position: Position


@dataclass(frozen=True)
class Mistake:
    """A mistake in a map, and how it is corrected."""

    text: str
    position: Position


def is_key(name: Any) -> bool:
    """Return whether a machine of a map may have a key of that name."""
    return isinstance(name, str) and (name in KEYS or name in OLD_KEYS or name == "name")


def entries(profile: Any, mapped: Any) -> tuple[list[Entry], list[Mistake]]:
    """
    Return the machines of one profile in a map, and the mistakes there.

    Machines are found in every form that salt-cloud accepts.

    :param mapped: What stands below the profile.
    """
    found: list[Entry] = []
    slips: list[Mistake] = []
    if isinstance(mapped, Mapping):
        slips += _slips_among_names(profile, mapped)
        found += [Entry(profile, n, _keys(k), (profile, n)) for n, k in mapped.items()]
    elif isinstance(mapped, (list, tuple)):
        for number, item in enumerate(mapped):
            if isinstance(item, Mapping):
                slips += _slips_in_item(profile, number, item)
                names = item.items()
                found += [Entry(profile, n, _keys(k), (profile, number, n)) for n, k in names]
            elif item is None or isinstance(item, (list, tuple)):
                what = "is empty" if item is None else "is a list itself"
                slips.append(
                    Mistake(f"'{profile}': an item {what}; write - NAME", (profile, number))
                )
            else:
                found.append(Entry(profile, item, {}, (profile, number)))
    elif isinstance(mapped, str):
        found.append(Entry(profile, mapped, {}, (profile,)))
    elif is_key(profile):
        slips.append(
            Mistake(
                f"'{profile}' is a key of a machine, but stands where a profile belongs; indent it "
                "below its machine",
                (profile,),
            )
        )
    else:
        slips.append(Mistake(f"'{profile}' has no list of names below it", (profile,)))
    return found, slips


def _keys(keys: Any) -> Any:
    return {} if keys is None or isinstance(keys, bool) else keys


def _slips_in_item(profile: Any, number: int, item: Mapping[Any, Any]) -> Iterator[Mistake]:
    """
    Yield the mistakes in one item of a list.

    An item is a lone name, or a name and its keys; whatever stands beside a name is a name as well.
    """
    names = [key for key in item if not is_key(key)]
    for key, value in item.items():
        position = (profile, number, key)
        if is_key(key):
            if len(item) > 1:
                yield Mistake(_one_step_short(key, names[0] if names else None), position)
            elif not (value is None or _is_of_a_machine(key, value)):
                yield Mistake(_one_step_short(key, None), position)
        elif names.index(key) and (meant := _nearly_a_key(key, value)):
            yield Mistake(f"{_one_step_short(key, names[0])}. Did you mean '{meant}'?", position)


def _slips_among_names(profile: Any, mapped: Mapping[Any, Any]) -> Iterator[Mistake]:
    """
    Yield the mistakes in a mapping of names.

    Each name there may have keys below it, also one that is called like a key.
    """
    names = [key for key in mapped if not is_key(key)]
    for key, value in mapped.items():
        position = (profile, key)
        if is_key(key):
            alone = len(mapped) == 1 and value is None
            if not (alone or _is_of_a_machine(key, value)):
                yield Mistake(_one_step_short(key, names[0] if names else None), position)
        elif names.index(key) and (meant := _nearly_a_key(key, value)):
            yield Mistake(f"{_one_step_short(key, names[0])}. Did you mean '{meant}'?", position)


def _is_of_a_machine(key: str, value: Any) -> bool:
    """Tell whether what stands below a key can be a machine's keys, not that key's value."""
    if not isinstance(value, Mapping):
        return False
    try:
        KEYS[OLD_KEYS.get(key, key)].kind.parse(value)
    except (KeyError, ValueError):
        return True
    return not any(fault_of(name, told, KeyLocation.PROFILE) for name, told in value.items())


def _one_step_short(key: str, owner: Any) -> str:
    if key == "name":
        return "a machine is named by the item itself: write - NAME, with its keys below that"
    own = f"a machine called '{key}' is an item of its own: - {key}"
    if owner is None:
        return f"'{key}' is where a machine's name belongs; indent it below that name; {own}"
    return (
        f"'{key}' is level with '{owner}', so it would be a machine of that name; indent it one "
        f"step further, below '{owner}'; {own}"
    )


def _nearly_a_key(name: Any, value: Any) -> str:
    """
    Return the key that a misspelt one was meant to be, if it may have the value; otherwise empty.
    """
    if value is None or isinstance(value, Mapping):
        return ""
    for close in difflib.get_close_matches(str(name), list(KEYS), n=3, cutoff=0.75):
        try:
            KEYS[close].kind.parse(value)
        except ValueError:
            continue
        return close
    return ""
