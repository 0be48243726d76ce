"""A placed clone goes where there is room; who refuses or is silent stops nobody else."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    AlreadyExists,
    BaseDiffers,
    BaseMissing,
    ConfigError,
    CreateInProgress,
    HostFull,
    HostUnreachable,
    KvmCloneError,
    NeverConnected,
    NoHostFits,
    NotAccepted,
    NotFound,
)
from saltext.kvmclone.hosts.create_state import Turn
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.master import at_once, pacing, placing, reservations, targets
from saltext.kvmclone.master.placing import Placing
from saltext.kvmclone.master.reservations import Reservations
from saltext.kvmclone.model.clone import Clone, CloneDisk
from saltext.kvmclone.model.placement import HostOffer, Need, Placement, PoolRoom, Reserved
from saltext.kvmclone.model.request import Deploy, Request, Secrets

GIB = 2**30
NEED = Need(2 * GIB, 1, {"pool": 0}, {"pool": GIB})
ROOM = PoolRoom(GIB * 1000, GIB * 1000)
OFFER = HostOffer(16 * GIB, 8, pools={"pool": ROOM}, need=NEED, digest="1")


class Host:
    """A KVM host that keeps its promises: what it has, what it makes, how it fails."""

    def __init__(self, minion_id: str, memory: int = 16, **offer: Any) -> None:
        self.minion_id, self.url = minion_id, "qemu:///system"
        lacks = {} if offer.get("has_base", True) else {"need": Need(), "digest": ""}
        self.given = replace(OFFER, memory=memory * GIB, **{**lacks, **offer})
        self.clones: list[str] = []
        self.asked = 0
        #: Raised by each call of that operation.
        self.failures: dict[str, KvmCloneError] = {}
        self.lock = threading.Lock()
        self.requests: list[Request] = []
        self.busy = self.most_busy = 0
        self.takes = 0.0
        #: So many are made at once, or none at all.
        self.together = threading.Barrier(1, timeout=60)

    def offer(self, _request: Request, names: list[str]) -> HostOffer:
        self.asked += 1
        if "offer" in self.failures:
            raise self.failures["offer"]
        taken = self.given.promised.memory + len(self.clones) * NEED.memory
        there = tuple(name for name in self.clones if name in names)
        promised = Need(taken, len(self.clones))
        return replace(self.given, promised=promised, clones=len(self.clones), there=there)

    def bring(self, source: HostOffer) -> None:
        """A copy of the base arrives."""
        if "bring" in self.failures:
            raise self.failures["bring"]
        self.given = replace(self.given, has_base=True, need=source.need, digest=source.digest)

    def plan(self, request: Request) -> dict[str, Any]:
        return {"name": request.name, "warnings": [], "conflicts": [f"no room on {self.minion_id}"]}

    def show(self, name: str) -> Clone:
        if name not in self.clones:
            raise NotFound(name)
        return self.made(name)

    def made(self, name: str) -> Clone:
        return Clone(name, "u", self.minion_id, "base", "small", "quick", "running", "ready")

    def clone(self, request: Request, *_more: Any) -> Clone:
        with self.lock:
            self.busy += 1
            self.most_busy = max(self.busy, self.most_busy)
        self.together.wait()
        time.sleep(self.takes)
        with self.lock:
            self.busy -= 1
            self.requests.append(request)
            if "clone" in self.failures:
                raise self.failures["clone"]
            if request.name in self.clones:
                raise AlreadyExists(f"'{request.name}' exists")
            taken = self.given.promised.memory + len(self.clones) * NEED.memory
            if request.placed and taken + NEED.memory > self.given.memory:
                raise HostFull(f"'{self.minion_id}' has no room.")
            self.clones.append(request.name)
        return self.made(request.name)


class Copier:
    """Copies bases between hosts; what it did stands in ``copied``."""

    def __init__(self, world: World) -> None:
        self.world = world
        ways = {name: (name, "") for name in world.others}
        self.everywhere = SimpleNamespace(ways=ways)

    def source(self, base: str, _targets: list[str]) -> str:
        for name in self.world.others:
            return name
        raise NotFound(f"No other host has a base '{base}'.")

    def bring(self, base: str, source: str, target: str, hosts: dict[str, Any]) -> None:
        assert set(hosts) == {source, target}
        self.world.copied.append(f"{base} from {source} to {target}")
        time.sleep(0.05)
        origin = self.world.connect(source, "")
        origin.given = replace(origin.given, digest=origin.given.digest or "1")  # it is read
        hosts[target].bring(origin.given)


class World:
    """A master and its hosts; a create is one call of the host's ``clone``."""

    def __init__(self, folder: Path, *hosts: Host, **settings: Any) -> None:
        self.hosts = {host.minion_id: host for host in hosts}
        #: Hosts that no profile names.
        self.others: dict[str, Host] = {}
        self.copied: list[str] = []
        self.opts = {"cachedir": str(folder), "kvm_clone": settings}
        self.placing = self.runner()

    def runner(self) -> Placing:
        """One call of the runner."""
        copier: Any = Copier(self)
        return Placing(self.opts, self.connect, copier)

    def connect(self, minion: str, _url: str) -> Any:
        return {**self.hosts, **self.others}[minion]

    def request(self, name: str, **keys: Any) -> Request:
        wish = Placement(tuple(self.hosts), **keys)
        return Request(name, "base", "small", clone_strategy="quick", placement=wish)

    def create(self, name: str, runner: Placing | None = None, **keys: Any) -> Outcome:
        watch: Any = None
        known = runner or self.placing
        return known.create(self.request(name, **keys), Secrets(), watch, watch)[1]

    def where(self) -> dict[str, int]:
        return {name: len(host.clones) for name, host in self.hosts.items()}


@pytest.fixture(autouse=True)
def creating(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(host: Any, request: Request, *_more: Any, turn: Turn) -> Outcome:
        try:
            with turn(request) as told:
                clone = host.clone(told)
        except KvmCloneError as error:
            return Outcome(request.name, "", None, error)
        if error := host.failures.get("boot"):  # begun, and what there is of it not known
            there = replace(clone, state="", disks=(CloneDisk("vda", "/x", "qcow2", "overlay"),))
            return Outcome(request.name, "cloned", there, error)
        return Outcome(request.name, clone.stage, clone)

    monkeypatch.setattr(placing.provision, "create", create)


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


# --- a base that is missing -----------------------------------------------------------


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
