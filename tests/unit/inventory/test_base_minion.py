"""Whether a base has a minion is read from its file system, and never guessed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from saltext.kvmclone.inventory import base_minion
from saltext.kvmclone.model.base_minion import BaseMinion
from saltext.kvmclone.system import guest_disk

ROOT = ("etc/passwd", "usr/bin/env")
KEY = "etc/salt/pki/minion/minion.pem"


def seen(path: Path, *files: str, kind: str = "ext4") -> BaseMinion | None:
    """What a disk with these files shows."""
    folder = path / "files"
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("x")
    image = path / "disk.img"
    words = ["mke2fs", "-q", "-t", kind, "-d", str(folder), str(image), "8M"]
    subprocess.run(words, check=True, capture_output=True)
    data = image.read_bytes()
    return base_minion.on_disk(
        guest_disk.view([("raw", lambda offset, length: data[offset : offset + length])])
    )


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_a_system_without_salt_has_no_minion(tmp_path: Path, kind: str) -> None:
    assert seen(tmp_path, *ROOT, "etc/salt/master", kind=kind) == BaseMinion(False, False)


@pytest.mark.parametrize(
    "file",
    [
        "etc/systemd/system/salt-minion.service",
        "lib/systemd/system/salt-minion.service",
        "usr/lib/systemd/system/salt-minion.service",
        "etc/init.d/salt-minion",
        "usr/bin/salt-minion",
    ],
)
def test_a_minion_shows_by_what_starts_it(tmp_path: Path, file: str) -> None:
    assert seen(tmp_path, *ROOT, file) == BaseMinion(True, False)


def test_its_keys_show_as_well(tmp_path: Path) -> None:
    assert seen(tmp_path, *ROOT, "usr/bin/salt-minion", KEY) == BaseMinion(True, True)


@pytest.mark.parametrize("files", [("etc/passwd", KEY), ("usr/bin/env",), ("home/web/x",)])
def test_a_file_system_that_is_not_the_whole_system_says_nothing(
    tmp_path: Path, files: tuple[str, ...]
) -> None:
    assert seen(tmp_path, *files) is None


def test_an_empty_disk_says_nothing() -> None:
    assert base_minion.on_disk(lambda _offset, length: bytes(length)) is None
