"""Promises about the tree: where every clone comes from, what it stands on, what changed."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from typing import Any

import pytest

from lab.lab import connection
from saltext.kvmclone.display.screen import Screen
from saltext.kvmclone.display.tree import tree
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import lineage
from tests.support.world import CloneOf, World, image_info, occupied


def bases(world: World, opened: Host) -> dict[str, Any]:
    """The part of the host's tree that is this test's."""
    found = lineage.tree(opened).as_dict()["bases"]
    return {name: base for name, base in found.items() if world.token in name}


def test_clones_stand_below_their_base_and_clones_of_clones_below_those(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    first = clone_of(base, "first")
    second = clone_of(first, "second")
    third = clone_of(base, "third", clone_strategy="full")
    assert list(bases(world, opened)) == [base]
    branch = bases(world, opened)[base]
    assert (branch["exists"], branch["state"], branch["drift"]) == (True, "shutoff", False)
    assert sorted(branch["clones"]) == [first, third]
    assert list(branch["clones"][first]["clones"]) == [second]
    shown = branch["clones"][third]
    assert (shown["strategy"], shown["stage"], shown["state"]) == ("full", "cloned", "shutoff")


def test_disks_are_told_with_sizes_and_what_they_stand_on(
    world: World, opened: Host, clone_of: CloneOf
) -> None:
    base = world.base(disks=["qcow2", "raw"], cdrom=True)
    name = clone_of(base)
    branch = bases(world, opened)[base]
    for disks, machine in ((branch["disks"], base), (branch["clones"][name]["disks"], name)):
        paths = world.disks(machine)
        assert [disk["path"] for disk in disks] == [str(path) for path in paths]
        for disk, path in zip(disks, paths, strict=True):
            info = image_info(path)
            assert disk["capacity"] == info["virtual-size"] == 64 * 2**20
            assert disk["allocation"] == occupied(path)
            assert disk["format"] == info["format"]
            assert disk["backing"] == info.get("full-backing-filename", "")
    assert [disk["target"] for disk in branch["disks"]] == ["vda", "vdb"]


def test_without_a_look_at_the_files_libvirt_tells_the_same(
    world: World, base: str, opened: Host, clone_of: CloneOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = clone_of(base)
    world.refresh()
    here = bases(world, opened)
    monkeypatch.setattr(Host, "local", False)
    assert bases(world, opened) == here
    assert here[base]["clones"][name]["disks"][0]["backing"] == str(world.disks(base)[0])


def test_a_base_that_changed_says_so_at_the_clone_and_at_the_base(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    os.utime(world.disks(base)[0])
    branch = bases(world, opened)[base]
    assert branch["drift"]
    assert branch["clones"][name]["drift"]
    assert str(world.disks(base)[0]) in branch["clones"][name]["changes"][0]
    assert "base changed since" in "\n".join(
        tree({"bases": {base: branch}}, Screen(80, 0.0, "tree"))
    )


def test_a_base_that_is_gone_is_still_there_with_what_is_remembered_of_it(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    clone_of(base)
    disk = world.disks(base)[0]
    with connection() as conn:
        conn.lookupByName(base).undefine()
    branch = bases(world, opened)[base]
    assert (branch["exists"], branch["state"]) == (False, "")
    assert [(one["path"], one["exists"]) for one in branch["disks"]] == [(str(disk), True)]
    disk.unlink()
    branch = bases(world, opened)[base]
    assert [(one["path"], one["exists"]) for one in branch["disks"]] == [(str(disk), False)]
    assert branch["drift"]


def test_a_new_machine_of_the_bases_name_is_not_the_base(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    old = clone_of(base, "of-the-old")
    xml = world.secure_xml(base)
    old_uuid = world.xml(base).findtext("uuid") or ""
    with connection() as conn:
        conn.lookupByName(base).undefine()
        conn.defineXML(xml.replace(old_uuid, str(uuid.uuid4())))
    new = clone_of(base, "of-the-new")
    found = bases(world, opened)
    assert list(found[base]["clones"]) == [new]
    assert list(found[f"{base} ({old_uuid})"]["clones"]) == [old]


def test_a_renamed_base_is_found_by_what_it_is(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    renamed = world.name("renamed")
    with connection() as conn:
        conn.lookupByName(base).rename(renamed)
    assert list(bases(world, opened)[renamed]["clones"]) == [name]


def test_clones_that_name_each_other_are_shown_all_the_same(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    one, two = clone_of(base, "one"), clone_of(base, "two")
    for name, other in ((one, two), (two, one)):
        handle, above = opened.domain(name), opened.domain(other)
        record = handle.record()
        assert record is not None
        handle.save_record(replace(record, base=other, base_uuid=above.uuid))
    assert {name for name in (one, two) if name in str(bases(world, opened))} == {one, two}


def test_a_machine_without_clones_is_no_base(world: World, base: str, opened: Host) -> None:
    assert bases(world, opened) == {}
