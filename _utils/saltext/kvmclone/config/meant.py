"""
Find which profile was meant where a command names none, or one that does not exist. Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saltext.kvmclone.config.catalogue import Catalogue, KeyLocation
from saltext.kvmclone.config.usage import arguments
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.model.hints import AT_HOST, AT_MASTER, Commands

#: Returns the command with another profile and other names.
Retyped = Callable[[str, Sequence[Any]], str]


def require_at_master(
    catalogue: Catalogue, verb: str, profile: Any, names: Sequence[Any], keys: Mapping[str, Any]
) -> None:
    """
    Refuse a profile that does not exist where it is plain which one was meant.

    :param verb: The command of the runner, which takes the profile first.
    :param names: The names that were typed with it.
    :param keys: The profile keys that were typed with it.
    :raises ConfigError: One of the names is a profile, or a profile has nearly that name; the
        hint is the command as it was meant.
    """

    def command(meant: str, others: Sequence[Any]) -> str:
        return Commands(ours=AT_MASTER).clone(verb, meant, *map(str, others), *arguments(keys))

    _require(catalogue, str(profile), names, command)


def require_on_host(catalogue: Catalogue, verb: str, name: Any, keys: Mapping[str, Any]) -> None:
    """
    Refuse arguments that do not say what to clone, and those that :func:`require_at_master` does.

    :param verb: The function of the execution module, which takes the name first.
    :param keys: The profile keys that were typed with it, the ``profile`` among them.
    :raises ConfigError: As there.
    """

    others = {key: value for key, value in keys.items() if key != "profile"}

    def command(meant: str, names: Sequence[Any]) -> str:
        return _typed_on_host(verb, names[0], {"profile": meant, **others})

    if keys.get("profile"):
        if verb != "adjust" and not (catalogue.profiles or catalogue.problems.found):
            raise ConfigError(
                "No profile is configured on this host; those of the master are used there.",
                Commands().clone(verb, str(keys["profile"]), str(name), *arguments(others)),
            )
        _require(catalogue, str(keys["profile"]), [name], command)
    elif not any(
        keys.get(key) or key in catalogue.cloud_file for key in ("base_domain", "provider")
    ):
        if _exists(catalogue, str(name)):
            text = f"'{name}' is a profile. What is the clone to be called?"
            raise ConfigError(text, command(name, ["NAME"]))
        raise ConfigError(
            f"What is '{name}' to be cloned from? Give a profile or a base.",
            f"{command('PROFILE', [name])}   or: "
            + _typed_on_host(verb, name, {"base_domain": "BASE", **others}),
        )


def _typed_on_host(verb: str, name: Any, keys: Mapping[str, Any]) -> str:
    return Commands(ours=AT_HOST).clone(verb, str(name), *arguments(keys))


def _require(catalogue: Catalogue, profile: str, names: Sequence[Any], command: Retyped) -> None:
    if _exists(catalogue, profile):
        return
    for meant in (one for one in map(str, names) if _exists(catalogue, one)):
        others = [profile, *(one for one in names if str(one) != meant)]
        raise ConfigError(
            f"'{profile}' is not a profile, but '{meant}' is.", command(meant, others)
        )
    for near in difflib.get_close_matches(profile, sorted(catalogue.profiles), n=1):
        text = f"There is no profile '{profile}'. Did you mean '{near}'?"
        raise ConfigError(text, command(near, names))


def _exists(catalogue: Catalogue, profile: str) -> bool:
    """Return whether there is such a profile, if with problems, which have errors of their own."""
    known = profile in catalogue.profiles or profile in catalogue.others
    return known or bool(catalogue.problems.of(KeyLocation.PROFILE, profile))
