"""A create goes through its stages in order, alone or after another that began it."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    AlreadyExists,
    CreateInProgress,
    DeployFailed,
    ForeignDomain,
    HostError,
    HostUnreachable,
    KeyConflict,
    KvmCloneError,
    NotFound,
    OtherVersion,
    PlanRefused,
)
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.model.base_minion import Foresight
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.leftovers import Unfinished
from saltext.kvmclone.model.record import ALIVE, DEAD, ELSEWHERE, Minion, Owner, Work
from saltext.kvmclone.model.request import Deploy, Request, Secrets
from saltext.kvmclone.system import processes
from tests.support.faulty_hosts import REQUEST, FaultyHost, FaultyMaster, busy


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
