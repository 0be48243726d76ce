"""SELinux keeps a file from guests where its switch is off, by the label that the file has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from saltext.kvmclone.system import confinement


@pytest.fixture
def selinux(tmp_path: Path) -> Path:
    (tmp_path / "booleans").mkdir()
    (tmp_path / "enforce").write_text("1")
    for name, value in (("virt_use_nfs", "0 0"), ("virt_use_samba", "1 1")):
        (tmp_path / "booleans" / name).write_text(value)
    return tmp_path


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose text is its label: only a kernel with SELinux tells the one of NFS."""
    monkeypatch.setattr(os, "getxattr", lambda path, _name: Path(path).read_bytes())
    return tmp_path / "disk"


@pytest.mark.parametrize(
    ("type_", "switch"),
    [("nfs_t", "virt_use_nfs"), ("cifs_t", ""), ("fusefs_t", ""), ("virt_image_t", "")],
)
def test_the_type_of_the_file_says_which_switch_counts(
    disk: Path, selinux: Path, type_: str, switch: str
) -> None:
    disk.write_text(f"system_u:object_r:{type_}:s0\0")
    assert confinement.closed(str(disk), str(selinux)) == switch


def test_a_file_without_a_label_is_kept_from_nobody(tmp_path: Path, selinux: Path) -> None:
    assert confinement.closed(str(tmp_path / "none"), str(selinux)) == ""


def test_only_an_enforced_policy_keeps_anything(selinux: Path, tmp_path: Path) -> None:
    assert confinement.is_enforced(str(selinux))
    (selinux / "enforce").write_text("0")
    assert not confinement.is_enforced(str(selinux))
    assert not confinement.is_enforced(str(tmp_path / "none"))
