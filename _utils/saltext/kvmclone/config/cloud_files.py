"""
Read providers and profiles, wherever they are written, into a catalogue.

Three places: salt-cloud's files, the ``kvm_clone:`` section of this daemon's own
configuration, and the same section of the pillar. The files are found and parsed by
Salt's rules (its YAML loader, ``default_include``, ``include``, ``providers_config``,
``profiles_config``), but one at a time: Salt's reader merges equal names, stops at the
first mistake and forgets which file a line came from. ``sdb://`` goes through Salt.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from typing import Any

import salt.utils.sdb
import salt.utils.yamlloader
import yaml

from saltext.kvmclone.config import placement_keys
from saltext.kvmclone.config.catalogue import Catalogue, KeyLocation, Problem, Section, build
from saltext.kvmclone.config.placement_keys import FleetSettings
from saltext.kvmclone.config.validate import error_for
from saltext.kvmclone.config.yaml_files import (
    FileSet,
    YamlFile,
    _include,
    _may_be_there,
    key_lines,
    line_places,
    read_file,
    read_set,
)
from saltext.kvmclone.errors import ConfigError

# What the kvm_clone: section of a configuration may hold.
_PARTS = {"providers": KeyLocation.PROVIDER, "profiles": KeyLocation.PROFILE}


def read(opts: Mapping[str, Any], pillar: Mapping[str, Any] | None = None) -> Catalogue:
    """
    Return the catalogue of everything that is configured on this machine.

    :param opts: Salt's ``__opts__`` of a master, minion or salt-cloud; the cloud files are
        looked for beside its ``conf_file``.
    :param pillar: The whole pillar, where there is one.
    :return: The catalogue, with all problems of all places; empty where nothing is configured.
    """
    folder = os.path.dirname(str(opts["conf_file"]))
    cloud = read_set(KeyLocation.GLOBAL, os.path.join(folder, "cloud"), "cloud.conf.d/*.conf")
    settings = cloud.merged()
    provider_files = _files(KeyLocation.PROVIDER, "providers", settings, folder)
    profile_files = _files(KeyLocation.PROFILE, "profiles", settings, folder)
    problems = [*cloud.problems, *provider_files.problems, *profile_files.problems]
    sections = [*provider_files.sections(), *profile_files.sections()]
    # The old way of writing providers, which Salt still reads.
    if isinstance(old := settings.get("providers"), Mapping):
        sections += _sections_of(KeyLocation.PROVIDER, old, cloud.place())
    elif old:
        place = cloud.key_places()["providers"]
        text = "is not a mapping (NAME: KEYS)"
        problems.append(Problem(place, "", "providers", text, KeyLocation.PROVIDER))
    own_files = _own_files(opts)
    # Salt only logs, once at its start, that one of its own files cannot be read.
    problems += [Problem(p.place, "", "", p.text) for file in own_files for p in file.problems]
    written = [section for file in own_files for section in _written_in(file)]
    role = opts.get("__role") or "own"
    if role == "master":
        problems += _wrong_settings(opts.get("kvm_clone"))
    for place, part, known in (
        (f"{role} configuration", opts.get("kvm_clone"), written),
        ("pillar", (pillar or {}).get("kvm_clone"), []),
    ):
        found, wrong = _sections_of_part(part, place)
        sections += [one for section in found for one in _placed(section, known)]
        problems += [*wrong, *_replaced(found, known)]
    return build(
        sections,
        settings,
        cloud_place=cloud.place(),
        cloud_places=cloud.key_places(),
        problems=problems,
        fetch=lambda uri: _fetch(uri, opts),
    )


def _wrong_settings(part: Any) -> list[Problem]:
    """Return all that is wrong with the limits of hosts in the master's configuration."""
    where = "master configuration, kvm_clone"
    faults = placement_keys.settings(_plain(part))[1]
    return [Problem(where, "", key, text, KeyLocation.PROFILE) for key, text in faults]


def fleet_settings(opts: Mapping[str, Any]) -> FleetSettings:
    """
    Return how much the hosts may promise, from the master's configuration.

    :raises ConfigError: All that is wrong with it, at once.
    """
    if wrong := _wrong_settings(opts.get("kvm_clone")):
        raise error_for(wrong)
    return placement_keys.settings(_plain(opts.get("kvm_clone")))[0]


def _files(kind: KeyLocation, word: str, settings: Mapping[Any, Any], folder: str) -> FileSet:
    """Return salt-cloud's files of providers or profiles, as ``word`` says."""
    path = _configured_path(settings.get(f"{word}_config"), folder, f"cloud.{word}")
    return read_set(kind, path, f"cloud.{word}.d/*.conf")


def _fetch(uri: str, opts: Mapping[str, Any]) -> Any:
    """
    Return what an ``sdb://`` URI stands for.

    :raises ConfigError: There is no such profile or entry, or the store fails.
    """
    hint = "Check the sdb profile in the configuration of this machine, and the entry in it."
    try:
        value = salt.utils.sdb.sdb_get(uri, opts, strict=True)
    except Exception as exc:  # any sdb driver may stand behind it, with errors of its own
        raise ConfigError(f"{uri} cannot be read: {exc}", hint) from exc
    if value is None or value == uri:
        raise ConfigError(f"There is nothing at {uri}.", hint)
    return value


def _own_files(opts: Mapping[str, Any]) -> list[YamlFile]:
    """Return the files of the daemon's own configuration that have a ``kvm_clone:`` section."""
    path = str(opts["conf_file"])
    found = FileSet(None, path)
    if _may_be_there(path):
        found.files.append(read_file(path, None))
    for patterns in (opts.get("default_include"), opts.get("include")):
        _include(found, patterns, path, 0)
    return [file for file in found.files if file.has_own_section]


def _written_in(file: YamlFile) -> Iterable[Section]:
    """Yield the providers and profiles in a file's ``kvm_clone:`` section, with their lines."""
    part = _below(file.root, "kvm_clone")
    content = file.content.get("kvm_clone")
    for name, kind in _PARTS.items():
        sections = content.get(name) if isinstance(content, Mapping) else None
        node = _below(part, name)
        if not isinstance(sections, Mapping) or not isinstance(node, yaml.MappingNode):
            continue
        lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
        for section, keys in sections.items():
            places = line_places(file.path, key_lines(_below(node, section)))
            place = f"{file.path}:{lines.get(str(section), 1)}"
            yield Section(kind, section, _plain(keys), place, places)


def _placed(section: Section, written: Iterable[Section]) -> list[Section]:
    """
    Return a section of the daemon's configuration with its file and lines, where known.

    Salt merges what several files say of one name: then it is each of them.
    """
    same = (section.kind, section.name)
    return [one for one in written if (one.kind, one.name) == same] or [section]


def _replaced(sections: Iterable[Section], written: Iterable[Section]) -> list[Problem]:
    """Return a problem for each section of a file that the daemon's configuration lacks."""
    known = {(section.kind, str(section.name)) for section in sections}
    text = (
        "is not part of what Salt read: a later file's kvm_clone: replaces this one whole (write "
        "all of it into one file), or the daemon needs a restart"
    )
    return [
        Problem(one.place, str(one.name), "", text, one.kind)
        for one in written
        if (one.kind, str(one.name)) not in known
    ]


def _below(node: Any, key: Any) -> Any:
    entries = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for name, value in entries if name.value == key), None)


def _configured_path(setting: Any, folder: str, default: str) -> str:
    path = setting if isinstance(setting, str) and setting else default
    return path if os.path.isabs(path) else os.path.join(folder, path)


# --- sections of a configuration or pillar ------------------------------------------


def _sections_of_part(part: Any, place: str) -> tuple[list[Section], list[Problem]]:
    if part is None:
        return [], []
    if not isinstance(part, Mapping):
        text = "is not a mapping of providers and profiles"
        return [], [Problem(f"{place}, kvm_clone", "", "", text)]
    sections: list[Section] = []
    problems = []
    for name, content in part.items():
        where = f"{place}, kvm_clone:{name}"
        if name not in _PARTS:
            # Other parts of the project keep their settings here as well, so only what
            # looks like a slip is an error.
            if close := difflib.get_close_matches(str(name), _PARTS, n=1, cutoff=0.8):
                text = f"did you mean {close[0]!r}?"
                problems.append(Problem(where, "", "", text, _PARTS[close[0]]))
        elif isinstance(content, Mapping):
            sections += _sections_of(_PARTS[name], content, where)
        elif content is not None:
            text = "is not a mapping (NAME: KEYS)"
            problems.append(Problem(where, "", "", text, _PARTS[name]))
    return sections, problems


def _sections_of(kind: KeyLocation, content: Mapping[str, Any], place: str) -> list[Section]:
    return [Section(kind, name, _plain(keys), place) for name, keys in content.items()]


def _plain(value: Any) -> Any:
    """Remove the wrappers that Salt 3008 and the pillar put around mappings and lists."""
    if isinstance(value, Mapping):
        return {name: _plain(content) for name, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


# --- files --------------------------------------------------------------------------
