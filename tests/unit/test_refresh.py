"""refresh(): a daemon that lives through a sync works with the new library, whole.

Tried on a small package with our ``__init__.py``, so that the library that the other tests
imported stays as it is.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import saltext.kvmclone

NAME = "refreshed"


class Package:
    """A package on disk, and a daemon's way of using it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / NAME
        (self.folder / "guest").mkdir(parents=True)
        shutil.copy(saltext.kvmclone.__file__, self.folder / "__init__.py")
        self.sync("words.py", "WORD = 'old'\n")
        self.sync("speech.py", f"from {NAME} import words\nSAID = words.WORD\n")
        self.sync("guest/__init__.py", "")
        self.sync("guest/mouth.py", "SAID = 'old'\n")

    def sync(self, file: str, text: str) -> None:
        """Write a file as a sync does: whole, with a time of its own."""
        path = self.folder / file
        path.write_text(text, encoding="utf-8")
        stamp = path.stat().st_mtime_ns + len(text) * 10**9
        os.utime(path, ns=(stamp, stamp))

    def door(self, module: str) -> ModuleType:
        """What a door does each time Salt loads it."""
        importlib.import_module(NAME).refresh()
        return importlib.import_module(f"{NAME}.{module}")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    monkeypatch.syspath_prepend(tmp_path)
    yield Package(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


def test_an_unchanged_library_stays_in_memory(package: Package) -> None:
    first = package.door("speech")
    assert package.door("speech") is first


def test_a_changed_module_is_seen(package: Package) -> None:
    assert package.door("words").WORD == "old"
    package.sync("words.py", "WORD = 'brand new'\n")
    assert package.door("words").WORD == "brand new"


def test_so_is_what_stands_on_a_changed_module(package: Package) -> None:
    assert package.door("speech").SAID == "old"
    package.sync("words.py", "WORD = 'brand new'\n")
    assert package.door("speech").SAID == "brand new"


def test_a_module_deeper_down_is_seen_too(package: Package) -> None:
    assert package.door("guest.mouth").SAID == "old"
    package.sync("guest/mouth.py", "SAID = 'brand new'\n")
    assert package.door("guest.mouth").SAID == "brand new"


def test_from_package_import_module_gives_the_new_one(package: Package) -> None:
    package.door("words")
    package.sync("words.py", "WORD = 'brand new'\n")
    package.door("speech")
    scope: dict[str, ModuleType] = {}
    exec(f"from {NAME} import words", scope)
    assert scope["words"].WORD == "brand new"


def test_a_module_that_came_with_the_sync_can_be_imported(package: Package) -> None:
    package.door("speech")
    package.sync("verse.py", "SAID = 'new'\n")
    assert package.door("verse").SAID == "new"


def test_the_package_itself_is_renewed(package: Package) -> None:
    package.door("speech")
    text = (package.folder / "__init__.py").read_text(encoding="utf-8")
    package.sync("__init__.py", text.replace(saltext.kvmclone.__version__, "99.0.0-synced"))
    package.door("speech")
    assert sys.modules[NAME].__version__ == "99.0.0-synced"


def test_what_a_running_job_holds_goes_on_working(package: Package) -> None:
    held = package.door("words")
    package.sync("words.py", "WORD = 'brand new'\n")
    package.door("words")
    assert held.WORD == "old"


def test_a_package_that_a_running_job_holds_keeps_its_rooms(package: Package) -> None:
    """A package below ours speaks through its own modules."""
    text = f"from {NAME}.guest import mouth\n\ndef say():\n    return mouth.SAID\n"
    package.sync("guest/__init__.py", text)
    held = package.door("guest")
    package.sync("guest/mouth.py", "SAID = 'brand new'\n")
    assert package.door("guest").say() == "brand new"
    assert held.say() == "old"


def test_a_sync_under_way_is_waited_out(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    first = package.door("words")
    package.sync("words.py", "WORD = 'brand new'\n")

    def gone(_path: object) -> os.stat_result:
        raise FileNotFoundError

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", gone)
        sys.modules[NAME].refresh()
    assert sys.modules[f"{NAME}.words"] is first
    assert package.door("words").WORD == "brand new"


DOORS = ("modules", "runners", "states", "clouds", "beacons", "output")


def test_the_doors_are_found_in_a_checkout() -> None:
    checkout = Path(saltext.kvmclone.__file__).parents[3]
    found = saltext.kvmclone.loader_dirs()
    assert found == {kind: [str(checkout / f"_{kind}")] for kind in DOORS}


def test_the_doors_are_found_inside_an_installed_package(package: Package) -> None:
    for kind in DOORS:
        (package.folder / kind).mkdir()
    found = importlib.import_module(NAME).loader_dirs()
    assert found == {kind: [str(package.folder / kind)] for kind in DOORS}
