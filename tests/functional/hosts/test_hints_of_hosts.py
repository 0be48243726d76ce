"""What hints about a host's operations say is typed in the state in which they are given."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.common import LIBVIRT_URI
from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    ConfigError,
    CreateInProgress,
    HostError,
    HostUnreachable,
    Interrupted,
)
from saltext.kvmclone.hosts import beacon, gc, provision, remote_server
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.system import processes, seed_image
from tests.support import hint_readers
from tests.support.hints import Typist, tries
from tests.support.world import World, quick

pytestmark = pytest.mark.slow

host = hint_readers.host


@tries("beacon.look")
def test_a_look_that_takes_too_long(
    base: str, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beacon, "BEACON_TIMEOUT_S", 0.001)
    with pytest.raises(HostUnreachable, match="no answer within") as info:
        beacon.look(LIBVIRT_URI)
    typist(info.value.hint)


@tries("remote_server._one")
def test_a_host_that_is_older_than_its_master(typist: Typist) -> None:
    told = remote_server.serve({"id": "kvm01"}, "an operation of later", {}, LIBVIRT_URI)
    assert "modules" in typist(told["error"]["hint"])


@tries("seed_image.build")
def test_a_seed_that_did_not_come_with_the_request(typist: Typist) -> None:
    with pytest.raises(ConfigError, match="did not come") as info:
        seed_image.build({}, "uuid", "web1")
    assert "modules" in typist(info.value.hint)


@tries("processes._locked")
def test_a_lock_that_is_no_file(world: World, host: LocalHost, base: str, typist: Typist) -> None:
    name = world.name()
    host.clone(quick(name, base))
    lock = Path(processes._path("lock", name))
    lock.mkdir()
    try:
        with pytest.raises(HostError, match="cannot be opened") as info:
            host.destroy(name)
        assert str(lock) in typist(info.value.hint)
    finally:
        lock.rmdir()
    host.destroy(name)


@tries("gc._kill")
def test_a_worker_that_lives_is_ended(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    with subprocess.Popen(["sleep", "60"]) as child:
        started = processes._started(child.pid)
        worker = replace(processes.this_process(), pid=child.pid, started=started)
        host.clone(quick(name, base), worker, "addressed")
        with pytest.raises(CreateInProgress, match="not a leftover") as info:
            gc.collect(host, name)
        typist(info.value.hint)
        assert child.wait(10) == -signal.SIGTERM
    gc.collect(host, name, apply=True)
    assert not world.exists(name)


@tries("rollback._stuck")
def test_a_create_that_failed_and_could_not_be_taken_back(
    world: World, host: LocalHost, base: str, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: Any, **_keys: Any) -> Any:
        raise HostError("the storage went away")

    request = quick(world.name(), base)
    with monkeypatch.context() as patch:
        patch.setattr(LocalHost, "boot", fails)
        patch.setattr(LocalHost, "clear", fails)
        error = provision.create(host, request).error
    assert error is not None
    (disk,) = world.disks(request.name)
    assert error.message.endswith(f"Left of it: domain, volume {disk}.")
    assert str(disk) in typist(error.hint)
    assert not world.exists(request.name)


@tries("rollback._stuck")
def test_a_clone_that_was_to_be_kept_and_could_not_be_told_so(
    world: World, host: LocalHost, base: str, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: Any, **_keys: Any) -> Any:
        raise HostError("no room for the record")

    request = quick(world.name(), base, on_failure="keep")
    with monkeypatch.context() as patch:
        patch.setattr(LocalHost, "boot", fails)
        patch.setattr(LocalHost, "keep", fails)
        error = provision.create(host, request).error
    assert error is not None
    typist(error.hint, f"gc {request.name} apply=True")
    assert not world.exists(request.name)


def press(_stage: str, _elapsed: float, _clone: Any) -> None:
    raise interrupts.Interrupt


@tries("rollback._complete")
def test_a_create_that_was_interrupted_when_it_was_whole(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    request = quick(world.name(), base)
    outcome = provision.create(host, request, watcher=press, start=False)
    assert isinstance(outcome.error, Interrupted)
    assert request.name in typist(outcome.error.hint)
    host.destroy(request.name)


@tries("rollback._go_on")
def test_a_create_that_was_kept(world: World, host: LocalHost, base: str, typist: Typist) -> None:
    request = quick(world.name(), base, on_failure="keep")
    outcome = provision.create(host, request, watcher=press)
    assert isinstance(outcome.error, Interrupted)
    assert outcome.error.message.endswith(f"'{request.name}' was kept, shut off.")
    typist(outcome.error.hint, f"destroy {request.name}")
    assert not world.exists(request.name)
