"""A file is written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from saltext.kvmclone.system import files


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(str(path), "old")
    files.write(str(path), "ä\n", mode=0o640)
    assert path.read_bytes() == "ä\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(str(path), "old")
    with pytest.raises(UnicodeEncodeError):
        files.write(str(path), "x" * 100000 + "\ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_is_not_to_be_overwritten_is_left(tmp_path: Path) -> None:
    path, drafts = tmp_path / ("f" * 255), tmp_path / "drafts"
    drafts.mkdir()
    files.write(str(path), "old", overwrite=False, draft_folder=str(drafts))
    with pytest.raises(FileExistsError):
        files.write(str(path), "new", overwrite=False, draft_folder=str(drafts))
    assert path.read_text() == "old"
    assert not os.listdir(drafts)


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "link").symlink_to("other")
    files.write(str(tmp_path / "link"), "new")
    assert (tmp_path / "other").read_text() == "other"
    assert not (tmp_path / "link").is_symlink()
