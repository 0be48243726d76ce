"""Every kind of disk is cloned for real, shared for a reason, or refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.common import LIBVIRT_URI
from lab.lab import connection
from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle import adjust, create
from saltext.kvmclone.model.request import DiskChanges
from tests.support.disk_cases import conflicts, disk_xml, file_xml, img, planned, write
from tests.support.storage import MIB, storage_pool
from tests.support.world import World, full, image_info, quick, same_content


@pytest.fixture
def other_pool(world: World) -> Iterator[str]:
    name = f"{world.lab.name}-other-{world.token}"
    with storage_pool(name, world.lab.folder / name):
        yield name
    shutil.rmtree(world.lab.folder / name)


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_a_block_device_is_cloned_into_a_file(
    world: World, host: LocalHost, block: str, strategy: str
) -> None:
    base = world.base(devices=disk_xml("block", f"<source dev='{block}'/>"))
    name = world.name()
    (said,) = conflicts(host, world, base, clone_strategy=strategy)
    assert "'pool:'" in said

    clone = host.clone(quick(name, base, clone_strategy=strategy, pool=world.lab.pool))
    made = clone.disks[1].path
    assert same_content(block, made)
    assert ("backing-filename" in image_info(made)) == (strategy == "quick")
    disk = world.xml(name).findall("./devices/disk")[1]
    source, driver = disk.find("source"), disk.find("driver")
    assert source is not None
    assert driver is not None
    assert (disk.get("type"), source.attrib) == ("file", {"file": made})
    assert driver.get("type") == image_info(made)["format"]
    os.utime(block)  # as udev does it at every boot
    assert not [text for text in host.show(name).warnings if block in text]
    host.destroy(name)
    assert Path(block).is_block_device()


def test_a_pool_of_partitions_that_is_not_started_does_not_claim_every_device(
    world: World, host: LocalHost, block: str
) -> None:
    base = world.base(devices=disk_xml("block", f"<source dev='{block}'/>"))
    with connection() as conn:
        pool = conn.storagePoolDefineXML(
            f"<pool type='disk'><name>{world.name('partitions')}</name><source><device "
            "path='/dev/no-such-disk'/></source><target><path>/dev</path></target></pool>"
        )
        try:
            assert planned(host, base, world.name(), "vdb", pool=world.lab.pool)["destination"]
        finally:
            pool.undefine()


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_a_volume_is_cloned_and_becomes_a_file(
    world: World, host: LocalHost, strategy: str
) -> None:
    path = world.lab.pool_path / f"vol-{world.token}.qcow2"
    img("create", "-f", "qcow2", path, "32M")
    write(path, 7, "1M 1M")
    world.refresh()
    source = f"<source pool='{world.lab.pool}' volume='{path.name}'/>"
    base = world.base(devices=disk_xml("volume", source, "qcow2"))
    name = world.name()
    assert planned(host, base, name, "vdb")["source"] == str(path)
    clone = host.clone(quick(name, base, clone_strategy=strategy))
    assert same_content(path, clone.disks[1].path)
    record = world.record(name)
    assert record is not None
    assert str(path) in [disk.path for disk in record.base_disks]


@pytest.mark.parametrize("strategy", ["quick", "full"])
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_disk_outside_any_pool_is_cloned_into_the_pool_that_is_named(
    world: World, host: LocalHost, outside: Path, form: str, strategy: str
) -> None:
    path = outside / f"disk-{world.token}.{form}"
    img("create", "-f", form, path, "32M")
    write(path, 7, "1M 1M", form)
    base = world.base(devices=file_xml(path, form))
    (said,) = conflicts(host, world, base, clone_strategy=strategy)
    assert f"--target {outside}" in said
    clone = host.clone(quick(world.name(), base, clone_strategy=strategy, pool=world.lab.pool))
    assert clone.disks[1].path.startswith(str(world.lab.pool_path))
    assert same_content(path, clone.disks[1].path)


def test_a_chain_outside_any_pool_is_flattened(
    world: World, host: LocalHost, outside: Path
) -> None:
    below, top = (outside / f"{word}-{world.token}.qcow2" for word in ("below", "top"))
    img("create", "-f", "qcow2", below, "32M")
    write(below, 3, "0 1M")
    img("create", "-f", "qcow2", "-F", "qcow2", "-b", below.name, top)
    write(top, 5, "8M 1M")
    base = world.base(devices=file_xml(top, "qcow2"))
    clone = host.clone(full(world.name(), base, pool=world.lab.pool))
    assert "backing-filename" not in image_info(clone.disks[1].path)
    assert same_content(top, clone.disks[1].path)
    record = world.record(clone.name)
    assert record is not None
    assert [disk.path for disk in record.base_disks][1:] == [str(top), str(below)]


@pytest.mark.guest
@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_clones_of_disks_from_everywhere_start_side_by_side(
    world: World, host: LocalHost, block: str, outside: Path, strategy: str
) -> None:
    below, top = (outside / f"{word}-{world.token}.qcow2" for word in ("below", "top"))
    img("create", "-f", "qcow2", below, "32M")
    img("create", "-f", "qcow2", "-F", "qcow2", "-b", below, top)
    base = world.base(
        cdrom=True,
        devices=disk_xml("block", f"<source dev='{block}'/>", target="vdc")
        + file_xml(top, "qcow2", "vdd")
        + file_xml(_shared(world), target="vde", rest="<shareable/>"),
    )
    for word in ("one", "two"):
        name = world.name(word)
        host.clone(quick(name, base, clone_strategy=strategy, pool=world.lab.pool))
        world.lab.start(name)
        assert world.state(name) == "running"
    assert "running" in conflicts_while_running(host, world, name, pool=world.lab.pool)


def conflicts_while_running(host: LocalHost, world: World, base: str, **keys: Any) -> str:
    (said,) = host.plan(quick(world.name("late"), base, **keys))["conflicts"]
    return str(said)


def _shared(world: World) -> Path:
    path = world.lab.pool_path / f"shared-{world.token}.raw"
    path.write_bytes(b"\0" * MIB)
    return path


def test_a_pool_that_is_not_started_is_named_with_the_way_to_start_it(
    world: World, host: LocalHost, other_pool: str
) -> None:
    folder = world.lab.folder / other_pool
    img("create", "-f", "qcow2", folder / "x.qcow2", "32M")
    with connection() as conn:
        conn.storagePoolLookupByName(other_pool).refresh()
    as_file = world.base("as-file", devices=file_xml(folder / "x.qcow2", "qcow2"))
    source = f"<source pool='{other_pool}' volume='x.qcow2'/>"
    as_volume = world.base("as-volume", devices=disk_xml("volume", source, "qcow2"))
    plain = world.base("plain")
    with connection() as conn:
        conn.storagePoolLookupByName(other_pool).destroy()
    for base in (as_file, as_volume):
        assert f"pool-start {other_pool}" in conflicts(host, world, base)[0]
    assert f"pool-start {other_pool}" in conflicts(host, world, plain, pool=other_pool)[0]


def test_what_is_no_image_is_refused_by_what_it_is(
    world: World, host: LocalHost, outside: Path
) -> None:
    folder, pipe, gone = (outside / f"{word}-{world.token}" for word in ("folder", "pipe", "gone"))
    folder.mkdir()
    os.mkfifo(pipe)
    for number, (path, word) in enumerate(
        [(folder, "a folder"), (pipe, "a pipe"), (gone, "does not exist")]
    ):
        base = world.base(f"base{number}", devices=file_xml(path))
        (said,) = conflicts(host, world, base, pool=world.lab.pool)
        assert word in said
    folder.rmdir()
    pipe.unlink()


def test_a_link_is_followed_and_the_clone_does_not_follow_where_it_leads_later(
    world: World, host: LocalHost, outside: Path
) -> None:
    one, two = (outside / f"{word}-{world.token}.raw" for word in ("one", "two"))
    one.write_bytes(os.urandom(MIB))
    two.write_bytes(os.urandom(MIB))
    link = outside / f"link-{world.token}.raw"
    link.symlink_to(one)
    base = world.base(devices=file_xml(link))
    fast = host.clone(quick(world.name("fast"), base, pool=world.lab.pool))
    copy = host.clone(full(world.name("copy"), base, pool=world.lab.pool))
    link.unlink()
    link.symlink_to(two)
    assert same_content(one, fast.disks[1].path)
    assert same_content(one, copy.disks[1].path)
    link.unlink()


KINDS = {
    "network": disk_xml("network", "<source protocol='nbd' name='x'><host name='h'/></source>"),
    "nvme": disk_xml(
        "nvme",
        "<source type='pci' managed='yes' namespace='1'>"
        "<address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source>",
    ),
    "lun": disk_xml("block", "<source dev='/dev/null'/>", target="sdx", device="lun"),
    "slices": disk_xml(
        "file",
        "<source file='/srv/x'><slices><slice type='storage' offset='0' size='512'/></slices>"
        "</source>",
    ),
    "format": disk_xml("file", "<source file='/srv/x.vmdk'/>", "vmdk"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_cannot_be_cloned_is_refused_unless_it_is_left_out(
    world: World, host: LocalHost, kind: str
) -> None:
    base = world.base(devices=KINDS[kind])
    target = "sdx" if kind == "lun" else "vdb"
    (said,) = conflicts(host, world, base)
    assert f"{{{target}: {{action: skip}}}}" in said
    clone = host.clone(quick(world.name(), base, disks={target: DiskChanges(action="skip")}))
    assert [disk.target for disk in host.show(clone.name).disks] == ["vda"]


def test_what_is_meant_for_several_machines_is_shared_and_said_so(
    world: World, host: LocalHost
) -> None:
    path = world.lab.pool_path / f"shared-{world.token}.raw"
    path.write_bytes(os.urandom(MIB))
    base = world.base(
        devices=file_xml(path, rest="<shareable/>")
        + disk_xml("file", "", target="sdx", device="cdrom")
    )
    clone = host.clone(quick(world.name(), base))
    assert any("written by both" in warning for warning in clone.warnings)
    shared = [disk for disk in host.show(clone.name).disks if disk.strategy == "share"]
    assert [disk.target for disk in shared if disk.path] == ["vdb"]
    host.destroy(clone.name)
    assert path.exists()


def test_a_medium_that_is_gone_is_told(world: World, host: LocalHost) -> None:
    gone = f"<source file='/srv/gone-{world.token}.iso'/>"
    base = world.base(devices=disk_xml("file", gone, target="sdx", device="cdrom"))
    plan = host.plan(quick(world.name(), base))
    assert plan["conflicts"] == []
    assert any("does not exist" in warning for warning in plan["warnings"])


def test_a_transient_disk_is_cloned_with_a_warning(world: World, host: LocalHost) -> None:
    path = world.lab.pool_path / f"scratch-{world.token}.raw"
    path.write_bytes(os.urandom(MIB))
    base = world.base(devices=file_xml(path, rest="<transient/>"))
    clone = host.clone(full(world.name(), base))
    assert same_content(path, clone.disks[1].path)
    assert any("transient" in warning for warning in clone.warnings)


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_a_disk_that_the_base_lacks_is_made_empty_recorded_and_goes_with_the_clone(
    world: World, host: LocalHost, base: str, other_pool: str, strategy: str
) -> None:
    name = world.name()
    wishes = {
        "vdb": DiskChanges(size=3 * 2**30, pool=other_pool),
        "vdc": DiskChanges(size=100 * MIB, format="raw", serial="data"),
    }
    request = quick(name, base, clone_strategy=strategy, disks=wishes)
    plan = host.plan(request)
    assert plan["conflicts"] == []
    clone = host.clone(request)
    made = {disk.target: disk for disk in clone.disks}
    assert [made[target].strategy for target in ("vdb", "vdc")] == ["copy", "copy"]
    shown = {disk["target"]: disk["destination"] for disk in plan["disks"]}
    assert {target: disk.path for target, disk in made.items()} == shown
    info = image_info(made["vdb"].path)
    assert (info["format"], info["virtual-size"]) == ("qcow2", 3 * 2**30)
    assert "backing-filename" not in info
    assert other_pool in made["vdb"].path
    assert (image_info(made["vdc"].path)["format"], Path(made["vdc"].path).stat().st_size) == (
        "raw",
        100 * MIB,
    )
    record = world.record(name)
    assert record is not None
    assert {volume.target for volume in record.volumes if volume.state == "made"} == set(made)
    assert not [one for one in host.doctor() if name in f"{one['name']} {one['message']}"]
    with connection() as conn:
        conn.lookupByName(name).create()
    buses = [
        disk.get("bus") for disk in world.xml(name, live=True).findall("./devices/disk/target")
    ]
    assert buses == ["virtio"] * 3
    host.destroy(name)
    assert not [disk.path for disk in clone.disks if Path(disk.path).exists()]


def test_a_new_disk_of_a_create_that_failed_is_removed(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = quick(world.name(), base, disks={"vdb": DiskChanges(size=MIB)})
    before = world.footprint()

    def changed(*_: object) -> None:
        raise PlanRefused("the base changed", "Repeat it.")

    monkeypatch.setattr(create, "_require_base_at_rest", changed)
    with pytest.raises(PlanRefused):
        host.clone(request)
    assert world.footprint() == before


def test_a_disk_that_was_new_is_grown_later_as_any_other(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name()
    host.clone(quick(name, base, disks={"vdb": DiskChanges(size=MIB)}))
    wanted = quick(name, base, disks={"vdb": DiskChanges(size=2 * MIB)})
    with Host(LIBVIRT_URI) as opened:
        handle = opened.domain(name)
        record = handle.record()
        assert record is not None
        found = adjust.compare(opened, handle, record, wanted, opened.commands)
        assert found.changes == {"disk vdb size": {"old": MIB, "new": 2 * MIB}}
        adjust.apply(found)
    assert image_info(world.disks(name)[1])["virtual-size"] == 2 * MIB


def test_a_new_disk_is_made_where_only_libvirt_sees_the_files(
    world: World, far_host: LocalHost, base: str
) -> None:
    name = world.name()
    clone = far_host.clone(quick(name, base, disks={"vdb": DiskChanges(size=MIB)}))
    assert image_info(clone.disks[1].path)["virtual-size"] == MIB
    far_host.destroy(name)
    assert not Path(clone.disks[1].path).exists()
