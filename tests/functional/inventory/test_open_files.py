"""What somebody else has open is not deleted, though no machine of this libvirt names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.common import run
from saltext.kvmclone.errors import CloneInUse, PlanRefused
from saltext.kvmclone.hosts.local import LocalHost
from tests.support.open_images import open_in_a_tool
from tests.support.storage import loop_device
from tests.support.world import World, full, quick

pytestmark = pytest.mark.slow


def refused(world: World, host: LocalHost, name: str) -> str:
    """Nothing was touched, and why."""
    before = world.footprint()
    with pytest.raises(CloneInUse) as caught:
        host.destroy(name)
    with pytest.raises(CloneInUse):
        host.destroy(name, force=True)
    with pytest.raises(CloneInUse):
        host.destroy(name, dry=True)
    assert world.footprint() == before
    return str(caught.value)


@pytest.fixture
def name(world: World, host: LocalHost, base: str) -> str:
    name = world.name()
    host.clone(quick(name, base))
    return name


def test_a_disk_that_another_process_has_open(world: World, host: LocalHost, name: str) -> None:
    disk = world.disks(name)[0]
    with open_in_a_tool(disk):
        assert f"'{disk}'" in refused(world, host, name)
    host.destroy(name)
    assert not disk.exists()


def test_a_disk_below_an_image_that_another_process_has_open(
    world: World, host: LocalHost, name: str, outside: Path
) -> None:
    overlay = outside / f"overlay-{world.token}.qcow2"
    world.overlay(world.disks(name)[0], overlay)
    with open_in_a_tool(overlay):
        assert "fuser" in refused(world, host, name)


def test_a_disk_that_is_a_loop_device(world: World, host: LocalHost) -> None:
    name = world.name()
    host.clone(full(name, world.base(disks=["raw"])))
    with loop_device(world.disks(name)[0]) as device:
        assert device in refused(world, host, name)


def test_a_loop_device_is_seen_before_a_clone_is_stopped(world: World, host: LocalHost) -> None:
    name = world.name()
    host.clone(full(name, world.base(disks=["raw"])))
    host.power(name, "start")
    with loop_device(world.disks(name)[0]):
        with pytest.raises(CloneInUse):
            host.destroy(name)
        assert world.state(name) == "running"
    host.destroy(name)
    assert not world.exists(name)


@pytest.mark.parametrize("options", [(), ("--read-only",)])
def test_a_base_that_is_written_through_a_loop_device_is_refused(
    world: World, host: LocalHost, options: tuple[str, ...]
) -> None:
    base, name = world.base(disks=["raw"]), world.name()
    device = run(["losetup", "--find", "--show", *options, world.disks(base)[0]]).strip()
    try:
        if options:
            host.clone(quick(name, base))
        else:
            with pytest.raises(PlanRefused, match="losetup"):
                host.clone(quick(name, base))
    finally:
        run(["losetup", "--detach", device])
