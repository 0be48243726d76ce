"""What the master answers of snapshots, whether its host does it, refuses or is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import NoSnapshot, NotFound
from saltext.kvmclone.master import clone_snapshots
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.clone_snapshot import CloneSnapshot, SnapshotDisk

CLONE = Clone("web1", "u", "kvm01", "base", "web", "quick", "running", "ready")
TAKEN = CloneSnapshot("web1", "kvm01", "a", 1.5, (SnapshotDisk("vda", "/p", 7),), True, True)

Call = Callable[[Fleet], dict[str, Any]]
EVERY: dict[str, Call] = {
    "take": lambda fleet: clone_snapshots.take(fleet, "web1", "a"),
    "roll_back": lambda fleet: clone_snapshots.roll_back(fleet, "web1", "a"),
    "delete": lambda fleet: clone_snapshots.delete(fleet, "web1", "a"),
}


class Host:
    """One host, which fails as it is told to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.calls: list[tuple[str, ...]] = []

    def _done(self, *call: str) -> CloneSnapshot:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        return TAKEN

    def snapshot(self, name: str, label: str) -> CloneSnapshot:
        return self._done("snapshot", name, label)

    def delete_snapshot(self, name: str, label: str) -> CloneSnapshot:
        return self._done("delete_snapshot", name, label)

    def snapshots(self, name: str) -> list[CloneSnapshot]:
        return [self._done("snapshots", name)]

    def rollback(self, name: str, label: str) -> Clone:
        self._done("rollback", name, label)
        return replace(CLONE, warnings=("a word",))


def fleet(host: Host) -> Fleet:
    class One:
        def find(self, name: str) -> tuple[Host, Clone]:
            if name != "web1":
                raise NotFound(f"There is no clone '{name}'.", "List them.")
            return host, CLONE

    return cast(Fleet, One())


def test_the_answers_have_the_shape_of_the_other_commands() -> None:
    host = Host()
    taken = {"clones": {"web1": TAKEN.as_dict()}, "retcode": 0}
    assert EVERY["take"](fleet(host)) == taken
    assert EVERY["delete"](fleet(host)) == taken
    back = EVERY["roll_back"](fleet(host))
    assert back["clones"]["web1"]["warnings"] == ["a word"]
    listed = clone_snapshots.listed(fleet(host), "web1")
    assert listed == {"snapshots": {"web1": [TAKEN.as_dict()]}, "retcode": 0}
    assert clone_snapshots.take(fleet(host), "web1", None)["retcode"] == 0
    assert host.calls[-1] == ("snapshot", "web1", "")


@pytest.mark.parametrize("name", EVERY)
def test_a_refusal_stands_with_the_clone_and_its_stage(name: str) -> None:
    answer = EVERY[name](fleet(Host(NoSnapshot("none", "list"))))
    error = {"type": "NoSnapshot", "message": "none", "hint": "list"}
    assert answer == {
        "clones": {"web1": {"name": "web1", "stage": "ready", "error": error}}, "retcode": 1
    }  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_an_interrupt_has_its_exit_code(name: str) -> None:
    answer = EVERY[name](fleet(Host(interrupts.Interrupt())))
    assert answer["retcode"] == 130
    assert answer["clones"]["web1"]["error"]["type"] == "Interrupted"


@pytest.mark.parametrize("label", [7, "a.b", "", True])
def test_a_bad_label_reaches_no_host(label: object) -> None:
    host = Host()
    for call in (clone_snapshots.take, clone_snapshots.roll_back, clone_snapshots.delete):
        answer = call(fleet(host), "web1", label)
        assert answer["clones"]["web1"]["error"]["type"] == "InvalidName"
    assert host.calls == []


def test_a_clone_that_is_not_there_is_told() -> None:
    answer = clone_snapshots.roll_back(fleet(Host()), "web2", "a")
    assert answer["clones"]["web2"]["error"]["type"] == "NotFound"
    with pytest.raises(NotFound):
        clone_snapshots.listed(fleet(Host()), "web2")
