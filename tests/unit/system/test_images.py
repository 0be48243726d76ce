"""A disk's chain is followed to its end, and what is wrong with it is told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from saltext.kvmclone.system import backing_files, images
from tests.support.open_images import open_in_a_tool


def img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    """Three images, the top one first."""
    paths = [tmp_path / f"{name}.qcow2" for name in ("top", "middle", "bottom")]
    img("create", "-f", "qcow2", paths[2], "64M")
    img("create", "-f", "qcow2", "-F", "qcow2", "-b", paths[2], paths[1])
    img("create", "-f", "qcow2", "-F", "qcow2", "-b", "middle.qcow2", paths[0])
    return paths


def followed(path: Path, form: str = "qcow2") -> tuple[list[str], str]:
    found, _data, fault = images.chain(str(path), form, images.look)
    return [image.path for image in found], fault


def test_a_chain_is_followed_from_the_top_down(chain: list[Path]) -> None:
    assert followed(chain[0]) == ([str(path) for path in chain], "")


def test_a_raw_disk_stands_on_nothing_whatever_its_bytes_look_like(chain: list[Path]) -> None:
    assert followed(chain[0], "raw") == ([str(chain[0])], "")


def test_a_missing_link_is_named(chain: list[Path]) -> None:
    chain[2].unlink()
    _paths, fault = followed(chain[0])
    assert str(chain[2]) in fault
    assert "missing" in fault


def test_a_chain_that_bites_its_tail_is_refused(chain: list[Path]) -> None:
    img("rebase", "-u", "-F", "qcow2", "-b", chain[0], chain[2])
    assert "never ends" in followed(chain[0])[1]


def test_a_chain_that_leaves_the_host_is_refused(chain: list[Path]) -> None:
    img("rebase", "-u", "-F", "raw", "-b", "nbd://localhost/x", chain[2])
    assert "not a file on the host" in followed(chain[0])[1]


def test_a_link_that_is_not_what_the_image_above_says_is_refused(chain: list[Path]) -> None:
    chain[2].write_bytes(b"\0" * 2**20)
    assert "but that is raw" in followed(chain[0])[1]


@pytest.mark.parametrize("form", ["qcow", "qed"])
def test_a_link_that_may_stand_on_more_than_its_header_tells_is_refused(
    chain: list[Path], tmp_path: Path, form: str
) -> None:
    img("create", "-f", form, "-F", "qcow2", "-b", chain[2], tmp_path / "old")
    img("rebase", "-u", "-F", form, "-b", tmp_path / "old", chain[1])
    paths, fault = followed(chain[0])
    assert paths == [str(chain[0]), str(chain[1]), str(tmp_path / "old")]
    assert f"is {form}, and what that is based on" in fault
    assert backing_files.needs(paths[-1]) == (str(chain[2]),)


def test_a_raw_image_at_the_bottom_may_look_like_anything(chain: list[Path]) -> None:
    img("rebase", "-u", "-F", "raw", "-b", chain[2], chain[1])
    paths, fault = followed(chain[0])
    assert fault == ""
    assert len(paths) == 3


def test_a_data_file_is_found(tmp_path: Path) -> None:
    path, data = tmp_path / "x.qcow2", tmp_path / "x.data"
    img("create", "-f", "qcow2", "-o", f"data_file={data}", path, "64M")
    _found, others, _fault = images.chain(str(path), "qcow2", images.look)
    assert [image.path for image in others] == [str(data)]


def test_who_has_an_image_open_is_seen_down_to_the_end_of_its_chain(chain: list[Path]) -> None:
    assert [images.holder(str(path)) for path in chain] == ["", "", ""]
    with open_in_a_tool(chain[0]):
        assert all("QEMU" in images.holder(str(path)) for path in chain)
        assert images.look(str(chain[0])).written
        assert not images.look(str(chain[2])).written
    assert images.holder(str(chain[0])) == ""
    assert images.holder(str(chain[0]) + ".gone") == ""


def test_what_is_no_image_is_told_apart(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    assert images.look(str(tmp_path)).kind == "folder"
    assert images.look(str(tmp_path / "pipe")).kind == "special"
    assert images.look(str(tmp_path / "nothing")).kind == "missing"
    assert images.look(str(tmp_path / "dangling")).kind == "missing"
    assert images.look("/dev/null").kind == "special"
    assert images.look("rbd/image").kind == "elsewhere"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert images.look(str(tmp_path / "loop")).kind == "unreadable"


def test_an_overlay_names_the_file_and_not_the_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 4096)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    found = images.look(str(tmp_path / "link"))
    assert found.real == str(tmp_path / "file")
    assert (found.size, found.kind) == (4096, "file")


def test_a_link_stays_where_the_image_names_its_backing_file_from_there(
    chain: list[Path], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(chain[0])
    assert images.look(str(elsewhere / "link")).real == str(elsewhere / "link")
