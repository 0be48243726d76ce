"""Promises about old salt-cloud clones: adopted, they own what is provably theirs and no more."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.common import LIBVIRT_URI
from lab.lab import connection
from saltext.kvmclone.errors import AlreadyExists, CloneInUse, ForeignDomain, NotFound
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_changes
from saltext.kvmclone.inventory.legacy_clones import candidates
from saltext.kvmclone.lifecycle import adopt
from tests.support.world import World

CloneOf = Callable[..., str]

#: A uuid of version 1, made in 2019.
LONG_AGO = "d0a7c6de-0d2c-11e9-9b5e-525400123456"


@pytest.fixture
def opened() -> Iterator[Host]:
    with Host(LIBVIRT_URI) as host:
        yield host


def old_clone(world: World, base: str, strategy: str = "quick", word: str = "old") -> str:
    """
    What Salt 3006 made of a base: disks of type file copied under the volume's name and a uuid
    of version 1, all else as it was, nvram and media too; and the description.
    """
    xml = world.xml(base)
    name = world.name(word)
    for interface in xml.findall("./devices/interface"):
        for mac in interface.findall("mac"):
            interface.remove(mac)
    element = xml.find("uuid")
    assert element is not None
    xml.remove(element)
    element = xml.find("name")
    assert element is not None
    element.text = name
    for old in xml.findall("description"):
        xml.remove(old)
    ElementTree.SubElement(xml, "description").text = f"Cloned from {base}"
    for disk in xml.findall("./devices/disk[@device='disk'][@type='file']"):
        source, driver = disk.find("source"), disk.find("driver")
        assert source is not None
        assert driver is not None
        path = Path(source.attrib["file"])
        copy = path.with_name(f"{path.stem}-{uuid.uuid1()}{path.suffix}")
        if strategy == "quick" and driver.attrib["type"] == "qcow2":
            world.overlay(path, copy)
        else:
            shutil.copy(path, copy)
        source.set("file", str(copy))
    world.lab.define(ElementTree.tostring(xml, encoding="unicode"))
    world.refresh()
    return name


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_an_adopted_clone_is_destroyed_with_its_own_disks_and_nothing_else(
    world: World, opened: Host, host: LocalHost, strategy: str
) -> None:
    base = world.base(disks=["qcow2", "raw"], cdrom=True, uefi=True)
    before = world.footprint()
    name = old_clone(world, base, strategy)
    disks = world.disks(name)
    record = adopt.adopt(opened, name)
    assert world.record(name) == record
    assert [volume.path for volume in record.volumes] == [str(disk) for disk in disks]
    assert record.strategy == strategy
    assert record.complete
    (nvram,) = [warning for warning in record.warnings if f"nvram/{base}.fd" in warning]
    assert f"it belongs to the base '{base}'" in nvram
    assert name in [clone.name for clone in host.list_clones()]
    gone = host.destroy(name)
    assert world.footprint() == before
    assert any(f"nvram/{base}.fd" in warning for warning in gone.warnings)


def test_the_record_tells_base_and_time_and_what_is_not_known(
    world: World, base: str, opened: Host
) -> None:
    name = old_clone(world, base)
    record = adopt.adopt(opened, name)
    assert (record.base, record.base_uuid) == (base, world.xml(base).findtext("uuid"))
    assert (record.stage, record.goal, record.ip_source) == ("addressed", "addressed", "auto")
    assert abs(record.created - time.time()) < 60
    assert [disk.path for disk in record.base_disks] == [str(world.disks(base)[0])]
    assert "not known" in record.warnings[0]
    assert base_changes.changes(opened, record) == []
    world.disks(base)[0].touch()
    assert base_changes.changes(opened, record)


def test_a_whole_chain_below_an_adopted_clone_is_remembered(world: World, opened: Host) -> None:
    base = world.base(chain=2)
    record = adopt.adopt(opened, old_clone(world, base))
    names = [Path(disk.path).name for disk in record.base_disks]
    assert names == [f"{base}-0.qcow2", f"{base}-0-below1.qcow2", f"{base}-0-below0.qcow2"]


def test_old_clones_are_listed_with_what_they_would_own(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    clone_of(base, "ours")
    world.base("foreign")
    names = [old_clone(world, base, "quick", "old1"), old_clone(world, base, "full", "old2")]
    before = world.footprint()
    found = [one for one in candidates(opened) if world.token in one.name]
    assert [(one.name, one.base, one.strategy) for one in found] == [
        (names[0], base, "quick"),
        (names[1], base, "full"),
    ]
    for one in found:
        assert [volume.path for volume in one.volumes] == [str(world.disks(one.name)[0])]
    assert world.footprint() == before
    adopt.adopt(opened, names[0])
    assert names[0] not in [one.name for one in candidates(opened)]


# --- what is not provably its own ---------------------------------------------------------------


def stays(world: World, opened: Host, name: str, disk: Path) -> str:
    """Adopt, and why the file would stay on a destroy."""
    record = adopt.adopt(opened, name)
    assert str(disk) not in [volume.path for volume in record.volumes]
    return next(warning for warning in record.warnings if str(disk) in warning)


def test_a_disk_that_another_machine_uses_too_is_shared(
    world: World, base: str, opened: Host
) -> None:
    name = old_clone(world, base)
    other = world.base("other")
    world.attach(other, world.disks(name)[0], "vdx")
    assert other in stays(world, opened, name, world.disks(name)[0])


def test_a_disk_that_others_stand_on_is_shared(world: World, base: str, opened: Host) -> None:
    name = old_clone(world, base)
    disk = world.disks(name)[0]
    world.overlay(disk, disk.with_name(f"hand-{world.token}.qcow2"))
    assert "hand" in stays(world, opened, name, disk)


def test_the_bases_own_disk_is_never_taken(world: World, base: str, opened: Host) -> None:
    name = old_clone(world, base)
    disk = world.disks(base)[0]
    world.attach(name, disk, "vdx")
    assert base in stays(world, opened, name, disk)


@pytest.mark.parametrize("with_base", [True, False])
def test_the_rescued_disk_of_another_old_clone_is_not_taken(
    world: World, base: str, opened: Host, with_base: bool
) -> None:
    name, other = old_clone(world, base), old_clone(world, base, "quick", "other")
    rescued = world.disks(other)[0]
    with connection() as conn:
        conn.lookupByName(other).undefine()
        if not with_base:
            conn.lookupByName(base).undefine()
    world.attach(name, rescued, "vdb")
    assert "prove" in stays(world, opened, name, rescued)


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_the_rescued_disk_of_another_base_is_not_taken_where_both_bases_are_gone(
    world: World, base: str, opened: Host, host: LocalHost, strategy: str
) -> None:
    name = old_clone(world, base, strategy)
    other = world.disks(base)[0].with_name(f"data-{world.token}.qcow2")
    shutil.copy(world.disks(base)[0], other)
    rescued = other.with_name(f"{other.stem}-{LONG_AGO}.qcow2")
    if strategy == "quick":
        world.overlay(other, rescued)
    else:
        shutil.copy(other, rescued)
    with connection() as conn:
        conn.lookupByName(base).undefine()
    world.attach(name, rescued, "vdb")
    assert "prove" in stays(world, opened, name, rescued)
    host.destroy(name)
    assert rescued.exists()


def test_a_disk_attached_by_hand_is_not_taken_whatever_its_name(
    world: World, base: str, opened: Host, host: LocalHost
) -> None:
    name = old_clone(world, base)
    data = world.lab.pool_path / f"{name}-vdb.qcow2"
    shutil.copy(world.disks(base)[0], data)
    world.attach(name, data, "vdb")
    assert "prove" in stays(world, opened, name, data)
    host.destroy(name)
    assert data.exists()


def test_nvram_of_its_own_is_taken(world: World, opened: Host, host: LocalHost) -> None:
    name = old_clone(world, world.base(uefi=True))
    xml = world.xml(name)
    nvram = xml.find("./os/nvram")
    assert nvram is not None
    own = world.lab.folder / f"nvram/{name}_VARS.fd"
    shutil.copy(nvram.text or "", own)
    nvram.text = str(own)
    with connection() as conn:
        conn.defineXML(ElementTree.tostring(xml, encoding="unicode"))
    record = adopt.adopt(opened, name)
    assert str(own) in [volume.path for volume in record.volumes]
    host.destroy(name)
    assert not own.exists()


def test_a_clone_whose_base_is_gone_keeps_what_it_stands_on(
    world: World, base: str, opened: Host, host: LocalHost
) -> None:
    name = old_clone(world, base)
    below, disk = world.disks(base)[0], world.disks(name)[0]
    with connection() as conn:
        conn.lookupByName(base).undefine()
    record = adopt.adopt(opened, name)
    assert (record.strategy, record.base_uuid) == ("quick", "")
    assert [one.path for one in record.base_disks] == [str(below)]
    host.destroy(name)
    assert below.exists()
    assert not disk.exists()


# --- who is refused -----------------------------------------------------------------------------


def test_a_clone_of_ours_is_refused(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    with pytest.raises(AlreadyExists):
        adopt.adopt(opened, name)
    adopted = old_clone(world, base)
    adopt.adopt(opened, adopted)
    with pytest.raises(AlreadyExists):
        adopt.adopt(opened, adopted)


def test_a_missing_machine_is_refused(world: World, base: str, opened: Host) -> None:
    with pytest.raises(NotFound):
        adopt.adopt(opened, world.name("none"))
    with pytest.raises(NotFound):
        adopt.adopt(opened, base, base_domain=world.name("no-base"))


def test_without_the_description_the_base_must_be_said(
    world: World, base: str, opened: Host
) -> None:
    name = old_clone(world, base)
    with connection() as conn:
        conn.lookupByName(name).setMetadata(0, "mail server", None, None, 2)
    with pytest.raises(ForeignDomain) as info:
        adopt.adopt(opened, name)
    assert f"{name} base_domain=" in info.value.hint
    assert adopt.adopt(opened, name, base_domain=base).volumes


def test_a_copy_of_one_of_ours_is_no_old_clone(
    world: World, base: str, opened: Host, host: LocalHost, clone_of: CloneOf
) -> None:
    for original in (clone_of(base, "ours"), old_clone(world, base)):
        if world.xml(original).find("metadata") is None:
            adopt.adopt(opened, original)
        copy = world.copy_of(original)
        with pytest.raises(ForeignDomain, match="copy"):
            adopt.adopt(opened, copy)
        with pytest.raises(ForeignDomain):
            host.destroy(copy)
        host.destroy(copy, force=True)
        assert world.disks(original)[0].exists()
        world.names.remove(copy)


def test_an_adopted_clone_may_be_a_base(
    world: World, base: str, opened: Host, host: LocalHost, clone_of: CloneOf
) -> None:
    name = old_clone(world, base)
    adopt.adopt(opened, name)
    second = clone_of(name, "second")
    with pytest.raises(CloneInUse, match=second):
        host.destroy(name)
    host.destroy(second)
    host.destroy(name)


@pytest.mark.guest
def test_a_running_clone_is_adopted_without_disturbing_it(
    world: World, base: str, opened: Host, host: LocalHost
) -> None:
    name = old_clone(world, base)
    world.lab.start(name)
    adopt.adopt(opened, name)
    assert world.state(name) == "running"
    assert host.show(name).state == "running"
    disk = world.disks(name)[0]
    assert subprocess.run(["qemu-img", "check", "-U", "-q", disk], check=False).returncode == 0
    host.destroy(name)
    assert not disk.exists()
