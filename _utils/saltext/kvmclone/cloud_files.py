"""
Where providers and profiles are written, read into a catalogue.

Three places: salt-cloud's files, the ``kvm_clone:`` section of this daemon's own
configuration, and the same section of the pillar. The files are found and parsed by
Salt's rules (its YAML loader, ``default_include``, ``include``, ``providers_config``,
``profiles_config``), but one at a time: Salt's reader merges equal names, stops at the
first mistake and forgets which file a line came from. ``sdb://`` goes through Salt.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import salt.utils.sdb
import salt.utils.yamlloader
import yaml

from saltext.kvmclone.config import Catalogue, Place, Problem, Section, build
from saltext.kvmclone.errors import ConfigError

# Top-level entries of provider and profile files that are no section; Salt skips them too.
_NO_SECTION = ("conf_file", "include", "default_include", "user")

# What the kvm_clone: section of a configuration may hold.
_PARTS = {"providers": Place.PROVIDER, "profiles": Place.PROFILE}

_MOST_NESTED_INCLUDES = 20


def read(opts: Mapping[str, Any], pillar: Mapping[str, Any] | None = None) -> Catalogue:
    """
    Everything that is configured on this machine.

    :param opts: Salt's ``__opts__`` of a master, minion or salt-cloud; the cloud files are
        looked for beside its ``conf_file``.
    :param pillar: The whole pillar, where there is one.
    :return: The catalogue; empty where nothing is configured.
    :raises ConfigError: All problems of all places at once.
    """
    folder = os.path.dirname(str(opts["conf_file"]))
    cloud = _read_set(os.path.join(folder, "cloud"), "cloud.conf.d/*.conf")
    settings = cloud.merged()
    provider_files = _read_set(
        _configured_path(settings.get("providers_config"), folder, "cloud.providers"),
        "cloud.providers.d/*.conf",
    )
    profile_files = _read_set(
        _configured_path(settings.get("profiles_config"), folder, "cloud.profiles"),
        "cloud.profiles.d/*.conf",
    )
    problems = [*cloud.problems, *provider_files.problems, *profile_files.problems]
    sections = [
        *provider_files.sections(Place.PROVIDER),
        *profile_files.sections(Place.PROFILE),
    ]
    # The old way of writing providers, which Salt still reads.
    if isinstance(old := settings.get("providers"), Mapping):
        sections += _sections_of(Place.PROVIDER, old, cloud.place())
    role = opts.get("__role") or "own"
    for place, part in (
        (f"{role} configuration", opts.get("kvm_clone")),
        ("pillar", (pillar or {}).get("kvm_clone")),
    ):
        found, wrong = _sections_of_part(part, place)
        sections += found
        problems += wrong
    return build(
        sections,
        settings,
        cloud_place=cloud.place(),
        problems=problems,
        fetch=lambda uri: _fetch(uri, opts),
    )


def _fetch(uri: str, opts: Mapping[str, Any]) -> Any:
    """
    What an ``sdb://`` URI stands for.

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


def _configured_path(setting: Any, folder: str, default: str) -> str:
    path = setting if isinstance(setting, str) and setting else default
    return path if os.path.isabs(path) else os.path.join(folder, path)


# --- sections of a configuration or pillar ------------------------------------------


def _sections_of_part(part: Any, place: str) -> tuple[list[Section], list[Problem]]:
    if part is None:
        return [], []
    if not isinstance(part, Mapping):
        return [], [Problem(place, "", "kvm_clone", "is not a mapping of providers and profiles")]
    sections: list[Section] = []
    problems = []
    for name, content in part.items():
        where = f"{place}, kvm_clone:{name}"
        if name not in _PARTS:
            # Other parts of the project keep their settings here as well, so only what
            # looks like a slip is an error.
            if close := difflib.get_close_matches(str(name), _PARTS, n=1, cutoff=0.8):
                problems.append(Problem(where, "", "", f"did you mean {close[0]!r}?"))
        elif isinstance(content, Mapping):
            sections += _sections_of(_PARTS[name], content, where)
        elif content is not None:
            problems.append(Problem(where, "", "", "is not a mapping (NAME: KEYS)"))
    return sections, problems


def _sections_of(kind: Place, content: Mapping[str, Any], place: str) -> list[Section]:
    return [Section(kind, name, _plain(keys), place) for name, keys in content.items()]


def _plain(value: Any) -> Any:
    """Without the wrappers that Salt 3008 and the pillar put around mappings and lists."""
    if isinstance(value, Mapping):
        return {name: _plain(content) for name, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


# --- files --------------------------------------------------------------------------


class _Loader(salt.utils.yamlloader.SaltYamlSafeLoader):  # type: ignore[misc]
    """Salt's own YAML, which notes a key that stands twice instead of stopping there."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        #: (key, first line, second line), counted from 1.
        self.doubles: list[tuple[str, int, int]] = []

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        lines: dict[tuple[str, str], int] = {}
        single = []
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                single.append((key, value))
            elif (known := (key.tag, key.value)) in lines:
                self.doubles.append((key.value, lines[known], line))
            else:
                lines[known] = line
                single.append((key, value))
        if isinstance(node, yaml.MappingNode):
            node.value = single
        return super().construct_mapping(node, deep=deep)


#: A complaint about YAML that quotes no word of the file: single signs, ``<block end>``.
_QUOTES_SIGNS_ONLY = re.compile(
    r"""[^'"]*(?:'(?:[^\w'"!*&]|<(?:(?:block|document|stream) [a-z ]+|scalar)>)'[^'"]*)*"""
)


@dataclass
class _File:
    """
    One file.

    :param path: Where it is.
    :param content: What it holds; empty where it could not be read.
    :param lines: Line of each top-level entry, counted from 1.
    """

    path: str
    content: dict[Any, Any] = field(default_factory=dict)
    lines: dict[Any, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


@dataclass
class _FileSet:
    """A main file with everything that it includes, in the order in which Salt reads."""

    path: str
    files: list[_File] = field(default_factory=list)

    @property
    def problems(self) -> list[Problem]:
        return [problem for file in self.files for problem in file.problems]

    def merged(self) -> dict[Any, Any]:
        """All top-level entries; those of later files win, as with Salt."""
        return {name: value for file in self.files for name, value in file.content.items()}

    def place(self) -> str:
        """What to call the whole set in a message."""
        return ", ".join(file.path for file in self.files) or self.path

    def sections(self, kind: Place) -> Iterable[Section]:
        """Each top-level entry as a section, with its file and line."""
        for file in self.files:
            for name, keys in file.content.items():
                if name not in _NO_SECTION:
                    place = f"{file.path}:{file.lines[name]}"
                    yield Section(kind, name, keys, place)


def _read_set(path: str, default_include: str) -> _FileSet:
    """
    A file and what it includes; the ``default_include`` pattern counts even where the
    file itself is absent.
    """
    found = _FileSet(path)
    content: Mapping[Any, Any] = {}
    if os.path.isfile(path):
        main = _read_file(path)
        content = main.content
        found.files.append(main)
    _include(found, content.get("default_include", default_include), path, 0)
    _include(found, content.get("include"), path, 0)
    return found


def _include(found: _FileSet, patterns: Any, includer: str, depth: int) -> None:
    if isinstance(patterns, str):
        patterns = [patterns]
    if not isinstance(patterns, list) or depth > _MOST_NESTED_INCLUDES:
        return
    for pattern in patterns:
        path = os.path.join(os.path.dirname(includer), os.path.expanduser(str(pattern)))
        for match in sorted(glob.glob(path)):
            if any(file.path == match for file in found.files):
                continue
            file = _read_file(match)
            found.files.append(file)
            _include(found, file.content.get("include"), match, depth + 1)


def _read_file(path: str) -> _File:
    """One file with its problems; never an exception, so that all files are looked at."""
    file = _File(path)
    try:
        with open(path, encoding="utf-8") as stream:
            loader = _Loader(stream.read())
    except (OSError, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        file.problems.append(Problem(path, "", "", f"cannot be read: {reason}"))
        return file
    try:
        root = loader.get_single_node()
        content = {} if root is None else loader.construct_document(root)
    except yaml.YAMLError as exc:
        # Only the short form: the long one quotes the line, which may hold a password.
        mark = getattr(exc, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else path
        # It quotes the word behind * or !, which a password that nobody quoted begins with.
        reason = getattr(exc, "problem", None) or "it cannot be parsed"
        if not _QUOTES_SIGNS_ONLY.fullmatch(reason):
            reason = re.sub(r"""['"].*['"]""", "(hidden)", reason, flags=re.DOTALL)
        file.problems.append(Problem(place, "", "", f"is not valid YAML: {reason}"))
        return file
    finally:
        loader.dispose()
    if not isinstance(content, Mapping):
        if content is not None:
            text = "holds no sections; expected NAME: and KEY: VALUE lines under it"
            file.problems.append(Problem(path, "", "", text))
        return file
    file.content = dict(content)
    if root is not None:
        _number_lines(file, root, loader.doubles)
    return file


def _number_lines(
    file: _File, root: yaml.MappingNode, doubles: Iterable[tuple[str, int, int]]
) -> None:
    """Give each top-level entry its line, and each double key its section."""
    starts = {key.start_mark.line + 1: str(key.value) for key, _ in root.value}
    lines = {written: line for line, written in starts.items()}
    # YAML may have made a number of a name; such a one has the file's first line.
    file.lines = {name: lines.get(str(name), 1) for name in file.content}
    for key, first, second in doubles:
        start = max((line for line in starts if line <= first), default=0)
        text = f"stands twice, in lines {first} and {second}; expected once"
        inner = "" if start == first and starts.get(start) == key else key
        file.problems.append(Problem(f"{file.path}:{second}", starts.get(start, ""), inner, text))
