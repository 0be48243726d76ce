"""A create ends whole, or with nothing left: the way back from every stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from saltext.kvmclone.model.base_minion import BaseMinion, Foresight
from saltext.kvmclone.model.clone import Address, Clone, CloneDisk
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.leftovers import KEPT, Leftover, Unfinished
from saltext.kvmclone.model.master_ports import PortCheck
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
    stays: list[Leftover] = field(default_factory=list)
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

    def base_minion(self, request: Request) -> BaseMinion:
        self._step("base_minion", "")
        return BaseMinion(installed=True)

    def check_master(self, request: Request, secrets: Secrets, publish_port: int) -> GuestMinion:
        self.asked.append("check_master")
        assert secrets.seed == ()
        check = PortCheck("192.0.2.1", "publish_port", publish_port, "ECONNREFUSED")
        return GuestMinion(ports=(check,))

    def complete(self, name: str, minion: Minion, timings: dict[str, float]) -> Clone:
        return self._step("complete", "ready")

    def destroy(self, name: str, force: bool = False, token: str = "") -> Clone:
        self.tokens.append(token)
        destroyed = self._step("destroy", "destroying")
        if not self.there:
            raise NotFound("no such domain")
        self.there = False
        return destroyed

    def clear(self, name: str, token: str, force: bool = False) -> list[Leftover]:
        self.destroy(name, force, token)
        return self.stays

    def unfinished(self, name: str = "") -> list[Unfinished]:
        return []

    def keep(self, name: str, token: str, why: str, off: bool) -> Clone:
        self.tokens.append(token)
        return self._step("keep and switch off" if off else "keep", "cloned" if off else "booted")

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
    told: GuestMinion = GuestMinion()
    foreseen: Foresight | None = None

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

    def foresee(self, request: Request, look: Callable[[], BaseMinion]) -> Foresight:
        if self.foreseen is None:
            return Foresight()
        assert look() == BaseMinion(installed=True)
        return self.foreseen

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

    def verify(
        self, minion_id: str, uuid: str, ask: Callable[[int], GuestMinion], word: str | None = None
    ) -> Minion:
        if self.fails == "verify":
            self.told = ask(4505)
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


def test_what_is_foreseen_is_told_or_refused_before_the_host_makes_anything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host, master = FaultyHost(), FaultyMaster(foreseen=Foresight(warnings=("No master.",)))
    assert provision.create(host, REQUEST, master=master).stage == "ready"
    assert host.asked[0] == "base_minion"
    assert "web1: No master." in caplog.messages

    host, master = FaultyHost(), FaultyMaster(foreseen=Foresight(("No script.",)))
    outcome = provision.create(host, REQUEST, master=master)
    assert isinstance(outcome.error, PlanRefused)
    assert "No script." in outcome.error.message
    assert "clone" not in host.asked


def test_of_a_clone_that_is_there_its_host_says_how_far_it_is_whatever_is_foreseen() -> None:
    busy: list[KvmCloneError] = [AlreadyExists("it is there")]
    host = FaultyHost(there=True, busy=busy)
    master = FaultyMaster(foreseen=Foresight(("No script.",)))
    assert isinstance(provision.create(host, REQUEST, master=master).error, AlreadyExists)


def test_only_for_a_minion_that_is_silent_the_host_asks_its_guest() -> None:
    host, master = FaultyHost(), FaultyMaster()
    provision.create(host, REQUEST, master=master)
    assert "check_master" not in host.asked
    host, master = FaultyHost(), FaultyMaster("verify")
    secrets = Secrets("of the guest", seed=(("user-data", "of no use"),))
    provision.create(host, REQUEST, secrets, master=master)
    assert [str(check) for check in master.told.ports] == ["port 4505 (publish_port)"]


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
    outcome = provision.create(host, replace(REQUEST, profile="web"), master=master)
    assert isinstance(outcome.error, OtherVersion)
    assert outcome.error.message == "newer. 'web1' stays as it is."
    assert outcome.error.hint.startswith("Sync.   Go on: salt-run kvmclone.resume web1   ")
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
        assert outcome.error.message.endswith("'web1' is kept as it was.")
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


def test_a_fault_of_ours_is_an_error_like_others_and_ends_with_what_became_of_the_clone() -> None:
    host, master = FaultyHost("bootstrap", ZeroDivisionError("of ours")), FaultyMaster()
    outcome = provision.create(host, REQUEST, master=master)
    assert isinstance(outcome.error, HostError)
    assert outcome.error.message == (
        "An unexpected fault in the create of 'web1': ZeroDivisionError('of ours'). "
        "'web1' was removed."
    )
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
    assert outcome.error.message == "no answer. Nothing of 'web1' is left."
    assert outcome.as_dict() == {"name": "web1", "stage": "", "error": outcome.error.as_dict()}


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
    assert outcome.error.message == "no. 'web1' was removed."
    assert not host.there


@dataclass
class Stuck(FaultyHost):
    """A host that does not destroy, and whose libvirtd tells what is left all the same."""

    trouble: KvmCloneError = field(default_factory=lambda: HostError("the disk is stuck", "Look."))

    def destroy(self, name: str, force: bool = False, token: str = "") -> Clone:
        raise self.trouble

    def keep(self, name: str, token: str, why: str, off: bool) -> Clone:
        raise self.trouble

    def unfinished(self, name: str = "") -> list[Unfinished]:
        pieces = (Leftover(name, "domain", "", ""), Leftover(name, "volume", "/web1-vda", ""))
        return [Unfinished(name, Work(Owner(), DEAD, "booted", "ready", ""), Minion(), pieces)]

    def show(self, name: str) -> Clone:
        return self._clone("cloned")


def test_a_rollback_that_fails_says_what_is_left_and_how_to_remove_it() -> None:
    outcome = provision.create(Stuck("wait_for_address", AddressTimeout("no", "Mend.")), REQUEST)
    assert isinstance(outcome.error, AddressTimeout)
    assert outcome.error.message == (
        "no. 'web1' could not be removed: the disk is stuck. Left of it: domain, volume /web1-vda."
    )
    assert outcome.error.hint == (
        "Mend.   Look.   What is left of it: salt-run kvmclone.gc web1   "
        "Remove that: salt-run kvmclone.gc web1 apply=True"
    )
    assert outcome.as_dict()["state"] == "shutoff", "as the host has it now"


def test_of_a_host_that_went_away_it_is_said_that_nobody_knows_what_is_left(
    impatient: None,
) -> None:
    host = Stuck("wait_for_address", AddressTimeout("no"), trouble=HostUnreachable("It is away."))
    outcome = provision.create(host, REQUEST)
    assert outcome.error is not None
    assert outcome.error.message == (
        "no. 'web1' could not be removed: It is away. What is left of it is not known."
    )
    assert outcome.as_dict()["state"] == ""


def test_a_clone_that_shall_be_kept_and_cannot_be_told_so_is_gone_on_with_all_the_same() -> None:
    request = replace(REQUEST, on_failure="keep", profile="web")
    outcome = provision.create(Stuck("boot", AddressTimeout("no")), request, master=FaultyMaster())
    assert outcome.error is not None
    assert outcome.error.message == (
        "no. 'web1' stays, and that its create failed could not be recorded: the disk is stuck."
    )
    assert "Go on: salt-run kvmclone.resume web1   " in outcome.error.hint


@pytest.mark.parametrize("trouble", [NotFound("no"), CreateInProgress("Another has it.", "Wait.")])
def test_what_somebody_else_did_meanwhile_to_a_kept_clone_is_said(trouble: KvmCloneError) -> None:
    host = Stuck("boot", AddressTimeout("no"), trouble=trouble)
    outcome = provision.create(host, replace(REQUEST, on_failure="keep"))
    assert outcome.error is not None
    gone = isinstance(trouble, NotFound)
    end = "'web1' was removed by somebody else." if gone else "Another has it."
    assert outcome.error.message == f"no. {end}"
    assert outcome.as_dict()["state"] == ("" if gone else "shutoff")


def test_a_key_that_stays_although_its_machine_is_gone_is_named() -> None:
    class Locked(FaultyMaster):
        def remove(self, minion_id: str, fingerprint: str) -> bool:
            raise OSError("read-only")

    outcome = provision.create(FaultyHost(), REQUEST, master=Locked("verify"))
    assert outcome.error is not None
    assert outcome.error.message == (
        "no answer. 'web1' was removed. The key of 'web1' could not be removed: read-only"
    )


@pytest.mark.parametrize(
    ("on_failure", "asked", "words", "state"),
    [
        ("destroy", "destroy", "was removed", ""),
        ("stop", "keep and switch off", "was kept, shut off", "shutoff"),
        ("keep", "keep", "was kept and runs", "running"),
    ],
)
def test_on_failure_decides_what_becomes_of_the_clone_and_the_error_ends_with_that(
    on_failure: str, asked: str, words: str, state: str
) -> None:
    host, master = FaultyHost("wait_for_address", AddressTimeout("no")), FaultyMaster()
    request = replace(REQUEST, on_failure=on_failure, profile="web")
    outcome = provision.create(host, request, master=master)
    assert host.asked[-1] == asked
    assert host.there is (on_failure != "destroy")
    assert outcome.error is not None
    assert outcome.error.message == f"no. 'web1' {words}."
    assert outcome.as_dict()["state"] == state
    assert outcome.error.hint == (
        "To look into the machine, repeat this with on_failure=keep."
        if on_failure == "destroy"
        else "Go on: salt-run kvmclone.resume web1   Or remove it: salt-run kvmclone.destroy web1"
    )


def test_the_answer_about_a_clone_that_was_removed_says_nothing_of_it_that_is_over() -> None:
    class Living(FaultyHost):
        def _clone(self, stage: str) -> Clone:  # type: ignore[override]
            seen = Address("eth0", "52:54:00:00:00:01", "192.0.2.7", 24, "ipv4", "agent")
            return replace(
                FaultyHost._clone(stage),
                address="192.0.2.7",
                addresses=(seen,),
                disks=(CloneDisk("vda", "/web1-vda", "qcow2", "overlay"),),
                minion=Minion("web1", fingerprint="aa"),
                warnings=("Went over ssh.",),
                timings={"cloned": 0.5},
            )

    host = Living("bootstrap", DeployFailed("no"))
    answer = provision.create(host, REQUEST, master=FaultyMaster()).as_dict()
    whole = Living()._clone("ready").as_dict()
    assert set(answer) == {*whole, "error"}
    different = {key for key in whole if answer[key] != whole[key]}
    assert different == {"state", "stage", "address", "addresses", "disks", "minion"}
    assert (answer["stage"], answer["state"], answer["address"]) == ("addressed", "", "")
    assert (answer["addresses"], answer["disks"]) == ([], [])
    assert not any(answer["minion"].values())


def test_files_that_stay_although_the_clone_was_removed_are_named() -> None:
    host = FaultyHost("boot", AddressTimeout("no"))
    host.stays = [Leftover("web1", KEPT, "/web1-vda", "it stays: somebody replaced it")]
    outcome = provision.create(host, REQUEST)
    assert outcome.error is not None
    assert outcome.error.message == (
        "no. 'web1' was removed. '/web1-vda': it stays: somebody replaced it."
    )


def test_the_output_of_a_script_is_not_continued_with_what_became_of_the_clone() -> None:
    host = FaultyHost("bootstrap", DeployFailed("it failed:\nno such package"))
    outcome = provision.create(host, REQUEST, master=FaultyMaster())
    assert outcome.error is not None
    assert outcome.error.message == "it failed:\nno such package\n'web1' was removed."


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
