"""Forks of tiny machines: what a worker leaves that is killed, and files that are their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.errors import ForkFailed
from saltext.kvmclone.guest import fork_identity, identity
from saltext.kvmclone.hosts import gc, provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.request import Deploy, Request, Wait
from saltext.kvmclone.system import copying, saved_image
from tests.support.forks import forked, warm_without_an_agent
from tests.support.world import World


@pytest.fixture(autouse=True)
def obliging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests that acknowledge everything; the tiny one has no agent, but it is restored."""
    warm_without_an_agent(monkeypatch)
    monkeypatch.setattr(fork_identity, "ping", lambda *_args: None)
    monkeypatch.setattr(fork_identity, "reseed", lambda *_args: None)


@pytest.fixture
def warmed(world: World, host: LocalHost) -> Iterator[str]:
    base = world.base(agent=True, options="tiny.nodhcp")
    host.warm(base)
    yield base


def asked(world: World, base: str) -> Request:
    return Request(
        world.name("fork"),
        base,
        clone_strategy="instant",
        wait=Wait(timeout=5),
        deploy=Deploy(enabled=False),
    )


def killed(host: LocalHost, request: Request, where: Any, function: str) -> None:
    """Make a fork in a process of its own, which dies as it calls a function."""

    def dies() -> None:
        setattr(where, function, lambda *_args, **_keys: os.kill(os.getpid(), signal.SIGKILL))
        provision.create(host, request)

    assert os.WIFSIGNALED(forked(dies)), f"it never called {function}"


#: Where a worker dies; then whether the fork runs.
UNACKNOWLEDGED = [
    (volumes, "create", False),
    (saved_image, "write", False),
    (copying, "copy_range", False),
    (Host, "restore", False),
    (os, "unlink", True),
    (DomainHandle, "attach_live", True),
    (fork_identity, "ping", True),
    (fork_identity, "reseed", True),
]


@pytest.mark.parametrize(("where", "function", "runs"), UNACKNOWLEDGED)
def test_killed_before_it_acknowledged_gc_removes_all_of_it(
    world: World, host: LocalHost, warmed: str, where: Any, function: str, runs: bool
) -> None:
    before = world.footprint()[1]
    request = asked(world, warmed)
    killed(host, request, where, function)
    assert (world.state(request.name) == "running") is runs
    gc.collect(host, apply=True)
    world.refresh()
    assert not world.exists(request.name)
    assert world.footprint()[1] == before


@pytest.mark.parametrize(("where", "function", "runs"), UNACKNOWLEDGED[3:6:2])
def test_killed_before_it_acknowledged_whoever_repeats_it_ends_it(
    world: World, host: LocalHost, warmed: str, where: Any, function: str, runs: bool
) -> None:
    request = asked(world, warmed)
    killed(host, request, where, function)
    outcome = provision.create(host, request)
    assert isinstance(outcome.error, ForkFailed)
    assert not world.exists(request.name)


def test_killed_after_it_acknowledged_it_goes_on(
    world: World, host: LocalHost, warmed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = asked(world, warmed)
    killed(host, request, identity, "reset")
    assert host.show(request.name).stage == "booted"
    done: list[str] = []

    def reset(_channel: Any, name: str, **_how: Any) -> identity.Reset:
        done.append(name)
        return identity.Reset((), ())

    monkeypatch.setattr(identity, "reset", reset)
    monkeypatch.setattr(fork_identity, "settle", lambda *_args: ())
    outcome = provision.create(host, request)
    assert done == [request.name]
    assert outcome.error is not None and outcome.error.type == "AddressTimeout"
    assert not world.exists(request.name)


@pytest.mark.parametrize("instant", ["prefer", "require"])
def test_a_memory_that_changed_after_the_plan_is_not_restored(
    world: World, host: LocalHost, warmed: str, monkeypatch: pytest.MonkeyPatch, instant: str
) -> None:
    boot, seen = LocalHost.boot, []

    def changes(self: LocalHost, name: str) -> Clone:
        os.utime(world.disks(f"{warmed}.warm1")[0])
        return boot(self, name)

    monkeypatch.setattr(LocalHost, "boot", changes)
    request = replace(asked(world, warmed), instant=instant)
    outcome = provision.create(
        host, request, watcher=lambda stage, _took, clone: seen.append((stage, clone.strategy))
    )
    assert outcome.error is not None
    if instant == "require":
        assert outcome.error.type == "WarmImageUnusable"
        assert seen == [("cloned", "instant")]
    else:
        assert outcome.error.type == "AddressTimeout", "the tiny guest asks nobody for one"
        assert seen == [("cloned", "instant"), ("cloned", "quick"), ("booted", "quick")]
    assert not world.exists(request.name)


def test_a_fork_has_uefi_variables_of_its_own_that_it_can_write(
    world: World, host: LocalHost
) -> None:
    base = world.base(agent=True, uefi=True, options="tiny.nodhcp")
    host.warm(base)
    request = asked(world, base)
    host.clone(request, goal="addressed")
    assert host.boot(request.name).stage == "booted"
    store = world.xml(request.name).findtext("./os/nvram") or ""
    assert Path(store).stat().st_mode & 0o200
    assert request.name in store
    record = world.record(request.name)
    assert record is not None
    host.destroy(request.name, token=record.worker.token)
    assert not Path(store).exists()


def test_a_file_of_somebody_else_where_its_memory_would_go_stays(
    world: World, host: LocalHost, warmed: str
) -> None:
    request = asked(world, warmed)
    foreign = world.lab.pool_path / f"{request.name}-memory.save"
    foreign.touch()
    outcome = provision.create(host, request)
    assert outcome.error is not None and "was not made for this fork" in outcome.error.message
    assert not world.exists(request.name)
    assert foreign.exists()
