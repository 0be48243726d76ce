"""Promises about a create that fails half-way: the error comes through, and nothing is left."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import pytest

from lab.common import wait_until
from lab.lab import connection
from saltext.kvmclone.errors import (
    AlreadyExists,
    CloneInUse,
    CreateInProgress,
    HostError,
    KvmCloneError,
    PlanRefused,
)
from saltext.kvmclone.hosts import gc, provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle import create
from saltext.kvmclone.model.record import DESTROYING, Record
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan.planner import PlannedDisk
from saltext.kvmclone.system import images, processes
from tests.support.world import World, full, quick


class Fault(Exception):
    """What the tests inject."""


@pytest.fixture
def fault_at_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, BaseException], None]:
    """Lets making the disk of that target fail, half of it being there already."""
    real = volumes.create

    def arrange(target: str, error: BaseException) -> None:
        def create(host: Host, disk: PlannedDisk, exists: Callable[[], None]) -> str:
            done = real(host, disk, exists)
            if disk.target == target:
                raise error
            return done

        monkeypatch.setattr(volumes, "create", create)

    return arrange


@pytest.mark.parametrize(
    "error", [Fault(), KeyboardInterrupt(), SystemExit(), HostError("libvirt: broken")], ids=repr
)
@pytest.mark.parametrize("make", [quick, full])
def test_a_fault_at_the_second_disk_leaves_nothing(
    world: World,
    host: LocalHost,
    fault_at_disk: Callable[[str, BaseException], None],
    make: Callable[..., Request],
    error: BaseException,
) -> None:
    base = world.base(disks=3, uefi=True)
    before = world.footprint()
    fault_at_disk("vdb", error)
    with pytest.raises(type(error)):
        host.clone(make(world.name(), base))
    assert world.footprint() == before


@pytest.mark.parametrize("step", ["_copy_nvram", "define"])
def test_a_fault_at_any_step_leaves_nothing(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    base = world.base(uefi=True)
    before = world.footprint()

    def fail(*_arguments: object) -> None:
        raise Fault

    monkeypatch.setattr(create, step, fail)
    with pytest.raises(Fault):
        host.clone(quick(world.name(), base))
    assert world.footprint() == before


def test_a_fault_while_the_record_is_closed_leaves_nothing(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DomainHandle.save_record_offline

    def save(handle: DomainHandle, record: Record) -> None:
        if record.stage == "cloned":
            raise Fault
        real(handle, record)

    before = world.footprint()
    monkeypatch.setattr(DomainHandle, "save_record_offline", save)
    with pytest.raises(Fault):
        host.clone(quick(world.name(), base))
    assert world.footprint() == before


def test_a_rollback_that_cannot_finish_still_shows_the_first_error(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base(disks=2)
    name = world.name()
    real = volumes.create

    def create(opened: Host, disk: PlannedDisk, exists: Callable[[], None]) -> str:
        done = real(opened, disk, exists)
        if disk.target == "vdb":
            raise HostError("the first error", "its hint")
        return done

    def delete(_host: Host, _path: str) -> bool:
        raise HostError("the storage went away")

    with monkeypatch.context() as patched:
        patched.setattr(volumes, "create", create)
        patched.setattr(volumes, "delete", delete)
        outcome = provision.create(host, quick(name, base))
    assert outcome.error is not None
    assert outcome.error.message.startswith("the first error. ")
    assert "the storage went away" in outcome.error.message
    assert f"kvmclone.gc {name} apply=True" in outcome.error.hint

    # The journal is still there, so whoever collects leftovers finds everything.
    for path in world.lab.pool_path.glob(f"{name}-*"):
        assert str(path) in outcome.error.message
    assert world.exists(name)
    assert gc.collect(host, name, apply=True)
    assert not world.exists(name)
    assert not list(world.lab.pool_path.glob(f"{name}-*"))


def test_what_a_create_could_not_undo_itself_is_removed_before_its_error_is_told(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was a refusal, after which mostly nothing is there."""
    before, name, fails = world.footprint(), world.name(), [HostError("for a moment")]
    real = volumes.delete

    def delete(opened: Host, path: str) -> bool:
        if fails:
            raise fails.pop()
        return real(opened, path)

    def changed(*_arguments: object) -> None:
        raise PlanRefused("The base changed.", "Let it rest.")

    monkeypatch.setattr(volumes, "delete", delete)
    monkeypatch.setattr(create, "_require_base_at_rest", changed)
    outcome = provision.create(host, quick(name, base))
    assert outcome.error is not None
    assert outcome.error.message == f"The base changed. '{name}' was removed."
    assert outcome.error.hint == "Let it rest."
    assert world.footprint() == before


@pytest.mark.parametrize("known", [True, False], ids=["known to libvirt", "put there by hand"])
def test_a_volume_that_appears_meanwhile_is_left_alone(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    base = world.base(disks=2)
    name = world.name()
    taken = world.lab.pool_path / f"{name}-vdb.qcow2"
    real = volumes.create

    def create(opened: Host, disk: PlannedDisk, exists: Callable[[], None]) -> str:
        if disk.target == "vdb":
            taken.write_bytes(b"somebody's data")
            if known:
                world.refresh()
        return real(opened, disk, exists)

    monkeypatch.setattr(volumes, "create", create)
    with pytest.raises(KvmCloneError, match=str(taken)) as info:
        host.clone(quick(name, base))
    assert info.value.hint
    assert taken.read_bytes() == b"somebody's data"
    assert not world.exists(name)
    assert [path.name for path in world.lab.pool_path.glob(f"{name}-*")] == [taken.name]


def test_a_definition_that_was_removed_by_hand_meanwhile_leaves_no_disk(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base(disks=2)
    name = world.name()
    before = world.footprint()
    real = volumes.create

    def create(opened: Host, disk: PlannedDisk, exists: Callable[[], None]) -> str:
        if disk.target == "vdb":
            with connection() as conn:
                conn.lookupByName(name).undefine()
        return real(opened, disk, exists)

    monkeypatch.setattr(volumes, "create", create)
    with pytest.raises(KvmCloneError):
        host.clone(quick(name, base))
    assert world.footprint() == before


def test_of_two_workers_one_gets_the_name_and_the_other_leaves_it_alone(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, other = world.name(), processes.this_process()
    real = create.define

    def define_second(*arguments: Any) -> DomainHandle:
        monkeypatch.setattr(create, "define", real)
        LocalHost(host.url).clone(quick(name, base), other)
        return real(*arguments)

    monkeypatch.setattr(create, "define", define_second)
    with pytest.raises(AlreadyExists):
        host.clone(quick(name, base))
    record = world.record(name)
    assert record is not None
    assert record.worker == other
    assert record.stage == "cloned"
    assert world.disks(name)[0].exists()


def test_a_boot_that_fails_takes_the_clone_back(world: World, host: LocalHost, base: str) -> None:
    name = world.name()
    outcome = provision.create(_losing_its_disk(host), quick(name, base))
    assert isinstance(outcome.error, HostError)
    assert outcome.error.message.endswith(f" '{name}' was removed.")
    assert outcome.stage == "cloned"
    assert outcome.as_dict()["state"] == ""
    assert not world.exists(name)


@pytest.mark.parametrize("wish", ["stop", "keep"])
def test_on_failure_the_clone_stays_when_asked(
    world: World, host: LocalHost, base: str, wish: str
) -> None:
    name = world.name()
    outcome = provision.create(_losing_its_disk(host), quick(name, base, on_failure=wish))
    assert outcome.error is not None
    assert outcome.error.message.endswith(f" '{name}' was kept, shut off.")
    assert world.exists(name)
    assert world.state(name) == outcome.as_dict()["state"] == "shutoff"
    host.destroy(name)
    assert not world.exists(name)


def test_a_rollback_does_not_touch_a_clone_that_changed_hands(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name()
    host.clone(quick(name, base), processes.this_process())
    with pytest.raises(CreateInProgress):
        host.destroy(name, token="mine")
    assert world.disks(name)[0].exists()


def test_a_disk_that_is_being_filled_does_not_keep_its_worker_from_being_told_to_stop(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name, mine = world.name(), processes.this_process()
    host.clone(full(name, base), mine, "ready")
    monkeypatch.setattr(volumes, "VOLUME_BUSY_TIMEOUT_S", 0.5)
    disk = world.disks(name)[0]
    filling = subprocess.Popen(
        ["qemu-nbd", "-f", "qcow2", "-k", str(tmp_path / "socket"), str(disk)],
    )
    try:
        wait_until(lambda: images.holder(str(disk)), "it is open", 10)
        with pytest.raises(CloneInUse):
            host.clear(name, mine.token)
        marked = world.record(name)
    finally:
        filling.kill()
        filling.wait()
    assert marked is not None and marked.stage == DESTROYING
    host.destroy(name)
    assert not world.exists(name)


def _losing_its_disk(host: LocalHost) -> LocalHost:
    """A host where the new disk vanishes between making and booting."""

    class Losing(LocalHost):
        def boot(self, name: str) -> object:
            with connection() as conn:
                xml = conn.lookupByName(name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            Path(xml.split("<source file='")[1].split("'")[0]).unlink()
            return super().boot(name)

    return Losing(host.url)
