"""Promises about sharing blocks (reflink): said in the plan, really done, and harmless."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.lab import connection
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.request import DiskChanges
from saltext.kvmclone.system import copying, filesystems
from tests.support.storage import file_system, storage_pool
from tests.support.world import World, full, image_info, same_content, sha256

pytestmark = pytest.mark.slow

MIB = 2**20

#: ``FS_IOC_FIEMAP``, and its flag for an extent that more than one file has.
_FIEMAP = 0xC020660B
_SHARED = 0x2000
_SYNC = 1


@pytest.fixture(params=["xfs", "btrfs"])
def pool(world: World, request: pytest.FixtureRequest) -> Iterator[str]:
    """A pool on a file system whose files can share blocks."""
    yield from _pool(world, request.param)


@pytest.fixture
def old_pool(world: World) -> Iterator[str]:
    """A pool on an XFS that was made without reflink."""
    yield from _pool(world, "xfs", "-m", "reflink=0")


@pytest.fixture
def btrfs(world: World) -> Iterator[str]:
    yield from _pool(world, "btrfs")


def _pool(world: World, kind: str, *options: str) -> Iterator[str]:
    name = f"{world.lab.name}-{kind}-{world.token}"
    folder = world.lab.folder / name
    with file_system(folder, kind, *options), storage_pool(name, folder):
        yield name


@pytest.fixture
def base(world: World) -> str:
    return world.base()


def put(world: World, pool: str, form: str, word: str = "source") -> Path:
    """An image with 16 MiB of data in the pool; big enough to tell sharing from copying."""
    path = world.lab.folder / pool / f"{word}-{world.token}.{form}"
    words = ["qemu-img", "create", "-q", "-f", form, path, "64M"]
    subprocess.run(words, check=True)
    write = ["qemu-io", "-f", form, "-c", "write -P 7 1M 16M", path]
    subprocess.run(write, check=True, capture_output=True)
    os.sync()
    with connection() as conn:
        conn.storagePoolLookupByName(pool).refresh()
    return path


def having(world: World, path: Path, form: str) -> str:
    """A base whose second disk is that image."""
    return world.base(
        devices=f"<disk type='file' device='disk'><driver name='qemu' type='{form}'/>"
        f"<source file='{path}'/><target dev='vdb' bus='virtio'/></disk>"
    )


def shared_bytes(path: str | Path) -> int:
    """Bytes of a file that lie in blocks which another file has too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        room = 200
        question = struct.pack("=QQIIII", 0, 2**63, _SYNC, 0, room, 0)
        answer = bytearray(question + bytes(56 * room))
        fcntl.ioctl(descriptor, _FIEMAP, answer)
    finally:
        os.close(descriptor)
    (found,) = struct.unpack_from("=I", answer, 20)
    assert found < room
    extents = [struct.unpack_from("=QQQQQIIII", answer, 32 + 56 * n) for n in range(found)]
    return sum(extent[2] for extent in extents if extent[5] & _SHARED)


def free(folder: Path) -> int:
    os.sync()
    room = os.statvfs(folder)
    return room.f_bfree * room.f_frsize


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_full_clone_shares_its_blocks_until_it_is_written(
    world: World, host: LocalHost, pool: str, form: str
) -> None:
    source = put(world, pool, form)
    base = having(world, source, form)
    request = full(world.name(), base)
    disk = host.plan(request)["disks"][1]
    assert (disk["action"], disk["bytes"]) == ("reflink", 0)
    assert "share blocks" in disk["reason"]

    folder = world.lab.folder / pool
    before = free(folder)
    clone = host.clone(request)
    made = clone.disks[1]
    assert made.strategy == "reflink"
    assert before - free(folder) < 4 * MIB
    assert shared_bytes(made.path) >= 16 * MIB
    assert same_content(source, made.path)
    assert image_info(made.path)["format"] == form
    assert "backing-filename" not in image_info(made.path)

    content = sha256(source)
    words = ["qemu-io", "-f", form, "-c", "write -P 9 0 8M", made.path]
    subprocess.run(words, check=True, capture_output=True)
    assert sha256(source) == content
    assert not same_content(source, made.path)
    host.destroy(clone.name)
    assert sha256(source) == content


def test_a_clone_that_shares_blocks_can_be_larger_than_its_base(
    world: World, host: LocalHost, pool: str
) -> None:
    for form in ("raw", "qcow2"):
        source = put(world, pool, form, f"source-{form}")
        request = full(
            world.name(form),
            world.base(
                f"base-{form}",
                devices=f"<disk type='file' device='disk'><driver name='qemu' type='{form}'/>"
                f"<source file='{source}'/><target dev='vdb' bus='virtio'/></disk>",
            ),
            disks={"vdb": DiskChanges(size=96 * MIB)},
        )
        made = host.clone(request).disks[1]
        assert made.strategy == "reflink"
        assert image_info(made.path)["virtual-size"] == 96 * MIB
        assert shared_bytes(made.path) >= 15 * MIB


def test_a_file_system_that_cannot_is_known_beforehand(
    world: World, host: LocalHost, old_pool: str
) -> None:
    base = having(world, put(world, old_pool, "raw"), "raw")
    request = full(world.name(), base)
    assert host.plan(request)["disks"][1]["action"] == "copy"
    assert host.clone(request).disks[1].strategy == "copy"


def test_nothing_is_shared_from_one_file_system_to_another(
    world: World, host: LocalHost, pool: str
) -> None:
    base = having(world, put(world, pool, "raw"), "raw")
    plan = host.plan(full(world.name(), base, pool=world.lab.pool))
    assert plan["disks"][1]["action"] == "copy"


def test_a_snapshot_or_a_chain_is_never_shared_along(
    world: World, host: LocalHost, pool: str
) -> None:
    source = put(world, pool, "qcow2")
    subprocess.run(["qemu-img", "snapshot", "-c", "s", source], check=True)
    clone = host.clone(full(world.name(), having(world, source, "qcow2")))
    assert clone.disks[1].strategy == "copy"
    assert "snapshots" not in image_info(clone.disks[1].path)
    assert same_content(source, clone.disks[1].path)


def test_btrfs_shares_only_between_files_of_one_kind(
    world: World, host: LocalHost, btrfs: str
) -> None:
    source = put(world, btrfs, "raw")
    base = having(world, source, "raw")
    subprocess.run(["chattr", "+C", world.lab.folder / btrfs], check=True)
    assert not filesystems.copies_on_write(str(world.lab.folder / btrfs))
    request = full(world.name(), base)
    assert host.plan(request)["disks"][1]["action"] == "copy"
    assert host.clone(request).disks[1].strategy == "copy"

    # What libvirt's own pool-build makes of a folder on btrfs: new files are all of that kind.
    alike = put(world, btrfs, "raw", "alike")
    devices = f"<disk type='file'><source file='{alike}'/><target dev='vdb'/></disk>"
    clone = host.clone(full(world.name("alike"), world.base("base-alike", devices=devices)))
    assert clone.disks[1].strategy == "reflink"
    assert shared_bytes(clone.disks[1].path) >= 16 * MIB


def test_where_the_kernel_refuses_after_all_the_blocks_are_copied(
    world: World, host: LocalHost, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(world, pool, "qcow2")
    monkeypatch.setattr(copying, "share_blocks", lambda *_paths: False)
    name = world.name()
    clone = host.clone(full(name, having(world, source, "qcow2")))
    assert clone.disks[1].strategy == "copy"
    assert same_content(source, clone.disks[1].path)
    record = world.record(name)
    assert record is not None
    assert [volume.strategy for volume in record.volumes] == ["copy", "copy"]


def test_the_real_kernel_refuses_across_file_systems_and_leaves_the_target_alone(
    world: World, pool: str
) -> None:
    source = put(world, pool, "raw")
    target = world.lab.pool_path / f"target-{world.token}.raw"
    target.write_bytes(b"as it was")
    assert not copying.share_blocks(str(source), str(target))
    assert target.read_bytes() == b"as it was"


@pytest.mark.parametrize("pool", ["xfs"], indirect=True)
def test_sharing_blocks_needs_no_room(world: World, host: LocalHost, pool: str) -> None:
    source = put(world, pool, "raw")
    base = having(world, source, "raw")
    folder = world.lab.folder / pool
    (folder / "filler").write_bytes(b"x" * (free(folder) - 12 * MIB))
    clone = host.clone(full(world.name(), base))
    assert clone.disks[1].strategy == "reflink"
