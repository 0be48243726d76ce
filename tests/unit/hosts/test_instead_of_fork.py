"""A fork that fails is gone first; then it is an error, or a quick clone takes its place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    ForkFailed,
    HostError,
    HostUnreachable,
    KvmCloneError,
    NotWarmed,
    WarmImageUnusable,
)
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.placement import HostLimits, Placed
from saltext.kvmclone.model.record import DEAD, Minion, Owner
from saltext.kvmclone.model.request import Request
from tests.support.faulty_hosts import FaultyHost, FaultyMaster, busy

INSTANT = Request(name="web1", base_domain="base", clone_strategy="instant", instant="prefer")


@dataclass
class ForkingHost(FaultyHost):
    """A host that makes what it is asked for; of forks one step fails."""

    fault: BaseException = field(default_factory=lambda: ForkFailed("It did not acknowledge."))
    requests: list[Request] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    enrolled: list[Any] = field(default_factory=list)
    warmed: bool = False
    given: list[str] = field(default_factory=list)
    booted: bool = False
    limits: HostLimits | None = None

    def clone(self, request: Request, *args: Any, **kwargs: Any) -> Clone:
        self.requests.append(request)
        self.digests.append(args[2])
        return super().clone(request, *args, **kwargs)

    def plan(self, request: Request) -> dict[str, Any]:
        if not self.warmed:
            raise NotWarmed("not warmed")
        return {}

    def warm(self, base_domain: str, worker: Any = None, limits: Any = None) -> Any:
        self.asked.append(f"warm {base_domain}")
        self.limits = limits
        if self.fails == "warm":
            raise self.fault

    def bootstrap(self, request: Request, enrolment: Any) -> Clone:
        self.enrolled.append(enrolment)
        return super().bootstrap(request, enrolment)

    def give_word(self, request: Request, word: str) -> bool:
        self.asked.append("give_word")
        self.given.append(word)
        return not self.booted

    def take_over(self, name: str, token: str, worker: Owner) -> Clone:
        return replace(super().take_over(name, token, worker), strategy="instant")

    def _step(self, step: str, stage: str) -> Clone:
        strategy = self.requests[-1].clone_strategy if self.requests else ""
        if strategy != "instant" and step == self.fails:
            self.asked.append(step)
            return replace(self._clone(stage), strategy=strategy)
        return replace(super()._step(step, stage), strategy=strategy)


class WordyMaster(FaultyMaster):
    """A master that notes which word it asks a minion for."""

    word: str | None = "none asked"

    def enrolment(self, *_: Any) -> Any:
        return Enrolment("web1")

    def verify(self, minion_id: str, uuid: str, ask: Any, word: str | None = None) -> Minion:
        self.word = word
        return Minion(minion_id, "3008.0", "", "word")


def test_a_quick_clone_takes_the_place_of_a_fork_that_is_seen_to_be_gone() -> None:
    host = ForkingHost("boot")
    outcome = provision.create(host, INSTANT)
    assert outcome.error is None and outcome.stage == "addressed"
    assert [one.clone_strategy for one in host.requests] == ["instant", "quick"]
    assert outcome.clone is not None
    assert "did not acknowledge" in outcome.clone.warnings[0]
    assert len(set(host.digests)) == 1, "a repeated create asks for the same"


@pytest.mark.parametrize("fault", [NotWarmed("It is gone."), WarmImageUnusable("It is not.")])
@pytest.mark.parametrize(("instant", "warm"), [("prefer", ""), ("require", "auto")])
def test_so_it_does_where_the_memory_changed_after_the_plan(
    fault: KvmCloneError, instant: str, warm: str
) -> None:
    host = ForkingHost("boot", fault)
    outcome = provision.create(host, replace(INSTANT, instant=instant, warm=warm))
    assert (outcome.error, outcome.stage) == (None, "addressed")
    assert [one.clone_strategy for one in host.requests] == ["instant", "quick"]
    assert outcome.clone is not None and fault.message in outcome.clone.warnings[0]
    assert [one for one in host.asked if one.startswith("warm")] == ["warm base"] * bool(warm)


def test_where_the_memory_changed_and_a_fork_is_required_that_is_the_answer() -> None:
    host = ForkingHost("boot", WarmImageUnusable("It is not what it was."))
    outcome = provision.create(host, replace(INSTANT, instant="require", on_failure="keep"))
    assert isinstance(outcome.error, WarmImageUnusable) and not host.there
    assert len(host.requests) == 1


def test_where_a_fork_is_required_its_failure_is_the_answer() -> None:
    host = ForkingHost("boot")
    outcome = provision.create(host, replace(INSTANT, instant="require"))
    assert isinstance(outcome.error, ForkFailed)
    assert "'web1' was removed." in outcome.error.message
    assert len(host.requests) == 1 and not host.there


@pytest.mark.parametrize("wish", ["keep", "stop"])
def test_a_fork_that_failed_is_never_kept(wish: str) -> None:
    host = ForkingHost("boot")
    provision.create(host, replace(INSTANT, instant="require", on_failure=wish))
    assert not host.there and "keep" not in host.asked


@pytest.mark.parametrize("error", [interrupts.Interrupt(), HostError("its answer was lost")])
@pytest.mark.parametrize("wish", ["keep", "stop"])
def test_a_fork_that_may_not_have_acknowledged_is_never_kept(
    error: BaseException, wish: str
) -> None:
    host = ForkingHost("boot", error)
    outcome = provision.create(host, replace(INSTANT, on_failure=wish))
    assert outcome.error is not None
    assert not host.there and not any(one.startswith("keep") for one in host.asked)


def test_a_fork_that_acknowledged_is_kept_as_its_profile_says() -> None:
    host = ForkingHost("wait_for_address", interrupts.Interrupt())
    provision.create(host, replace(INSTANT, on_failure="keep"))
    assert host.there and "keep" in host.asked


def test_a_fork_that_cannot_be_removed_has_nothing_in_its_place() -> None:
    host = ForkingHost("boot")
    host.clear = _fails  # type: ignore[method-assign]
    outcome = provision.create(host, INSTANT)
    assert isinstance(outcome.error, ForkFailed)
    assert "could not be removed" in outcome.error.message
    assert len(host.requests) == 1


def _fails(*_: Any, **__: Any) -> Any:
    raise HostError("it is busy")


def test_a_fork_that_nobody_can_see_to_be_gone_has_nothing_in_its_place() -> None:
    host = ForkingHost("boot")

    def show(_name: str) -> Clone:
        raise HostUnreachable("no answer")

    host.show = show  # type: ignore[method-assign]
    outcome = provision.create(host, INSTANT)
    assert isinstance(outcome.error, ForkFailed), "that is why there is no machine"
    assert len(host.requests) == 1


def test_the_word_that_a_forks_minion_must_answer_goes_into_its_guest() -> None:
    host, master = ForkingHost(), WordyMaster()
    assert provision.create(host, INSTANT, master=master).error is None
    assert master.word and len(master.word) == 32
    assert [one.word for one in host.enrolled] == [master.word]
    assert master.word in host.enrolled[0].hidden()


@pytest.mark.parametrize("booted", [False, True])
def test_a_fork_that_is_resumed_must_answer_another_word(booted: bool) -> None:
    host = ForkingHost(busy=[busy(DEAD, "enrolled", INSTANT)], left_at="enrolled", booted=booted)
    master = WordyMaster(accepted={"web1": "finger of the dead"})
    outcome = provision.create(host, INSTANT, master=master)
    assert (outcome.error, outcome.stage) == (None, "ready")
    assert host.enrolled == [], "its minion is in it already"
    assert len(host.given) == 1 and len(host.given[0]) == 32
    assert master.word == (None if booted else host.given[0]), "one that was booted has its uuid"


def test_a_fork_that_cannot_be_given_a_word_is_not_ready() -> None:
    host = ForkingHost(busy=[busy(DEAD, "enrolled", INSTANT)], left_at="enrolled")
    host.give_word = _fails  # type: ignore[method-assign]
    outcome = provision.create(host, INSTANT, master=WordyMaster())
    assert isinstance(outcome.error, HostError)
    assert "complete" not in host.asked


def test_no_word_is_asked_of_another_clone() -> None:
    host, master = ForkingHost(), WordyMaster()
    request = replace(INSTANT, clone_strategy="quick")
    assert provision.create(host, request, master=master).error is None
    assert master.word is None and host.enrolled[0].word == ""


class ColdHost(ForkingHost):
    """A host that makes quick clones, whatever is asked for."""

    def _step(self, step: str, stage: str) -> Clone:
        return replace(super()._step(step, stage), strategy="quick")


@pytest.mark.parametrize(
    ("warm", "warmed", "asked"),
    [("auto", False, ["warm base"]), ("auto", True, []), ("", False, [])],
)
def test_a_base_is_warmed_after_the_first_clone_that_had_to_go_without(
    warm: str, warmed: bool, asked: list[str]
) -> None:
    host = ColdHost(warmed=warmed)
    outcome = provision.create(host, replace(INSTANT, warm=warm))
    assert outcome.error is None
    assert [one for one in host.asked if one.startswith("warm")] == asked


def test_a_host_that_was_chosen_is_warmed_within_its_limits() -> None:
    limits = HostLimits(memory_ratio=0.5)
    host = ColdHost()
    provision.create(host, replace(INSTANT, warm="auto", placed=Placed(limits)))
    assert host.limits == limits


def test_a_base_that_cannot_be_warmed_is_a_warning_on_a_complete_clone() -> None:
    outcome = provision.create(ColdHost("warm"), replace(INSTANT, warm="auto"))
    assert outcome.error is None and outcome.clone is not None
    assert "could not be warmed" in outcome.clone.warnings[0]


@pytest.mark.parametrize("step", ["plan", "warm"])
def test_an_interrupt_of_the_warming_leaves_a_complete_clone(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    host = ColdHost()

    def interrupted(*_: Any) -> Any:
        raise interrupts.Interrupt

    monkeypatch.setattr(host, step, interrupted)
    outcome = provision.create(host, replace(INSTANT, warm="auto"))
    assert outcome.error is None and outcome.clone is not None
    assert "interrupted" in outcome.clone.warnings[0]
    assert host.there
