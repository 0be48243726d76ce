"""
Read salt-cloud's map files: which machines are to be made from which profile.

They are rendered as salt-cloud renders them (``renderer:`` of the master's configuration), found
where it finds them, and checked as a whole before anything is made.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

import salt.config
import salt.exceptions
import salt.fileclient
import salt.loader
import salt.template
import salt.utils.yamlloader
import yaml

from saltext.kvmclone.config import map_shape, validate
from saltext.kvmclone.config.map_shape import Entry, Mistake, Position
from saltext.kvmclone.config.yaml_files import tab_in
from saltext.kvmclone.errors import ConfigError, InvalidName, SecretInArgument
from saltext.kvmclone.model import name_ranges
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.names import check

log = logging.getLogger(__name__)

_FORM = (
    "Each profile holds a list of names, or of NAME: {KEY: VALUE}, as in salt-cloud's maps; "
    "web[01-20] is twenty names."
)


def read(opts: Mapping[str, Any], file: Any) -> list[tuple[str, Any, dict[str, Any]]]:
    """
    Return the machines of a map: profile, name, and the keys that override the profile's.

    :param opts: The master's configuration.
    :param file: A path; a bare name lies in ``cloud.maps.d``.
    :raises ConfigError: All that is wrong with it, at once; or it names too many machines.
    """
    path = _path(opts, file)
    told = _rendered(opts, path)
    found, slips = _assembled(told)
    if not found and not slips:
        raise ConfigError(f"The map '{path}' names no machine.", _FORM)
    machines: list[tuple[str, Any, dict[str, Any]]] = []
    short = {slip.position for slip in slips}
    seen: dict[str, Position] = {}
    for entry in found:
        # A key in the place of a name has been reported; it is not a machine with its own faults.
        if entry.position not in short:
            names, keys, faults = _judged(path, entry)
            slips += [Mistake(fault, entry.position) for fault in faults]
            for name in names:
                if str(name) in seen:
                    slips.append(Mistake(f"'{name}' is named twice", entry.position))
                seen[str(name)] = entry.position
                machines.append((str(entry.profile), name, dict(keys)))
            if len(machines) > name_ranges.MOST_NAMES:
                raise name_ranges.too_many(
                    f"The map '{path}' names {len(machines):,} machines or more"
                )
    if slips:
        raise _wrong(opts, path, slips)
    return machines


def require_shape(opts: Mapping[str, Any], profiles: Container[str]) -> None:
    """
    Refuse the map that salt-cloud works on where a key stands in the place of a machine's name.

    Its core has made a machine of that key, so nothing of the map is made, or destroyed.

    :param opts: salt-cloud's configuration; without a map file in it there is nothing to refuse.
    :param profiles: The profiles that are ours; others are their drivers' to judge.
    :raises ConfigError: All such slips, at once.
    """
    path = str(opts.get("map") or "")
    if path.startswith("salt://"):  # where the core puts it, too
        with salt.fileclient.get_file_client({**opts, "file_client": "local"}) as client:
            path = client.cache_file(path) or ""
    if not os.path.isfile(path):
        return
    told = {key: value for key, value in _rendered(opts, path).items() if key in profiles}
    _entries, slips = _assembled(told)
    if slips:
        raise _wrong(opts, path, slips)


def _rendered(opts: Mapping[str, Any], path: str) -> Mapping[Any, Any]:
    """
    Return what a map says once it is rendered and its includes are merged into it.

    :raises ConfigError: It cannot be rendered.
    """
    try:
        told = salt.template.compile_template(
            path,
            salt.loader.render(opts, {}),
            _pipe(opts),
            opts.get("renderer_blacklist"),
            opts.get("renderer_whitelist"),
        )
        if isinstance(told, Mapping) and "include" in told:
            told = salt.config.include_config(dict(told), path, verbose=False)
    except salt.exceptions.SaltException as error:
        raise ConfigError(
            f"The map '{path}' cannot be rendered: {_reason(path, error)}", _FORM
        ) from error
    return told if isinstance(told, Mapping) else {}


def _reason(path: str, error: salt.exceptions.SaltException) -> str:
    """Return what is wrong and its line, as far as that is known; say so where it is a tab."""
    number = getattr(error, "line_num", None)
    if not isinstance(number, int):
        return str(error)
    with open(path, encoding="utf-8", errors="replace") as stream:
        tab = tab_in(stream.read(), number)
    return f"line {number} {tab}" if tab else f"{error} (line {number})"


def _assembled(told: Mapping[Any, Any]) -> tuple[list[Entry], list[Mistake]]:
    found: list[Entry] = []
    slips: list[Mistake] = []
    for profile, mapped in told.items():
        if profile != "include":
            some, wrong = map_shape.entries(profile, mapped)
            found += some
            slips += wrong
    return found, slips


def _judged(path: str, entry: Entry) -> tuple[list[Any], dict[str, Any], list[str]]:
    """
    Return the machines of one entry, their keys that are used here, and what is wrong there.

    A range (``web[01-20]``) is as many machines with these keys.
    """
    profile, written = entry.profile, entry.keys
    where = f"{profile}, '{entry.name}'"
    problems: list[str] = []
    names: list[Any] = []
    try:
        names = name_ranges.expand([entry.name])
        for name in names:
            check(name)
    except (InvalidName, ConfigError) as error:
        each = "Each name is an item of its own: - NAME" if " " in str(entry.name) else error.hint
        problems.append(f"{where}: {error.message} {each}".removesuffix("."))
    if not isinstance(written, Mapping):
        told = f"{where}: not a mapping of keys (KEY: VALUE, indented below it)"
        return names, {}, [*problems, told]
    keys = {str(key): value for key, value in written.items() if key != "name"}
    keys |= {new: keys.pop(old) for old, new in map_shape.OLD_KEYS.items() if old in keys}
    if written.get("name", entry.name) != entry.name:
        problems.append(f"{where}: it is given another name, name: {written['name']}")
    keys = _without_ignored(f"{path}: {where}", keys)
    return names, keys, [*problems, *_faults(where, keys)]


def _wrong(opts: Mapping[str, Any], path: str, slips: Iterable[Mistake]) -> ConfigError:
    lines = _lines(opts, path)

    def told(slip: Mistake) -> str:
        nearest = [slip.position[:n] for n in range(len(slip.position), 0, -1)]
        line = next((lines[position] for position in nearest if position in lines), "")
        return f"{line}: {slip.text}" if line else slip.text

    problems = list(dict.fromkeys(map(told, slips)))
    return ConfigError(f"The map '{path}' is wrong: {'; '.join(problems)}.", _FORM)


def _pipe(opts: Mapping[str, Any]) -> str:
    return str(opts.get("renderer") or "jinja|yaml")


def _lines(opts: Mapping[str, Any], path: str) -> dict[Position, str]:
    """Return the line of each profile, item and name, in words; empty where it cannot be told."""
    try:
        with open(path, encoding="utf-8") as stream:
            source = stream.read()
        text, pipe = source, _pipe(opts)
        if source.startswith("#!"):
            pipe, text = source[2:].splitlines()[0].strip(), "# " + source[2:]
        renderers = salt.loader.render(opts, {})
        before, _, last = pipe.rpartition("|")
        if last.strip() != "yaml":
            return {}
        if before:
            made = salt.template.compile_template(
                ":string:", renderers, before.strip(), None, None, input_data=text
            )
            text = made if isinstance(made, str) else made.read()
        # Loops and conditions move lines.
        moved = "" if text.count("\n") == source.count("\n") else " as rendered"
        root = yaml.compose(text, Loader=salt.utils.yamlloader.SaltYamlSafeLoader)
    except (OSError, UnicodeError, AttributeError, yaml.YAMLError, salt.exceptions.SaltException):
        return {}
    return {position: f"line {line}{moved}" for position, line in _positions(root)}


def _positions(root: Any) -> Iterator[tuple[Position, int]]:
    for profile, mapped in root.value if isinstance(root, yaml.MappingNode) else ():
        yield (profile.value,), profile.start_mark.line + 1
        if isinstance(mapped, yaml.MappingNode):
            for name, _keys in mapped.value:
                yield (profile.value, name.value), name.start_mark.line + 1
        for number, item in enumerate(
            mapped.value if isinstance(mapped, yaml.SequenceNode) else ()
        ):
            yield (profile.value, number), item.start_mark.line + 1
            for name, _keys in item.value if isinstance(item, yaml.MappingNode) else ():
                yield (profile.value, number, name.value), name.start_mark.line + 1


def _path(opts: Mapping[str, Any], file: Any) -> str:
    folder = os.path.join(os.path.dirname(str(opts["conf_file"])), "cloud.maps.d")
    places = [str(file), os.path.join(folder, str(file)), os.path.join(folder, f"{file}.map")]
    for place in places:
        if os.path.isfile(place):
            return os.path.abspath(place)
    maps = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    wanted = os.path.basename(str(file)).removesuffix(".map")
    for near in difflib.get_close_matches(f"{wanted}.map", maps, n=1):
        text = f"There is no map '{file}'. Did you mean '{near}'?"
        raise ConfigError(text, Commands().clone("map", near))
    raise ConfigError(
        f"There is no map '{file}'.", f"Looked for: {', '.join(dict.fromkeys(places))}"
    )


def _without_ignored(where: str, keys: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that have a use here; log a warning for each that has none."""
    kept = {}
    for key, value in keys.items():
        if key != "requires" and (advice := validate.advice_on(key, value)):
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
                f"{where}: 'requires' sets an order, but these are made all at once; use "
                "salt-cloud -m"
            )
            continue
        try:
            if key == "script_env":
                raise SecretInArgument(key)
            validate.checked_arguments({key: value}, typed=False)
        except SecretInArgument:
            # A clone's record keeps what overrides its profile.
            found.append(
                f"{where}: '{key}' is a secret; write it into a profile of its own, which may "
                "extend this one"
            )
        except ConfigError as error:
            found.append(f"{where}: {error.message}")
    return found
