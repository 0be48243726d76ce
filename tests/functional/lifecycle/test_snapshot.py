"""Promises about taking snapshots of a clone, rolling it back, and deleting them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab.lab import connection
from saltext.kvmclone.errors import (
    CloneInUse,
    CreateInProgress,
    ForeignDomain,
    KvmCloneError,
    NoSnapshot,
    PoolFull,
    SnapshotRefused,
)
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.record import FrozenDisk
from saltext.kvmclone.model.request import DiskChanges
from saltext.kvmclone.system import filesystems, processes
from tests.support.open_images import open_in_a_tool
from tests.support.storage import MIB
from tests.support.world import CloneOf, World, image_info, quick, sha256

#: Makes a clone at stage ``addressed`` that is off.
Clone = Callable[..., str]


@pytest.fixture
def clone(world: World, host: LocalHost, clone_of: CloneOf, opened: Host) -> Clone:
    """Makes a clone with an identity of its own, as far as its record says."""

    def make(base: str, word: str = "clone", **keys: object) -> str:
        name = clone_of(base, word, **keys)
        handle = opened.domain(name)
        record = handle.record()
        assert record is not None
        handle.save_record(replace(record.at("addressed"), goal="addressed"))
        return name

    return make


def write(path: Path, number: int, at: int = 0) -> None:
    """What a guest would write: 64 KiB of one byte."""
    command = f"write -P {number} {at} 64k"
    subprocess.run(["qemu-io", "-c", command, path], check=True, capture_output=True)


def reads(path: Path, number: int, at: int = 0) -> bool:
    """Whether a guest would read that."""
    command = f"read -P {number} {at} 64k"
    return subprocess.run(["qemu-io", "-r", "-c", command, path], check=False).returncode == 0


def files(world: World) -> set[str]:
    return {path.name for path in world.lab.folder.rglob(f"*{world.token}*")}


@pytest.mark.parametrize("strategy", ["quick", "full"])
@pytest.mark.parametrize("fmt", ["qcow2", "raw"])
def test_a_clone_is_rolled_back_to_what_it_was(
    world: World, host: LocalHost, clone: Clone, strategy: str, fmt: str
) -> None:
    base = world.base(disks=[fmt, "raw"])
    before = sha256(world.disks(base)[0])
    name = clone(base, clone_strategy=strategy)
    first = world.disks(name)
    if first[0].suffix == ".qcow2":
        write(first[0], 1)
    taken = host.snapshot(name, "before")
    assert [(disk.target, disk.path) for disk in taken.disks] == [
        ("vda", str(first[0])), ("vdb", str(first[1]))
    ]  # fmt: skip
    assert (taken.label, taken.frozen, taken.current) == ("before", False, True)
    top = world.disks(name)[0]
    assert top.name == f"{name}-vda.before.1.qcow2"
    assert image_info(top)["full-backing-filename"] == str(first[0])
    write(top, 2)
    frozen = sha256(first[0])
    back = host.rollback(name, "before")
    assert back.state == "shutoff"
    now = world.disks(name)[0]
    assert not reads(now, 2)
    assert sha256(first[0]) == frozen
    assert not top.exists()
    assert now.name == f"{name}-vda.before.2.qcow2"
    assert [disk.path for disk in back.disks] == [str(path) for path in world.disks(name)]
    assert sha256(world.disks(base)[0]) == before


def test_snapshots_are_a_tree_of_which_each_can_be_gone_back_to(
    world: World, host: LocalHost, base: str, clone: Clone
) -> None:
    name = clone(base)
    write(world.disks(name)[0], 1)
    host.snapshot(name, "one")
    write(world.disks(name)[0], 2)
    host.snapshot(name, "two")
    write(world.disks(name)[0], 3)
    host.rollback(name, "one")
    write(world.disks(name)[0], 4)
    host.snapshot(name, "three")
    for label, number in (("two", 2), ("three", 4), ("one", 1), ("two", 2)):
        host.rollback(name, label)
        assert reads(world.disks(name)[0], number)
        shown = host.snapshots(name)
        assert [one.label for one in shown] == ["one", "two", "three"]
        assert [one.label for one in shown if one.current] == [label]
    host.delete_snapshot(name, "one")
    for label, number in (("three", 4), ("two", 2)):
        host.rollback(name, label)
        assert reads(world.disks(name)[0], number)
    host.delete_snapshot(name, "two")
    assert reads(world.disks(name)[0], 2)
    host.delete_snapshot(name, "three")
    assert reads(world.disks(name)[0], 2)
    assert host.snapshots(name) == []
    record = world.record(name)
    assert record is not None
    assert [Path(one.path) for one in record.volumes] == world.disks(name)
    assert record.volumes[0].strategy == "overlay"
    assert {one for one in files(world) if one.startswith(name)} >= {world.disks(name)[0].name}
    assert len([one for one in files(world) if one.startswith(f"{name}-vda")]) == 1


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_a_destroy_takes_the_snapshots_along(
    world: World, host: LocalHost, clone: Clone, strategy: str
) -> None:
    base = world.base(disks=["qcow2", "raw"], uefi=True)
    before = world.footprint()
    name = clone(base, clone_strategy=strategy)
    nvram = Path(str(world.xml(name).findtext("./os/nvram")))
    nvram.write_bytes(b"first" * 100)
    host.snapshot(name, "one")
    host.snapshot(name, "two")
    host.rollback(name, "one")
    host.snapshot(name, "three")
    assert len([one for one in files(world) if one.startswith(f"{name}-vda")]) == 4
    assert host.doctor() == []
    gone = host.destroy(name)
    assert gone.warnings == ()
    assert world.footprint() == before


def test_the_variable_store_comes_back(world: World, host: LocalHost, clone: Clone) -> None:
    name = clone(world.base(uefi=True))
    nvram = Path(str(world.xml(name).findtext("./os/nvram")))
    nvram.write_bytes(b"first")
    host.snapshot(name, "before")
    nvram.write_bytes(b"second")
    host.rollback(name, "before")
    assert nvram.read_bytes() == b"first"
    host.delete_snapshot(name, "before")
    assert nvram.read_bytes() == b"first"
    assert len([one for one in files(world) if one.startswith(nvram.name)]) == 1


def test_a_disk_that_grew_keeps_what_is_in_the_part_that_the_snapshot_lacks(
    world: World, host: LocalHost, base: str, clone: Clone
) -> None:
    name = clone(base)
    host.snapshot(name, "small")
    grown = host.adjust(quick(name, base, disks={"vda": DiskChanges(size=128 * MIB)}), dry=False)
    assert grown.refused == []
    write(world.disks(name)[0], 5, 100 * MIB)
    host.snapshot(name, "large")
    host.rollback(name, "small")
    assert image_info(world.disks(name)[0])["virtual-size"] == 64 * MIB
    host.rollback(name, "large")
    host.delete_snapshot(name, "small")
    host.delete_snapshot(name, "large")
    assert image_info(world.disks(name)[0])["virtual-size"] == 128 * MIB
    assert reads(world.disks(name)[0], 5, 100 * MIB)


def test_a_file_that_somebody_has_open_stays_until_the_next_command(
    world: World, host: LocalHost, base: str, clone: Clone
) -> None:
    name = clone(base)
    host.snapshot(name, "before")
    top = world.disks(name)[0]
    with open_in_a_tool(top):
        told = host.rollback(name, "before").warnings
    assert any(f"'{top}' stays" in word for word in told)
    (found,) = host.doctor()
    assert (found["kind"], str(top) in found["message"]) == ("volume-unused", True)
    host.snapshot(name, "after")
    assert not top.exists()
    assert host.doctor() == []


def test_libvirt_sees_the_new_files_and_starts_the_clone(
    world: World, host: LocalHost, base: str, clone: Clone
) -> None:
    name = clone(base)
    host.snapshot(name, "before")
    host.rollback(name, "before")
    with connection() as conn:
        volume = conn.storageVolLookupByPath(str(world.disks(name)[0]))
        assert "backingStore" in volume.XMLDesc()


def test_the_definition_and_the_record_stay_as_they_are_now(
    world: World, host: LocalHost, base: str, clone: Clone, opened: Host
) -> None:
    name = clone(base)
    host.snapshot(name, "before")
    handle = opened.domain(name)
    record = handle.record()
    assert record is not None
    handle.save_record(replace(record, address="192.0.2.7", tags=("later",)))
    handle.set_autostart(True)
    cpus = world.xml(name).findtext("vcpu")
    back = host.rollback(name, "before")
    assert (back.address, back.tags) == ("192.0.2.7", ("later",))
    assert world.autostart(name)
    assert world.xml(name).findtext("vcpu") == cpus


# --- refusals -----------------------------------------------------------------------------------


def refused(world: World, error: type[KvmCloneError], work: Callable[[], object]) -> KvmCloneError:
    """The error of something refused, which touched nothing."""
    before = world.footprint()
    with pytest.raises(error) as info:
        work()
    assert world.footprint() == before
    assert info.value.hint
    return info.value


def test_a_label_is_taken_once_and_a_snapshot_that_is_gone_is_told(
    world: World, host: LocalHost, base: str, clone: Clone
) -> None:
    name = clone(base)
    told = refused(world, NoSnapshot, lambda: host.rollback(name, "before"))
    assert "It has: none" in told.message
    host.snapshot(name, "before")
    host.snapshot(name, "after")
    refused(world, SnapshotRefused, lambda: host.snapshot(name, "before"))
    told = refused(world, NoSnapshot, lambda: host.rollback(name, "befor"))
    assert "It has: before, after." in told.message
    refused(world, NoSnapshot, lambda: host.delete_snapshot(name, "befor"))


def test_a_base_a_clone_without_an_identity_and_one_of_another_worker_are_refused(
    world: World, host: LocalHost, base: str, clone: Clone, clone_of: CloneOf, opened: Host
) -> None:
    refused(world, ForeignDomain, lambda: host.snapshot(base))
    early = clone_of(base, "early")
    told = refused(world, SnapshotRefused, lambda: host.snapshot(early))
    assert "'cloned'" in told.message
    name = clone(base)
    handle = opened.domain(name)
    record = handle.record()
    assert record is not None
    me = processes.this_process()
    handle.save_record(replace(record, under_way="rollback x", worker=me))
    for work in (
        lambda: host.snapshot(name),
        lambda: host.destroy(name),
        lambda: host.power(name, "start"),
        lambda: host.adjust(quick(name, base, cpus=2), dry=False),
    ):
        told = refused(world, CreateInProgress, work)
        assert "changed (rollback x)" in told.message


def test_a_clone_on_a_file_that_would_go_is_in_the_way(
    world: World, host: LocalHost, base: str, clone: Clone, clone_of: CloneOf
) -> None:
    name = clone(base)
    host.snapshot(name, "before")
    upper = clone_of(name, "upper")
    assert (
        f"{upper}-vda.qcow2"
        in refused(world, CloneInUse, lambda: host.rollback(name, "before")).message
    )
    refused(world, CloneInUse, lambda: host.delete_snapshot(name, "before"))
    refused(world, CloneInUse, lambda: host.destroy(name))
    host.destroy(upper)
    host.rollback(name, "before")
    host.destroy(name)


def test_an_overlay_of_another_tool_is_in_the_way(
    world: World, host: LocalHost, base: str, clone: Clone
) -> None:
    name = clone(base)
    host.snapshot(name, "before")
    top = world.disks(name)[0]
    by_hand = top.with_name(f"by-hand-{world.token}.qcow2")
    world.overlay(top, by_hand)
    refused(world, CloneInUse, lambda: host.rollback(name, "before"))
    refused(world, CloneInUse, lambda: host.destroy(name))
    by_hand.unlink()
    subprocess.run(
        ["virsh", "snapshot-create-as", name, "x", "--disk-only", "--no-metadata"],
        check=True, capture_output=True,
    )  # fmt: skip
    told = refused(world, SnapshotRefused, lambda: host.snapshot(name, "more"))
    assert "not on the record" in told.message


def test_a_file_of_a_snapshot_that_was_replaced_is_not_gone_back_to(
    world: World, host: LocalHost, base: str, clone: Clone
) -> None:
    name = clone(base)
    host.snapshot(name, "one")
    second = world.disks(name)[0]
    host.snapshot(name, "two")
    second.rename(second.with_name(f"aside-{world.token}"))
    told = refused(world, SnapshotRefused, lambda: host.rollback(name, "two"))
    assert f"'{second}' is missing" in told.message


def test_a_file_that_only_an_edited_record_lists_is_not_written(
    world: World, host: LocalHost, base: str, clone: Clone, opened: Host
) -> None:
    name = clone(base)
    host.snapshot(name, "one")
    top, handle = world.disks(name)[0], opened.domain(name)
    foreign = top.with_name(f"foreign-{world.token}.qcow2")
    world.overlay(top.with_name(f"{name}-vda.qcow2"), foreign)
    record = handle.record()
    assert record is not None
    listed = replace(record.volumes[-1], path=str(foreign), inode="")
    taken = replace(record.snapshots[0], label="two", disks=(FrozenDisk("vda", str(foreign), "x"),))
    handle.save_record(
        replace(record, volumes=(*record.volumes, listed), snapshots=(*record.snapshots, taken))
    )
    refused(world, SnapshotRefused, lambda: host.delete_snapshot(name, "one"))
    before = sha256(foreign)
    refused(world, CloneInUse, lambda: host.destroy(name))
    assert sha256(foreign) == before


def test_without_space_nothing_is_begun(
    world: World, host: LocalHost, base: str, clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = clone(base)
    host.snapshot(name, "before")
    full = filesystems.Filesystem(available=1000)
    monkeypatch.setattr(filesystems, "of", lambda _folder: full)
    refused(world, PoolFull, lambda: host.rollback(name, "before"))
    refused(world, PoolFull, lambda: host.snapshot(name, "more"))


def test_over_a_remote_url_it_is_refused(
    world: World, far_host: LocalHost, base: str, clone: Clone
) -> None:
    name = clone(base)
    told = refused(world, SnapshotRefused, lambda: far_host.snapshot(name))
    assert "host:" in told.hint
