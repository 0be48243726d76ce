"""Promises about noticing that a base changed under its clones."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace

import pytest

from lab.lab import connection
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_changes
from saltext.kvmclone.model.record import BaseDisk, Record
from tests.support.open_images import open_in_a_tool
from tests.support.world import CloneOf, World


def record_of(world: World, name: str) -> Record:
    record = world.record(name)
    assert record is not None
    return record


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_an_untouched_base_has_not_changed(
    world: World, base: str, opened: Host, clone_of: CloneOf, strategy: str
) -> None:
    name = clone_of(base, clone_strategy=strategy)
    assert base_changes.changes(opened, record_of(world, name)) == []


@pytest.mark.parametrize(("strategy", "word"), [("quick", "garbage"), ("full", "own copy")])
def test_a_written_base_is_noticed_and_what_it_means_is_said(
    world: World, base: str, opened: Host, clone_of: CloneOf, strategy: str, word: str
) -> None:
    name = clone_of(base, clone_strategy=strategy)
    disk = world.disks(base)[0]
    os.utime(disk)
    (told,) = base_changes.changes(opened, record_of(world, name))
    assert str(disk) in told
    assert base in told
    assert word in told


def test_a_base_that_an_older_file_replaced_is_noticed(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    os.utime(world.disks(base)[0], (1e9, 1e9))
    (told,) = base_changes.changes(opened, record_of(world, name))
    assert "replaced" in told


def test_every_file_that_the_record_names_is_looked_at(
    world: World, opened: Host, clone_of: CloneOf
) -> None:
    base = world.base(chain=2)
    record = record_of(world, clone_of(base))
    below = world.disks(base)[0].with_name(f"{base}-0-below0.qcow2")
    deepest = BaseDisk("vda", str(below), 0, below.stat().st_mtime)
    record = replace(record, base_disks=(*record.base_disks, deepest))
    assert base_changes.changes(opened, record) == []
    os.utime(below)
    assert str(below) in base_changes.changes(opened, record)[0]


def test_changing_owner_or_mode_is_no_change(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    disk = world.disks(base)[0]
    disk.chmod(0o444)
    shutil.chown(disk, "nobody")
    assert base_changes.changes(opened, record_of(world, name)) == []


def test_a_missing_file_is_noticed(world: World, opened: Host, clone_of: CloneOf) -> None:
    base = world.base(disks=2)
    name = clone_of(base)
    world.disks(base)[1].unlink()
    (told,) = base_changes.changes(opened, record_of(world, name))
    assert str(world.disks(base)[1]) in told
    assert "gone" in told


def test_a_base_that_is_gone_with_its_files_is_one_sentence(
    world: World, opened: Host, clone_of: CloneOf
) -> None:
    base = world.base(disks=2)
    name = clone_of(base)
    for disk in world.disks(base):
        disk.unlink()
    with connection() as conn:
        conn.lookupByName(base).undefine()
    (told,) = base_changes.changes(opened, record_of(world, name))
    assert "gone with its files" in told


def test_a_base_that_nobody_can_look_at_now_is_told_and_hides_no_clone(
    world: World, base: str, opened: Host, host: LocalHost, clone_of: CloneOf, monkeypatch
) -> None:
    name = clone_of(base)
    disk, real = str(world.disks(base)[0]), os.stat

    def stale(path: object, *more: object, **keys: object) -> os.stat_result:
        if path == disk:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(path, *more, **keys)

    monkeypatch.setattr(os, "stat", stale)
    (told,) = base_changes.changes(opened, record_of(world, name))
    assert "not known: Stale file handle" in told
    assert told in host.show(name).warnings
    assert name in [clone.name for clone in host.list_clones()]


def test_a_definition_that_went_without_its_files_is_no_change(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    with connection() as conn:
        conn.lookupByName(base).undefine()
    assert base_changes.changes(opened, record_of(world, name)) == []


def test_a_renamed_base_is_still_known(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    record = record_of(world, clone_of(base))
    renamed = world.name("renamed")
    with connection() as conn:
        conn.lookupByName(base).rename(renamed)
    found = base_changes.find_base(opened, record)
    assert found is not None
    assert found.name == renamed


def test_it_costs_two_calls_where_the_files_are_in_reach(
    world: World, opened: Host, clone_of: CloneOf
) -> None:
    record = record_of(world, clone_of(world.base(disks=3)))
    before = opened.calls
    base_changes.changes(opened, record)
    assert opened.calls - before <= 2


def test_where_the_files_are_out_of_reach_libvirt_is_asked(
    world: World,
    base: str,
    opened: Host,
    clone_of: CloneOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = record_of(world, clone_of(base))
    monkeypatch.setattr(Host, "local", False)
    assert base_changes.changes(opened, record) == []
    os.utime(world.disks(base)[0])
    assert "changed" in base_changes.changes(opened, record)[0]


@pytest.mark.guest
def test_a_running_base_is_a_danger_for_quick_clones_only(
    world: World, host: LocalHost, base: str, opened: Host, clone_of: CloneOf
) -> None:
    quick = clone_of(base, "quick")
    full = clone_of(base, "full", clone_strategy="full")
    stamp = world.disks(base)[0].stat()
    world.lab.start(base)
    os.utime(world.disks(base)[0], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (told,) = base_changes.changes(opened, record_of(world, quick))
    assert "running" in told
    assert base_changes.changes(opened, record_of(world, full)) == []


def test_somebody_who_has_the_bases_disk_open_is_noticed_before_a_byte_changed(
    world: World, opened: Host, clone_of: CloneOf
) -> None:
    """Another machine with the same disk, or a tool; what it writes may be in its memory yet."""
    base = world.base(chain=1)
    below = world.disks(base)[0].with_name(f"{base}-0-below0.qcow2")
    quick, full = clone_of(base), clone_of(base, "full", clone_strategy="full")
    with open_in_a_tool(below):
        (told,) = base_changes.changes(opened, record_of(world, quick))
        assert str(below) in told
        assert "open for writing" in told
        assert base_changes.changes(opened, record_of(world, full)) == []
    assert base_changes.changes(opened, record_of(world, quick)) == []


def test_a_base_whose_disk_is_no_file_any_more_is_noticed(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    disk = world.disks(base)[0]
    name = clone_of(base)
    disk.unlink()
    os.mkfifo(disk)
    try:
        (told,) = base_changes.changes(opened, record_of(world, name))
    finally:
        disk.unlink()
    assert "is no longer a file" in told
