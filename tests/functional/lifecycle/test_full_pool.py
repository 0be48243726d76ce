"""Promises about room: what does not fit is refused, and what runs full is taken back whole."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import libvirtd
from lab.common import run, wait_until
from saltext.kvmclone.errors import HostError, PoolFull
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.request import DiskChanges, Request
from saltext.kvmclone.plan.planner import PlannedDisk
from saltext.kvmclone.system import copying
from tests.support.storage import MIB, file_system, storage_pool
from tests.support.world import World, full, quick

pytestmark = pytest.mark.slow

#: Where libvirtd writes definitions.
DEFINITIONS = Path("/etc/libvirt/qemu")


def fill(folder: Path, leave: int = 0) -> None:
    """Let somebody else's file take what is free, as far as that can be told in advance."""
    room = os.statvfs(folder)
    wanted = room.f_bavail * room.f_frsize - leave
    with (folder / "competing").open("ab") as file:
        while wanted > 0:
            try:
                os.posix_fallocate(file.fileno(), file.seek(0, 2), wanted)
                return
            except OSError:
                wanted -= 2**16


def fill_before(monkeypatch: pytest.MonkeyPatch, target: str, folder: Path, leave: int) -> None:
    """Let somebody else's file fill the pool just before the disk of that target is made."""
    real = volumes.create

    def create(host: Host, disk: PlannedDisk, exists: Callable[[], None]) -> str:
        if disk.target == target:
            fill(folder, leave)
        return real(host, disk, exists)

    monkeypatch.setattr(volumes, "create", create)


def test_a_full_pool_that_nobody_foresaw_leaves_nothing(
    world: World, host: LocalHost, small_pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base(fmt="raw", disks=2)
    for index in (0, 1):
        world.filled(base, index, mebibytes=4)
    name = world.name()
    folder = world.lab.folder / small_pool
    fill_before(monkeypatch, "vdb", folder, leave=2**20)
    with pytest.raises(PoolFull, match=small_pool) as info:
        host.clone(full(name, base, pool=small_pool))
    assert "pool-info" in info.value.hint
    assert not world.exists(name)
    assert [path.name for path in folder.iterdir()] == ["competing"]


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_full_pool_is_said_to_be_full_for_an_overlay_too(
    world: World, host: LocalHost, small_pool: str, monkeypatch: pytest.MonkeyPatch, fmt: str
) -> None:
    base = world.base(fmt=fmt)
    name = world.name()
    folder = world.lab.folder / small_pool
    fill_before(monkeypatch, "vda", folder, leave=0)
    with pytest.raises(PoolFull, match=small_pool):
        host.clone(quick(name, base, pool=small_pool))
    assert not world.exists(name)
    assert [path.name for path in folder.iterdir()] == ["competing"]


def test_a_full_pool_leaves_nothing_of_a_flattened_chain(
    world: World, host: LocalHost, small_pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base(chain=1)
    name = world.name()
    folder = world.lab.folder / small_pool
    fill_before(monkeypatch, "vda", folder, leave=0)
    with pytest.raises(PoolFull, match=small_pool):
        host.clone(full(name, base, pool=small_pool))
    assert not world.exists(name)
    assert [path.name for path in folder.iterdir()] == ["competing"]


@pytest.fixture(params=["ext4", "xfs"])
def disk_pool(world: World, request: pytest.FixtureRequest) -> Iterator[str]:
    """A pool on a small disk of its own."""
    name = f"{world.lab.name}-{request.param}"
    options = ["-m", "0"] if request.param == "ext4" else []  # root may use what is reserved
    place = world.lab.folder / name
    with file_system(place, request.param, *options), storage_pool(name, place / "images"):
        yield name


@pytest.mark.parametrize("how", ["copied", "flattened by qemu-img"])
def test_a_disk_that_runs_full_half_way_through_a_copy_is_left_as_it_was(
    world: World, host: LocalHost, disk_pool: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    chain = how != "copied"
    base = world.base(fmt="qcow2" if chain else "raw", chain=int(chain))
    put(world, base, 24)
    folder = world.lab.folder / disk_pool / "images"
    fill_before(monkeypatch, "vda", folder, leave=8 * MIB)
    with pytest.raises(PoolFull, match=disk_pool):
        host.clone(full(world.name(), base, pool=disk_pool))
    assert [path.name for path in folder.iterdir()] == ["competing"]
    (folder / "competing").unlink()
    # XFS gives room back in the background.
    wait_until(lambda: shutil.disk_usage(folder).free > 64 * MIB, "the room", 30)
    monkeypatch.undo()
    host.clone(full(world.name("again"), base, pool=disk_pool))
    host.destroy(world.names[-1])


def put(world: World, base: str, mebibytes: int) -> None:
    """Data at the front of a base's first disk."""
    disk = world.disks(base)[0]
    form = disk.suffix[1:]
    words = ["qemu-io", "-f", form, "-c", f"write -P 7 0 {mebibytes}M", str(disk)]
    subprocess.run(words, check=True, capture_output=True)
    world.refresh()


def test_a_pool_that_somebody_fills_while_we_copy_keeps_nothing_of_ours(
    world: World, host: LocalHost, small_pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base(fmt="raw")
    put(world, base, 10)
    folder = world.lab.folder / small_pool
    real = os.pread
    pieces: list[int] = []

    def pread(*arguments: int) -> bytes:
        pieces.append(len(real(*arguments)))
        if len(pieces) == 10:
            fill(folder)
        return real(*arguments)

    monkeypatch.setattr(os, "pread", pread)
    name = world.name()
    with pytest.raises(PoolFull, match=small_pool):
        host.clone(full(name, base, pool=small_pool))
    assert len(pieces) >= 10
    assert not world.exists(name)
    assert [path.name for path in folder.iterdir()] == ["competing"]


def test_a_pool_that_is_full_when_a_disk_shall_grow_keeps_nothing_of_ours(
    world: World, host: LocalHost, small_pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base()
    folder = world.lab.folder / small_pool
    real = copying.copy

    def copy(source: str, target: str) -> None:
        real(source, target)
        fill(folder)

    monkeypatch.setattr(copying, "copy", copy)
    name = world.name()
    grown = {"vda": DiskChanges(size=2**44)}
    with pytest.raises(PoolFull, match=small_pool):
        host.clone(full(name, base, pool=small_pool, disks=grown))
    assert not world.exists(name)
    assert [path.name for path in folder.iterdir()] == ["competing"]


def test_a_variable_store_that_finds_no_room_takes_everything_back(
    world: World, host: LocalHost
) -> None:
    folder = world.lab.folder / "nvram"
    run(["mount", "-t", "tmpfs", "-o", "size=800K", "tmpfs", folder])
    try:
        base = world.base(uefi=True)
        before = world.footprint()
        with pytest.raises(HostError, match="No space left") as info:
            host.clone(quick(world.name(), base))
        assert info.value.hint
        assert world.footprint() == before
    finally:
        run(["umount", folder])


# --- one disk for everything ------------------------------------------------------------


@pytest.fixture
def one_disk(world: World) -> Iterator[tuple[str, Path]]:
    """
    A pool on the very disk that libvirt writes its definitions to, as on a small host: when
    it is full, not even a record can be changed.
    """
    if not libvirtd.is_ours():
        pytest.skip("the libvirtd that runs here is not the lab's: its definitions are left alone")
    name = f"{world.lab.name}-all"
    folder = world.lab.folder / name
    with file_system(folder, "ext4", "-m", "0", size=64 * MIB):
        definitions, images = folder / "qemu", folder / "images"
        shutil.copytree(DEFINITIONS, definitions, symlinks=True)
        run(["mount", "--bind", definitions, DEFINITIONS])
        try:
            with storage_pool(name, images):
                yield name, images
                world.tidy()
        finally:
            run(["umount", DEFINITIONS])


@pytest.mark.parametrize("make", [quick, full])
def test_a_create_that_fills_the_whole_host_takes_everything_back(
    world: World,
    host: LocalHost,
    one_disk: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[..., Request],
) -> None:
    pool, images = one_disk
    base = world.base(fmt="raw", disks=2)
    put(world, base, 4)
    before = world.footprint()
    fill_before(monkeypatch, "vdb", images, leave=0)
    with pytest.raises((PoolFull, HostError), match=f"{pool}|No space left") as info:
        host.clone(make(world.name(), base, pool=pool))
    assert "room" in info.value.hint
    assert [path.name for path in images.iterdir()] == ["competing"]
    (images / "competing").unlink()
    assert world.footprint() == before


def test_a_clone_can_be_destroyed_to_make_room_on_a_full_host(
    world: World, host: LocalHost, one_disk: tuple[str, Path]
) -> None:
    pool, images = one_disk
    base = world.base(fmt="raw", disks=2)
    before = world.footprint()
    name = world.name()
    host.clone(full(name, base, pool=pool))
    fill(images)
    host.destroy(name)
    assert [path.name for path in images.iterdir()] == ["competing"]
    (images / "competing").unlink()
    assert world.footprint() == before
