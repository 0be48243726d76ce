"""A create ends whole, or with nothing left: the way back from every stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from saltext.kvmclone import pipeline
from saltext.kvmclone.clone import Clone
from saltext.kvmclone.errors import (
    AddressTimeout,
    DeployFailed,
    ForeignDomain,
    HostUnreachable,
    KeyConflict,
    KvmCloneError,
    MinionTimeout,
    NotFound,
    PlanRefused,
)
from saltext.kvmclone.ownership import Minion
from saltext.kvmclone.request import Deploy, Request, Secrets

REQUEST = Request(name="web1", base_domain="base")


@dataclass
class FaultyHost:
    """A host on which one step goes wrong; it notes what it is asked."""

    fails: str = ""
    fault: BaseException = field(default_factory=lambda: HostUnreachable("no answer"))
    there: bool = False
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def _step(self, step: str, stage: str) -> Clone:
        self.asked.append(step)
        if step == self.fails:
            raise self.fault
        return Clone("web1", "uuid-1", "kvm01", "base", "", "quick", "running", stage)

    def plan(self, request: Request) -> dict[str, Any]:
        return {}

    def clone(self, request: Request, token: str = "") -> Clone:
        self.tokens.append(token)
        made = self._step("clone", "cloned")
        self.there = True
        return made

    def boot(self, name: str) -> Clone:
        return self._step("boot", "booted")

    def wait_for_address(self, request: Request) -> Clone:
        return self._step("wait_for_address", "addressed")

    def bootstrap(self, request: Request, enrolment: Any) -> Clone:
        return self._step("bootstrap", "enrolled")

    def complete(self, name: str, minion: Minion, timings: dict[str, float]) -> Clone:
        return self._step("complete", "ready")

    def destroy(self, name: str, force: bool = False, token: str = "") -> Clone:
        self.tokens.append(token)
        destroyed = self._step("destroy", "destroying")
        if not self.there:
            raise NotFound("no such domain")
        self.there = False
        return destroyed

    def power(self, name: str, action: str) -> Clone:
        return self._step(action, "booted")

    def show(self, name: str) -> Clone:
        if not self.there:
            raise NotFound("no such domain")
        return self._step("show", "ready")

    def list_clones(self) -> list[Clone]:
        return []


@dataclass
class FaultyMaster:
    """A master on which one step goes wrong, with the keys that it has accepted."""

    fails: str = ""
    fault: KvmCloneError = field(default_factory=lambda: MinionTimeout("no answer"))
    accepted: dict[str, str] = field(default_factory=dict)

    @dataclass(frozen=True)
    class Pair:
        private: str = "private"
        public: str = "public"

    def _step(self, step: str) -> None:
        if step == self.fails:
            raise self.fault

    def require_free(self, minion_id: str) -> None:
        self._step("require_free")

    def generate(self, bits: int) -> Pair:
        return self.Pair()

    def fingerprint(self, public: str) -> str:
        return f"finger of {public}"

    def accept(self, minion_id: str, public: str) -> None:
        self.accepted[minion_id] = self.fingerprint(public)
        self._step("accept")

    def remove(self, minion_id: str, fingerprint: str) -> bool:
        assert self.accepted.get(minion_id) == fingerprint
        del self.accepted[minion_id]
        return True

    def enrolment(self, request: Request, secrets: Secrets, pair: Any) -> Any:
        self._step("enrolment")
        return object()

    def verify(self, minion_id: str, uuid: str) -> Minion:
        self._step("verify")
        return Minion(minion_id, "3008.0", "", "uuid")

    def start_action(self, minion_id: str, function: str) -> str:
        return f"{function} failed" if self.fails == "start_action" else ""


def test_every_stage_is_told_in_order() -> None:
    told: list[str] = []
    outcome = pipeline.create(
        FaultyHost(), REQUEST, master=FaultyMaster(), watcher=lambda stage, *_: told.append(stage)
    )
    assert outcome.error is None
    assert told == ["cloned", "booted", "addressed", "enrolled", "ready"]
    assert outcome.stage == "ready"


def test_a_host_alone_ends_at_the_address() -> None:
    assert pipeline.create(FaultyHost(), REQUEST).stage == "addressed"


def test_a_clone_that_shall_stay_off_is_not_booted() -> None:
    host = FaultyHost()
    assert pipeline.create(host, REQUEST, start=False).stage == "cloned"
    assert host.asked == ["clone"]


@pytest.mark.parametrize("deploy", [Deploy(enabled=False), Deploy(bootstrap="none")])
def test_a_profile_that_deploys_nothing_accepts_no_key(deploy: Deploy) -> None:
    master = FaultyMaster()
    request = Request(name="web1", base_domain="base", deploy=deploy)
    assert pipeline.create(FaultyHost(), request, master=master).stage == "addressed"
    assert master.accepted == {}


@pytest.mark.parametrize(
    ("step", "reached"),
    [
        ("boot", "cloned"),
        ("wait_for_address", "booted"),
        ("bootstrap", "addressed"),
        ("complete", "enrolled"),
    ],
)
def test_a_step_that_fails_on_the_host_leaves_neither_clone_nor_key(
    step: str, reached: str
) -> None:
    host, master = FaultyHost(step, DeployFailed("no")), FaultyMaster()
    outcome = pipeline.create(host, REQUEST, master=master)
    assert isinstance(outcome.error, DeployFailed)
    assert outcome.stage == reached
    assert outcome.as_dict()["error"]["type"] == "DeployFailed"
    assert not host.there
    assert master.accepted == {}
    assert host.tokens[0] == host.tokens[1] != ""


@pytest.mark.parametrize("step", ["enrolment", "accept", "verify"])
def test_a_step_that_fails_on_the_master_leaves_neither_clone_nor_key(step: str) -> None:
    host, master = FaultyHost(), FaultyMaster(step)
    assert pipeline.create(host, REQUEST, master=master).error is master.fault
    assert not host.there
    assert master.accepted == {}


def test_an_interrupt_takes_everything_back_and_goes_on() -> None:
    host, master = FaultyHost("bootstrap", KeyboardInterrupt()), FaultyMaster()
    with pytest.raises(KeyboardInterrupt):
        pipeline.create(host, REQUEST, master=master)
    assert not host.there
    assert master.accepted == {}


def test_a_clone_whose_answer_was_lost_is_taken_back_by_its_token() -> None:
    host = FaultyHost("clone")
    host.there = True
    assert isinstance(pipeline.create(host, REQUEST).error, HostUnreachable)
    assert host.asked == ["clone", "destroy"]
    assert not host.there


def test_a_lost_answer_without_a_clone_is_no_second_error() -> None:
    outcome = pipeline.create(FaultyHost("clone"), REQUEST)
    assert isinstance(outcome.error, HostUnreachable)
    assert "could not be taken back" not in outcome.error.hint


def test_a_refused_plan_destroys_nothing() -> None:
    host = FaultyHost("clone", PlanRefused("no"))
    pipeline.create(host, REQUEST)
    assert host.asked == ["clone"]


def test_a_rollback_that_fails_is_told_with_the_error() -> None:
    class Stuck(FaultyHost):
        def destroy(self, name: str, force: bool = False, token: str = "") -> Clone:
            raise HostUnreachable("the host went away")

    outcome = pipeline.create(Stuck("boot", AddressTimeout("no", "look")), REQUEST)
    assert isinstance(outcome.error, AddressTimeout)
    assert outcome.error.hint.startswith("look")
    assert "the host went away" in outcome.error.hint


@pytest.mark.parametrize(
    ("on_failure", "asked"), [("destroy", "destroy"), ("stop", "off"), ("keep", "boot")]
)
def test_on_failure_decides_what_becomes_of_the_clone(on_failure: str, asked: str) -> None:
    host, master = FaultyHost("boot", AddressTimeout("no")), FaultyMaster()
    request = Request(name="web1", base_domain="base", on_failure=on_failure)
    pipeline.create(host, request, master=master)
    assert host.asked[-1] == asked
    assert host.there is (on_failure != "destroy")


def test_a_clone_that_is_there_already_is_told_and_shown() -> None:
    host = FaultyHost()
    host.there = True
    outcome = pipeline.create(
        host, REQUEST, master=FaultyMaster("require_free", KeyConflict("taken"))
    )
    assert outcome.error is not None
    assert outcome.error.as_dict()["clone"]["uuid"] == "uuid-1"
    assert host.there


@pytest.mark.parametrize("fault", [NotFound("no"), ForeignDomain("not ours")])
def test_a_key_of_somebody_else_stops_everything_before_it_starts(fault: KvmCloneError) -> None:
    host = FaultyHost("show", fault)
    outcome = pipeline.create(
        host, REQUEST, master=FaultyMaster("require_free", KeyConflict("taken"))
    )
    assert isinstance(outcome.error, KeyConflict)
    assert "clone" not in host.asked


def test_a_failing_start_action_is_a_warning_on_a_ready_clone() -> None:
    request = Request(name="web1", base_domain="base", deploy=Deploy(start_action="state.apply"))
    outcome = pipeline.create(FaultyHost(), request, master=FaultyMaster("start_action"))
    assert outcome.error is None
    assert outcome.clone is not None
    assert outcome.clone.warnings == ("state.apply failed",)
