"""What an image needs, however its header spells it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from saltext.kvmclone.system import backing_files
from saltext.kvmclone.system.backing_files import Unreadable, files_named

NBD = {"driver": "nbd", "host": "h", "port": "1"}
NESTED = {"driver": "qcow2", "file": {"driver": "file", "filename": "/a/b.qcow2"}}
WITH_BACKING = {**NESTED, "backing": {"file.driver": "file", "file.filename": "c.raw"}}
QUORUM = {"driver": "quorum", "children": [{"filename": "/1"}, {"file.filename": "/2"}]}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("/a/b.qcow2", ["/a/b.qcow2"]),
        ("/a/../c/./b.qcow2", ["/c/b.qcow2"]),
        ("//a//b.qcow2", ["/a/b.qcow2"]),
        ("b.qcow2", ["/pool/b.qcow2"]),
        ("../b.qcow2", ["/b.qcow2"]),
        ("file:/a/b.qcow2", ["/a/b.qcow2"]),
        ("file:///a/b.qcow2", ["/a/b.qcow2"]),
        ("file:b.qcow2", ["/pool/b.qcow2"]),
        ("nbd://host/export", []),
        ("rbd:pool/image", []),
        ("a/b:c", ["/pool/a/b:c"]),
        ("json:" + json.dumps(NBD), []),
        ("json:" + json.dumps(NESTED), ["/a/b.qcow2"]),
        ("json:" + json.dumps({"driver": "file", "filename": "b.raw"}), ["/pool/b.raw"]),
        ("json:" + json.dumps({"file.filename": "/a/b"}), ["/a/b"]),
        ("json:" + json.dumps(WITH_BACKING), ["/a/b.qcow2", "/pool/c.raw"]),
        ("json:" + json.dumps(QUORUM), ["/1", "/2"]),
    ],
)
def test_the_files_that_a_backing_name_means(name: str, files: list[str]) -> None:
    assert files_named(name, {"/pool"}) == files


def test_a_relative_name_may_mean_two_files_below_a_symlink() -> None:
    assert files_named("b", {"/one", "/two"}) == ["/one/b", "/two/b"]


def test_a_name_that_cannot_be_understood_is_told() -> None:
    with pytest.raises(Unreadable):
        files_named("json:{", {"/pool"})


def test_raw_files_folders_and_devices_that_are_no_disks_need_nothing(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"\0" * 1000)
    (tmp_path / "empty").touch()
    for path in (tmp_path / "raw", tmp_path / "empty", tmp_path, Path("/dev/zero")):
        assert backing_files.needs(str(path)) == ()


def test_a_cut_off_header_is_told(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(b"QFI\xfb\0\0\0\3")
    with pytest.raises(Unreadable):
        backing_files.needs(str(tmp_path / "cut"))


def test_sizes_of_nothing_are_none(tmp_path: Path) -> None:
    assert backing_files.sizes(str(tmp_path / "none"), "raw") is None
    assert backing_files.sizes(str(tmp_path), "raw") is None


def test_a_raw_disk_is_as_large_as_its_file_whatever_a_guest_wrote_into_it(tmp_path: Path) -> None:
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
    size = image.stat().st_size
    assert backing_files.sizes(str(image), "qcow2") == (64 * 2**20, image.stat().st_blocks * 512)
    assert backing_files.sizes(str(image), "raw") == (size, image.stat().st_blocks * 512)
