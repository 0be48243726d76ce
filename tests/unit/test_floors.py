"""The house keeps its floors: an import only goes down, and few rooms look outside."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PACKAGE = "saltext.kvmclone"
LIBRARY = CHECKOUT / "_utils/saltext/kvmclone"

GUEST = LIBRARY / "guest"

FILES = sorted(LIBRARY.rglob("*.py"))
DOORS = sorted(
    path
    for kind in ("_modules", "_runners", "_states", "_clouds", "_beacons")
    for path in (CHECKOUT / kind).glob("*.py")
)

#: Rooms that compute and nothing else: tested without Salt, libvirt or a network.
PURE = (
    "cards",
    "census",
    "checks",
    "clone",
    "codes",
    "config",
    "derived_files",
    "disks",
    "domain_xml",
    "drawing",
    "errors",
    "facts",
    "findings",
    "image_header",
    "markup",
    "names",
    "overlaps",
    "ownership",
    "pending",
    "plan",
    "policy",
    "problems",
    "redaction",
    "request",
    "resolution",
    "rewrite",
    "rewrite.consoles",
    "rewrite.devices",
    "rewrite.disks",
    "rewrite.firmware",
    "rewrite.graphics",
    "rewrite.identity",
    "rewrite.interfaces",
    "rewrite.outcome",
    "rewrite.remains",
    "rewrite.scope",
    "rewrite.security",
    "rewrite.sizing",
    "room",
    "schema",
    "sections",
    "sources",
    "values",
)
WORLD = {"salt", "libvirt", "libvirt_qemu", "paramiko", "socket", "subprocess"}

LONGEST_FILE = 420
#: Of a door only the code counts: what its functions promise may take as much room as it needs.
LONGEST_DOOR = 150


def module_name(path: Path) -> str:
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join([PACKAGE, *(part for part in parts if part != "__init__")])


MODULES = {module_name(path): path for path in FILES}


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports when it runs; what only a type checker sees is left out."""
    return frozenset(_imports(ast.parse(path.read_text(encoding="utf-8"))))


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"a relative import: {ast.unparse(node)}"
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in MODULES else str(node.module)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_library_is_where_these_tests_look() -> None:
    assert {f"{PACKAGE}.{name}" for name in PURE} <= set(MODULES)
    assert len(DOORS) == 5


def test_the_namespace_stays_open_to_other_extensions() -> None:
    assert not (CHECKOUT / "_utils/saltext/__init__.py").exists()


def test_only_host_and_volumes_import_libvirt() -> None:
    users = {path.stem for path in [*FILES, *DOORS] if roots(path) & {"libvirt", "libvirt_qemu"}}
    assert users <= {"host", "volumes"}


def test_only_the_guests_rooms_import_paramiko() -> None:
    users = {path.parent for path in [*FILES, *DOORS] if "paramiko" in roots(path)}
    assert users == {GUEST}


def test_the_guests_rooms_know_neither_salt_nor_libvirt() -> None:
    for path in GUEST.glob("*.py"):
        assert not roots(path) & {"salt", "libvirt", "libvirt_qemu"}, path


@pytest.mark.parametrize("name", PURE)
def test_a_pure_room_knows_neither_salt_nor_libvirt_nor_the_network(name: str) -> None:
    todo, seen = {f"{PACKAGE}.{name}"}, set[str]()
    while todo:  # it may not reach them through a neighbour either
        module = todo.pop()
        seen.add(module)
        path = MODULES[module]
        assert not roots(path) & WORLD, f"{name} comes by way of {path.name} to the world outside"
        todo |= (imports(path) & set(MODULES)) - seen


def test_nothing_in_the_library_imports_a_door() -> None:
    doors = {f"{PACKAGE}.{kind}" for kind in ("modules", "runners", "states", "clouds")}
    for path in FILES:
        taken = {name for name in imports(path) if name.startswith("_") and name[1].islower()}
        assert taken <= {"__future__"}, path
        assert not {name for name in imports(path) for door in doors if name.startswith(door)}, path


def chapter(title: str) -> str:
    """A chapter of the page on the architecture, without its drawings."""
    page = (CHECKOUT / "docs/architecture.md").read_text(encoding="utf-8")
    return re.sub(r"```.*?```", "", page.split(f"\n## {title}\n")[1].split("\n## ")[0], flags=re.S)


@cache
def floors() -> dict[str, int]:
    """The rooms in the table of the architecture, each with its floor, counted from the ground."""
    rows = [line for line in chapter("Floors").splitlines() if line.startswith("| ")]
    return {
        room.partition("/")[2] or room.rstrip("/"): floor
        for floor, row in enumerate(rows)
        for room in re.findall("`([^`]+)`", row.split("|")[2])
    }


def room(module: str) -> str:
    """What the table calls a module: its own name; the rooms of the rewriting are one."""
    words = module.removeprefix(f"{PACKAGE}.").split(".")
    return "rewrite" if words[0] == "rewrite" else words[-1]


ROOMS = sorted(set(MODULES) - {PACKAGE, f"{PACKAGE}.guest"})


def test_the_page_on_the_architecture_names_every_room_and_no_other() -> None:
    doors = {path.parent.name for path in DOORS}
    assert set(floors()) - doors == {room(module) for module in ROOMS}
    told = set(re.findall(r"(?:`|\*\*)([a-z_]+)/?(?:`|\*\*)", chapter("Rooms")))
    rewriting = {path.stem for path in (LIBRARY / "rewrite").glob("[a-z]*.py")}
    assert {room(module) for module in ROOMS} | rewriting <= told
    headings = set(re.findall(r"\*\*([a-z_]+)\*\*", chapter("Rooms")))
    assert headings <= {room(module) for module in ROOMS}


@pytest.mark.parametrize("module", ROOMS)
def test_no_import_goes_up_a_floor(module: str) -> None:
    floor = floors()
    taken = {room(name) for name in imports(MODULES[module]) & set(ROOMS)}
    assert [name for name in taken if floor[name] > floor[room(module)]] == []


def test_imports_only_go_down() -> None:
    graph = {name: imports(path) & set(MODULES) for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_reader_takes_each_file_in_one_sitting(path: Path) -> None:
    assert lines(path) <= LONGEST_FILE


@pytest.mark.parametrize("path", DOORS, ids=lambda path: path.parent.name)
def test_a_door_is_thin(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    words = sum(
        node.body[0].end_lineno - node.body[0].lineno + 1  # type: ignore[operator]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.FunctionDef)) and ast.get_docstring(node) is not None
    )
    code = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) - words < LONGEST_DOOR
