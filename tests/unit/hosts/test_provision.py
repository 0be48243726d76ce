"""A create ends whole, or with nothing left: the way back from every stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    AddressTimeout,
    AlreadyExists,
    CreateInProgress,
    DeployFailed,
    ForeignDomain,
    HostError,
    HostUnreachable,
    KeyConflict,
    KvmCloneError,
    MinionTimeout,
    NotFound,
    OtherVersion,
    PlanRefused,
)
from saltext.kvmclone.hosts import provision, rollback
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.leftovers import Unfinished
from saltext.kvmclone.model.record import ALIVE, DEAD, ELSEWHERE, Minion, Owner, Work
from saltext.kvmclone.model.request import Deploy, Request, Secrets
from saltext.kvmclone.system import processes

REQUEST = Request(name="web1", base_domain="base")


@dataclass
class FaultyHost:
    """A host on which one step goes wrong; it notes what it is asked."""

    fails: str = ""
    fault: BaseException = field(default_factory=lambda: HostUnreachable("no answer"))
    there: bool = False
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    busy: list[KvmCloneError] = field(default_factory=list)
    left_at: str = "cloned"
    announced: Minion = Minion()
    url: str = "test:///default"

    def _step(self, step: str, stage: str) -> Clone:
        self.asked.append(step)
        if step == self.fails:
            raise self.fault
        return self._clone(stage)

    @staticmethod
    def _clone(stage: str) -> Clone:
        state = "shutoff" if stage == "cloned" else "running"
        return Clone("web1", "uuid-1", "kvm01", "base", "", "quick", state, stage)

    def plan(self, request: Request) -> dict[str, Any]:
        return {}

    def clone(
        self,
        request: Request,
        worker: Owner | None = None,
        goal: str = "cloned",
        digest: str = "",
        seed: Mapping[str, str] = MappingProxyType({}),
    ) -> Clone:
        assert worker is not None
        self.tokens.append(worker.token)
        if self.busy:
            raise self.busy.pop(0)
        made = self._step("clone", "cloned")
        self.there = True
        return made

    def take_over(self, name: str, token: str, worker: Owner) -> Clone:
        self.there = True
        self._step("take_over", self.left_at)
        left = Minion("web1", fingerprint="finger of the dead")
        return replace(self._clone(self.left_at), minion=left)

    def boot(self, name: str) -> Clone:
        return self._step("boot", "booted")

    def wait_for_address(self, request: Request, minion: Minion = Minion()) -> Clone:
        self.announced = minion
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

    def keep(self, name: str, token: str, why: str, off: bool) -> Clone:
        self.tokens.append(token)
        return self._step("keep and switch off" if off else "keep", "booted")

    def show(self, name: str) -> Clone:
        if not self.there:
            raise NotFound("no such domain")
        return self._step("show", "ready")


@dataclass
class FaultyMaster:
    """A master on which one step goes wrong, with the keys that it has accepted."""

    fails: str = ""
    fault: KvmCloneError = field(default_factory=lambda: MinionTimeout("no answer"))
    accepted: dict[str, str] = field(default_factory=dict)
    settled: list[str] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    is_its_master: bool = True

    @dataclass(frozen=True)
    class Pair:
        private: str = "private"
        public: str = "public"

    def _step(self, step: str) -> None:
        if step == self.fails:
            raise self.fault

    def require_free(self, minion_id: str) -> None:
        self._step("require_free")

    def prepare(self, request: Request, secrets: Secrets) -> None:
        self._step("prepare")

    def generate(self, bits: int) -> Pair:
        return self.Pair()

    def fingerprint(self, public: str) -> str:
        return f"finger of {public}"

    def accept(self, minion_id: str, public: str, name: str, host: str) -> None:
        self.accepted[minion_id] = self.fingerprint(public)
        self._step("accept")

    def remove(self, minion_id: str, fingerprint: str) -> bool:
        if self.accepted.get(minion_id) != fingerprint:
            return False
        del self.accepted[minion_id]
        return True

    def settle(self, minion_id: str) -> None:
        self.settled.append(minion_id)

    def becomes_ready(self, minion_id: str, uuid: str) -> None:
        self.ready.append(uuid)

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
    outcome = provision.create(
        FaultyHost(), REQUEST, master=FaultyMaster(), watcher=lambda stage, *_: told.append(stage)
    )
    assert outcome.error is None
    assert told == ["cloned", "booted", "addressed", "enrolled", "ready"]
    assert outcome.stage == "ready"


def test_a_host_alone_ends_at_the_address() -> None:
    assert provision.create(FaultyHost(), REQUEST).stage == "addressed"


def test_a_clone_that_shall_stay_off_is_not_booted() -> None:
    host = FaultyHost()
    assert provision.create(host, REQUEST, start=False).stage == "cloned"
    assert host.asked == ["clone"]


def test_a_minion_of_another_master_ends_enrolled_and_its_key_is_not_accepted_here() -> None:
    master = FaultyMaster("verify", is_its_master=False)
    outcome = provision.create(FaultyHost(), REQUEST, master=master)
    assert (outcome.stage, outcome.error) == ("enrolled", None)
    assert master.accepted == {}


@pytest.mark.parametrize("deploy", [Deploy(enabled=False), Deploy(bootstrap="none")])
def test_a_profile_that_deploys_nothing_accepts_no_key(deploy: Deploy) -> None:
    master = FaultyMaster()
    request = Request(name="web1", base_domain="base", deploy=deploy)
    assert provision.create(FaultyHost(), request, master=master).stage == "addressed"
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
    outcome = provision.create(host, REQUEST, master=master)
    assert isinstance(outcome.error, DeployFailed)
    assert outcome.stage == reached
    assert outcome.as_dict()["error"]["type"] == "DeployFailed"
    assert not host.there
    assert master.accepted == {}
    assert host.tokens[0] == host.tokens[1] != ""


@pytest.mark.parametrize("step", ["enrolment", "accept", "verify"])
def test_a_step_that_fails_on_the_master_leaves_neither_clone_nor_key(step: str) -> None:
    host, master = FaultyHost(), FaultyMaster(step)
    assert provision.create(host, REQUEST, master=master).error is master.fault
    assert not host.there
    assert master.accepted == {}


def test_the_key_goes_after_the_machine_that_would_knock_again() -> None:
    order: list[str] = []

    class Watched(FaultyHost):
        def destroy(self, name: str, force: bool = False, token: str = "") -> Clone:
            order.append("machine")
            return super().destroy(name, force, token)

    class Watching(FaultyMaster):
        def remove(self, minion_id: str, fingerprint: str) -> bool:
            order.append("key")
            return super().remove(minion_id, fingerprint)

        def settle(self, minion_id: str) -> None:
            order.append("what knocked")

    provision.create(Watched(), REQUEST, master=Watching("verify"))
    assert order == ["machine", "key", "what knocked"]


@pytest.mark.parametrize("step", ["boot", "wait_for_address", "bootstrap", "complete"])
def test_a_host_that_is_upgraded_half_way_keeps_the_clone_for_whoever_goes_on(step: str) -> None:
    """It would not undo the create either; the record says how far it is."""
    host, master = FaultyHost(step, OtherVersion("newer", "Sync.")), FaultyMaster()
    outcome = provision.create(host, REQUEST, master=master)
    assert isinstance(outcome.error, OtherVersion)
    assert outcome.error.hint == "Sync. Then go on: salt-run kvmclone.resume web1"
    assert host.there
    assert not {"destroy", "keep"} & set(host.asked)
    assert bool(master.accepted) is (step in ("bootstrap", "complete"))
    given_up = Owner(**{**asdict(processes.this_process()), "token": host.tokens[0]})
    assert processes.owner_state(given_up) == DEAD


def test_a_host_of_another_version_is_asked_for_nothing_more() -> None:
    host = FaultyHost("clone", OtherVersion("older", "Sync."))
    outcome = provision.create(host, REQUEST, master=FaultyMaster())
    assert isinstance(outcome.error, OtherVersion)
    assert outcome.error.hint == "Sync."
    assert host.asked == ["clone"]


@pytest.mark.parametrize("on_failure", ["keep", "stop"])
def test_a_clone_that_is_kept_keeps_its_key(on_failure: str) -> None:
    host, master = FaultyHost(), FaultyMaster("verify")
    provision.create(host, replace(REQUEST, on_failure=on_failure), master=master)
    assert master.accepted == {"web1": "finger of public"}
    assert master.settled == ["web1"], "what others knocked goes all the same"
    assert host.there


@pytest.mark.parametrize(
    ("left_at", "asked"),
    [
        ("cloned", ["boot", "wait_for_address", "bootstrap", "complete"]),
        ("addressed", ["bootstrap", "complete"]),
        ("enrolled", ["complete"]),
    ],
)
def test_a_kept_create_is_resumed_where_it_stopped(left_at: str, asked: list[str]) -> None:
    host = FaultyHost(left_at=left_at)
    work = Work(Owner(token="theirs"), DEAD, left_at, "ready", "")
    item = Unfinished("web1", work, Minion(), (), failed="MinionTimeout: no answer")
    master = FaultyMaster(accepted={"web1": "finger of the dead"})
    host.unfinished = lambda name: [item]  # type: ignore[attr-defined]
    outcome = provision.resume(host, "web1", lambda _: (REQUEST, Secrets()), master=master)
    assert outcome.error is None
    assert outcome.stage == "ready"
    assert host.asked == ["take_over", *asked]
    assert len(master.accepted) == 1


@pytest.mark.parametrize("fault", [HostUnreachable("no answer"), interrupts.Interrupt()])
def test_a_kept_clone_stays_where_its_take_over_got_no_answer(fault: BaseException) -> None:
    host, master = FaultyHost("take_over", fault), FaultyMaster()
    work = Work(Owner(token="theirs"), DEAD, "booted", "ready", "")
    item = Unfinished("web1", work, Minion(), (), failed="AddressTimeout: none")
    host.unfinished = lambda name: [item]  # type: ignore[attr-defined]
    outcome = provision.resume(host, "web1", lambda _: (REQUEST, Secrets()), master=master)
    assert outcome.error is not None
    assert host.asked == ["take_over"], "it is neither destroyed nor switched off"
    if outcome.error.type == "Interrupted":
        assert "it is kept as it is" in outcome.error.message
        assert "kvm_clone.resume web1" in outcome.error.hint, "made without a profile"


def test_what_cannot_work_is_found_before_anything_is_made() -> None:
    host, master = FaultyHost(), FaultyMaster("prepare")
    assert provision.create(host, REQUEST, master=master).error is master.fault
    assert host.asked == []


def test_an_interrupt_takes_everything_back_and_goes_on() -> None:
    host, master = FaultyHost("bootstrap", KeyboardInterrupt()), FaultyMaster()
    with pytest.raises(KeyboardInterrupt):
        provision.create(host, REQUEST, master=master)
    assert not host.there
    assert master.accepted == {}


def test_a_clone_whose_answer_was_lost_is_taken_back_by_its_token() -> None:
    host = FaultyHost("clone")
    host.there = True
    assert isinstance(provision.create(host, REQUEST).error, HostUnreachable)
    assert host.asked == ["clone", "destroy"]
    assert not host.there


def test_a_lost_answer_without_a_clone_is_no_second_error() -> None:
    outcome = provision.create(FaultyHost("clone"), REQUEST)
    assert isinstance(outcome.error, HostUnreachable)
    assert "could not be taken back" not in outcome.error.hint


def test_a_fault_after_the_clone_was_made_takes_it_back_by_its_token() -> None:
    host = FaultyHost("clone", HostError("its answer could not be put together"))
    host.there = True
    assert isinstance(provision.create(host, REQUEST).error, HostError)
    assert host.asked == ["clone", "destroy"]
    assert host.tokens[0] == host.tokens[1]


def test_a_refused_plan_destroys_nothing() -> None:
    host = FaultyHost("clone", PlanRefused("no"))
    provision.create(host, REQUEST)
    assert host.asked == ["clone"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "ROLLBACK_RETRY_POLL_S", 0.01)
    monkeypatch.setattr(rollback, "ROLLBACK_RETRY_TIMEOUT_S", 0.2)


def busy(life: str, stage: str, request: Request = REQUEST, goal: str = "ready") -> KvmCloneError:
    """What a host says of another worker's clone."""
    work = Work(Owner(host="kvm99", token="theirs"), life, stage, goal, request.digest())
    return CreateInProgress("somebody is at work", work=asdict(work))


def test_the_same_request_waits_and_gets_the_same_clone(impatient: None) -> None:
    done = FaultyHost._clone("ready").as_dict()
    host = FaultyHost(
        busy=[busy(ALIVE, "planned"), busy(ALIVE, "booted"), AlreadyExists("there", clone=done)]
    )
    outcome = provision.create(host, REQUEST, master=FaultyMaster())
    assert outcome.error is None
    assert outcome.stage == "ready"
    assert outcome.clone is not None
    assert outcome.clone.uuid == "uuid-1"
    assert host.asked == []


def test_when_the_one_that_was_waited_for_fails_this_one_makes_it(impatient: None) -> None:
    host = FaultyHost(busy=[busy(ALIVE, "booted")])
    assert provision.create(host, REQUEST, master=FaultyMaster()).stage == "ready"
    assert host.asked[0] == "clone"


@pytest.mark.parametrize("request_of_the_dead", [REQUEST, replace(REQUEST, cpus=2)])
def test_whoever_clears_up_after_a_dead_create_is_waited_for(
    impatient: None, request_of_the_dead: Request
) -> None:
    host = FaultyHost(busy=[busy(ALIVE, "destroying", request_of_the_dead)] * 2)
    assert provision.create(host, REQUEST, master=FaultyMaster()).stage == "ready"
    assert host.asked[0] == "clone"


@pytest.mark.parametrize(
    "at_work",
    [
        busy(ALIVE, "booted", replace(REQUEST, cpus=2)),
        busy(ALIVE, "booted", goal="addressed"),
        busy(ALIVE, "destroying", goal="destroying"),
        busy(ELSEWHERE, "booted"),
        busy(DEAD, "booted", replace(REQUEST, cpus=2)),
    ],
    ids=["another request", "another goal", "a destroy", "unknown", "dead, another request"],
)
def test_whoever_cannot_wait_or_take_over_is_told_and_touches_nothing(
    at_work: KvmCloneError,
) -> None:
    host = FaultyHost(busy=[at_work])
    outcome = provision.create(host, REQUEST, master=FaultyMaster())
    assert outcome.error is at_work
    assert host.asked == []


@pytest.mark.parametrize(
    ("left_at", "asked"),
    [
        ("cloned", ["boot", "wait_for_address", "bootstrap", "complete"]),
        ("booted", ["wait_for_address", "bootstrap", "complete"]),
        ("addressed", ["bootstrap", "complete"]),
        ("enrolled", ["complete"]),
    ],
)
def test_a_dead_create_goes_on_where_it_stopped(left_at: str, asked: list[str]) -> None:
    host = FaultyHost(busy=[busy(DEAD, left_at)], left_at=left_at)
    master = FaultyMaster(accepted={"web1": "finger of the dead"})
    outcome = provision.create(host, REQUEST, master=master)
    assert outcome.error is None
    assert outcome.stage == "ready"
    assert host.asked == ["take_over", *asked]
    # The key of the dead is used where the guest has it, and gone where it has not.
    fingerprint = "finger of the dead" if left_at == "enrolled" else "finger of public"
    assert master.accepted == {"web1": fingerprint}


@pytest.mark.parametrize("life", [ALIVE, DEAD])
def test_a_clone_with_another_seed_is_another_request(life: str) -> None:
    """Its guest has done what the other seed says, and does nothing of this one's."""
    request = replace(REQUEST, seed="own")
    mended, theirs = (Secrets(seed=(("user-data", word),)) for word in ("mended", "wrong"))
    work = Work(Owner(token="theirs"), life, "booted", "ready", theirs.digest_of(request))
    host = FaultyHost(busy=[CreateInProgress("somebody is at work", work=asdict(work))])
    outcome = provision.create(host, request, mended, master=FaultyMaster())
    assert outcome.error is not None
    assert (outcome.error.type, host.asked) == ("CreateInProgress", [])

    host = FaultyHost(busy=[CreateInProgress("somebody is at work", work=asdict(work))])
    if life == DEAD:
        again = replace(theirs, password="of today")
        assert provision.create(host, request, again, master=FaultyMaster()).error is None
        assert host.asked[0] == "take_over"


@pytest.mark.parametrize("left_at", ["planned", "destroying"])
def test_what_died_before_there_was_a_clone_is_removed_and_made_anew(left_at: str) -> None:
    host = FaultyHost(busy=[busy(DEAD, left_at)], there=True)
    outcome = provision.create(host, REQUEST, master=FaultyMaster())
    assert outcome.error is None
    assert host.asked[:2] == ["destroy", "clone"]
    assert host.tokens[1] == "theirs"


def test_the_key_is_on_the_record_before_it_is_accepted() -> None:
    host = FaultyHost()
    provision.create(host, REQUEST, master=FaultyMaster())
    assert host.announced == Minion("web1", fingerprint="finger of public")


def test_a_host_that_is_back_soon_still_takes_the_clone_back(impatient: None) -> None:
    class Restarting(FaultyHost):
        down = 3

        def destroy(self, name: str, force: bool = False, token: str = "") -> Clone:
            self.down -= 1
            if self.down:
                raise HostUnreachable("libvirtd restarts")
            return super().destroy(name, force, token)

    host = Restarting("boot", AddressTimeout("no"))
    outcome = provision.create(host, REQUEST)
    assert isinstance(outcome.error, AddressTimeout)
    assert "could not" not in outcome.error.hint
    assert not host.there


def test_a_rollback_that_fails_is_told_with_the_error(impatient: None) -> None:
    class Stuck(FaultyHost):
        def destroy(self, name: str, force: bool = False, token: str = "") -> Clone:
            raise HostUnreachable("the host went away")

    outcome = provision.create(Stuck("boot", AddressTimeout("no", "look")), REQUEST)
    assert isinstance(outcome.error, AddressTimeout)
    assert outcome.error.hint.startswith("look")
    assert "the host went away" in outcome.error.hint


@pytest.mark.parametrize(
    ("on_failure", "asked"),
    [("destroy", "destroy"), ("stop", "keep and switch off"), ("keep", "keep")],
)
def test_on_failure_decides_what_becomes_of_the_clone(on_failure: str, asked: str) -> None:
    host, master = FaultyHost("boot", AddressTimeout("no")), FaultyMaster()
    request = Request(name="web1", base_domain="base", on_failure=on_failure)
    provision.create(host, request, master=master)
    assert host.asked[-1] == asked
    assert host.there is (on_failure != "destroy")


def test_a_clone_that_is_there_already_is_told_and_shown() -> None:
    there = FaultyHost._clone("ready")
    host = FaultyHost(busy=[AlreadyExists("it is there", clone=there.as_dict())])
    host.there = True
    outcome = provision.create(
        host, REQUEST, master=FaultyMaster("require_free", KeyConflict("taken"))
    )
    assert outcome.error is not None
    assert outcome.error.as_dict()["clone"]["uuid"] == "uuid-1"
    assert host.there


@pytest.mark.parametrize("fault", [NotFound("no"), ForeignDomain("not ours")])
def test_a_key_of_somebody_else_stops_everything_before_it_starts(fault: KvmCloneError) -> None:
    host = FaultyHost("show", fault)
    outcome = provision.create(
        host, REQUEST, master=FaultyMaster("require_free", KeyConflict("taken"))
    )
    assert isinstance(outcome.error, KeyConflict)
    assert "clone" not in host.asked


def test_a_failing_start_action_is_a_warning_on_a_ready_clone() -> None:
    request = Request(name="web1", base_domain="base", deploy=Deploy(start_action="state.apply"))
    outcome = provision.create(FaultyHost(), request, master=FaultyMaster("start_action"))
    assert outcome.error is None
    assert outcome.clone is not None
    assert outcome.clone.warnings == ("state.apply failed",)


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), SystemExit(1), HostError("no")])
def test_a_ready_clone_is_not_taken_back_for_what_comes_after(fault: BaseException) -> None:
    class Interrupted(FaultyMaster):
        def start_action(self, minion_id: str, function: str) -> str:
            raise fault

    host, master = FaultyHost(), Interrupted()
    request = Request(name="web1", base_domain="base", deploy=Deploy(start_action="state.apply"))
    try:
        outcome = provision.create(host, request, master=master)
    except (KeyboardInterrupt, SystemExit):
        pass
    else:
        assert outcome.error is fault
    assert host.there
    assert "web1" in master.accepted
