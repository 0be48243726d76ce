"""The digest of a disk is that of what the guest sees, whatever it is kept in."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from saltext.kvmclone.system import guest_content
from saltext.kvmclone.system.guest_content import BLOCK, UnreadableContent

MIB = 2**20

pytestmark = pytest.mark.skipif(
    not guest_content.can_read() or not shutil.which("qemu-img"), reason="needs qemu-utils"
)


def qemu_img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """70 MiB, which is more than is read at once, with data at both ends and a page of zeros."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.write(os.urandom(MIB) + bytes(MIB))
        file.seek(69 * MIB + 512)
        file.write(os.urandom(1000))
        file.truncate(70 * MIB)
    return path


def test_every_format_of_one_disk_has_one_digest(raw: Path, tmp_path: Path) -> None:
    known = guest_content.digest(str(raw), "raw")
    assert known[0] == 70 * MIB
    full = tmp_path / "full.raw"
    full.write_bytes(raw.read_bytes())  # no holes
    plain, small, upper = (tmp_path / f"{name}.qcow2" for name in ("plain", "small", "upper"))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, plain)
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", raw, small)
    qemu_img("create", "-f", "qcow2", "-b", plain, "-F", "qcow2", upper)
    assert guest_content.digest(str(full), "raw") == known
    for path in (plain, small, upper):
        assert guest_content.digest(str(path), "qcow2") == known, path.name


def test_the_digest_is_what_its_description_says(raw: Path) -> None:
    """Each block of 64 KiB that is not zeros, behind its place; other versions must agree."""
    expected, data = hashlib.sha256(), raw.read_bytes()
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        if block.strip(b"\0"):
            expected.update(struct.pack("<Q", start) + block)
    assert guest_content.digest(str(raw), "raw")[1] == expected.hexdigest()


def test_one_byte_makes_a_difference_and_so_does_its_place(raw: Path) -> None:
    known = guest_content.digest(str(raw), "raw")
    with raw.open("r+b") as file:
        file.seek(50 * MIB)
        file.write(b"x")
    one = guest_content.digest(str(raw), "raw")
    with raw.open("r+b") as file:
        file.seek(50 * MIB)
        file.write(b"\0" * BLOCK + b"x")
    assert len({known, one, guest_content.digest(str(raw), "raw")}) == 3


def test_an_empty_disk_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.qcow2"
    qemu_img("create", "-f", "qcow2", path, "1T")
    assert guest_content.digest(str(path), "qcow2") == (2**40, hashlib.sha256().hexdigest())


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.qcow2"
    damaged.write_bytes(b"QFI\xfb" + bytes(5000))
    for path in (damaged, tmp_path / "missing.qcow2"):
        with pytest.raises(UnreadableContent, match=path.name):
            guest_content.digest(str(path), "qcow2")
