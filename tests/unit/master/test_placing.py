"""A placed clone goes where there is room; who refuses or is silent stops nobody else."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    AlreadyExists,
    BaseDiffers,
    ConfigError,
    CreateInProgress,
    HostFull,
    HostUnreachable,
    KvmCloneError,
    NeverConnected,
    NoHostFits,
    NotAccepted,
)
from saltext.kvmclone.master import at_once, pacing, reservations, targets
from saltext.kvmclone.master.placing import Placing
from saltext.kvmclone.master.reservations import Reservations
from saltext.kvmclone.model.placement import Need, Placement, Reserved
from saltext.kvmclone.model.request import Deploy, Request, Secrets
from tests.support.placing_hosts import GIB, NEED, OFFER, Host, World

pytestmark = pytest.mark.usefixtures("creating")


def test_a_batch_is_spread_with_one_look_at_each_host(tmp_path: Path) -> None:
    world = World(tmp_path, *(Host(f"kvm0{n}", 64) for n in range(3)))
    names = [f"web{number}" for number in range(30)]
    world.placing.offers.names.update(names)
    outcomes = at_once.each(world.create, names, 8)
    assert [one.error for one in outcomes] == [None] * 30
    assert world.where() == {"kvm00": 10, "kvm01": 10, "kvm02": 10}
    assert [host.asked for host in world.hosts.values()] == [1, 1, 1]
    assert world.placing.store.all() == []


def test_the_host_gets_its_limits_and_a_time_to_begin_by(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01"), hosts={"*": {"cpu_ratio": 3}})
    request = world.request("web1")
    going, _ = world.placing.create(request, Secrets(), None, None)  # type: ignore[arg-type]
    (told,) = world.hosts["kvm01"].requests
    assert going.host == told.host == "kvm01"
    assert not told.placement.is_wanted and told.placed is not None
    assert told.placed.limits.cpu_ratio == 3
    assert 0 < told.placed.not_after - time.time() <= pacing.BEGIN_TIMEOUT_S
    assert told.digest() == request.digest()


def test_two_runners_at_once_do_not_both_get_the_last_room(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", 3), Host("kvm02", 1))
    for host in world.hosts.values():
        host.takes = 0.05
    runners = [world.runner() for _ in range(4)]
    for runner in runners:  # all see the same free host
        runner.ask(world.request("any"))
    outcomes = at_once.each(lambda n: world.create(f"web{n}", runners[n]), range(4), 4)
    errors = [one.error for one in outcomes if one.error]
    assert world.where() == {"kvm01": 1, "kvm02": 0}
    assert [type(one) for one in errors] == [NoHostFits] * 3
    assert all("kvm01: " in one.message and "kvm02: memory" in one.message for one in errors)


def test_a_host_that_is_full_after_all_passes_it_on_and_is_asked_again(tmp_path: Path) -> None:
    full, other = Host("kvm01", 64), Host("kvm02", 32)
    world = World(tmp_path, full, other)
    world.placing.ask(world.request("any"))
    full.given = replace(full.given, promised=Need(63 * GIB))  # by somebody else, since
    outcome = world.create("web1", order="first")
    assert outcome.error is None and world.where() == {"kvm01": 0, "kvm02": 1}
    assert full.asked == 2
    assert world.create("web2", order="first").error is None
    assert len(full.requests) == 1, "it is known to be full by now"
    assert full.asked == 2


def test_when_all_refuse_each_is_named_with_its_reason(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01"), Host("kvm02", has_base=False), Host("kvm03"))
    world.hosts["kvm01"].failures["clone"] = HostFull("'kvm01' has no room for it.")
    world.hosts["kvm03"].failures["offer"] = HostUnreachable("The minion does not answer.")
    error = world.create("web1").error
    assert isinstance(error, NoHostFits)
    assert error.message == (
        "No host fits 'web1'. kvm01: 'kvm01' has no room for it; kvm02: the base is missing: "
        "salt-run kvmclone.push base kvm02; kvm03: The minion does not answer."
    )
    assert world.placing.store.all() == []


@pytest.mark.parametrize("failure", [NeverConnected("no key"), HostUnreachable("it went silent")])
def test_a_host_that_dies_in_a_batch_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: KvmCloneError
) -> None:
    monkeypatch.setattr(pacing, "BEGIN_TIMEOUT_S", 0.05)
    world = World(tmp_path, *(Host(f"kvm0{n}", 64) for n in range(3)))
    world.hosts["kvm01"].failures["clone"] = failure
    outcomes = at_once.each(world.create, [f"web{n}" for n in range(20)], 4)
    assert [one.error for one in outcomes] == [None] * 20
    assert world.where()["kvm01"] == 0
    assert sum(world.where().values()) == 20
    assert len(world.hosts["kvm01"].requests) <= 4, "then it is not tried any more"


@pytest.mark.parametrize("step", ["clone", "boot"])
def test_who_waits_for_a_turn_on_a_host_that_goes_silent_is_made_elsewhere_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(pacing, "BEGIN_TIMEOUT_S", 0.05)
    world = World(tmp_path, Host("kvm01", 64), Host("kvm02", 64), at_once_per_host=1)
    world.hosts["kvm01"].failures[step] = HostUnreachable("it went silent")
    world.hosts["kvm01"].takes = 0.2
    names = [f"web{n}" for n in range(5)]
    world.placing.offers.names.update(names)
    outcomes = at_once.each(lambda name: world.create(name, order="first"), names, 5)
    assert len(world.hosts["kvm01"].requests) == 1
    begun = step == "boot"
    assert [one.error is not None for one in outcomes].count(True) == begun
    assert len(world.hosts["kvm02"].clones) == 5 - begun


def test_a_clone_that_was_begun_on_a_silent_host_is_not_made_elsewhere(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", 64), Host("kvm02", 64))
    gone = HostUnreachable("it went silent")
    world.hosts["kvm01"].failures["boot"] = gone
    assert world.create("web1", order="first").error is gone
    world.hosts["kvm01"].failures["offer"] = HostUnreachable("down")
    later = reservations.time.time() + pacing.BEGIN_TIMEOUT_S + 1
    for runner in (world.placing, world.runner()):
        error = world.create("web1", runner).error
        assert isinstance(error, HostUnreachable) and "'web1' may be under way" in error.message
    (row,) = world.placing.store.all()
    assert row.not_after > later
    assert world.where() == {"kvm01": 1, "kvm02": 0}


def test_a_silent_host_keeps_the_name_until_it_can_no_longer_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "BEGIN_TIMEOUT_S", 0.4)
    silent, other = Host("kvm01", 64), Host("kvm02", 64)
    world = World(tmp_path, silent, other)
    silent.failures["clone"] = HostUnreachable("it went silent")
    begun = time.monotonic()
    assert world.create("web1", order="first").error is None
    assert time.monotonic() - begun >= 0.4
    assert other.clones == ["web1"]


def test_a_name_that_a_silent_host_may_be_making_is_not_given_elsewhere(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", 64), Host("kvm02", 64))
    killed = world.runner()
    row = killed._reserve(world.request("web1", order="first"), {})
    killed.store.hold(row, time.time() + 0.6)
    world.hosts["kvm01"].failures["offer"] = HostUnreachable("down")
    error = world.create("web1").error
    assert isinstance(error, HostUnreachable)
    assert "'web1' may be under way on 'kvm01'" in error.message
    assert world.create("web2").error is None
    time.sleep(0.6)  # that it never began is certain
    assert world.create("web1").error is None
    assert world.where() == {"kvm01": 0, "kvm02": 2}


def test_a_name_that_waits_for_its_turn_on_a_host_is_not_given_elsewhere(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", 64), Host("kvm02", 64))
    queued = world.runner()
    row = queued._reserve(world.request("web1", order="first"), {})
    world.hosts["kvm01"].failures["offer"] = HostUnreachable("down")
    error = world.create("web1").error
    assert isinstance(error, HostUnreachable)
    assert "'web1' may be under way on 'kvm01'" in error.message
    assert "kvmclone.show web1" in error.hint
    elsewhere = replace(world.request("web1"), placement=Placement(("kvm02",)))
    other = world.runner()
    _, outcome = other.create(elsewhere, Secrets(), None, None)  # type: ignore[arg-type]
    assert isinstance(outcome.error, CreateInProgress)
    queued.store.free(row)
    assert world.create("web1").error is None


def test_a_clone_that_has_begun_keeps_its_name_while_it_is_made(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", 64), Host("kvm02", 64))
    working = world.runner()
    row = working._reserve(world.request("web1", order="first"), {})
    working.store.hold(row, time.time() - 1)
    working.store.hold(row, reservations.BEGUN)
    world.hosts["kvm01"].failures["offer"] = HostUnreachable("down")
    assert isinstance(world.create("web1").error, HostUnreachable)
    assert world.where() == {"kvm01": 0, "kvm02": 0}


def test_who_joins_a_create_and_is_refused_does_not_give_its_name_away(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", 64), Host("kvm02", 64))
    queued = world.runner()
    row = queued._reserve(world.request("web1", order="first"), {})
    world.hosts["kvm01"].failures["clone"] = HostFull("full just now")
    error = world.create("web1").error
    assert isinstance(error, CreateInProgress)
    assert [one.token for one in queued.store.all()] == [row.token]
    assert world.where() == {"kvm01": 0, "kvm02": 0}


def test_a_create_that_lost_its_reservation_in_the_queue_does_not_make_a_second_clone(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, Host("kvm01", 64), Host("kvm02", 64))
    slow = world.runner()
    turn = slow.pacing.hosts.turn

    @contextmanager
    def late(places: list[str]) -> Iterator[None]:
        with turn(places):
            slow.store.free(slow.store.all()[0])  # as time does
            world.hosts["kvm01"].given = replace(OFFER, memory=0)
            slow.store.reserve("web1", "", "", lambda _rows, _last: Reserved("web1", "kvm02", NEED))
            yield

    slow.pacing.hosts.turn = late  # type: ignore[method-assign,assignment]
    error = world.create("web1", slow, order="first").error
    assert isinstance(error, CreateInProgress) and "on 'kvm02'" in error.message
    assert world.where() == {"kvm01": 0, "kvm02": 0}


def test_without_a_minion_a_silent_host_is_asked_before_a_name_is_given(tmp_path: Path) -> None:
    silent = Host("kvm01", 64)
    silent.failures["offer"] = HostUnreachable("The minion does not answer.")
    alone = Deploy(enabled=False)

    def error(runner: Placing) -> KvmCloneError | None:
        request = replace(world.request("web1"), deploy=alone)
        return runner.create(request, Secrets(), None, None)[1].error  # type: ignore[arg-type]

    world = World(tmp_path, silent, Host("kvm02", 64))
    refused = error(world.runner())
    assert isinstance(refused, HostUnreachable)
    assert "Whether 'kvm01' has a 'web1' is not known" in refused.message
    assert "maintenance" in refused.hint and "'hosts'" in refused.hint
    silent.failures["offer"] = NotAccepted("no key")
    assert error(world.runner()) is None
    silent.failures["offer"] = HostUnreachable("The minion does not answer.")
    world = World(tmp_path, silent, Host("kvm02", 64), hosts={"kvm01": {"maintenance": True}})
    assert error(world.runner()) is None


def test_a_host_is_told_of_what_the_clone_must_be_apart_from(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", 64))
    assert world.create("web1", apart="db", required=True).error is None
    assert world.create("web2", apart="db").error is None
    told = [one.placed.apart for one in world.hosts["kvm01"].requests if one.placed]
    assert told == ["db", ""]


def test_what_another_runner_has_made_and_not_finished_counts_once(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", 4))
    working = world.runner()
    working._reserve(world.request("web1"), {})
    world.hosts["kvm01"].clones.append("web1")
    assert world.create("web2").error is None
    assert world.where() == {"kvm01": 2}


def test_a_second_create_of_a_name_goes_where_the_first_is(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", 64), Host("kvm02", 64))
    other = world.runner()
    row = other._reserve(world.request("web1", order="first"), {})
    world.hosts["kvm01"].given = replace(OFFER, memory=64 * GIB, promised=Need(32 * GIB))
    assert world.create("web1").error is None
    assert world.where() == {"kvm01": 1, "kvm02": 0}
    other.store.free(row)


def test_a_clone_that_is_there_is_found_and_not_made_elsewhere(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", 4), Host("kvm02", 64))
    world.hosts["kvm01"].clones += ["web1", "web2"]  # it has no room left
    assert isinstance(world.create("web1").error, AlreadyExists)
    world.hosts["kvm02"].clones.append("web2")
    error = world.create("web2", world.runner()).error
    assert isinstance(error, ConfigError) and "several hosts: kvm01, kvm02" in error.message


def test_any_other_failure_stays_where_it_was(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", 64), Host("kvm02", 32))
    world.hosts["kvm01"].failures["clone"] = KvmCloneError("the disk broke")
    outcome = world.create("web1", order="first")
    assert outcome.error is not None and outcome.error.message == "the disk broke"
    assert world.where() == {"kvm01": 0, "kvm02": 0}


def test_round_robin_goes_on_where_the_last_command_stopped(tmp_path: Path) -> None:
    world = World(tmp_path, *(Host(f"kvm0{n}", 64) for n in range(3)))
    for number in range(6):
        assert world.create(f"web{number}", world.runner(), order="round-robin").error is None
    assert world.where() == {"kvm00": 2, "kvm01": 2, "kvm02": 2}


def test_a_host_in_maintenance_gets_no_new_clone_even_where_it_is_named(tmp_path: Path) -> None:
    drained = {"kvm01": {"maintenance": True}}
    world = World(tmp_path, Host("kvm01", 64), Host("kvm02", 64), hosts=drained)
    assert world.create("web1").error is None
    assert world.where() == {"kvm01": 0, "kvm02": 1}
    named = Request("web2", "base", host="kvm01", clone_strategy="quick")
    _, outcome = world.placing.create(named, Secrets(), None, None)  # type: ignore[arg-type]
    assert isinstance(outcome.error, NoHostFits) and "maintenance" in outcome.error.message
    world.hosts["kvm01"].clones.append("web3")
    there = replace(named, name="web3")
    _, outcome = world.placing.create(there, Secrets(), None, None)  # type: ignore[arg-type]
    assert isinstance(outcome.error, AlreadyExists), "whoever is there may be repeated"


def test_only_so_many_are_made_on_a_host_and_copied_into_a_pool_at_once(tmp_path: Path) -> None:
    copying = replace(NEED, copies={"pool": 1})
    quick, slow = Host("kvm01", 900), Host("kvm02", 900, need=copying)
    for host, most in ((quick, 3), (slow, 2)):
        world = World(tmp_path, host, at_once_per_host=3, at_once_per_pool=2)

        def all_wait(host: Host = host, store: Reservations = world.placing.store) -> None:
            """The first ones take until all others have chosen their host, and could begin."""
            while not host.clones and len(store.all()) < 12:
                time.sleep(0.01)

        host.together, host.takes = threading.Barrier(most, all_wait, timeout=60), 0.05
        outcomes = at_once.each(world.create, [f"web{n}" for n in range(12)], 12)
        assert [one.error for one in outcomes] == [None] * 12
        assert host.most_busy == most


def test_a_plan_and_hosts_show_every_host_and_reserve_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", 1), Host("kvm02", 64))
    seen = world.placing.foresee(world.request("web1"))
    request, host, decision = seen.request, seen.host, seen.decision
    assert request.host == "kvm02" and host.url == "qemu:///system"
    told = decision.reasons("kvm02")
    assert told["kvm01"]["chosen"] is False and "memory" in told["kvm01"]["reason"]
    assert told["kvm02"] == {"chosen": True, "reason": "0 B of 64 GiB memory are promised"}
    assert world.placing.store.all() == []


def test_a_base_of_another_content_places_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", base="10"), Host("kvm02", base="20"))
    assert isinstance(world.create("web1").error, BaseDiffers)
    assert Counter(world.where().values()) == {0: 2}


def test_wrong_limits_are_an_error_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cpu_ratio"):
        World(tmp_path, Host("kvm01"), hosts={"kvm01": {"cpu_ratio": "x"}})


def test_an_expression_is_followed_as_salt_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, Host("kvm01", 64), Host("kvm02", 64))
    monkeypatch.setattr(targets, "minions", lambda _opts, expression: ("kvm02",))
    wish = Placement(expression="kvm02*")
    request = replace(world.request("web1"), placement=wish)
    world.placing.create(request, Secrets(), None, None)  # type: ignore[arg-type]
    assert world.where() == {"kvm01": 0, "kvm02": 1}


def test_a_silent_host_is_waited_for_once_whatever_is_made(tmp_path: Path) -> None:
    world = World(tmp_path, Host("kvm01", 64), Host("kvm02", 64))
    world.hosts["kvm01"].failures["offer"] = HostUnreachable("down")
    for number in range(3):  # each of another sort
        request = replace(world.request(f"web{number}"), cpus=number + 1)
        world.placing.create(request, Secrets(), None, None)  # type: ignore[arg-type]
    assert (world.hosts["kvm01"].asked, world.hosts["kvm02"].asked) == (1, 3)
    assert world.where() == {"kvm01": 0, "kvm02": 3}


def test_who_interrupts_the_wait_for_a_silent_host_leaves_it_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_seconds: float) -> None:
        raise interrupts.Interrupt

    world = World(tmp_path, Host("kvm01", 64), Host("kvm02", 64))
    world.hosts["kvm01"].failures["clone"] = HostUnreachable("it went silent")
    monkeypatch.setattr(interrupts, "pause", interrupted)
    outcome = world.create("web1", order="first")
    assert outcome.error is not None and outcome.error.message == "it went silent"
    assert world.where() == {"kvm01": 0, "kvm02": 0}
    (row,) = world.placing.store.all()
    assert (row.reserved.name, row.reserved.host) == ("web1", "kvm01")
    world.hosts["kvm01"].failures["offer"] = HostUnreachable("down")
    again = world.create("web1", world.runner()).error
    assert again is not None and "may be under way on 'kvm01'" in again.message
