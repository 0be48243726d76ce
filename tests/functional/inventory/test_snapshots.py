"""Promises about clones with snapshots beside their disks, whole or lost, and about commits."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.lab import connection
from saltext.kvmclone.errors import CloneInUse
from saltext.kvmclone.hosts import gc
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.system import processes
from tests.support.edited_definitions import respell
from tests.support.hints import Typist, tries
from tests.support.storage import storage_pool
from tests.support.world import CloneOf, World, image_info, quick, sha256

pytestmark = pytest.mark.slow


def virsh(*words: object) -> None:
    subprocess.run(["virsh", *map(str, words)], check=True, capture_output=True)


def snapshot(world: World, name: str, word: str = "s1", *options: object) -> Path:
    """Take an external snapshot; answers with the overlay that it put on the first disk."""
    virsh("snapshot-create-as", name, word, *(options or ["--disk-only"]))
    return world.disks(name)[0]


def refused(host: LocalHost, name: str, force: bool = False) -> str:
    """The hint of a refused destroy, which touched nothing."""
    with pytest.raises(CloneInUse) as info:
        host.destroy(name, force=force)
    return info.value.hint


# --- lost overlays ------------------------------------------------------------------------------


@tries("snapshots.refusal")
@pytest.mark.guest
@pytest.mark.parametrize("taken", ["off", "running", "running, then off"])
@pytest.mark.parametrize("lost", [True, False])
def test_a_clone_with_a_snapshot_can_be_destroyed_in_every_state(
    world: World, host: LocalHost, base: str, typist: Typist, taken: str, lost: bool
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk, original = world.disks(name)[0], world.disks(base)[0]
    if taken != "off":
        host.boot(name)
    overlay = snapshot(world, name)
    if "then" in taken:
        virsh("destroy", name)
    if lost:
        overlay.unlink()
    before = sha256(original)
    hint = refused(host, name)
    assert disk.exists()
    told = typist(hint, "force=True")
    assert not world.exists(name)
    assert not disk.exists()
    assert overlay.exists() is not lost
    assert f"'{overlay}' stays" in told
    assert sha256(original) == before


@tries("snapshots.refusal")
@pytest.mark.guest
@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize("running", [True, False])
def test_snapshots_can_be_folded_in_before_as_the_hint_says(
    world: World, host: LocalHost, base: str, typist: Typist, running: bool, lost: bool
) -> None:
    """Also one whose file is lost, as long as the clone runs and has it open."""
    name = world.name()
    host.clone(quick(name, base))
    disk, before = world.disks(name)[0], sha256(world.disks(base)[0])
    host.boot(name)
    overlay = snapshot(world, name)
    if not running:
        virsh("destroy", name)
    if lost:
        overlay.unlink()
    hint = refused(host, name)
    if lost and not running:
        assert "blockcommit" not in hint, "it cannot start any more"
        return
    typist(hint, "virsh -c qemu:///system start", "virsh -c qemu:///system blockcommit")
    assert world.disks(name) == [disk]
    if not lost:
        typist(refused(host, name), "rm ")
    host.destroy(name)
    assert not disk.exists()
    assert sha256(world.disks(base)[0]) == before


@pytest.mark.guest
def test_a_lost_file_in_the_middle_of_a_chain_is_told_and_no_end(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    host.boot(name)
    middle, top = snapshot(world, name), snapshot(world, name, "s2")
    virsh("destroy", name)
    middle.unlink()
    found = {one["kind"]: one for one in host.doctor() if one["name"] == name}
    assert f"'{middle}'" in found["disk-missing"]["message"]
    refused(host, name)
    told = typist(found["disk-missing"]["hint"])
    assert not world.exists(name)
    assert not disk.exists()
    assert top.exists()
    assert f"'{top}' stays" in told
    assert f"'{middle}' stays: it was not made by us, and was not there any more" in told


def test_a_lost_overlay_that_libvirt_knows_nothing_of_is_no_end(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    snapshot(world, name, "s1", "--disk-only", "--no-metadata").unlink()
    gone = host.destroy(name)
    assert not world.exists(name)
    assert disk.exists()
    assert any(f"'{disk}' stays" in word for word in gone.warnings)
    assert str(disk) in [one["name"] for one in host.doctor()]


@pytest.mark.parametrize("what", ["garbage", "a link to nowhere"])
def test_an_overlay_that_cannot_be_read_is_not_to_be_folded_in(
    world: World, host: LocalHost, base: str, typist: Typist, what: str
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    overlay = snapshot(world, name)
    if what == "garbage":
        overlay.write_bytes(b"QFI\xfb" + bytes(range(256)))
    else:
        overlay.unlink()
        overlay.symlink_to("/nowhere")
    hint = refused(host, name)
    assert "blockcommit" not in hint, "it cannot start any more"
    typist(hint)
    assert not world.exists(name)
    assert os.path.lexists(overlay)


def test_an_overlay_made_by_hand_stays_and_is_named(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    overlay = disk.with_name(f"byhand-{world.token}.qcow2")
    world.overlay(disk, overlay)
    respell(name, overlay)
    before = sha256(overlay)
    refused(host, name)
    assert any(f"'{overlay}' stays" in one for one in host.destroy(name, force=True).warnings)
    assert sha256(overlay) == before
    assert not disk.exists()


def test_an_overlay_whose_pool_is_off_is_not_called_lost(
    world: World, host: LocalHost, base: str, outside: Path
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    folder = outside / f"pool-{world.token}"
    with storage_pool(folder.name, folder):
        overlay = folder / f"{world.token}.s1"
        snapshot(
            world, name, "s1", "--disk-only", "--diskspec", f"vda,snapshot=external,file={overlay}"
        )
        away = folder.rename(folder.with_name(f"away-{world.token}"))
        with pytest.raises(CloneInUse, match="cannot be looked at now") as info:
            host.destroy(name)
        assert "blockcommit" not in info.value.hint
        gone = host.destroy(name, force=True)
        assert any(f"'{overlay}' stays" in one and "folder" in one for one in gone.warnings)
        away.rename(folder)
        assert overlay.exists()
        overlay.unlink()


# --- what stays ---------------------------------------------------------------------------------


@pytest.mark.guest
def test_the_memory_file_of_a_snapshot_stays_and_is_named(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    memory = disk.with_name(f"{name}.mem")
    host.boot(name)
    overlay = snapshot(world, name, "s1", "--memspec", f"file={memory},snapshot=external")
    before = sha256(memory)
    words = ["blockcommit", name, "vda", "--base", disk, "--active", "--pivot", "--wait"]
    virsh(*words)
    overlay.unlink()
    gone = host.destroy(name)
    assert any(f"'{memory}' stays: it holds the memory" in one for one in gone.warnings)
    assert sha256(memory) == before


@tries("snapshots.in_use", "snapshots.in_the_way")
def test_what_another_machine_needs_is_never_overridden_by_force(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    """A clone of a clone stands on a snapshot of that; so does a foreign machine."""
    name, kid, foreign = world.name(), world.name("kid"), world.base("foreign")
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    overlay = snapshot(world, name)
    host.clone(quick(kid, name))
    hand = disk.with_name(f"byhand-{world.token}.qcow2")
    world.overlay(overlay, hand)
    respell(foreign, hand)
    before = world.footprint()
    for force in (False, True):
        hint = refused(host, name, force)
    assert world.footprint() == before
    typist(hint, f"salt kvm01 kvm_clone.destroy {foreign}", f"salt-run kvmclone.destroy {kid}")
    typist(refused(host, name), "rm ")
    host.destroy(name, force=True)
    assert not disk.exists()


def test_an_overlay_of_nobody_is_never_overridden_by_force(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    own = snapshot(world, name)
    stranger = own.with_name(f"stranger-{world.token}.qcow2")
    world.overlay(own, stranger)
    assert f"rm {stranger}" in refused(host, name, force=True)
    assert own.exists()


def test_a_disk_that_was_detached_stays_though_a_snapshot_remembers_it(
    world: World, host: LocalHost
) -> None:
    name = world.name()
    host.clone(quick(name, world.base(disks=2)))
    second = world.disks(name)[1]
    virsh("snapshot-create-as", name, "inside")
    world.detach(name, "vdb")
    host.destroy(name, force=True)
    assert second.exists()


@tries("destroy_foreign._require_nothing_lost")
def test_a_foreign_machine_with_a_lost_overlay_can_be_removed(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    disk = world.disks(base)[0]
    before = sha256(disk)
    snapshot(world, base).unlink()
    with pytest.raises(Exception, match="snapshots") as info:
        host.destroy(base, force=True)
    typist(info.value.hint, "virsh")  # type: ignore[attr-defined]
    host.destroy(base, force=True)
    assert not world.exists(base)
    assert sha256(disk) == before


def test_a_leftover_with_a_snapshot_is_removed_by_name_and_force(
    world: World, host: LocalHost, base: str
) -> None:
    """Its create died; somebody had taken a snapshot meanwhile."""
    name = world.name()
    dead = replace(processes.this_process(), pid=2**22 + 1)  # there is none
    host.clone(quick(name, base), dead, "addressed")
    disk = world.disks(name)[0]
    overlay = snapshot(world, name)
    rows = gc.collect(host, name, apply=True)
    assert {row.kind for row in rows} == {"kept"}
    assert "force=True" in rows[0].reason
    assert disk.exists()
    rows = gc.collect(host, name, apply=True, force=True)
    assert str(overlay) in [row.path for row in rows if row.kind == "kept"]
    assert not disk.exists()
    assert overlay.exists()


# --- what the doctor finds ----------------------------------------------------------------------


@tries("overlays.stale", "overlays.delete")
def test_overlays_that_no_machine_uses_are_found_with_a_command(
    world: World, host: LocalHost, base: str, clone_of: CloneOf, typist: Typist
) -> None:
    name = clone_of(base)
    disk = world.disks(name)[0]
    overlay = snapshot(world, name)
    assert "overlay-unused" not in kinds(host)
    respell(name, disk)  # back to the state before, by hand
    assert "overlay-unused" not in kinds(host), "libvirt still remembers the snapshot"
    virsh("snapshot-delete", name, "s1", "--metadata")
    found = kinds(host)["overlay-unused"]
    assert found["name"] == str(overlay)
    typist(found["hint"])
    assert not overlay.exists()
    assert "overlay-unused" not in kinds(host)


def test_what_a_forced_destroy_leaves_is_found(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    overlay = snapshot(world, name)
    host.destroy(name, force=True)
    found = kinds(host)["overlay-unused"]
    assert found["name"] == str(overlay)
    assert "which is gone" in found["message"]


def test_an_overlay_on_a_foreign_disk_that_is_called_like_ours_is_looked_at(
    world: World, host: LocalHost, base: str
) -> None:
    """People call disks so, too."""
    disk = world.disks(base)[0]
    theirs = disk.rename(disk.with_name(f"{base}-vda.qcow2"))
    respell(base, theirs)
    overlay = theirs.with_name(f"over-{world.token}.qcow2")
    world.overlay(theirs, overlay)
    assert f"qemu-img info -U {overlay}" in kinds(host)["overlay-unused"]["hint"]


def test_an_overlay_on_a_base_is_looked_at_and_not_deleted(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    clone_of(base)
    overlay = world.disks(base)[0].with_name(f"over-{world.token}.qcow2")
    world.overlay(world.disks(base)[0], overlay)
    assert f"qemu-img info -U {overlay}" in kinds(host)["overlay-unused"]["hint"]


def test_the_disk_under_a_snapshot_is_not_called_unused(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    snapshot(world, name, "s1", "--disk-only", "--no-metadata")
    assert "volume-unused" not in kinds(host)


def kinds(host: LocalHost) -> dict[str, dict[str, str]]:
    return {one["kind"]: one for one in host.doctor()}


# --- commits ------------------------------------------------------------------------------------


@tries("overlays._own_again")
@pytest.mark.guest
@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_a_clone_that_was_committed_into_its_base_gets_its_own_disk_again(
    world: World, host: LocalHost, typist: Typist, running: bool, format_: str
) -> None:
    base = world.base(fmt=format_)
    name, other = world.name(), world.name("other")
    host.clone(quick(name, base))
    host.clone(quick(other, base))
    disk, original = world.disks(name)[0], world.disks(base)[0]
    host.boot(name)
    virsh("blockcommit", name, "vda", "--active", "--pivot", "--wait")
    assert world.disks(name) == [original]
    if not running:
        virsh("destroy", name)
    found = kinds(host)["committed-into-base"]
    assert (found["name"], found["level"]) == (name, "danger")
    assert f"'{other}' is based on it" in found["message"]
    changes = host.tree()["bases"][base]["clones"][name]["changes"]
    assert any("was committed into" in one for one in changes)
    before = sha256(original)
    typist(found["hint"])
    assert world.disks(name) == [disk]
    assert world.state(name) == ("running" if running else "shutoff")
    assert "backing-filename" not in image_info(disk)
    assert sha256(original) == before
    assert "committed-into-base" not in kinds(host)
    assert not any("garbage" in one for one in host.show(name).warnings), "it has its own now"
    host.destroy(name)
    assert not disk.exists()
    assert sha256(original) == before


@tries("overlays._own_again")
@pytest.mark.guest
def test_nobody_is_told_to_delete_a_disk_that_may_never_have_been_committed(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    """A definition that was edited to the base's disk looks the same."""
    name = world.name()
    host.clone(quick(name, base))
    disk, original = world.disks(name)[0], world.disks(base)[0]
    before = sha256(disk)
    respell(name, original)
    typist(kinds(host)["committed-into-base"]["hint"])
    assert world.disks(name) == [disk]
    aside = disk.with_name(f"{disk.name}.before")
    assert sha256(aside) == before
    found = kinds(host)
    assert "committed-into-base" not in found
    assert found["overlay-unused"]["name"] == str(aside)
    assert f"qemu-img info -U {aside}" in found["overlay-unused"]["hint"]


@pytest.mark.guest
def test_a_commit_below_a_snapshot_is_told_too(
    world: World, host: LocalHost, base: str, opened: Host
) -> None:
    """The clone's own disk went into the base, and its snapshot stands on the base now."""
    name = world.name()
    host.clone(quick(name, base))
    disk, original = world.disks(name)[0], world.disks(base)[0]
    host.boot(name)
    overlay = snapshot(world, name)
    virsh("blockcommit", name, "vda", "--top", disk, "--base", original, "--wait")
    assert world.disks(name) == [overlay]
    found = kinds(host)["committed-into-base"]
    assert "whatever it writes from now on" not in found["message"]
    assert ElementTree.fromstring(world.secure_xml(name)) is not None
    with connection() as conn:
        assert conn.lookupByName(name).isActive()
