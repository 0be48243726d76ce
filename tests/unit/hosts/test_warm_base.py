"""A warming that was interrupted, whose answer was lost, or whose worker died, is taken back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    CommandFailed,
    CreateInProgress,
    HostError,
    HostFull,
    HostUnreachable,
    Interrupted,
    NotFound,
    PlanRefused,
)
from saltext.kvmclone.hosts import rollback, warm_base
from saltext.kvmclone.model.plain import to_plain
from saltext.kvmclone.model.record import ALIVE, DEAD, ELSEWHERE, Owner, Work
from saltext.kvmclone.model.warmed_base import UnwarmedBase, WarmedBase
from saltext.kvmclone.system import processes

WARMED = WarmedBase("debian12", "kvm01", 1, "debian12.warm1", "/pool/x.save")
UNWARMED = UnwarmedBase("debian12", "kvm01")


class Host:
    """A host that fails so, with what that left, and how its removal fails."""

    url = "qemu:///system"

    def __init__(self, error: BaseException | None = None, left: bool = False) -> None:
        self.error, self.left = error, left
        self.refuses: BaseException | None = None
        self.token = ""
        self.cleared: list[str] = []

    def warm(self, base: str, worker: Owner, limits: Any = None) -> WarmedBase:
        self.token = worker.token
        if self.error is not None:
            raise self.error
        return WARMED

    def unfinished(self) -> list[Any]:
        mine, other = (SimpleNamespace(worker=Owner(token=one)) for one in (self.token, "other"))
        items = [SimpleNamespace(name="web1", work=other)]
        return items + [SimpleNamespace(name="debian12.warm1", work=mine)] * self.left

    def clear(self, name: str, token: str) -> list[Any]:
        if self.refuses is not None:
            raise self.refuses
        assert token == self.token
        self.cleared.append(name)
        return []


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "ROLLBACK_RETRY_TIMEOUT_S", 0.0)


class LeftBehind(Host):
    """A host on which another worker began; it cannot always tell whether that lives."""

    def __init__(self, life: str, worker: Owner) -> None:
        super().__init__(left=True)
        self.token = worker.token
        work = Work(worker, life, "booted", "ready", "0123")
        self.busy = CreateInProgress("It is being made.", "Wait.", to_plain(work))

    def warm(self, base: str, worker: Owner, limits: Any = None) -> WarmedBase:
        if not self.cleared:
            raise self.busy
        return WARMED

    def unwarm(self, base: str) -> UnwarmedBase:
        if not self.cleared:
            raise self.busy
        return UNWARMED


def warmed(host: Host) -> WarmedBase:
    return warm_base.warm(host, "debian12")  # type: ignore[arg-type]


def unwarmed(host: Host) -> UnwarmedBase:
    return warm_base.unwarm(host, "debian12")  # type: ignore[arg-type]


def runner_that_died() -> Owner:
    """A worker of this machine, the master: no host can tell what became of it."""
    worker = processes.this_process()
    processes.give_up(worker)
    return worker


def test_what_was_warmed_is_told() -> None:
    assert warmed(Host()) == WARMED


@pytest.mark.parametrize(
    "error", [PlanRefused("no"), NotFound("no"), CommandFailed("no"), HostFull("no")]
)
def test_the_host_undoes_its_own_failures(error: BaseException) -> None:
    host = Host(error, left=True)
    with pytest.raises(type(error), match=r"^\w+: no$"):
        warmed(host)
    assert host.cleared == []


@pytest.mark.parametrize("left", [True, False])
def test_an_interrupt_leaves_nothing(left: bool) -> None:
    host = Host(interrupts.Interrupt(), left)
    with pytest.raises(Interrupted) as caught:
        warmed(host)
    assert host.cleared == ["debian12.warm1"] * left
    assert ("was removed" if left else "Nothing unfinished") in caught.value.message


def test_where_the_answer_was_lost_what_was_made_is_removed() -> None:
    host = Host(HostUnreachable("No answer.", "Look."), left=True)
    with pytest.raises(HostUnreachable, match=r"No answer\. What was made of it was removed"):
        warmed(host)
    assert host.cleared == ["debian12.warm1"]


def test_what_cannot_be_removed_is_named() -> None:
    host = Host(interrupts.Interrupt(), left=True)
    host.refuses = HostError("It does not work.", "Mend it.")
    with pytest.raises(Interrupted, match=r"could not be removed: It does.*kvmclone\.gc"):
        warmed(host)


@pytest.mark.parametrize("life", [DEAD, ELSEWHERE])
@pytest.mark.parametrize(("work", "told"), [(warmed, WARMED), (unwarmed, UNWARMED)])
def test_what_a_runner_left_that_died_is_cleared_first(life: str, work: Any, told: Any) -> None:
    host = LeftBehind(life, runner_that_died())
    assert work(host) == told
    assert host.cleared == ["debian12.warm1"]


@pytest.mark.parametrize("life", [ALIVE, ELSEWHERE])
@pytest.mark.parametrize("work", [warmed, unwarmed])
def test_a_worker_that_lives_or_may_live_is_left_alone(life: str, work: Any) -> None:
    host = LeftBehind(life, Owner("other", "boot", 7, 8, "theirs", "machine"))
    with pytest.raises(CreateInProgress):
        work(host)
    assert host.cleared == []


def test_where_another_was_faster_to_clear_it_the_host_is_asked_again() -> None:
    host = LeftBehind(DEAD, runner_that_died())

    def clear(name: str, _token: str) -> list[Any]:
        host.cleared.append(name)
        raise NotFound("gone")

    host.clear = clear  # type: ignore[method-assign]
    assert warmed(host) == WARMED
