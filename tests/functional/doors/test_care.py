"""Promises about care through Salt's own loader: what is left, what stands on what, what is ill."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from salt.exceptions import CommandExecutionError

from lab.lab import connection
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.system import processes
from tests.support.world import CloneOf, Salt, World, quick

pytestmark = pytest.mark.slow


@pytest.fixture
def left(world: World, host: LocalHost, base: str) -> str:
    """A clone whose worker died before it was complete."""
    name = world.name("left")
    with subprocess.Popen(["true"]) as child:
        child.wait()
        dead = replace(processes.this_process(), pid=child.pid, started=1)
    host.clone(quick(name, base), dead, "addressed")
    return name


def test_gc_lists_first_and_removes_when_told(world: World, salt_minion: Salt, left: str) -> None:
    listed = salt_minion("kvm_clone.gc", left)
    assert [(item["kind"], item["removed"]) for item in listed] == [
        ("domain", False),
        ("volume", False),
    ]
    assert set(listed[0]) == {"name", "kind", "path", "reason", "removed"}
    assert left in {item["name"] for item in salt_minion("kvm_clone.gc")}
    removed = salt_minion("kvm_clone.gc", left, apply=True)  # not what others have left here
    assert all(item["removed"] for item in removed)
    assert not world.exists(left)
    assert salt_minion("kvm_clone.gc", left) == []


def test_gc_refuses_force_without_a_name(salt_minion: Salt) -> None:
    words = r"salt-call kvm_clone\.gc NAME apply=True force=True"
    with pytest.raises(CommandExecutionError, match=words):
        salt_minion("kvm_clone.gc", force=True)


def test_resume_goes_on_where_a_create_stopped(
    world: World, host: LocalHost, base: str, salt_minion: Salt
) -> None:
    name = world.name()
    worker = processes.this_process()
    wish = quick(name, base, overrides={"base_domain": base, "clone_strategy": "quick"})
    host.clone(wish, worker, "addressed")
    host.keep(name, worker.token, "AddressTimeout: none came", off=True)
    assert "AddressTimeout" in str(salt_minion("kvm_clone.show", name)["warnings"])
    with pytest.raises(CommandExecutionError, match=r"KeptAfterFailure.*resume"):
        salt_minion("kvm_clone.create", name, base_domain=base, clone_strategy="quick")
    clone = salt_minion("kvm_clone.resume", name)
    assert clone["stage"] == "addressed"
    assert clone["address"]
    with pytest.raises(
        CommandExecutionError, match=r"nothing to resume.*salt-call kvm_clone\.show"
    ):
        salt_minion("kvm_clone.resume", name)


def test_the_tree_shows_base_clones_backing_files_and_sizes(
    world: World, base: str, clone_of: CloneOf, salt_minion: Salt
) -> None:
    names = {clone_of(base, word) for word in ("one", "two")}
    branch = salt_minion("kvm_clone.tree")["bases"][base]
    assert set(branch["clones"]) == names
    assert branch["drift"] is False
    disk = next(iter(branch["clones"].values()))["disks"][0]
    assert disk["backing"] == str(world.disks(base)[0])
    assert disk["capacity"] == 64 * 2**20
    assert 0 < disk["allocation"] < 2**20


def test_a_base_that_changed_is_told_by_every_look(
    world: World, base: str, clone_of: CloneOf, salt_minion: Salt
) -> None:
    name = clone_of(base)
    assert salt_minion("kvm_clone.show", name)["drift"] is False
    disk = world.disks(base)[0]
    os.utime(disk, (1, 1))
    shown = salt_minion("kvm_clone.show", name)
    assert shown["drift"] is True
    assert any(str(disk) in warning for warning in shown["warnings"])
    listed = {clone["name"]: clone for clone in salt_minion("kvm_clone.list_clones")}
    assert listed[name]["drift"] is True
    assert salt_minion("kvm_clone.tree")["bases"][base]["drift"] is True
    assert [item for item in salt_minion("kvm_clone.doctor") if item["name"] == name]


def test_the_doctor_names_what_is_left_and_what_to_type(salt_minion: Salt, left: str) -> None:
    ill = [item for item in salt_minion("kvm_clone.doctor") if item["name"] == left]
    assert [item["kind"] for item in ill] == ["unfinished"]
    assert ill[0]["hint"] == f"salt-call kvm_clone.gc {left}"


def test_an_old_clone_is_adopted_and_then_destroyed_with_its_own_disk(
    world: World, salt_minion: Salt
) -> None:
    base = world.base()
    disk = world.disks(base)[0]
    own = disk.with_name(f"{disk.stem}-0b0e1c0e-7d9e-11ee-8c99-0242ac120002.qcow2")
    world.overlay(disk, own)
    world.refresh()
    xml = world.xml(base)
    name = world.name("old")
    for tag, text in (("name", name), ("description", f"Cloned from {base}")):
        element = xml.find(tag)
        if element is None:
            element = ElementTree.SubElement(xml, tag)
        element.text = text
    xml.remove(xml.find("uuid"))  # type: ignore[arg-type]
    xml.find("./devices/disk/source").set("file", str(own))  # type: ignore[union-attr]
    world.lab.define(ElementTree.tostring(xml, encoding="unicode"))

    with pytest.raises(CommandExecutionError, match=r"kvm_clone\.adopt"):
        salt_minion("kvm_clone.destroy", name)
    clone = salt_minion("kvm_clone.adopt", name)
    assert (clone["base"], clone["strategy"]) == (base, "quick")
    salt_minion("kvm_clone.destroy", name)
    assert not own.exists()
    assert disk.exists()


def test_a_protected_base_is_marked_and_can_be_freed_again(
    world: World, base: str, salt_minion: Salt
) -> None:
    disk = world.disks(base)[0]
    mode = disk.stat().st_mode
    name = world.name()
    keys = {"base_domain": base, "clone_strategy": "quick", "protect": True}
    salt_minion("kvm_clone.create", name, start=False, **keys)
    assert disk.stat().st_mode & 0o222 == 0
    with connection() as conn:
        assert "urn:saltext:kvmclone:base:1" in conn.lookupByName(base).XMLDesc()
    with pytest.raises(CommandExecutionError, match=name):
        salt_minion("kvm_clone.unprotect", base)
    salt_minion("kvm_clone.destroy", name)
    assert salt_minion("kvm_clone.unprotect", base) == [str(disk)]
    assert disk.stat().st_mode == mode
