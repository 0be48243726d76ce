"""Promises about what a worker left that died, gave up or is far away: who removes it, and what."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import salt.config

from lab.common import CHECKOUT
from saltext.kvmclone.errors import (
    CreateInProgress,
    HostUnreachable,
    KvmCloneError,
    PlanRefused,
)
from saltext.kvmclone.hosts import gc, provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import destroy
from saltext.kvmclone.master.keys import MinionKeys
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.hints import AT_HOST
from saltext.kvmclone.model.leftovers import Leftover
from saltext.kvmclone.model.record import Minion, Owner
from saltext.kvmclone.system import processes
from tests.support.unfinished import half_made, made
from tests.support.world import World, quick

pytestmark = pytest.mark.slow


def test_a_worker_on_another_machine_is_never_taken_over(
    world: World, host: LocalHost, base: str, away: Owner
) -> None:
    request = quick(world.name(), base)
    made(host, request, away)
    before = world.footprint()
    outcome = provision.create(host, request)
    assert isinstance(outcome.error, CreateInProgress)
    assert "kvm99" in outcome.error.message
    assert f"kvmclone.gc {request.name} apply=True force=True" in outcome.error.hint
    with pytest.raises(CreateInProgress, match="kvm99"):
        host.destroy(request.name)
    with pytest.raises(CreateInProgress, match="not a leftover"):
        gc.collect(host, request.name, apply=True)
    assert world.footprint() == before

    removed = gc.collect(host, request.name, apply=True, force=True)
    assert [item.kind for item in removed] == ["domain", "volume"]
    assert not world.exists(request.name)


def test_force_never_removes_the_work_of_one_that_lives(
    world: World, host: LocalHost, base: str
) -> None:
    request = quick(world.name(), base)
    with subprocess.Popen(["sleep", "60"]) as child:
        started = processes._started(child.pid)
        alive = replace(processes.this_process(), pid=child.pid, started=started)
        made(host, request, alive)
        try:
            with pytest.raises(CreateInProgress, match=f"process {child.pid} is at work") as info:
                gc.collect(host, request.name, apply=True, force=True)
            assert f"kill {child.pid}" in info.value.hint
            with pytest.raises(CreateInProgress, match="is being made"):
                host.destroy(request.name, force=True)
        finally:
            child.kill()
    assert world.disks(request.name)[0].exists()


def test_gc_without_a_name_takes_no_force(host: LocalHost) -> None:
    with pytest.raises(KvmCloneError, match="name"):
        gc.collect(host, force=True)


def test_gc_lists_before_it_removes_and_leaves_finished_clones_alone(
    world: World, host: LocalHost, base: str, dead: Owner, clone_of: Callable[..., str]
) -> None:
    finished = clone_of(base, "finished")
    name = made(host, quick(world.name("left"), base), dead)
    listed = gc.collect(host)
    ours = [item for item in listed if item.name == name]
    assert [(item.kind, item.removed) for item in ours] == [("domain", False), ("volume", False)]
    assert ours[1].path == str(world.disks(name)[0])
    assert "died" in ours[0].reason
    assert not [item for item in listed if item.name == finished]
    assert all(item.removed for item in gc.collect(host, name, apply=True))
    assert not world.exists(name)
    assert world.exists(finished)


def test_a_file_that_was_put_where_a_disk_would_have_come_is_kept(
    world: World, host: LocalHost, dead: Owner
) -> None:
    """The worker died before it made them; somebody used the names meanwhile."""
    base = world.base(disks=2)
    name = half_made(host, quick(world.name(), base), dead)
    files = [world.lab.pool_path / f"{name}-{target}.qcow2" for target in ("vda", "vdb")]
    for file in files:
        file.write_bytes(b"the only copy of something" * 1000)
    listed = gc.collect(host, name)
    assert [(item.kind, item.path) for item in listed] == [
        ("domain", ""),
        *(("kept", str(file)) for file in files),
    ]
    gc.collect(host, name, apply=True)
    assert not world.exists(name)
    assert all(file.read_bytes().startswith(b"the only copy") for file in files)


@pytest.mark.parametrize("strategy", ["quick", "full"])
@pytest.mark.parametrize("fmt", ["qcow2", "raw"])
def test_an_image_that_was_put_where_a_disk_would_have_come_is_kept(
    world: World, host: LocalHost, dead: Owner, fmt: str, strategy: str
) -> None:
    """Even one of the same format and size as the disk that was to come."""
    base = world.base(fmt=fmt)
    request = quick(world.name(), base, clone_strategy=strategy)
    name = half_made(host, request, dead)
    disk = world.disks(name)[0]
    shutil.copy(world.disks(base)[0], disk)
    form = "qcow2" if disk.suffix == ".qcow2" else "raw"
    if strategy == "quick" and fmt == "raw":
        subprocess.run(["qemu-img", "create", "-q", "-f", form, disk, "64M"], check=True)
    words = ["qemu-io", "-f", form, "-c", "write -P 7 1M 4M", disk]
    subprocess.run(words, check=True, capture_output=True)
    before = disk.read_bytes()
    assert [item.kind for item in gc.collect(host, name)] == ["domain", "kept"]
    gc.collect(host, name, apply=True)
    assert disk.read_bytes() == before
    outcome = provision.create(host, request, start=False)
    assert isinstance(outcome.error, PlanRefused)
    assert disk.read_bytes() == before


def test_a_destroy_that_died_is_repeated(
    world: World, host: LocalHost, dead: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base(disks=2)
    before = world.footprint()
    request = quick(world.name(), base)
    host.clone(request)

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(processes, "this_process", lambda: dead)
        patched.setattr(destroy, "delete_all", die)
        with pytest.raises(KeyboardInterrupt):
            host.destroy(request.name)
    record = world.record(request.name)
    assert record is not None
    assert record.stage == "destroying"
    outcome = provision.create(host, request, start=False)
    assert outcome.error is None, "a create clears what a dead destroy left, and goes on"
    host.destroy(request.name)
    assert world.footprint() == before


ACCEPTING = """
import json, os, signal, sys
sys.path[:0] = ['_utils', '.']
import salt.config
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.master.enrolment import Enroller
from saltext.kvmclone.master.keys import MinionKeys
from saltext.kvmclone.model.plain import from_plain
from saltext.kvmclone.model.request import Request

url, config, asked = json.loads(sys.argv[1])
opts = salt.config.master_config(config)

from saltext.kvmclone.reactor.intake import expect_highstate

class Dying(Enroller):
    def accept(self, *arguments):
        super().accept(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

master = Dying(opts, MinionKeys(opts), expect_highstate)
provision.create(LocalHost(url), from_plain(Request, asked), master=master)
"""


@pytest.mark.guest
def test_the_key_that_a_dead_worker_had_accepted_goes_with_what_it_left(
    world: World, host: LocalHost, base: str, tmp_path: Path
) -> None:
    before = world.footprint()
    config = tmp_path / "master"
    config.write_text(json.dumps({"root_dir": str(tmp_path), "pki_dir": str(tmp_path / "pki")}))
    keys = MinionKeys(salt.config.master_config(str(config)))
    request = quick(world.name(), base)
    order = json.dumps([host.url, str(config), dataclasses.asdict(request)])
    words = [sys.executable, "-c", ACCEPTING, order]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    accepted = keys.fingerprint(keys.accepted(request.name))
    record = world.record(request.name)
    assert record is not None
    assert (record.stage, record.minion.fingerprint) == ("addressed", accepted)

    def remove_key(minion: Minion) -> bool:
        return keys.take_back(minion.id, minion.fingerprint)

    listed = gc.collect(host, request.name, remove_key=remove_key)
    assert [item.kind for item in listed] == ["domain", "volume", "key"]
    assert keys.accepted(request.name)
    removed = gc.collect(host, request.name, apply=True, remove_key=remove_key)
    assert all(item.removed for item in removed)
    assert keys.known(request.name) == {}
    assert world.footprint() == before


GC = """
import json, sys
sys.path[:0] = ['_utils', '.']
from saltext.kvmclone.hosts import gc
from saltext.kvmclone.hosts.local import LocalHost

url, name, apply = json.loads(sys.argv[1])
print(json.dumps([item.as_dict() for item in gc.collect(LocalHost(url), name, apply)]))
"""


class Away(LocalHost):
    """A host whose libvirtd goes away when the clone shall boot, and stays away."""

    def boot(self, name: str) -> Clone:
        raise HostUnreachable(f"'{name}' cannot be booted.")

    def clear(self, name: str, token: str, force: bool = False) -> list[Leftover]:
        raise HostUnreachable(f"'{name}' cannot be destroyed.")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saltext.kvmclone.hosts.rollback.ROLLBACK_RETRY_TIMEOUT_S", 0.5)


@pytest.mark.usefixtures("impatient")
def test_what_could_not_be_taken_back_is_collected_although_its_process_lives(
    world: World, host: LocalHost, base: str
) -> None:
    """A minion with threads lives on, and so does every other program that is asked."""
    before = world.footprint()
    request = quick(world.name(), base)
    failed = provision.create(Away(host.url, ours=AT_HOST), request)
    assert isinstance(failed.error, HostUnreachable)
    assert f"salt-call kvm_clone.gc {request.name} apply=True" in failed.error.hint
    assert world.exists(request.name)

    listed = gc.collect(host, request.name)
    assert [item.kind for item in listed] == ["domain", "volume"]
    assert "gave it up" in listed[0].reason
    order = json.dumps([host.url, request.name, True])
    words = [sys.executable, "-c", GC, order]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [item["removed"] for item in json.loads(done.stdout)] == [True, True]
    assert world.footprint() == before


@pytest.mark.guest
@pytest.mark.usefixtures("impatient")
def test_what_could_not_be_taken_back_is_gone_on_with_although_its_process_lives(
    world: World, host: LocalHost, base: str
) -> None:
    request = quick(world.name(), base)
    provision.create(Away(host.url), request)
    outcome = provision.create(host, request)
    assert (outcome.error, outcome.stage) == (None, "addressed")


def test_a_destroy_that_libvirt_did_not_hear_of_is_repeated_although_its_process_lives(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the record could be told that the destroy had failed."""
    before = world.footprint()
    name = world.name()
    host.clone(quick(name, base))

    def lost(*_arguments: object) -> None:
        raise HostUnreachable("libvirtd went away")

    with monkeypatch.context() as patched, pytest.raises(HostUnreachable):
        patched.setattr(destroy, "delete_all", lost)
        patched.setattr(destroy, "_require_mine", lost)
        host.destroy(name)
    assert "gave it up" in gc.collect(host, name)[0].reason
    host.destroy(name)
    assert world.footprint() == before
