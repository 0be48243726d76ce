"""Promises about destroying: everything that was made for the clone goes, and nothing else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest

from lab.lab import connection
from saltext.kvmclone.errors import CloneInUse, DamagedRecord, ForeignDomain, HostError, NotFound
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.host import Host
from tests.support.world import CloneOf, World, full, quick


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_destroying_a_clone_leaves_what_was_there_before(
    world: World, host: LocalHost, strategy: str
) -> None:
    base = world.base(disks=["qcow2", "raw"], cdrom=True, uefi=True)
    before = world.footprint()
    name = world.name()
    host.clone(quick(name, base, clone_strategy=strategy))
    assert world.footprint() != before
    gone = host.destroy(name)
    assert world.footprint() == before
    assert gone.stage == "destroying"
    assert gone.name == name


def test_destroying_a_missing_machine_says_so(world: World, host: LocalHost) -> None:
    with pytest.raises(NotFound, match="There is no domain"):
        host.destroy(world.name())


def test_a_foreign_machine_is_refused(world: World, host: LocalHost) -> None:
    foreign = world.base("foreign")
    before = world.footprint()
    with pytest.raises(ForeignDomain) as info:
        host.destroy(foreign)
    assert "force" in info.value.hint
    assert world.footprint() == before


def test_force_removes_a_foreign_definition_and_keeps_its_disks(
    world: World, host: LocalHost
) -> None:
    foreign = world.base("foreign", disks=2, uefi=True)
    disks = world.disks(foreign)
    nvram = world.lab.folder / f"nvram/{foreign}.fd"
    gone = host.destroy(foreign, force=True)
    assert not world.exists(foreign)
    assert all(disk.exists() for disk in disks)
    assert nvram.exists()
    assert all(any(str(disk) in warning for warning in gone.warnings) for disk in disks)


@pytest.mark.parametrize("force", [False, True])
def test_a_base_with_clones_cannot_be_destroyed(
    world: World, host: LocalHost, base: str, clone_of: CloneOf, force: bool
) -> None:
    names = [clone_of(base, "one"), clone_of(base, "two")]
    before = world.footprint()
    with pytest.raises(ForeignDomain if not force else CloneInUse) as info:
        host.destroy(base, force=force)
    if force:
        assert all(f"{name}-vda.qcow2" in info.value.message for name in names)
    assert world.footprint() == before


@pytest.mark.parametrize("force", [False, True])
def test_a_clone_with_clones_of_its_own_cannot_be_destroyed(
    world: World, host: LocalHost, base: str, clone_of: CloneOf, force: bool
) -> None:
    first = clone_of(base, "first")
    second = clone_of(first, "second")
    before = world.footprint()
    with pytest.raises(CloneInUse, match=f"{second}-vda.qcow2"):
        host.destroy(first, force=force)
    assert world.footprint() == before
    host.destroy(second)
    host.destroy(first)
    assert not world.exists(first)


def test_overlays_in_other_pools_count_too(
    world: World, host: LocalHost, base: str, small_pool: str, clone_of: CloneOf
) -> None:
    first = clone_of(base, "first")
    second = clone_of(first, "second", pool=small_pool)
    with pytest.raises(CloneInUse, match=second):
        host.destroy(first)
    host.destroy(second)


def test_an_overlay_that_libvirt_has_not_noticed_counts_too(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    disk = world.disks(name)[0]
    world.overlay(disk, disk.with_name(f"by-hand-{world.token}.qcow2"))
    with pytest.raises(CloneInUse, match="by-hand"):
        host.destroy(name)
    assert disk.exists()


def test_a_full_clones_base_may_go(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base, clone_strategy="full")
    host.destroy(base, force=True)
    assert world.disks(name)[0].exists()


# --- what is not ours ---------------------------------------------------------------------------


def test_a_copy_that_carries_our_record_is_foreign(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    original = clone_of(base)
    copy = world.copy_of(original)
    with pytest.raises(ForeignDomain):
        host.destroy(copy)
    host.destroy(copy, force=True)
    assert world.disks(original)[0].exists()
    assert copy not in [clone.name for clone in host.list_clones()]


def test_a_disk_that_a_copy_uses_too_stays(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    original = clone_of(base)
    copy = world.copy_of(original)
    disk = world.disks(original)[0]
    gone = host.destroy(original)
    assert not world.exists(original)
    assert disk.exists()
    assert any(str(disk) in warning and copy in warning for warning in gone.warnings)


def test_a_disk_attached_by_hand_stays_and_is_named(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    data = world.lab.pool_path / f"data-{world.token}.qcow2"
    shutil.copy(world.disks(base)[0], data)
    world.attach(name, data, "vdx")
    gone = host.destroy(name)
    assert data.exists()
    assert any(str(data) in warning for warning in gone.warnings)
    assert not (world.lab.pool_path / f"{name}-vda.qcow2").exists()


def test_a_recorded_disk_that_was_detached_stays_and_is_named(
    world: World, host: LocalHost, clone_of: CloneOf
) -> None:
    name = clone_of(world.base(disks=2))
    detached = world.disks(name)[1]
    world.detach(name, "vdb")
    gone = host.destroy(name)
    assert detached.exists()
    assert any(str(detached) in warning for warning in gone.warnings)


# --- again and again ----------------------------------------------------------------------------


def test_a_clone_whose_disk_is_gone_can_still_be_destroyed(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    world.disks(name)[0].unlink()
    host.destroy(name)
    assert not world.exists(name)


def test_a_clone_whose_base_is_gone_can_still_be_destroyed(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    host_disk = world.disks(base)[0]
    with connection() as conn:
        conn.lookupByName(base).undefine()
    host_disk.unlink()
    world.refresh()
    host.destroy(name)
    assert not world.exists(name)


def test_a_destroy_that_failed_can_be_repeated(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch, clone_of: CloneOf
) -> None:
    name = clone_of(world.base(disks=2))
    real = volumes.delete

    def delete(opened: Host, path: str) -> bool:
        if path.endswith("vdb.qcow2"):
            raise HostError("busy")
        return real(opened, path)

    with monkeypatch.context() as patched:
        patched.setattr(volumes, "delete", delete)
        with pytest.raises(HostError, match="busy"):
            host.destroy(name)
    record = world.record(name)
    assert record is not None
    assert record.stage == "destroying"
    host.destroy(name)
    assert not world.exists(name)
    assert not list(world.lab.pool_path.glob(f"{name}-*"))


def test_a_clone_is_destroyed_though_its_pool_is_gone(
    world: World, host: LocalHost, base: str, small_pool: str
) -> None:
    name = world.name()
    host.clone(full(name, base, pool=small_pool))
    disk = Path(world.disks(name)[0])
    with connection() as conn:
        conn.storagePoolLookupByName(small_pool).destroy()
    try:
        host.destroy(name)
    finally:
        with connection() as conn:
            conn.storagePoolLookupByName(small_pool).create()
    assert not disk.exists()


@pytest.mark.guest
def test_a_running_clone_is_stopped_first(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    host.boot(name)
    host.destroy(name)
    assert not world.exists(name)


@pytest.mark.guest
def test_a_clone_that_was_undefined_while_it_runs_is_shown_and_keeps_its_disks(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    host.boot(name)
    with connection() as conn:
        domain = conn.lookupByName(name)
        xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)
        domain.undefine()
    assert name in [clone.name for clone in host.list_clones()]
    assert host.unfinished() is not None
    with pytest.raises(HostError, match="undefined by hand") as info:
        host.destroy(name)
    assert "define /dev/stdin" in info.value.hint
    assert world.state(name) == "running"
    with connection() as conn:
        conn.defineXML(xml)
    host.destroy(name)
    assert not world.exists(name)


def test_one_damaged_record_does_not_hide_the_others(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    good, bad = clone_of(base, "good"), clone_of(base, "bad")
    with connection() as conn:
        domain = conn.lookupByName(bad)
        namespace = "urn:saltext:kvmclone:1"
        element = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, namespace)
        broken = re.sub(r'created="[^"]*"', 'created="soon"', element)
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, broken, "kvmclone", namespace, 2)
    assert good in [clone.name for clone in host.list_clones()]
    assert host.unfinished() is not None
    with pytest.raises(DamagedRecord, match="soon"):
        host.destroy(bad)
    assert world.disks(bad)[0].exists()


def test_a_record_of_a_later_version_is_left_alone_and_named_with_the_line_that_helps(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    good, later = clone_of(base, "good"), clone_of(base, "later")
    kind, namespace = libvirt.VIR_DOMAIN_METADATA_ELEMENT, "urn:saltext:kvmclone:1"
    with connection() as conn:
        domain = conn.lookupByName(later)
        element = domain.metadata(kind, namespace).replace('schema="1"', 'schema="99" new="x"')
        domain.setMetadata(kind, element, "kvmclone", namespace, 2)
        stored = domain.metadata(kind, namespace)
    for work in (host.destroy, host.show, host.boot, lambda name: host.destroy(name, True)):
        with pytest.raises(DamagedRecord, match="later version") as info:
            work(later)
        assert info.value.hint == "Install that version here: salt kvm01 saltutil.sync_all"
    assert "later version" in str(host.plan(quick(world.name("third"), later))["conflicts"])
    assert [clone.name for clone in host.list_clones() if world.token in clone.name] == [good]
    (found,) = [one for one in host.doctor() if one["name"] == later]
    assert (found["kind"], found["hint"]) == ("record-damaged", "salt kvm01 saltutil.sync_all")
    assert world.disks(later)[0].exists()
    with connection() as conn:
        assert conn.lookupByName(later).metadata(kind, namespace) == stored


def test_a_refusal_about_snapshots_names_a_command_that_spares_the_base(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    disk = world.disks(name)[0]
    top = disk.with_name(f"{name}-vda.snap")
    world.overlay(disk, top)
    xml = world.xml(name)
    source = xml.find("./devices/disk/source")
    assert source is not None
    source.set("file", str(top))
    with connection() as conn:
        conn.defineXML(ElementTree.tostring(xml, encoding="unicode"))
    with pytest.raises(CloneInUse) as info:
        host.destroy(name)
    assert f"--base {disk}" in info.value.hint


def test_the_list_names_our_clones_and_no_foreign_machine(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    names = [clone_of(base, word) for word in ("b", "a")]
    listed = [clone.name for clone in host.list_clones() if world.token in clone.name]
    assert listed == sorted(names)
    with pytest.raises(ForeignDomain):
        host.show(base)
