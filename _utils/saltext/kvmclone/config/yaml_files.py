"""Read salt-cloud's YAML files, with the lines of their keys and the problems of each."""

from __future__ import annotations

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

from saltext.kvmclone.config.catalogue import KeyLocation, Problem, Section

# Top-level entries of provider and profile files that are not sections; Salt skips them too.
_NO_SECTION = ("conf_file", "include", "default_include", "user")

_OWN_SECTION = re.compile(r"""^["']?kvm_clone["']?\s*:""", re.MULTILINE)

_MOST_NESTED_INCLUDES = 20


class LineLoader(salt.utils.yamlloader.SaltYamlSafeLoader):  # type: ignore[misc]
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
class YamlFile:
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
    kind: KeyLocation | None
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
class FileSet:
    """A main file with everything that it includes, in the order in which Salt reads."""

    kind: KeyLocation | None
    path: str
    files: list[YamlFile] = field(default_factory=list)

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
                    places = line_places(file.path, file.key_lines.get(name, ()))
                    yield Section(self.kind, name, keys, place, places)


def read_set(kind: KeyLocation, path: str, default_include: str) -> FileSet:
    """
    Read a file and what it includes.

    The ``default_include`` pattern counts even where the file itself is absent.
    """
    found = FileSet(kind, path)
    content: Mapping[Any, Any] = {}
    if _may_be_there(path):
        main = read_file(path, kind)
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


def _include(found: FileSet, patterns: Any, includer: str, depth: int) -> None:
    if isinstance(patterns, str):
        patterns = [patterns]
    if not isinstance(patterns, list) or depth > _MOST_NESTED_INCLUDES:
        return
    for pattern in patterns:
        path = os.path.join(os.path.dirname(includer), os.path.expanduser(str(pattern)))
        folder = os.path.dirname(path)
        if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
            # glob takes it for an empty folder, and its sections would be missing silently.
            closed = YamlFile(folder, found.kind)
            closed.problem(f"cannot be read: {os.strerror(errno.EACCES)}")
            found.files.append(closed)
        for match in sorted(glob.glob(path)):
            if any(file.path == match for file in found.files):
                continue
            file = read_file(match, found.kind)
            found.files.append(file)
            _include(found, file.content.get("include"), match, depth + 1)


def read_file(path: str, kind: KeyLocation | None) -> YamlFile:
    """Read one file with its problems; raise nothing, so that all files are looked at."""
    file = YamlFile(path, kind)
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
            loader = LineLoader(text)
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
        line = mark.line + 1 if mark else 0
        # The reason quotes the word behind * or !, with which an unquoted password may begin.
        reason = getattr(exc, "problem", None) or "it cannot be parsed"
        if not _QUOTES_SIGNS_ONLY.fullmatch(reason):
            reason = re.sub(r"""['"].*['"]""", "(hidden)", reason, flags=re.DOTALL)
        tab = tab_in(text, line)
        file.problem(f"is not valid YAML: {f'the line {tab}' if tab else reason}", line)
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


def tab_in(text: str, line: int) -> str:
    """
    Say so where a tab is what keeps a text from being YAML; empty otherwise.

    :param line: Where YAML stopped, counted from 1; 0 where that is not known.
    """
    stopped = text.splitlines()[line - 1 : line] if line else []
    # A tab within a value is in order.
    tabs = any(re.match(r"[ -]*\t", one) for one in stopped)
    return "is indented with a tab; use spaces" if tabs else ""


def _number_lines(
    file: YamlFile, root: yaml.MappingNode, doubles: Iterable[tuple[str, int, int]]
) -> None:
    """Give each top-level entry its line, and each double key its section."""
    starts = {key.start_mark.line + 1: str(key.value) for key, _ in root.value}
    lines = {written: line for line, written in starts.items()}
    # YAML may have read a name as a number; that one gets the file's first line.
    file.lines = {name: lines.get(str(name), 1) for name in file.content}
    for key, value in root.value:
        file.key_lines[key.value] = key_lines(value)
    for key, first, second in doubles:
        start = max((line for line in starts if line <= first), default=0)
        text = f"occurs twice, in lines {first} and {second}; expected once"
        inner = "" if start == first and starts.get(start) == key else key
        file.problem(text, second, starts.get(start, ""), inner)


def key_lines(node: Any) -> list[dict[Any, int]]:
    """Return the line of each key of a section; a list of mappings has several."""
    return [
        {name.value: name.start_mark.line + 1 for name, _ in entry.value}
        if isinstance(entry, yaml.MappingNode)
        else {}
        for entry in (node.value if isinstance(node, yaml.SequenceNode) else [node])
    ]


def line_places(path: str, lines: Iterable[Mapping[Any, int]]) -> list[dict[Any, str]]:
    return [{key: f"{path}:{line}" for key, line in entry.items()} for entry in lines]
