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
import errno
import glob
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import salt.utils.sdb
import salt.utils.yamlloader
import yaml

from saltext.kvmclone.config.catalogue import Catalogue, Place, Problem, Section, build
from saltext.kvmclone.errors import ConfigError

# Top-level entries of provider and profile files that are not sections; Salt skips them too.
_NO_SECTION = ("conf_file", "include", "default_include", "user")

# What the kvm_clone: section of a configuration may hold.
_PARTS = {"providers": Place.PROVIDER, "profiles": Place.PROFILE}

_OWN_SECTION = re.compile(r"""^["']?kvm_clone["']?\s*:""", re.MULTILINE)

_MOST_NESTED_INCLUDES = 20


def read(opts: Mapping[str, Any], pillar: Mapping[str, Any] | None = None) -> Catalogue:
    """
    Return the catalogue of everything that is configured on this machine.

    :param opts: Salt's ``__opts__`` of a master, minion or salt-cloud; the cloud files are
        looked for beside its ``conf_file``.
    :param pillar: The whole pillar, where there is one.
    :return: The catalogue, with all problems of all places; empty where nothing is configured.
    """
    folder = os.path.dirname(str(opts["conf_file"]))
    cloud = _read_set(Place.GLOBAL, os.path.join(folder, "cloud"), "cloud.conf.d/*.conf")
    settings = cloud.merged()
    provider_files = _read_set(
        Place.PROVIDER,
        _configured_path(settings.get("providers_config"), folder, "cloud.providers"),
        "cloud.providers.d/*.conf",
    )
    profile_files = _read_set(
        Place.PROFILE,
        _configured_path(settings.get("profiles_config"), folder, "cloud.profiles"),
        "cloud.profiles.d/*.conf",
    )
    problems = [*cloud.problems, *provider_files.problems, *profile_files.problems]
    sections = [*provider_files.sections(), *profile_files.sections()]
    # The old way of writing providers, which Salt still reads.
    if isinstance(old := settings.get("providers"), Mapping):
        sections += _sections_of(Place.PROVIDER, old, cloud.place())
    elif old:
        place = cloud.key_places()["providers"]
        text = "is not a mapping (NAME: KEYS)"
        problems.append(Problem(place, "", "providers", text, Place.PROVIDER))
    own_files = _own_files(opts)
    # Salt only logs, once at its start, that one of its own files cannot be read.
    problems += [Problem(p.place, "", "", p.text) for file in own_files for p in file.problems]
    written = [section for file in own_files for section in _written_in(file)]
    role = opts.get("__role") or "own"
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


def _own_files(opts: Mapping[str, Any]) -> list[_File]:
    """Return the files of the daemon's own configuration that have a ``kvm_clone:`` section."""
    path = str(opts["conf_file"])
    found = _FileSet(None, path)
    if _may_be_there(path):
        found.files.append(_read_file(path, None))
    for patterns in (opts.get("default_include"), opts.get("include")):
        _include(found, patterns, path, 0)
    return [file for file in found.files if file.has_own_section]


def _written_in(file: _File) -> Iterable[Section]:
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
            places = _places(file.path, _key_lines(_below(node, section)))
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
        "all of it into one file), or the daemon is to be restarted"
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


def _sections_of(kind: Place, content: Mapping[str, Any], place: str) -> list[Section]:
    return [Section(kind, name, _plain(keys), place) for name, keys in content.items()]


def _plain(value: Any) -> Any:
    """Remove the wrappers that Salt 3008 and the pillar put around mappings and lists."""
    if isinstance(value, Mapping):
        return {name: _plain(content) for name, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


# --- files --------------------------------------------------------------------------


class _Loader(salt.utils.yamlloader.SaltYamlSafeLoader):  # type: ignore[misc]
    """Salt's own YAML loader, which notes a key that stands twice instead of stopping there."""

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
    One configuration file.

    :param path: Where it is.
    :param kind: What sort of section it holds.
    :param content: What it holds; empty where it could not be read.
    :param lines: Line of each top-level entry, counted from 1.
    :param key_lines: Line of each key of an entry; several mappings where the entry is a list.
    :param has_own_section: ``kvm_clone:`` stands in it, whether it can be parsed or not.
    """

    path: str
    kind: Place | None
    content: dict[Any, Any] = field(default_factory=dict)
    lines: dict[Any, int] = field(default_factory=dict)
    key_lines: dict[Any, list[dict[Any, int]]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    has_own_section: bool = False
    root: Any = field(default=None, repr=False)  # the parsed nodes, with their lines

    def problem(self, text: str, line: int = 0, section: str = "", key: str = "") -> None:
        """Note what is wrong with the file, or with something in it."""
        place = f"{self.path}:{line}" if line else self.path
        self.problems.append(Problem(place, section, key, text, self.kind))


@dataclass
class _FileSet:
    """A main file with everything that it includes, in the order in which Salt reads."""

    kind: Place | None
    path: str
    files: list[_File] = field(default_factory=list)

    @property
    def problems(self) -> list[Problem]:
        return [problem for file in self.files for problem in file.problems]

    def merged(self) -> dict[Any, Any]:
        """Return all top-level entries; those of later files win, as with Salt."""
        return {name: value for file in self.files for name, value in file.content.items()}

    def place(self) -> str:
        """Return how messages name the whole set."""
        return ", ".join(file.path for file in self.files) or self.path

    def key_places(self) -> dict[Any, str]:
        """Return the file and line of each top-level entry."""
        return {
            name: f"{file.path}:{line}" for file in self.files for name, line in file.lines.items()
        }

    def sections(self) -> Iterable[Section]:
        """
        Yield each top-level entry as a section, with its file and line, and those of its keys.
        """
        assert self.kind is not None
        for file in self.files:
            for name, keys in file.content.items():
                if name not in _NO_SECTION:
                    place = f"{file.path}:{file.lines[name]}"
                    places = _places(file.path, file.key_lines.get(name, ()))
                    yield Section(self.kind, name, keys, place, places)


def _read_set(kind: Place, path: str, default_include: str) -> _FileSet:
    """
    Read a file and what it includes.

    The ``default_include`` pattern counts even where the file itself is absent.
    """
    found = _FileSet(kind, path)
    content: Mapping[Any, Any] = {}
    if _may_be_there(path):
        main = _read_file(path, kind)
        content = main.content
        found.files.append(main)
    _include(found, content.get("default_include", default_include), path, 0)
    _include(found, content.get("include"), path, 0)
    return found


def _may_be_there(path: str) -> bool:
    """Return whether there is a file, or something that keeps us from seeing one."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return os.path.islink(path)
    except OSError:
        return True


def _include(found: _FileSet, patterns: Any, includer: str, depth: int) -> None:
    if isinstance(patterns, str):
        patterns = [patterns]
    if not isinstance(patterns, list) or depth > _MOST_NESTED_INCLUDES:
        return
    for pattern in patterns:
        path = os.path.join(os.path.dirname(includer), os.path.expanduser(str(pattern)))
        folder = os.path.dirname(path)
        if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
            # glob takes it for an empty folder, and its sections would be missing silently.
            closed = _File(folder, found.kind)
            closed.problem(f"cannot be read: {os.strerror(errno.EACCES)}")
            found.files.append(closed)
        for match in sorted(glob.glob(path)):
            if any(file.path == match for file in found.files):
                continue
            file = _read_file(match, found.kind)
            found.files.append(file)
            _include(found, file.content.get("include"), match, depth + 1)


def _read_file(path: str, kind: Place | None) -> _File:
    """Read one file with its problems; raise nothing, so that all files are looked at."""
    file = _File(path, kind)
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
            loader = _Loader(text)
    except (OSError, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        file.problem(f"cannot be read: {reason}")
        return file
    file.has_own_section = _OWN_SECTION.search(text) is not None
    try:
        root = loader.get_single_node()
        content = {} if root is None else loader.construct_document(root)
    except yaml.YAMLError as exc:
        # Only the short form: the long one quotes the line, which may hold a password.
        mark = getattr(exc, "problem_mark", None)
        # The reason quotes the word behind * or !, with which an unquoted password may begin.
        reason = getattr(exc, "problem", None) or "it cannot be parsed"
        if not _QUOTES_SIGNS_ONLY.fullmatch(reason):
            reason = re.sub(r"""['"].*['"]""", "(hidden)", reason, flags=re.DOTALL)
        file.problem(f"is not valid YAML: {reason}", mark.line + 1 if mark else 0)
        return file
    finally:
        loader.dispose()
    if not isinstance(content, Mapping):
        if content is not None:
            file.problem("holds no sections; expected NAME: and KEY: VALUE lines under it")
        return file
    file.content, file.root = dict(content), root
    if root is not None:
        _number_lines(file, root, loader.doubles)
    return file


def _number_lines(
    file: _File, root: yaml.MappingNode, doubles: Iterable[tuple[str, int, int]]
) -> None:
    """Give each top-level entry its line, and each double key its section."""
    starts = {key.start_mark.line + 1: str(key.value) for key, _ in root.value}
    lines = {written: line for line, written in starts.items()}
    # YAML may have read a name as a number; that one gets the file's first line.
    file.lines = {name: lines.get(str(name), 1) for name in file.content}
    for key, value in root.value:
        file.key_lines[key.value] = _key_lines(value)
    for key, first, second in doubles:
        start = max((line for line in starts if line <= first), default=0)
        text = f"stands twice, in lines {first} and {second}; expected once"
        inner = "" if start == first and starts.get(start) == key else key
        file.problem(text, second, starts.get(start, ""), inner)


def _key_lines(node: Any) -> list[dict[Any, int]]:
    """Return the line of each key of a section; a list of mappings has several."""
    return [
        {name.value: name.start_mark.line + 1 for name, _ in entry.value}
        if isinstance(entry, yaml.MappingNode)
        else {}
        for entry in (node.value if isinstance(node, yaml.SequenceNode) else [node])
    ]


def _places(path: str, lines: Iterable[Mapping[Any, int]]) -> list[dict[Any, str]]:
    return [{key: f"{path}:{line}" for key, line in entry.items()} for entry in lines]
