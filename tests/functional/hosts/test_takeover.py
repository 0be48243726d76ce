"""Promises about creates of one name: who makes it, who waits, who goes on, who keeps off."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from saltext.kvmclone.errors import (
    AlreadyExists,
    CreateInProgress,
    KeptAfterFailure,
    KvmCloneError,
    PlanRefused,
)
from saltext.kvmclone.hosts import gc, provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import create
from saltext.kvmclone.model.record import Owner
from saltext.kvmclone.system import processes
from tests.support.unfinished import half_made, made
from tests.support.world import World, at_once, full, quick

pytestmark = pytest.mark.slow


def test_a_create_that_died_before_its_disks_is_made_anew(
    world: World, host: LocalHost, base: str, dead: Owner
) -> None:
    request = quick(world.name(), base)
    half_made(host, request, dead)
    outcome = provision.create(host, request, start=False)
    assert outcome.error is None
    assert outcome.stage == "cloned"
    assert world.disks(request.name)[0].exists()


@pytest.mark.guest
def test_a_create_that_died_after_its_disks_goes_on(
    world: World, host: LocalHost, base: str, dead: Owner
) -> None:
    request = quick(world.name(), base)
    made(host, request, dead)
    before = world.disks(request.name)[0].stat().st_ino
    outcome = provision.create(host, request)
    assert outcome.error is None
    assert outcome.stage == "addressed"
    assert world.disks(request.name)[0].stat().st_ino == before


def test_what_another_request_left_half_done_is_not_taken_over(
    world: World, host: LocalHost, base: str, dead: Owner
) -> None:
    request = quick(world.name(), base)
    made(host, request, dead)
    outcome = provision.create(host, replace(request, cpus=2))
    assert isinstance(outcome.error, CreateInProgress)
    assert f"kvmclone.gc {request.name} apply=True" in outcome.error.hint
    assert world.disks(request.name)[0].exists()


def test_of_two_that_take_over_one_does_and_nothing_is_lost(
    world: World, host: LocalHost, base: str, dead: Owner
) -> None:
    name = made(host, quick(world.name(), base), dead)
    one, other = processes.this_process(), processes.this_process()
    host.take_over(name, dead.token, one)
    with pytest.raises(CreateInProgress):
        host.take_over(name, dead.token, other)
    record = world.record(name)
    assert record is not None
    assert record.worker.token == one.token
    assert world.disks(name)[0].exists()


def test_a_worker_that_lost_its_clone_takes_nothing_back(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It slept, an operator forced its clone away, and another create has made the name anew."""
    name = world.name()
    real = create._require_base_at_rest

    def replaced(*arguments: object) -> None:
        monkeypatch.setattr(create, "_require_base_at_rest", real)
        record = world.record(name)
        assert record is not None
        host.destroy(name, token=record.worker.token)
        host.clone(quick(name, base))
        raise KvmCloneError("the sleeper wakes and fails")

    monkeypatch.setattr(create, "_require_base_at_rest", replaced)
    with pytest.raises(KvmCloneError, match="the sleeper wakes"):
        host.clone(full(name, base))
    record = world.record(name)
    assert record is not None
    assert record.stage == "cloned"
    assert world.disks(name)[0].exists()


def test_a_complete_clone_says_so_and_shows_itself(
    world: World, host: LocalHost, base: str, clone_of: Callable[..., str]
) -> None:
    name = clone_of(base)
    outcome = provision.create(host, quick(name, base), start=False)
    assert isinstance(outcome.error, AlreadyExists)
    assert outcome.error.clone is not None
    assert outcome.error.clone["stage"] == "cloned"


def test_a_create_that_was_kept_tells_its_error_and_is_not_tried_again(
    world: World, host: LocalHost, base: str
) -> None:
    request = quick(world.name(), base)
    worker = processes.this_process()
    made(host, request, worker)
    host.keep(request.name, worker.token, "AddressTimeout: no address", off=True)
    outcome = provision.create(host, request)
    assert isinstance(outcome.error, KeptAfterFailure)
    assert "AddressTimeout: no address" in outcome.error.message
    assert f"salt kvm01 kvm_clone.resume {request.name}" in outcome.error.hint
    assert not [item for item in gc.collect(host) if item.name == request.name]
    host.destroy(request.name)
    assert not world.exists(request.name)


@pytest.mark.guest
def test_two_that_ask_for_the_same_get_the_same_clone(
    world: World, host: LocalHost, base: str
) -> None:
    request = quick(world.name(), base)
    ask = lambda: provision.create(LocalHost(host.url, "kvm01"), request)  # noqa: E731
    outcomes = at_once(*[ask] * 3)
    assert [outcome.error for outcome in outcomes] == [None] * 3
    clones = [outcome.clone for outcome in outcomes if outcome.clone]
    assert len({clone.uuid for clone in clones}) == 1
    assert len({clone.address for clone in clones}) == 1
    assert {clone.stage for clone in clones} == {"addressed"}


def test_one_that_asks_for_something_else_is_told_at_once(
    world: World, host: LocalHost, base: str
) -> None:
    request = quick(world.name(), base)
    with subprocess.Popen(["sleep", "60"]) as child:
        started = processes._started(child.pid)
        made(host, request, replace(processes.this_process(), pid=child.pid, started=started))
        outcome = provision.create(host, replace(request, memory=2**28))
        child.kill()
    assert isinstance(outcome.error, CreateInProgress)
    assert "is being made" in outcome.error.message


def test_a_clone_in_the_making_cannot_be_started(
    world: World, host: LocalHost, base: str, dead: Owner
) -> None:
    name = made(host, quick(world.name(), base), dead)
    for action in ("start", "reboot"):
        with pytest.raises(CreateInProgress):
            host.power(name, action)
    assert world.state(name) == "shutoff"


def test_a_base_that_is_not_finished_is_refused(
    world: World, host: LocalHost, base: str, dead: Owner
) -> None:
    middle = made(host, quick(world.name("middle"), base), dead)
    with pytest.raises(PlanRefused, match="not finished"):
        host.clone(quick(world.name("top"), middle))


@pytest.mark.guest
@pytest.mark.parametrize("begun", [False, True], ids=["before its disks", "after its disks"])
def test_of_many_that_go_on_with_a_dead_create_one_does_and_all_get_its_clone(
    world: World, host: LocalHost, base: str, dead: Owner, begun: bool
) -> None:
    request = quick(world.name(), base)
    made(host, request, dead) if begun else half_made(host, request, dead)
    inode = world.disks(request.name)[0].stat().st_ino if begun else 0
    go_on = lambda: provision.create(LocalHost(host.url, "kvm01"), request)  # noqa: E731
    outcomes = at_once(*[go_on] * 5)
    assert [outcome.error for outcome in outcomes] == [None] * 5
    clones = [outcome.clone for outcome in outcomes if outcome.clone]
    assert len({(clone.uuid, clone.address, clone.stage) for clone in clones}) == 1
    assert inode in (0, world.disks(request.name)[0].stat().st_ino)


def test_one_daemon_in_two_spellings_gives_one_turn(
    world: World, host: LocalHost, base: str
) -> None:
    """Two processes that reach it by different urls would else both decide."""
    name = world.name()
    host.clone(quick(name, base))
    with processes.name_lock(name):
        ends: list[object] = []

        def destroy() -> None:
            ends.append(LocalHost("qemu+unix:///system").destroy(name))

        thread = threading.Thread(target=destroy)
        thread.start()
        thread.join(1.5)
        assert not ends
        assert world.disks(name)[0].exists()
    thread.join(60)
    assert len(ends) == 1
    assert not world.exists(name)
