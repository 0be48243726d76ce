"""A host that lacks the base gets it before its clone, where the profile says so."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    BaseMissing,
    KvmCloneError,
    NoHostFits,
)
from saltext.kvmclone.master import at_once, reservations
from saltext.kvmclone.model.placement import HostOffer, PoolRoom
from tests.support.placing_hosts import GIB, Host, World

pytestmark = pytest.mark.usefixtures("creating")


def lacking(minion_id: str, memory: int = 64, **offer: Any) -> Host:
    return Host(minion_id, memory, has_base=False, **offer)


def having(minion_id: str, memory: int = 1, **offer: Any) -> Host:
    """A host that has the base, and as a rule no room."""
    return Host(minion_id, memory, base_disks={"pool": GIB}, **offer)


@pytest.mark.parametrize("digest", ["1", ""])
def test_a_base_is_copied_once_to_each_host_that_is_chosen(tmp_path: Path, digest: str) -> None:
    first = having("kvm01", 64, digest=digest)
    world = World(tmp_path, first, lacking("kvm02"), lacking("kvm03"))
    names = [f"web{number}" for number in range(9)]
    world.placing.offers.names.update(names)
    made = at_once.each(lambda name: world.create(name, push=True), names, 9)
    assert [one.error for one in made] == [None] * 9
    assert sorted(world.copied) == ["base from kvm01 to kvm02", "base from kvm01 to kvm03"]
    assert world.where() == {"kvm01": 3, "kvm02": 3, "kvm03": 3}
    assert world.placing.store.all() == []


def test_without_push_nothing_is_copied(tmp_path: Path) -> None:
    world = World(tmp_path, having("kvm01"), lacking("kvm02"))
    assert isinstance(world.create("web1").error, NoHostFits)
    assert world.copied == []


def test_a_base_may_come_from_a_host_that_the_profile_does_not_name(tmp_path: Path) -> None:
    world = World(tmp_path, lacking("kvm02"))
    assert isinstance(world.create("web1", push=True).error, BaseMissing)
    world.others["kvm09"] = having("kvm09")
    assert world.create("web1", world.runner(), push=True).error is None
    assert world.copied == ["base from kvm09 to kvm02"]


def test_a_copy_that_fails_is_a_reason_and_the_next_host_is_tried(tmp_path: Path) -> None:
    world = World(tmp_path, lacking("kvm01"), lacking("kvm02"), having("kvm03"))
    world.hosts["kvm01"].failures["bring"] = KvmCloneError("'/pool' is full.")
    assert world.create("web1", push=True, order="first").error is None
    assert world.create("web2", push=True, order="first").error is None
    assert world.where() == {"kvm01": 0, "kvm02": 2, "kvm03": 0}
    assert world.copied == ["base from kvm03 to kvm01", "base from kvm03 to kvm02"]
    seen = world.placing.consider(world.request("web3", push=True)).reasons("")
    assert seen["kvm01"]["reason"] == "The base cannot be copied there: '/pool' is full"
    assert world.placing.store.all() == []


def test_a_host_that_lacks_more_than_the_base_is_found_out_after_the_copy(tmp_path: Path) -> None:
    world = World(tmp_path, lacking("kvm01"), having("kvm02"))
    bare, bring = world.hosts["kvm01"], world.hosts["kvm01"].bring

    def arrives(source: HostOffer) -> None:
        bring(source)
        bare.given = replace(bare.given, conflicts=("There is no network 'dmz'.",))

    bare.bring = arrives  # type: ignore[method-assign]
    error = world.create("web1", push=True).error
    assert isinstance(error, NoHostFits) and "kvm01: There is no network 'dmz';" in error.message


def test_who_interrupts_a_copy_leaves_no_reservation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, lacking("kvm01"), having("kvm02"))

    def interrupted(_source: HostOffer) -> None:
        raise interrupts.Interrupt

    monkeypatch.setattr(world.hosts["kvm01"], "bring", interrupted)
    error = world.create("web1", push=True).error
    assert error is not None and "interrupted" in error.message
    assert world.placing.store.all() == []


def test_a_plan_says_that_the_base_will_be_copied(tmp_path: Path) -> None:
    world = World(tmp_path, lacking("kvm01"), having("kvm02"))
    seen = world.placing.foresee(world.request("web1", push=True))
    assert (seen.request.host, seen.planner.minion_id) == ("kvm01", "kvm02")  # type: ignore[attr-defined]
    plan = seen.plan()
    assert plan["conflicts"] == []
    assert plan["warnings"] == [
        "The base 'base' is missing on kvm01: the create copies it there first, 1 GiB from kvm02. "
        "All else is planned as kvm02 would make it.",
        "On kvm02: no room on kvm02",
    ]
    told = seen.decision.reasons(seen.request.host)
    assert told["kvm01"]["reason"].startswith("the base is copied there first; ")
    assert world.copied == []


def test_a_base_from_elsewhere_never_stands_in_for_one_that_was_not_read(tmp_path: Path) -> None:
    world = World(
        tmp_path, having("kvm01", digest=""), having("kvm02", digest=""), lacking("kvm03")
    )
    world.others["kvm09"] = having("kvm09", digest="9")
    error = world.create("web1", world.runner(), push=True).error
    assert isinstance(error, NoHostFits) and "bases base hash=True" in error.message
    assert world.copied == []


def test_a_name_stays_reserved_however_long_the_copy_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "LIFETIME_S", 0.3)
    world = World(tmp_path, lacking("kvm01"), having("kvm02"))
    seen = []

    def slow(source: HostOffer) -> None:
        time.sleep(0.8)
        seen.extend(world.placing.store.all())
        Host.bring(world.hosts["kvm01"], source)

    monkeypatch.setattr(world.hosts["kvm01"], "bring", slow)
    assert world.create("web1", push=True).error is None
    assert [row.reserved.name for row in seen] == ["web1"]
    assert world.placing.store.all() == []


def test_the_room_of_one_copy_is_counted_once_for_a_batch(tmp_path: Path) -> None:
    room = PoolRoom(GIB * 100, GIB * 100)
    world = World(tmp_path, lacking("kvm01", pools={"pool": room}))
    world.others["kvm09"] = Host("kvm09", base_disks={"pool": 20 * GIB})
    runner = world.runner()
    made = at_once.each(lambda n: world.create(f"web{n}", runner, push=True), range(8), 8)
    assert [one.error for one in made] == [None] * 8


def test_who_interrupts_the_look_after_a_copy_leaves_no_reservation(tmp_path: Path) -> None:
    world = World(tmp_path, lacking("kvm01"), having("kvm02"))
    target = world.hosts["kvm01"]

    def interrupted(*_words: Any) -> HostOffer:
        raise interrupts.Interrupt

    def arrives(source: HostOffer) -> None:
        Host.bring(target, source)
        target.offer = interrupted  # type: ignore[method-assign]

    target.bring = arrives  # type: ignore[method-assign]
    assert world.create("web1", push=True).error is not None
    assert world.placing.store.all() == []
