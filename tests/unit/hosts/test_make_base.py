"""A base is made once: what a dead worker left is cleared, and what was begun is taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    ChecksumMismatch,
    CreateInProgress,
    ForeignDomain,
    HostUnreachable,
    Interrupted,
    KvmCloneError,
    NeverConnected,
    NotFound,
)
from saltext.kvmclone.hosts import make_base, rollback
from saltext.kvmclone.model.base_request import BaseRequest, Origin
from saltext.kvmclone.model.made_base import MadeBase
from saltext.kvmclone.model.plain import to_plain
from saltext.kvmclone.model.record import ALIVE, DEAD, ELSEWHERE, Owner, Work
from saltext.kvmclone.system import processes

REQUEST = BaseRequest("debian12", "https://x/d.qcow2")
MADE = MadeBase("debian12", "kvm01", REQUEST.source, "sha256:00")


class Host:
    """A host that answers what it is told to, and notes what it was asked to clear."""

    url = "qemu:///system"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.cleared: list[str] = []
        self.finished: list[tuple[str, str]] = []
        self.workers: list[Owner] = []
        self.clearing: Callable[[], None] = lambda: None

    def base_from(self, _request: BaseRequest, _origin: Origin, worker: Owner) -> MadeBase:
        self.workers.append(worker)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        made: MadeBase = answer
        return made

    def promote(self, name: str, base: str, worker: Owner) -> Any:
        assert (name, base) == ("web1", "golden")
        return self.base_from(REQUEST, Origin(""), worker)

    def bases(self) -> list[dict[str, Any]]:
        return [{"name": one, "source": source} for one, source in self.finished]

    def show(self, name: str) -> None:
        raise NotFound(name)

    def clear(self, _name: str, token: str) -> list[Any]:
        self.cleared.append(token)
        self.clearing()
        return []


def busy(life: str, worker: Owner = Owner(token="theirs")) -> CreateInProgress:
    work = Work(worker, life, "planned", "ready", "0123")
    return CreateInProgress("It is being made.", work=to_plain(work))


def made(host: Host) -> MadeBase:
    return make_base.make(host, REQUEST, Origin("https://x/d.qcow2"))  # type: ignore[arg-type]


def test_what_a_dead_worker_left_is_cleared_first() -> None:
    host = Host(busy(DEAD), MADE)
    assert made(host) == MADE
    assert host.cleared == ["theirs"]
    assert len({worker.token for worker in host.workers}) == 1


@pytest.mark.parametrize("life", [ALIVE, ELSEWHERE])
def test_a_worker_that_lives_or_may_live_is_left_alone(life: str) -> None:
    host = Host(busy(life, Owner("other", "boot", 7, 8, "theirs", "machine")))
    with pytest.raises(CreateInProgress):
        made(host)
    assert host.cleared == []


def test_others_that_come_and_die_again_and_again_are_somebody_elses_turn() -> None:
    host = Host(*[busy(DEAD)] * 9)
    with pytest.raises(CreateInProgress):
        made(host)
    assert len(host.cleared) == 3


def test_somebody_who_clears_it_at_the_same_moment_is_no_error() -> None:
    host = Host(busy(DEAD), MADE)

    def gone() -> None:
        raise NotFound("gone")

    host.clearing = gone
    assert made(host) == MADE


def test_a_failure_was_undone_by_the_host_itself() -> None:
    host = Host(ChecksumMismatch("another one"))
    with pytest.raises(ChecksumMismatch):
        made(host)
    assert host.cleared == []


def test_an_answer_that_was_lost_is_not_left_behind() -> None:
    host = Host(HostUnreachable("No answer."))
    with pytest.raises(HostUnreachable, match=r"No answer\. What was made of it was removed\."):
        made(host)
    assert host.cleared == [host.workers[0].token]


def test_a_host_that_was_never_reached_has_nothing_to_clear() -> None:
    host = Host(NeverConnected("No host."))
    with pytest.raises(HostUnreachable):
        made(host)
    assert host.cleared == []


def test_an_interrupt_takes_back_what_was_begun() -> None:
    host = Host(interrupts.Interrupt())
    with pytest.raises(Interrupted, match=r"was interrupted\. What was made of it was removed"):
        made(host)
    assert host.cleared == [host.workers[0].token]


def test_a_promote_that_is_interrupted_is_taken_back_by_its_token() -> None:
    host = Host(interrupts.Interrupt())
    with pytest.raises(
        Interrupted, match=r"'golden' was interrupted\. What was made of it was rem"
    ):
        make_base.promote(host, "web1", "golden")  # type: ignore[arg-type]
    assert host.cleared == [host.workers[0].token]


def test_a_failure_after_an_interrupt_is_the_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "pressed", lambda: True)
    with pytest.raises(Interrupted):
        made(Host(ChecksumMismatch("another one")))
    with pytest.raises(Interrupted):
        make_base.promote(Host(ChecksumMismatch("x")), "web1", "golden")  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [HostUnreachable("No answer."), interrupts.Interrupt()])
@pytest.mark.parametrize(
    ("source", "says"),
    [(REQUEST.source, r"'debian12' is a base, and stays"), ("another", "was left alone")],
)
def test_a_base_that_was_finished_before_is_not_called_removed(
    error: BaseException, source: str, says: str
) -> None:
    host = Host(error)
    host.finished = [("debian12", source)]

    def finished() -> None:
        raise ForeignDomain("not ours")

    host.clearing = finished
    with pytest.raises(KvmCloneError, match=says):
        made(host)


def test_what_cannot_be_removed_is_named_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "ROLLBACK_RETRY_TIMEOUT_S", 0.0)
    gave_up: list[Owner] = []
    monkeypatch.setattr(processes, "give_up", gave_up.append)
    host = Host(HostUnreachable("No answer."))

    def refuses() -> None:
        raise HostUnreachable("Still none.")

    host.clearing = refuses
    with pytest.raises(HostUnreachable, match=r"not be removed: Still none\. What is left"):
        made(host)
    assert gave_up == host.workers
