"""A definition counts as known only where the file that holds it is seen for certain."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone.inventory import domain_files
from saltext.kvmclone.model.derived_files import Folders

HERE = "qemu:///system"


@pytest.mark.parametrize(
    ("url", "local", "age", "is_known"),
    [
        (HERE, True, 60, True),
        (HERE, True, 0, False),
        (HERE, False, 60, False),
        (f"{HERE}?socket=/run/other/libvirt-sock", True, 60, False),
    ],
)
def test_what_a_definition_names_is_known_by_its_own_file_alone(
    tmp_path: Path, url: str, local: bool, age: float, is_known: bool
) -> None:
    file = tmp_path / "web1.xml"
    file.touch()
    os.utime(file, (time.time() - age,) * 2)
    folders = Folders(definitions=str(tmp_path))
    host: Any = SimpleNamespace(url=url, local=local, folders=folders)
    assert bool(domain_files._file_of(host, "web1")) is is_known
