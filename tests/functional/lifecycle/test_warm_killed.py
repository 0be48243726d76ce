"""A warming that dies, or is not alone: all of it goes, or it is repeated."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from saltext.kvmclone.errors import (
    CreateInProgress,
    NotWarmed,
)
from saltext.kvmclone.guest import warming
from saltext.kvmclone.hosts import gc, warm_base
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import warm_images
from saltext.kvmclone.lifecycle import warm
from saltext.kvmclone.model.record import DEAD, Owner
from tests.support.forks import forked, machines, warm_without_an_agent
from tests.support.world import World


@pytest.fixture(autouse=True)
def obliging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests that need not be made ready."""
    warm_without_an_agent(monkeypatch)


@pytest.fixture
def base(world: World) -> str:
    return world.base(agent=True, options="tiny.nodhcp")


@pytest.fixture
def warmed(host: LocalHost, base: str) -> str:
    """A base that is warmed."""
    host.warm(base)
    return base


def killed(
    host: LocalHost, base: str, where: Any, function: str, worker: Owner | None = None
) -> None:
    """Warm in a process of its own, which dies as it calls a function."""

    def dies() -> None:
        setattr(where, function, lambda *_args, **_keys: os.kill(os.getpid(), signal.SIGKILL))
        host.warm(base, worker)

    assert os.WIFSIGNALED(forked(dies)), f"it never called {function}"


KILLS = [
    (volumes, "create"),
    (DomainHandle, "start"),
    (warming, "make_ready"),
    (DomainHandle, "save_memory"),
    (warm, "_saved_with"),
    (warm, "_finish"),
]


@pytest.mark.parametrize(("where", "function"), KILLS)
def test_killed_anywhere_gc_removes_all_of_it(
    world: World, host: LocalHost, base: str, where: Any, function: str
) -> None:
    before = world.footprint()[1]
    killed(host, base, where, function)
    assert machines(world) == [base, f"{base}.warm1"]
    assert [one for one in host.list_clones() if world.token in one.name] == []
    found = [one["kind"] for one in host.doctor() if one["name"] == f"{base}.warm1"]
    assert found == ["unfinished"]
    assert gc.collect(host, f"{base}.warm1", apply=True)
    world.refresh()
    assert machines(world) == [base]
    assert world.footprint()[1] == before


@pytest.mark.parametrize(("where", "function"), KILLS[2:5])
def test_killed_anywhere_it_can_be_repeated(
    world: World, host: LocalHost, base: str, where: Any, function: str
) -> None:
    killed(host, base, where, function)
    with Host("qemu:///system") as opened, pytest.raises(NotWarmed):
        warm_images.usable(opened, opened.domain(base))
    assert host.warm(base).generation == 1
    assert machines(world) == [base, f"{base}.warm1"]


@pytest.mark.parametrize("work", [warm_base.warm, warm_base.unwarm])
def test_what_a_runner_left_goes_once_its_own_machine_tells_that_it_is_dead(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch, work: Any
) -> None:
    runner = Owner("master", "its boot", 7, 8, f"of a runner {world.token}", "its machine")
    killed(host, base, warming, "make_ready", runner)
    for refused in (lambda: work(host, base), lambda: host.warm(base)):
        with pytest.raises(CreateInProgress, match="cannot be determined from here"):
            refused()
    monkeypatch.setattr(warm_base, "owner_state_of", lambda _work: DEAD)
    assert work(host, base).name == base
    there = [base, f"{base}.warm1"] if work is warm_base.warm else [base]
    assert machines(world) == there


def test_killed_while_libvirt_saves_gc_removes_all_of_it(
    world: World, host: LocalHost, base: str
) -> None:
    before = world.footprint()[1]

    def dies() -> None:
        real = DomainHandle.save_memory

        def saves(handle: DomainHandle, path: str) -> None:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGKILL)).start()
            real(handle, path)
            time.sleep(1)

        DomainHandle.save_memory = saves  # type: ignore[method-assign]
        host.warm(base)

    assert os.WIFSIGNALED(forked(dies))
    rows = gc.collect(host, f"{base}.warm1", apply=True)
    assert [row for row in rows if not row.removed] == []
    time.sleep(1)  # libvirtd may not have noticed at once that its client died
    world.refresh()
    assert (machines(world), world.footprint()[1]) == ([base], before)


def test_killed_while_the_old_generation_is_removed_the_new_one_is_there(
    world: World, host: LocalHost, opened: Host, warmed: str
) -> None:
    killed(host, warmed, volumes, "delete")
    assert warm_images.usable(opened, opened.domain(warmed)).generation == 2
    assert host.warm(warmed).generation == 3
    assert machines(world) == [warmed, f"{warmed}.warm3"]


def test_two_at_once_do_not_warm_one_base(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def second(*_args: Any) -> tuple[str, ...]:
        with pytest.raises(CreateInProgress) as caught:
            host.warm(base)
        refused.append(caught.value.message)
        with pytest.raises(CreateInProgress):
            host.unwarm(base)
        return ()

    monkeypatch.setattr(warming, "make_ready", second)
    host.warm(base)
    assert f"{base}.warm1" in refused[0]
