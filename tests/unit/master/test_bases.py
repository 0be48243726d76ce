"""The master's part of a promote: the clone's own key goes once its host says that it is gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone.errors import CloneInUse, ForeignDomain, HostUnreachable, NotFound
from saltext.kvmclone.interrupts import EXIT_CODE, Interrupt
from saltext.kvmclone.master import bases, progress
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.record import Minion, Owner

MADE = {"name": "golden", "host": "kvm01", "promoted": "web1"}


class Fleet:
    """A master with one clone, that notes what is done to its keys."""

    url = "qemu:///system"

    def __init__(self, answer: Any, finished: bool = False) -> None:
        self.opts: dict[str, Any] = {}
        self.answer, self.finished = answer, finished
        self.asked: list[tuple[str, str]] = []
        self.taken: list[tuple[str, str]] = []
        self.keys = SimpleNamespace(take_back=lambda *key: self.taken.append(key))

    def find(self, name: str) -> tuple[Any, Clone]:
        if name != "web1":
            raise NotFound(f"There is no clone '{name}'.", "List them.")
        minion = Minion(id="web1.example.org", fingerprint="aa:bb")
        clone = Clone(
            "web1", "u", "kvm01", "base", "web", "quick", "shutoff", "ready", minion=minion
        )
        return self, clone

    def promote(self, name: str, base: str, _worker: Owner) -> dict[str, Any]:
        self.asked.append((name, base))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return dict(self.answer)

    def clear(self, name: str, _token: str) -> list[Any]:
        if self.finished:
            raise ForeignDomain(f"'{name}' was not made by kvm_clone.")
        raise NotFound("none")

    def bases(self) -> list[dict[str, Any]]:
        return [{"name": "golden", "source": "web1"}] * self.finished

    def show(self, name: str) -> Clone:
        if self.finished:
            raise NotFound(f"There is no clone '{name}'.")
        return self.find(name)[1]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    fired: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(progress, "fire", lambda _opts, tag, data: fired.append((tag, data)))
    return fired


def test_the_key_of_its_record_goes_and_an_event_says_so(events: list[Any]) -> None:
    fleet = Fleet(MADE)
    answer = bases.promote(fleet, "web1", "golden")  # type: ignore[arg-type]
    assert answer == {"bases": {"golden": MADE}, "retcode": 0}
    assert fleet.taken == [("web1.example.org", "aa:bb")]
    ((tag, data),) = events
    assert tag == "web1/destroyed"
    told = {"name": "web1", "host": "kvm01", "profile": "web", "stage": "destroyed", "elapsed": 0.0}
    assert data == told


@pytest.mark.parametrize(
    ("error", "code"),
    [(CloneInUse("'web2' stands on it.", "Destroy it."), 1), (Interrupt(), EXIT_CODE)],
)
def test_a_failure_leaves_the_key_and_is_told_of_the_base(
    error: BaseException, code: int, events: list[Any]
) -> None:
    fleet = Fleet(error)
    answer = bases.promote(fleet, "web1", "golden")  # type: ignore[arg-type]
    assert answer["retcode"] == code
    assert list(answer["bases"]["golden"]) == ["name", "error"]
    assert answer["bases"]["golden"]["error"]["hint"]
    assert (fleet.taken, events) == ([], [])


@pytest.mark.parametrize(
    ("error", "code"), [(HostUnreachable("No answer."), 1), (Interrupt(), EXIT_CODE)]
)
def test_the_key_goes_as_well_where_the_host_has_finished_in_the_meantime(
    error: BaseException, code: int, events: list[Any]
) -> None:
    fleet = Fleet(error, finished=True)
    answer = bases.promote(fleet, "web1", "golden")  # type: ignore[arg-type]
    message = answer["bases"]["golden"]["error"]["message"]
    assert answer["retcode"] == code
    assert "'golden' is a base, and stays. 'web1' is destroyed, and its key removed." in message
    assert fleet.taken == [("web1.example.org", "aa:bb")]
    assert [tag for tag, _data in events] == ["web1/destroyed"]


def test_a_clone_that_is_gone_is_told_with_the_way_to_its_key(events: list[Any]) -> None:
    answer = bases.promote(Fleet(MADE), "web9", "golden")  # type: ignore[arg-type]
    assert "salt-run kvmclone.destroy web9" in answer["bases"]["golden"]["error"]["hint"]


def test_the_name_of_the_base_is_checked_before_any_host_is_asked(events: list[Any]) -> None:
    fleet = Fleet(MADE)
    answer = bases.promote(fleet, "web1", 7)  # type: ignore[arg-type]
    assert answer["bases"]["7"]["error"]["type"] == "InvalidName"
    assert fleet.asked == []
