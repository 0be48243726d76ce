"""A create that failed leaves nothing, or says what it leaves: the way back from every stage."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from saltext.kvmclone.errors import (
    AddressTimeout,
    CreateInProgress,
    DeployFailed,
    HostError,
    HostUnreachable,
    KvmCloneError,
    NotFound,
    PlanRefused,
)
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.model.clone import Address, Clone, CloneDisk
from saltext.kvmclone.model.leftovers import KEPT, Leftover, Unfinished
from saltext.kvmclone.model.record import DEAD, Minion, Owner, Work
from tests.support.faulty_hosts import REQUEST, FaultyHost, FaultyMaster


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
