"""
salt-cloud's map files: which machines there are to be, by profile.

Rendered as salt-cloud renders them (``renderer:`` of the master's configuration), found where it
finds them, and judged whole before anything is made.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import salt.config
import salt.exceptions
import salt.loader
import salt.template

from saltext.kvmclone import checks
from saltext.kvmclone.errors import ConfigError, SecretInArgument

log = logging.getLogger(__name__)

# salt-cloud's old names for what a map says of a machine; its core still takes them.
_OLD = {f"map_{key}": key for key in ("grains", "master", "minion", "requires", "volumes")}

_FORM = (
    "Below each profile stands a list of names, or of NAME: {KEY: VALUE}, as in salt-cloud's maps."
)


def read(opts: Mapping[str, Any], file: Any) -> list[tuple[str, Any, dict[str, Any]]]:
    """
    The machines of a map: profile, name, and the keys that override the profile's.

    :param opts: The master's configuration.
    :param file: A path; a bare name lies in ``cloud.maps.d``.
    :raises ConfigError: All that is wrong with it, at once.
    """
    path = _path(opts, file)
    try:
        told = salt.template.compile_template(
            path,
            salt.loader.render(opts, {}),
            str(opts.get("renderer") or "jinja|yaml"),
            opts.get("renderer_blacklist"),
            opts.get("renderer_whitelist"),
        )
        if isinstance(told, Mapping) and "include" in told:
            told = salt.config.include_config(dict(told), path, verbose=False)
    except salt.exceptions.SaltException as error:
        raise ConfigError(f"The map '{path}' cannot be rendered: {error}", _FORM) from error
    if not isinstance(told, Mapping) or not told:
        raise ConfigError(f"The map '{path}' names no machine.", _FORM)
    found: list[tuple[str, Any, dict[str, Any]]] = []
    problems: list[str] = []
    for profile, mapped in told.items():
        if profile == "include":
            continue
        for name, written in _entries(mapped):
            if not isinstance(written, Mapping):
                problems.append(f"{profile}, {name!r}: not a mapping of keys")
                continue
            keys = {str(key): value for key, value in written.items() if key != "name"}
            keys |= {new: keys.pop(old) for old, new in _OLD.items() if old in keys}
            if written.get("name", name) != name:
                problems.append(f"{profile}, '{name}': another name in it, name: {written['name']}")
            keys = _without_ignored(f"{path}: {profile}, '{name}'", keys)
            problems += _faults(f"{profile}, '{name}'", keys)
            found.append((str(profile), name, keys))
    names = [str(name) for _profile, name, _keys in found]
    problems += [f"'{name}' is named twice" for name in sorted(set(names)) if names.count(name) > 1]
    if problems:
        raise ConfigError(f"The map '{path}' is wrong: {'; '.join(problems)}.", _FORM)
    return found


def _path(opts: Mapping[str, Any], file: Any) -> str:
    folder = os.path.join(os.path.dirname(str(opts["conf_file"])), "cloud.maps.d")
    places = [str(file), os.path.join(folder, str(file)), os.path.join(folder, f"{file}.map")]
    for place in places:
        if os.path.isfile(place):
            return os.path.abspath(place)
    raise ConfigError(f"There is no map '{file}'.", f"Looked for: {', '.join(places)}")


def _entries(mapped: Any) -> list[tuple[Any, Any]]:
    """Every way in which salt-cloud lets names stand below a profile."""
    if isinstance(mapped, Mapping):
        return [(name, _keys(keys)) for name, keys in mapped.items()]
    found: list[tuple[Any, Any]] = []
    for item in mapped if isinstance(mapped, (list, tuple)) else [mapped]:
        if isinstance(item, Mapping):
            found += [(name, _keys(keys)) for name, keys in item.items()]
        else:
            found.append((item, {}))
    return found


def _keys(keys: Any) -> Any:
    return {} if keys is None or isinstance(keys, bool) else keys


def _without_ignored(where: str, keys: dict[str, Any]) -> dict[str, Any]:
    """What has no use here is said and left out, as where it stands in a profile."""
    kept = {}
    for key, value in keys.items():
        if key != "requires" and (advice := checks.advice_on(key, value)):
            log.warning("%s: key '%s': %s", where, key, advice)
            if key == "minion":
                kept[key] = {name: setting for name, setting in value.items() if name != "id"}
        else:
            kept[key] = value
    return kept


def _faults(where: str, keys: Mapping[str, Any]) -> list[str]:
    found = []
    for key, value in keys.items():
        if key == "requires":
            found.append(
                f"{where}: 'requires' is an order, and these are made at once; salt-cloud -m"
            )
            continue
        try:
            if key == "script_env":
                raise SecretInArgument(key)
            checks.checked_arguments({key: value})
        except SecretInArgument:
            # A clone's record keeps what overrides its profile.
            found.append(
                f"{where}: '{key}' is a secret; write it into a profile of its own, which may "
                "extend this one"
            )
        except ConfigError as error:
            found.append(f"{where}: {error.message.removeprefix('arguments: ')}")
    return found
