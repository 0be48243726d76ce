"""The library's folders have one order: an import only goes to a folder that stands before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PACKAGE = "saltext.kvmclone"
LIBRARY = CHECKOUT / "_utils/saltext/kvmclone"

#: The one import order. What stands in one row does not know each other.
ORDER = (
    ("errors", "interrupts"),
    ("model",),
    ("config", "plan", "system", "guest", "display"),
    ("hypervisor",),
    ("inventory",),
    ("lifecycle",),
    ("hosts",),
    ("master",),
    ("reactor",),
    ("entrypoints",),
)
RANK = {name: rank for rank, row in enumerate(ORDER) for name in row}

#: Folders that know nothing of Salt.
WITHOUT_SALT = ("model", "plan", "system", "guest", "hypervisor", "inventory", "lifecycle")
#: Folders that only compute.
PURE = ("errors", "model", "plan")
WORLD = {"salt", "libvirt", "libvirt_qemu", "paramiko", "socket", "subprocess"}

#: Most lines, documentation included.
LONGEST_FUNCTION, LONGEST_DOOR, LONGEST_FILE = 50, 300, 400

FILES = sorted(LIBRARY.rglob("*.py"))
DOORS = sorted(
    path
    for kind in ("_modules", "_runners", "_states", "_clouds", "_beacons", "_output")
    for path in (CHECKOUT / kind).glob("*.py")
)


def module_name(path: Path) -> str:
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join([PACKAGE, *(part for part in parts if part != "__init__")])


MODULES = {module_name(path): path for path in FILES}


@cache
def imports(path: Path) -> frozenset[str]:
    """Return every module that a file imports; those for a type checker alone count, too."""
    return frozenset(_imports(ast.parse(path.read_text(encoding="utf-8"))))


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"a relative import: {ast.unparse(child)}"
            for alias in child.names:
                inner = f"{child.module}.{alias.name}"
                yield inner if inner in MODULES else str(child.module)


def ours(path: Path) -> frozenset[str]:
    return imports(path) & set(MODULES) - {PACKAGE}


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def folder(module: str) -> str:
    """Return the folder of a module, or its own name at the top of the library."""
    return module.removeprefix(f"{PACKAGE}.").partition(".")[0]


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_every_folder_has_its_place_in_the_order() -> None:
    entries = {path.stem for path in LIBRARY.iterdir() if path.name != "__pycache__"}
    assert entries - {"__init__"} == set(RANK)
    assert len(entries) <= 16
    assert len(DOORS) == 17


def test_the_namespace_stays_open_to_other_extensions() -> None:
    assert not (CHECKOUT / "_utils/saltext/__init__.py").exists()


@pytest.mark.parametrize("module", sorted(set(MODULES) - {PACKAGE}))
def test_a_folder_imports_only_folders_before_it(module: str) -> None:
    here = folder(module)
    wrong = {
        name
        for name in ours(MODULES[module])
        if folder(name) != here and RANK[folder(name)] >= RANK[here]
    }
    assert wrong == set()


def test_no_import_comes_back_to_where_it_began() -> None:
    graph = {name: ours(path) - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_the_connection_imports_libvirt() -> None:
    users = {path for path in [*FILES, *DOORS] if roots(path) & {"libvirt", "libvirt_qemu"}}
    assert users == {LIBRARY / "hypervisor/connection.py"}


def test_only_the_guest_folder_imports_paramiko() -> None:
    users = {path.parent for path in [*FILES, *DOORS] if "paramiko" in roots(path)}
    assert users == {LIBRARY / "guest"}


def test_below_the_hosts_nobody_knows_salt() -> None:
    for path in FILES:
        if path.relative_to(LIBRARY).parts[0] in WITHOUT_SALT:
            assert "salt" not in roots(path), path


@pytest.mark.parametrize("name", PURE)
def test_a_pure_folder_does_not_reach_the_world(name: str) -> None:
    todo = {module for module in MODULES if module != PACKAGE and folder(module) == name}
    seen: set[str] = set()
    while todo:  # it may not reach it through a neighbour either
        module = todo.pop()
        seen.add(module)
        assert not roots(MODULES[module]) & WORLD, f"{name} reaches the world through {module}"
        todo |= ours(MODULES[module]) - seen


def test_nothing_in_the_library_imports_a_door() -> None:
    doors = {f"{PACKAGE}.{kind}" for kind in ("modules", "runners", "states", "clouds")}
    for path in FILES:
        taken = {name for name in imports(path) if name.startswith("_") and name[1].islower()}
        assert taken <= {"__future__"}, path
        assert not {name for name in imports(path) for door in doors if name.startswith(door)}, path


def test_a_reader_takes_each_file_in_one_sitting() -> None:
    long = {str(path.relative_to(LIBRARY)) for path in FILES if lines(path) > LONGEST_FILE}
    assert sorted(long) == [], "cut it along its subjects"


@pytest.mark.parametrize("path", DOORS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_door_is_thin(path: Path) -> None:
    assert lines(path) <= LONGEST_DOOR


def test_a_function_is_seen_at_once() -> None:
    long = [
        f"{path.relative_to(CHECKOUT)}: {node.name} has {length} lines"
        for path in [*FILES, *DOORS]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert long == []


def test_only_the_configuration_makes_a_request() -> None:
    """So none is made of a record, half filled; for a promote or a warming nobody writes keys."""
    makers = {
        str(path.relative_to(LIBRARY))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Request"
    }
    assert makers == {"config/resolve.py", "lifecycle/promote.py", "plan/warm_plan.py"}
