"""What is loaded is told by the files, however they came here; what an upgrade lost, too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import saltext.kvmclone
from saltext.kvmclone.model.host_reports import Installation
from saltext.kvmclone.system import installation


def library(folder: Path, text: str = "x = 1\n") -> Path:
    (folder / "plan").mkdir(parents=True)
    (folder / "__init__.py").write_text(text)
    (folder / "plan/disks.py").write_text("y = 2\n")
    return folder


def test_this_process_works_with_this_library_and_lost_nothing() -> None:
    told = installation.look()
    assert told.version == saltext.kvmclone.__version__
    assert os.path.samefile(told.path, os.path.dirname(saltext.kvmclone.__file__))
    assert told.digest == installation.digest(told.path) != ""
    assert (told.other, told.lost) == ("", ())
    assert told.salt.startswith("300")
    assert told.python == f"3.{sys.version_info.minor}"


def test_a_package_and_a_sync_of_one_version_are_the_same(tmp_path: Path) -> None:
    synced, package = library(tmp_path / "utils"), library(tmp_path / "package")
    (package / "modules").mkdir()
    (package / "modules/kvm_clone.py").write_text("")  # a sync has the doors elsewhere
    (package / "plan/__pycache__").mkdir()
    (package / "plan/__pycache__/disks.cpython-311.pyc").write_bytes(b"\0")
    assert installation.digest(str(synced)) == installation.digest(str(package))
    (package / "plan/disks.py").write_text("y = 3\n")
    assert installation.digest(str(synced)) != installation.digest(str(package))
    assert installation.digest(str(tmp_path / "none")) == ""


@pytest.mark.parametrize("beside", ["utils", "_utils"])
def test_doors_that_came_with_another_library_than_they_work_with(
    tmp_path: Path, beside: str
) -> None:
    door = tmp_path / "ext/modules/kvm_clone.py"
    synced = library(tmp_path / "ext" / beside / "saltext/kvmclone")
    package = library(tmp_path / "site/saltext/kvmclone", "x = 2\n")
    packaged_door = package / "modules/kvm_clone.py"
    doors = [str(packaged_door), str(door)]
    own = installation.digest(str(package))
    assert installation.other_library(doors, str(package), own) == str(synced)
    assert installation.other_library(doors[:1], str(package), own) == ""
    mine = installation.digest(str(synced))
    assert installation.other_library(doors, str(synced), mine) == ""
    (package / "__init__.py").write_text("x = 1\n")
    assert installation.other_library(doors, str(package), mine) == "", "both have one content"


def test_what_was_synced_is_held_against_what_would_be(tmp_path: Path) -> None:
    cache = tmp_path / "extmods"
    synced = library(cache / "utils/saltext/kvmclone")
    first, second = tmp_path / "first", tmp_path / "second"
    here = library(second / "_utils/saltext/kvmclone")
    own = Installation("", installation.digest(str(synced)), str(synced))
    roots = [str(first), str(second)]
    assert installation.not_synced(own, str(cache), roots) == ""
    (here / "plan/disks.py").write_text("y = 3\n")
    assert installation.not_synced(own, str(cache), roots) == str(here)
    assert installation.not_synced(own, str(tmp_path / "other"), roots) == "", "it is a package"
    library(first / "_utils/saltext/kvmclone")
    assert installation.not_synced(own, str(cache), roots) == "", "the first root counts"


def test_packages_that_only_the_python_before_has_are_lost(tmp_path: Path) -> None:
    for extras, package in (
        ("extras-3.10", "libvirt_python-9.0.0"),
        ("extras-3.10", "some_other-1.0"),
        ("extras-3.10", "lxml-5.0"),  # this Python has that, too
        ("extras-3.11", "rich-1.0"),
    ):
        folder = tmp_path / extras / f"{package}.dist-info"
        folder.mkdir(parents=True)
        name, _dash, version = package.partition("-")
        (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    missing = "" if installation._version("libvirt-python") else "libvirt-python"
    assert installation.lost(str(tmp_path), "3.11") == tuple(filter(None, [missing]))
    assert installation.lost(str(tmp_path / "none"), "3.11") == ()
