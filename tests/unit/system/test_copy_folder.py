"""A copy lives as long as its process, its server, or the time that the other host has."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from saltext.kvmclone.system import copy_folder

COPY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "copies"
    monkeypatch.setattr(copy_folder, "ROOT", str(path))
    return path


def test_a_copy_lives_while_its_process_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert copy_folder.is_dead(COPY)
    copy_folder.make(COPY, "base")
    assert (root / COPY).stat().st_mode & 0o777 == 0o700
    assert copy_folder.all_copies() == [COPY]
    assert copy_folder.base_of(COPY) == "base"
    assert not copy_folder.is_dead(COPY)
    monkeypatch.setattr(copy_folder.processes, "owner_state", lambda _owner: "dead")
    assert copy_folder.is_dead(COPY)


def test_the_other_host_has_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    copy_folder.make(COPY, "base")
    copy_folder.wait_for_other(COPY)
    assert not copy_folder.is_dead(COPY)
    monkeypatch.setattr(copy_folder.time, "time", lambda: 4e9)
    assert copy_folder.is_dead(COPY)


def test_the_other_host_has_the_time_that_its_work_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may hash for an hour between two files, and nobody is connected then."""
    copy_folder.make(COPY, "base")
    copy_folder.note_lasts(COPY, 7200)
    copy_folder.make(COPY, "base")
    assert copy_folder.lasts(COPY) == 7200
    copy_folder.wait_for_other(COPY, copy_folder.lasts(COPY))
    now = copy_folder.time.time()
    monkeypatch.setattr(copy_folder.time, "time", lambda: now + 7000)
    assert not copy_folder.is_dead(COPY)
    monkeypatch.setattr(copy_folder.time, "time", lambda: now + 7300)
    assert copy_folder.is_dead(COPY)
    assert copy_folder.base_of(COPY) == "base"
    copy_folder.remove(COPY)
    assert copy_folder.lasts(COPY) == 0
    with pytest.raises(FileNotFoundError):
        copy_folder.wait_for_other(COPY)


def test_a_server_at_work_keeps_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_folder.make(COPY, "base")
    copy_folder.wait_for_other(COPY)
    monkeypatch.setattr(copy_folder.time, "time", lambda: 4e9)
    with (root / COPY / "lock").open() as served:
        fcntl.flock(served, fcntl.LOCK_SH)
        assert not copy_folder.is_dead(COPY)
    assert copy_folder.is_dead(COPY)


def test_what_cannot_be_read_is_dead(root: Path) -> None:
    copy_folder.make(COPY, "base")
    (root / COPY / "about.json").write_text("[]")
    assert copy_folder.is_dead(COPY)
    assert copy_folder.base_of(COPY) == ""


def test_nothing_else_counts_as_a_copy(root: Path) -> None:
    copy_folder.make(COPY, "base")
    (root / "notes").mkdir()
    assert copy_folder.all_copies() == [COPY]
    assert copy_folder.remove(COPY)
    assert not copy_folder.remove(COPY)
    assert [path.name for path in root.iterdir()] == ["notes"]
