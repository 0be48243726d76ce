"""What was saved of a base is found again, also where another machine has its name by now."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone.errors import HostError, NotFound
from saltext.kvmclone.inventory import deletion_plan, warm_images
from saltext.kvmclone.inventory.deletion_plan import FileToDelete
from saltext.kvmclone.inventory.warm_images import WarmImage
from saltext.kvmclone.lifecycle import warm
from saltext.kvmclone.lifecycle.destroy import DestroyResult
from saltext.kvmclone.lifecycle.journal import Journal
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import MAKING, MEMORY, WANTED, WARM, Record, Volume


class Handle:
    """A domain."""

    def __init__(self, name: str, uuid: str) -> None:
        self.name, self.uuid = name, uuid

    def record(self) -> None:
        """It is a base."""


class Host:
    """A host with these bases, uuid by name."""

    commands = Commands()

    def __init__(self, **bases: str) -> None:
        self.bases = bases

    def find(self, name: str) -> Handle | None:
        return Handle(name, self.bases[name]) if name in self.bases else None

    def with_uuid(self, uuid: str) -> Handle | None:
        return next((Handle(name, one) for name, one in self.bases.items() if one == uuid), None)

    def domain(self, name: str) -> Handle:
        raise NotFound(f"There is no '{name}'.")


def saved(base: str, uuid: str, generation: int) -> WarmImage:
    name = f"{base}.warm{generation}"
    handle: Any = Handle(name, f"uuid of {name}")
    record = Record(handle.uuid, base, uuid, "quick", name=name, becomes=WARM)
    return WarmImage(handle, record, None)


@pytest.fixture(autouse=True)
def images(monkeypatch: pytest.MonkeyPatch) -> list[WarmImage]:
    """What is saved on the host: of two bases that were called alike, and of another."""
    found = [saved("base", "new", 2), saved("base", "old", 1), saved("other", "third", 1)]

    def destroy(_host: Any, handle: Any, token: str) -> DestroyResult:
        return DestroyResult((FileToDelete(handle.name, ("", 0), "vda"),))  # type: ignore[arg-type]

    monkeypatch.setattr(warm_images, "find", lambda _host: found)
    monkeypatch.setattr(warm, "destroy", destroy)
    monkeypatch.setattr(warm, "_require_idle", lambda *_: None)
    monkeypatch.setattr(deletion_plan, "plan_deletion", lambda *_: None)
    return found


def removed(host: Any, name: str) -> list[str]:
    return sorted(file.path for file in warm.unwarm(host, name).files)


def test_what_is_left_of_a_base_goes_although_another_one_has_its_name() -> None:
    assert removed(Host(base="new", other="third"), "base") == ["base.warm1", "base.warm2"]


def test_of_a_base_that_is_gone_all_goes() -> None:
    assert removed(Host(other="third"), "base") == ["base.warm1", "base.warm2"]


def test_what_was_saved_of_a_base_that_was_renamed_is_no_other_bases() -> None:
    host = Host(base="new", renamed="old", other="third")
    assert removed(host, "base") == ["base.warm2"]
    assert removed(host, "renamed") == ["base.warm1"]


def test_a_name_that_nothing_has_or_had_is_an_error() -> None:
    with pytest.raises(NotFound):
        removed(Host(), "nobody")


def test_a_file_of_somebody_else_where_the_memory_would_go_is_on_record_as_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "base.warm1-memory.save"
    path.touch()
    saved: list[str] = []
    monkeypatch.setattr(warm.record_store, "current", lambda _handle, record: record)
    monkeypatch.setattr(Journal, "save", lambda self: saved.append(self.record.volumes[0].state))
    memory = Volume(MEMORY, str(path), "raw", "save", WANTED)
    record = Record("uuid", "base", "old", "quick", name="base.warm1", volumes=(memory,))
    host: Any = SimpleNamespace(commands=Commands())
    handle: Any = SimpleNamespace()
    with pytest.raises(HostError, match="cannot be made"):
        warm._save(host, handle, record)
    assert saved == [MAKING, WANTED], "what is stored decides what is deleted"
