"""Disks that others stand on, storey above storey: nobody is told to delete what is needed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import salt.payload

from lab.lab import connection
from saltext.kvmclone.errors import CloneInUse, PlanRefused
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.plan.disks import PlannedDisk
from tests.support.edited_definitions import respell
from tests.support.hints import Typist
from tests.support.open_images import open_in_a_tool
from tests.support.storage import storage_pool
from tests.support.world import World, quick

pytestmark = pytest.mark.slow


def test_what_lies_between_a_disk_and_another_machine_is_not_called_unused(
    world: World, host: LocalHost, base: str
) -> None:
    """Only the top of a chain stands in a definition; the hint must not have the rest deleted."""
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    middle, top = (disk.with_name(f"{word}-{world.token}.qcow2") for word in ("middle", "top"))
    world.overlay(disk, middle)
    world.overlay(middle, top)
    machine = world.base("machine")
    respell(machine, top)
    with pytest.raises(CloneInUse, match=machine) as info:
        host.destroy(name)
    assert "rm " not in info.value.hint


def test_what_somebody_has_open_is_not_called_unused(
    world: World, host: LocalHost, base: str
) -> None:
    """A machine of another libvirt, perhaps; nobody here names what it stands on."""
    name = world.name()
    host.clone(quick(name, base))
    over = world.disks(name)[0].with_name(f"over-{world.token}.qcow2")
    world.overlay(world.disks(name)[0], over)
    with open_in_a_tool(over), pytest.raises(CloneInUse, match="fuser") as info:
        host.destroy(name)
    assert "rm " not in info.value.hint


@pytest.mark.guest
def test_snapshots_on_snapshots_are_folded_in_as_the_hints_say(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    above = []
    for word in ("one", "two"):
        words = ["virsh", "snapshot-create-as", name, word, "--disk-only"]
        subprocess.run(words, check=True, capture_output=True)
        above += world.disks(name)
    host.boot(name)
    for begin in ("virsh -c qemu:///system blockcommit", "rm "):
        with pytest.raises(CloneInUse) as info:
            host.destroy(name)
        typist(info.value.hint, begin)
    assert [path for path in above if path.exists()] == []
    host.destroy(name)
    assert not disk.exists()


def test_nobody_is_told_to_delete_a_disk_that_others_need(
    world: World, host: LocalHost, base: str
) -> None:
    """Its clone was undefined by hand; a new one of that name finds the file in its way."""
    name, kid = world.name(), world.name("kid")
    host.clone(quick(name, base))
    host.clone(quick(kid, name))
    disk = world.disks(name)[0]
    with connection() as conn:
        conn.lookupByName(name).undefine()
    with pytest.raises(
        PlanRefused, match=f"is the backing file of '{world.disks(kid)[0]}'"
    ) as info:
        host.clone(quick(name, base))
    assert "delete" not in str(info.value)
    host.destroy(kid)
    with open_in_a_tool(disk), pytest.raises(PlanRefused, match="is open in QEMU") as info:
        host.clone(quick(name, base))
    assert "delete" not in str(info.value)
    with pytest.raises(PlanRefused, match=f"vol-delete {disk}"):
        host.clone(quick(name, base))


def test_a_base_that_is_taken_away_meanwhile_is_named(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = world.disks(base)[0]
    real = volumes.create

    def create(host: Host, planned: PlannedDisk, exists: Callable[[], None]) -> str:
        disk.rename(disk.with_name(f"away-{world.token}"))
        return real(host, planned, exists)

    monkeypatch.setattr(volumes, "create", create)
    name = world.name()
    with pytest.raises(PlanRefused, match=f"'{disk}' disappeared"):
        host.clone(quick(name, base))
    assert not world.exists(name)


@pytest.mark.parametrize("undefined", [False, True])
def test_a_pool_that_is_stopped_meanwhile_is_named(
    world: World,
    host: LocalHost,
    base: str,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
    undefined: bool,
) -> None:
    real = volumes.create
    folder = outside / f"pool-{world.token}"

    def create(host: Host, planned: PlannedDisk, exists: Callable[[], None]) -> str:
        with connection() as conn:
            pool = conn.storagePoolLookupByName(folder.name)
            pool.destroy()
            if undefined:
                pool.undefine()
        return real(host, planned, exists)

    monkeypatch.setattr(volumes, "create", create)
    name = world.name()
    with storage_pool(folder.name, folder):
        with pytest.raises(PlanRefused, match=f"'{folder.name}' (was stopped|disappeared) in"):
            host.clone(quick(name, base, pool=folder.name))
        assert not world.exists(name)
        assert list(folder.iterdir()) == []


def test_a_refusal_that_names_a_file_with_an_odd_name_can_be_sent(
    world: World, host: LocalHost, base: str
) -> None:
    """Salt sends UTF-8 alone: an error that it cannot pack would be no answer at all."""
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    odd = Path(os.fsdecode(os.fsencode(disk.with_name(f"{world.token}-")) + b"\xe9.qcow2"))
    world.overlay(disk, odd)
    with pytest.raises(CloneInUse) as info:
        host.destroy(name)
    salt.payload.dumps(info.value.as_dict())
    odd.write_bytes(b"QFI\xfb")  # an image that cannot be read
    salt.payload.dumps(list(host.destroy(name, dry=True).warnings))
    salt.payload.dumps(host.doctor())
