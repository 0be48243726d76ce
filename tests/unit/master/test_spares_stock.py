"""What is decided about spares: as many as are wanted, no claimed one, none for nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from saltext.kvmclone.master.spares_stock import Doing, Steps, Wish, steps
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.spares import Claim

NOW = 1_000_000.0
SPARE = Clone(
    "ci-1", "u-1", "kvm01", "base", "ci", "quick", "running", "ready", spare="d", created=NOW
)


def spare(name: str = "ci-1", **keys: Any) -> Clone:
    return replace(SPARE, name=name, **keys)


def claimed(name: str = "ci-1", ends: float = NOW + 60, **keys: Any) -> Clone:
    return spare(name, claim=Claim("alice", NOW - 60), expires=ends, **keys)


def decide(number: int, *clones: Clone, digest: str = "d", **doing: Any) -> Steps:
    return steps({"ci": Wish(number, digest)}, clones, NOW, Doing(**doing))


def removed(found: Steps) -> dict[str, str]:
    return {one.clone.name: one.reason for one in found.remove}


def test_what_is_missing_is_made() -> None:
    assert decide(3, spare()).make == {"ci": 2}
    assert decide(1, spare()) == Steps()


@pytest.mark.parametrize("stage", ["planned", "cloned", "booted", "addressed", "enrolled"])
def test_what_somebody_makes_counts(stage: str) -> None:
    assert decide(2, spare(), spare("ci-2", stage=stage)) == Steps()


def test_what_this_process_makes_counts_before_and_after_its_host_tells_of_it() -> None:
    making = {"ci-2": "ci", "x-1": "other"}
    assert decide(2, spare(), making=making) == Steps()
    assert decide(2, spare(), spare("ci-2", stage="booted"), making=making) == Steps()


def test_an_ordinary_clone_of_the_profile_is_no_spare() -> None:
    assert decide(1, spare(spare="")).make == {"ci": 1}
    assert decide(0, spare(spare="")) == Steps()


def test_a_claimed_one_is_no_longer_in_stock_and_stays_as_long_as_its_claim() -> None:
    assert decide(1, claimed()) == Steps({"ci": 1})
    assert decide(0, claimed(state="shutoff", drift=True, spare="old")) == Steps()


def test_a_claim_that_is_over_ends_the_machine() -> None:
    found = decide(0, claimed(ends=NOW), claimed("ci-2", NOW, failed="x", stage="booted"))
    assert removed(found) == {"ci-1": "its time is over", "ci-2": "its time is over"}


def test_a_claimed_one_that_is_being_made_or_destroyed_is_left_to_whoever_does_that() -> None:
    assert decide(0, claimed(ends=NOW, stage="booted")) == Steps()
    assert decide(0, claimed(ends=NOW, stage="destroying")) == Steps()
    assert removed(decide(0, claimed(ends=NOW, stage="booted"), dead={"ci-1"}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"spare": "old"}, "its profile asks for something else now"),
        ({"drift": True}, "its base 'base' changed since it was made"),
        ({"state": "shutoff"}, "it is shutoff"),
    ],
)
def test_what_would_not_be_handed_out_is_replaced(changes: dict[str, Any], reason: str) -> None:
    found = decide(2, spare(), spare("ci-2", **changes))
    assert (found.make, removed(found)) == ({"ci": 1}, {"ci-2": reason})


def test_one_that_does_not_answer_is_replaced() -> None:
    found = decide(1, spare(), silent={"ci-1"})
    assert (found.make, list(removed(found))) == ({"ci": 1}, ["ci-1"])
    assert decide(1, spare(stage="booted"), silent={"ci-1"}) == Steps()


@pytest.mark.parametrize("stage", ["cloned", "enrolled", "destroying"])
def test_what_a_dead_worker_left_is_removed_and_made_anew(stage: str) -> None:
    found = decide(1, spare(stage=stage), dead={"ci-1"})
    assert (found.make, list(removed(found))) == ({"ci": 1}, ["ci-1"])


def test_one_that_somebody_destroys_is_neither_counted_nor_destroyed_again() -> None:
    assert decide(1, spare(stage="destroying")) == Steps({"ci": 1})


def test_one_that_failed_and_was_kept_takes_a_place() -> None:
    assert decide(1, spare(stage="booted", failed="no address")) == Steps()


def test_the_oldest_go_where_fewer_are_wanted() -> None:
    there = [spare(f"ci-{age}", created=NOW - age) for age in range(4)]
    assert set(removed(decide(1, *there))) == {"ci-1", "ci-2", "ci-3"}
    making = spare("ci-9", stage="booted")
    assert set(removed(decide(2, *there[:2], making))) == {"ci-1"}


def test_no_spares_any_more_drains_all_but_the_claimed() -> None:
    there = (spare(), spare("ci-2"), claimed("ci-3"))
    assert set(removed(decide(0, *there))) == {"ci-1", "ci-2"}
    gone = steps({}, there, NOW)
    assert removed(gone) == dict.fromkeys(("ci-1", "ci-2"), "its profile wants no spares any more")


def test_a_host_in_maintenance_keeps_only_what_is_claimed_or_being_made() -> None:
    there = (spare(), claimed("ci-2"), spare("ci-3", stage="booted"))
    found = decide(2, *there, draining={"ci-1", "ci-2", "ci-3"})
    assert removed(found) == {"ci-1": "its host is in maintenance"}
    assert found.make == {"ci": 1}


def test_the_spares_of_a_profile_that_cannot_be_read_stay() -> None:
    assert steps({}, [spare()], NOW, Doing(unread={"ci"})) == Steps()


def test_nothing_is_done_twice() -> None:
    assert decide(1, spare(drift=True), leaving={"ci-1"}) == Steps({"ci": 1})


CLONES = strategies.builds(
    spare,
    name=strategies.uuids().map(lambda made: f"ci-{made.hex[:6]}"),
    stage=strategies.sampled_from(("planned", "booted", "ready", "destroying")),
    state=strategies.sampled_from(("running", "shutoff")),
    spare=strategies.sampled_from(("", "d", "old")),
    drift=strategies.booleans(),
    failed=strategies.sampled_from(("", "no address")),
    claim=strategies.sampled_from((Claim(), Claim("alice", NOW - 60))),
    expires=strategies.sampled_from((0.0, NOW - 1, NOW + 60)),
)


@hypothesis.given(
    number=strategies.integers(0, 6), there=strategies.lists(CLONES, unique_by=lambda c: c.name)
)
def test_never_more_than_are_wanted_and_never_a_claimed_one(
    number: int, there: list[Clone]
) -> None:
    found = decide(number, *there)
    gone = set(removed(found))
    for one in there:
        if one.claim.at:
            assert one.name not in gone or one.expires == NOW - 1
        assert one.spare or one.name not in gone
    left = [c for c in there if c.in_stock and c.name not in gone and c.stage != "destroying"]
    made = found.make.get("ci", 0)
    assert made == 0 or len(left) + made == number
    ready = [one for one in left if one.stage == "ready" and not one.failed]
    assert len(left) <= number or not ready
