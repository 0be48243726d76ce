"""Promises about losing data: whatever a record or a definition says, nobody else's byte goes."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lab.lab import connection
from saltext.kvmclone.errors import CloneInUse, ForeignDomain, HostError, OutOfReach
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import deletion_plan
from saltext.kvmclone.lifecycle import destroy
from saltext.kvmclone.model.record import Volume
from tests.support.edited_definitions import respell, rewrite
from tests.support.hints import Typist
from tests.support.storage import file_system, storage_pool
from tests.support.world import World, full, quick

pytestmark = pytest.mark.slow

TREASURE = b"the only copy of something" * 4000


def edit_record(clone: str, **changes: Any) -> None:
    """Change a record by hand, as ``virsh metadata`` does."""
    with Host("qemu:///system") as host:
        handle = host.domain(clone)
        record = handle.record()
        assert record is not None
        handle.save_record(replace(record, **changes))


def listing(name: str, path: Path | str, target: str = "vda") -> None:
    """Let a record list that file and nothing else."""
    edit_record(name, volumes=(Volume(target, str(path), "qcow2", "copy"),))


def said(warnings: tuple[str, ...], path: Path | str) -> str:
    """What is said of a file, which must be named."""
    found = [word for word in warnings if f"'{path}'" in word]
    assert found, warnings
    return found[0]


# --- one file, many names -----------------------------------------------------------------------


def test_a_disk_under_another_spelling_goes(world: World, host: LocalHost, base: str) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    respell(name, f"{disk.parent}//{disk.name}")
    assert len(host.show(name).disks) == 1
    gone = host.destroy(name)
    assert not disk.exists()
    assert not [word for word in gone.warnings if str(disk) in word]


def test_a_disk_through_a_linked_folder_goes(
    world: World, host: LocalHost, base: str, tmp_path: Path
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    (tmp_path / "images").symlink_to(disk.parent)
    respell(name, tmp_path / "images" / disk.name)
    host.destroy(name)
    assert not disk.exists()


def test_a_link_to_the_disk_is_named_and_the_disk_goes(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    link = disk.with_name(f"link-{name}")
    link.symlink_to(disk)
    respell(name, link)
    gone = host.destroy(name)
    assert not disk.exists()
    assert "it is a link" in said(gone.warnings, link)
    link.unlink()


def test_a_hard_link_keeps_what_the_disk_held(world: World, host: LocalHost, base: str) -> None:
    name = world.name()
    host.clone(full(name, base))
    disk = world.disks(name)[0]
    before = disk.read_bytes()
    other = disk.with_name(f"other-{name}")
    other.hardlink_to(disk)
    respell(name, other)
    gone = host.destroy(name)
    assert not disk.exists()
    assert other.read_bytes() == before
    assert "hard link" in said(gone.warnings, other)


def test_a_disk_that_is_named_by_pool_and_volume_goes(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]

    def change(root: ElementTree.Element) -> None:
        element = root.find("./devices/disk/source/..")
        assert element is not None
        element.set("type", "volume")
        source = element.find("source")
        assert source is not None
        source.attrib.clear()
        source.attrib.update(pool=world.lab.pool, volume=disk.name)

    rewrite(name, change)
    assert [(one.path, one.strategy) for one in host.show(name).disks] == [(str(disk), "overlay")]
    drawn = host.tree()["bases"][base]["clones"][name]["disks"]
    assert [one["path"] for one in drawn] == [str(disk)]
    gone = host.destroy(name)
    assert not disk.exists()
    assert not [word for word in gone.warnings if "stays" in word]


# --- what is away -------------------------------------------------------------------------------


def test_a_file_system_that_is_not_mounted_keeps_the_record(
    world: World, host: LocalHost, base: str
) -> None:
    folder = world.lab.folder / f"mount-{world.token}"
    with file_system(folder, "ext4", size=32 * 2**20), storage_pool(folder.name, folder):
        name = world.name()
        host.clone(quick(name, base, pool=folder.name))
        disk = world.disks(name)[0]
        subprocess.run(["umount", folder], check=True)
        try:
            with pytest.raises(OutOfReach, match=f"nothing is mounted at '{folder}'"):
                host.destroy(name)
            assert world.exists(name)
        finally:
            image = folder.with_suffix(".ext4.img")
            subprocess.run(["mount", "-o", "loop", image, folder], check=True)
        assert disk.exists()
        host.destroy(name)
        assert not disk.exists()
        (folder / "lost+found").rmdir()


def test_an_overlay_on_a_file_system_that_is_not_mounted_still_counts(
    world: World, host: LocalHost, base: str
) -> None:
    folder = world.lab.folder / f"mount-{world.token}"
    with file_system(folder, "ext4", size=32 * 2**20), storage_pool(folder.name, folder):
        first, second = world.name("first"), world.name("second")
        host.clone(quick(first, base))
        host.clone(quick(second, first, pool=folder.name))
        subprocess.run(["umount", folder], check=True)
        try:
            with pytest.raises(CloneInUse, match=second):
                host.destroy(first)
        finally:
            image = folder.with_suffix(".ext4.img")
            subprocess.run(["mount", "-o", "loop", image, folder], check=True)
        host.destroy(second)
        host.destroy(first)
        (folder / "lost+found").rmdir()


def test_a_folder_that_was_moved_away_keeps_the_record_unless_forced(
    world: World, host: LocalHost, base: str
) -> None:
    folder = world.lab.folder / f"away-{world.token}"
    with storage_pool(folder.name, folder):
        name = world.name()
        host.clone(quick(name, base, pool=folder.name))
        disk = world.disks(name)[0]
        elsewhere = folder.with_name(f"elsewhere-{world.token}")
        folder.rename(elsewhere)
        with pytest.raises(OutOfReach, match=f"its folder '{folder}' does not exist"):
            host.destroy(name)
        gone = host.destroy(name, force=True)
        assert "stays" in said(gone.warnings, disk)
        assert (elsewhere / disk.name).exists()
        elsewhere.rename(folder)
    folder.rmdir()


def test_a_disk_that_was_moved_is_named(world: World, host: LocalHost, base: str) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    moved = disk.rename(disk.with_name(f"moved-{name}"))
    gone = host.destroy(name)
    assert "is missing" in said(gone.warnings, disk)
    assert moved.exists()


def test_a_link_where_the_disk_was_stays_with_what_it_leads_to(
    world: World, host: LocalHost, base: str, tmp_path: Path
) -> None:
    """Somebody moved the disk to a larger file system; or planted a link to a file of value."""
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    treasure = tmp_path / "treasure"
    treasure.write_bytes(TREASURE)
    disk.unlink()
    disk.symlink_to(treasure)
    gone = host.destroy(name)
    assert treasure.read_bytes() == TREASURE
    assert disk.is_symlink()
    assert str(treasure) in said(gone.warnings, disk)


# --- what a record may say ----------------------------------------------------------------------


def test_a_record_that_lists_a_file_which_the_definition_does_not_use(
    world: World, host: LocalHost, base: str, tmp_path: Path
) -> None:
    treasure = tmp_path / "passwd"
    treasure.write_bytes(TREASURE)
    for word, target in (("disk", "vda"), ("store", "nvram")):
        name = world.name(word)
        host.clone(quick(name, base))
        disk = world.disks(name)[0]
        listing(name, treasure, target)
        gone = host.destroy(name)
        assert treasure.read_bytes() == TREASURE
        assert said(gone.warnings, treasure)
        assert disk.exists(), "it is on no record any more"


def test_a_record_and_a_definition_that_both_name_a_file_of_value(
    world: World, host: LocalHost, base: str, tmp_path: Path
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    treasure = tmp_path / "passwd"
    treasure.write_bytes(TREASURE)
    respell(name, treasure)
    listing(name, treasure)
    gone = host.destroy(name)
    assert treasure.read_bytes() == TREASURE
    assert "not named as our files are" in said(gone.warnings, treasure)


@pytest.mark.parametrize("base_goes_first", [False, True])
def test_a_record_that_lists_the_bases_disk(
    world: World, host: LocalHost, base: str, base_goes_first: bool
) -> None:
    name = world.name()
    host.clone(full(name, base))
    original = world.disks(base)[0]
    before = original.read_bytes()
    respell(name, original)
    listing(name, original)
    if base_goes_first:
        with connection() as conn:
            conn.lookupByName(base).undefine()
    gone = host.destroy(name)
    assert original.read_bytes() == before
    assert said(gone.warnings, original)


def test_two_records_that_list_one_file(world: World, host: LocalHost, base: str) -> None:
    one, two = world.name("one"), world.name("two")
    for name in (one, two):
        host.clone(full(name, base))
    disk = world.disks(one)[0]
    respell(two, disk)  # it uses the other's disk, and its record says that it is its own
    edit_record(two, name=one, volumes=(Volume("vda", str(disk), "qcow2", "copy"),))
    gone = host.destroy(two)
    assert disk.exists()
    assert one in said(gone.warnings, disk)
    host.destroy(one)
    assert not disk.exists()


def test_a_file_on_the_record_of_another_clone_stays(
    world: World, host: LocalHost, base: str
) -> None:
    """The other one was detached from it for the moment; it is still its own."""
    one, two = world.name("one"), world.name("two")
    host.clone(full(one, base))
    host.clone(full(two, base))
    disk = world.disks(one)[0]
    world.detach(one, "vda")
    respell(two, disk)
    edit_record(two, name=one, volumes=(Volume("vda", str(disk), "qcow2", "copy"),))
    gone = host.destroy(two)
    assert disk.exists()
    assert f"the record of '{one}'" in said(gone.warnings, disk)


# --- between the verdict and the deed -----------------------------------------------------------


def test_a_file_that_is_swapped_while_it_is_destroyed_stays(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = world.name()
    host.clone(full(name, base))
    disk = world.disks(name)[0]
    real = destroy.delete_file

    number = disk.stat().st_ino

    def swap(opened: Host, file: deletion_plan.FileToDelete) -> bool:
        """File systems give the number of a file that went to one of the next that come."""
        disk.unlink()
        for attempt in range(1000):
            new = disk.with_name(f"{name}-new{attempt}")
            new.write_bytes(TREASURE)
            if new.stat().st_ino == number:
                break
        new.rename(disk)
        return real(opened, file)

    with monkeypatch.context() as patched:
        patched.setattr(destroy, "delete_file", swap)
        with pytest.raises(HostError, match="replaced"):
            host.destroy(name)
    assert disk.read_bytes() == TREASURE
    assert world.exists(name)


def test_a_link_that_is_planted_while_it_is_destroyed_leads_nowhere(
    world: World, host: LocalHost, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = world.name()
    host.clone(full(name, base))
    disk = world.disks(name)[0]
    treasure = tmp_path / "treasure"
    treasure.write_bytes(TREASURE)
    real = destroy.delete_file

    def plant(opened: Host, file: deletion_plan.FileToDelete) -> bool:
        disk.unlink()
        disk.symlink_to(treasure)
        return real(opened, file)

    with monkeypatch.context() as patched:
        patched.setattr(destroy, "delete_file", plant)
        with pytest.raises(HostError, match="replaced"):
            host.destroy(name)
    assert treasure.read_bytes() == TREASURE


# --- copies, snapshots, bases that went ---------------------------------------------------------


def test_a_clone_whose_base_was_removed_by_hand_leaves_the_bases_files(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    original = world.disks(base)[0]
    before = original.read_bytes()
    with connection() as conn:
        conn.lookupByName(base).undefine()
    host.destroy(name)
    assert original.read_bytes() == before


@pytest.mark.parametrize("shares", [True, False])
def test_virt_clone_of_a_clone_never_costs_the_original_its_disk(
    world: World, host: LocalHost, base: str, shares: bool
) -> None:
    """virt-clone copies our record along, which lists the original's disk."""
    original = world.name("original")
    host.clone(quick(original, base))
    disk = world.disks(original)[0]
    copy = world.name("copy")
    theirs = disk if shares else disk.with_name(f"{copy}.qcow2")
    words = ["virt-clone", "-o", original, "-n", copy, "--file", theirs]
    words += ["--preserve-data", "--check", "path_in_use=off"] if shares else []
    subprocess.run(list(map(str, words)), check=True, capture_output=True)
    with pytest.raises(ForeignDomain):
        host.destroy(copy)
    host.destroy(copy, force=True)
    assert disk.exists()
    assert theirs.exists()
    host.destroy(original)
    assert not disk.exists()


def test_what_a_snapshot_left_is_named_with_a_command(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    """The disk was folded back into one file; the overlay lies there still."""
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    left = disk.with_name(f"{name}-vda.snap")
    world.overlay(disk, left)
    with pytest.raises(CloneInUse) as info:
        host.destroy(name)
    assert disk.exists()
    typist(info.value.hint, "rm ")
    assert not left.exists()
    host.destroy(name)
    assert not disk.exists()


@pytest.mark.guest
def test_a_snapshot_beside_the_disk_is_folded_in_as_the_hints_say(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    original = world.disks(base)[0].read_bytes()
    host.boot(name)
    words = ["virsh", "snapshot-create-as", name, "before", "--disk-only"]
    subprocess.run(words, check=True, capture_output=True)
    above = world.disks(name)[0]
    assert above != disk
    for begin in ("virsh -c qemu:///system blockcommit", "rm "):
        with pytest.raises(CloneInUse) as info:
            host.destroy(name)
        typist(info.value.hint, begin)
    assert not above.exists()
    host.destroy(name)
    assert not disk.exists()
    assert world.disks(base)[0].read_bytes() == original


def test_a_recorded_folder_or_device_is_never_emptied(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    disk.unlink()
    disk.mkdir()
    treasure = disk / "treasure"
    treasure.write_bytes(TREASURE)
    gone = host.destroy(name)
    assert treasure.read_bytes() == TREASURE
    assert "no longer a regular file" in said(gone.warnings, disk)
    shutil.rmtree(disk)
    assert not os.path.lexists(disk)


# --- hidden behind something else ---------------------------------------------------------------


@pytest.mark.parametrize("has_one", [True, False])
def test_what_is_mounted_over_a_pool_loses_nothing(
    world: World, host: LocalHost, base: str, outside: Path, has_one: bool
) -> None:
    """A backup, mounted where the pool is, may hold a file of the same name: it is not the disk."""
    folder, backup = outside / f"pool-{world.token}", outside / f"backup-{world.token}"
    backup.mkdir(mode=0o755)
    with storage_pool(folder.name, folder):
        name = world.name()
        host.clone(quick(name, base, pool=folder.name))
        disk = world.disks(name)[0]
        if has_one:
            shutil.copy(disk, backup)
        subprocess.run(["mount", "--bind", backup, folder], check=True)
        try:
            for force in (False, True):
                with pytest.raises(OutOfReach, match=f"mounted at '{folder}' is not"):
                    host.destroy(name)
                if force:
                    gone = host.destroy(name, force=True)
                    assert "stays" in said(gone.warnings, disk)
                assert [path.name for path in backup.iterdir()] == [disk.name] * has_one
        finally:
            subprocess.run(["umount", folder], check=True)
        assert disk.exists()
