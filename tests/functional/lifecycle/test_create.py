"""Promises about a clone that was just made: its disks, its firmware, and that it is its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest

from lab.lab import connection
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.system import processes
from tests.support.world import (
    CloneOf,
    World,
    full,
    image_info,
    occupied,
    quick,
    same_content,
    sha256,
)

MIB = 2**20


# --- quick --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["qcow2", "raw"])
def test_a_quick_clone_is_a_qcow2_overlay_that_names_its_backing_format(
    world: World, host: LocalHost, fmt: str
) -> None:
    base = world.base(fmt=fmt)
    clone = host.clone(quick(world.name(), base))

    (disk,) = clone.disks
    info = image_info(disk.path)
    assert info["format"] == "qcow2"
    assert info["backing-filename"] == str(world.disks(base)[0])
    assert info["backing-filename-format"] == fmt
    assert info["virtual-size"] == 64 * MIB
    driver = world.xml(clone.name).find("./devices/disk/driver")
    assert driver is not None
    assert driver.get("type") == "qcow2"


def test_a_quick_clone_shows_the_bytes_of_its_base(world: World, host: LocalHost) -> None:
    base = world.base(fmt="raw")
    source = world.filled(base)
    clone = host.clone(quick(world.name(), base))
    assert same_content(source, clone.disks[0].path)


def test_a_quick_clone_does_not_write_to_its_base(world: World, host: LocalHost) -> None:
    base = world.base(fmt="raw")
    source = world.filled(base)
    before = sha256(source), source.stat().st_mtime_ns
    clone = host.clone(quick(world.name(), base))
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", clone.disks[0].path],
        check=True,
        capture_output=True,
    )
    assert (sha256(source), source.stat().st_mtime_ns) == before


# --- full ---------------------------------------------------------------------------------------


def test_a_full_raw_clone_is_byte_identical_and_sparse(world: World, host: LocalHost) -> None:
    base = world.base(fmt="raw")
    source = world.filled(base)
    clone = host.clone(full(world.name(), base))

    copy = clone.disks[0].path
    assert image_info(copy)["format"] == "raw"
    assert clone.disks[0].format == "raw"
    assert sha256(copy) == sha256(source)
    assert occupied(copy) <= occupied(source) + MIB < 4 * MIB


def test_a_full_qcow2_clone_stands_alone(world: World, host: LocalHost) -> None:
    base = world.base()
    source = world.disks(base)[0]
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write -P 9 1M 3M", str(source)],
        check=True,
        capture_output=True,
    )
    clone = host.clone(full(world.name(), base))

    info = image_info(clone.disks[0].path)
    assert info["format"] == "qcow2"
    assert "backing-filename" not in info
    assert same_content(source, clone.disks[0].path)
    assert occupied(clone.disks[0].path) < 6 * MIB


def test_a_full_clone_of_an_overlay_chain_is_flattened(world: World, host: LocalHost) -> None:
    base = world.base(chain=2)
    top = world.disks(base)[0]
    below = image_info(image_info(top)["backing-filename"])["backing-filename"]
    for path, pattern, offset in ((below, 3, "0"), (str(top), 5, "8M")):
        words = ["qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} {offset} 1M", path]
        subprocess.run(words, check=True, capture_output=True)

    clone = host.clone(full(world.name(), base))
    assert "backing-filename" not in image_info(clone.disks[0].path)
    assert same_content(top, clone.disks[0].path)


# --- every disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "formats"), [("quick", ["qcow2", "qcow2"]), ("full", ["qcow2", "raw"])]
)
def test_every_disk_is_cloned_in_order(
    world: World, host: LocalHost, strategy: str, formats: list[str]
) -> None:
    base = world.base(disks=["qcow2", "raw"])
    clone = host.clone(quick(world.name(), base, clone_strategy=strategy))

    assert [disk.target for disk in clone.disks] == ["vda", "vdb"]
    assert [disk.format for disk in clone.disks] == formats
    for disk, fmt in zip(clone.disks, formats, strict=True):
        assert disk.path == str(world.lab.pool_path / f"{clone.name}-{disk.target}.{fmt}")
        assert image_info(disk.path)["format"] == fmt
    assert set(world.disks(clone.name)).isdisjoint(world.disks(base))


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_a_name_is_free_again_after_its_disk_was_removed_by_hand(
    world: World, host: LocalHost, base: str, clone_of: CloneOf, strategy: str
) -> None:
    name = clone_of(base, clone_strategy=strategy)
    (disk,) = world.disks(name)
    with connection() as conn:
        conn.lookupByName(name).undefine()
    disk.unlink()  # behind libvirt's back, whose pool still has it on its list
    clone = host.clone(quick(name, base, clone_strategy=strategy))
    assert [part.path for part in clone.disks] == [str(disk)]
    assert disk.exists()


def test_a_cdrom_is_shared_and_never_copied(world: World, host: LocalHost) -> None:
    base = world.base(cdrom=True)
    name = world.name()
    host.clone(quick(name, base))
    clone = host.show(name)

    assert [(disk.target, disk.strategy) for disk in clone.disks] == [
        ("vda", "overlay"),
        ("sdb", "share"),
    ]
    host.destroy(name)
    assert (world.lab.pool_path / "shared.iso").exists()


def test_another_pool_takes_the_volumes_when_asked(
    world: World, host: LocalHost, small_pool: str
) -> None:
    base = world.base()
    clone = host.clone(quick(world.name(), base, pool=small_pool))
    assert clone.disks[0].path.startswith(str(world.lab.folder / small_pool))
    host.destroy(clone.name)


# --- its own machine ----------------------------------------------------------------------------


def test_uefi_variables_are_copied_and_leave_with_the_clone(world: World, host: LocalHost) -> None:
    base = world.base(uefi=True)
    nvram = world.lab.folder / f"nvram/{base}.fd"
    with nvram.open("r+b") as file:
        file.seek(-64, 2)
        file.write(b"a variable of the base")
    content = sha256(nvram)
    name = world.name()
    host.clone(quick(name, base))

    own = Path(world.xml(name).findtext("./os/nvram") or "")
    assert own == nvram.with_name(f"{name}-{world.xml(name).findtext('uuid')}.fd")
    assert sha256(own) == content
    host.destroy(name)
    assert not own.exists()
    assert sha256(nvram) == content


@pytest.mark.guest
def test_uefi_variables_that_the_definition_does_not_mention_are_copied_too(
    world: World, host: LocalHost
) -> None:
    """With ``firmware='efi'`` libvirt makes a store at the first boot and says so nowhere."""
    base = world.base(uefi=True)
    with connection() as conn:
        domain = conn.lookupByName(base)
        root = ElementTree.fromstring(domain.XMLDesc())
        system = root.find("os")
        assert system is not None
        for tag in ("loader", "nvram"):
            element = system.find(tag)
            assert element is not None
            system.remove(element)
        system.set("firmware", "efi")
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        domain = conn.defineXML(ElementTree.tostring(root, encoding="unicode"))
        domain.create()
        domain.destroy()
    folder = Path("/var/lib/libvirt/qemu/nvram")
    name = world.name()
    host.clone(quick(name, base))
    store = Path(world.xml(name).findtext("./os/nvram") or "")
    try:
        assert store.parent == folder
        assert store.read_bytes() == (folder / f"{base}_VARS.fd").read_bytes()
        host.boot(name)
        host.destroy(name)
        assert not store.exists()
        assert (folder / f"{base}_VARS.fd").exists()
    finally:
        (folder / f"{base}_VARS.fd").unlink()


def test_nothing_that_identifies_the_base_is_left(world: World, host: LocalHost) -> None:
    devices = (
        "<graphics type='vnc' port='5999' autoport='no'/><video><model type='vga'/></video>"
        f"<channel type='unix'><source mode='bind' path='{world.lab.folder}/agent.sock'/>"
        "<target type='virtio' name='org.example.0'/></channel>"
    )
    base = world.base(interfaces=2, devices=devices)
    names = [world.name("one"), world.name("two")]
    for name in names:
        host.clone(quick(name, base))

    machines = [world.xml(name) for name in (base, *names)]
    for path, attribute in (("./devices/interface/mac", "address"),):
        seen = [e.get(attribute) for xml in machines for e in xml.findall(path)]
        assert len(seen) == len(set(seen)) == 6
    assert len({xml.findtext("uuid") for xml in machines}) == 3
    logs = [element.get("file") for xml in machines for element in xml.findall(".//serial/log")]
    assert len(logs) == len(set(logs)) == 3
    for xml in machines[1:]:
        assert [one.text for one in xml.findall("./devices/disk/serial")] == ["disk-0"]
        graphics = xml.find("./devices/graphics")
        assert graphics is not None
        assert graphics.get("autoport") == "yes"
        text = [element.get("path") for element in xml.findall(".//channel/source")]
        assert f"{world.lab.folder}/agent.sock" not in text


def test_cpus_memory_and_description_can_be_chosen(world: World, host: LocalHost) -> None:
    base = world.base()
    name = world.name()
    host.clone(quick(name, base, cpus=2, memory=192 * MIB, description="for <the> test"))
    xml = world.xml(name)
    assert xml.findtext("vcpu") == "2"
    assert xml.findtext("memory") == str(192 * 1024)
    assert xml.findtext("description") == "for <the> test"


def test_a_clone_of_a_clone_has_a_record_of_its_own(
    world: World, host: LocalHost, base: str, clone_of: Callable[..., str]
) -> None:
    first = clone_of(base, "first")
    second = clone_of(first, "second")
    assert host.show(second).base == first
    record = world.record(second)
    assert record is not None
    assert [volume.path for volume in record.volumes] == [str(world.disks(second)[0])]


def test_the_record_says_what_was_made(world: World, host: LocalHost, base: str) -> None:
    worker = processes.this_process()
    clone = host.clone(quick(world.name(), base, profile="web", tags=("a", "b")), worker)
    record = world.record(clone.name)
    assert record is not None
    assert (record.stage, record.base, record.profile) == ("cloned", base, "web")
    assert record.worker == worker
    assert record.tags == ("a", "b")
    assert [volume.path for volume in record.volumes] == [disk.path for disk in clone.disks]
    assert clone.stage == "cloned"
    assert clone.state == "shutoff"
    assert clone.host == "kvm01"
    assert clone.timings["cloned"] > 0


def test_a_changed_base_is_told_as_drift(
    world: World, host: LocalHost, clone_of: Callable[..., str]
) -> None:
    base = world.base(fmt="raw")
    name = clone_of(base)
    assert not host.show(name).drift
    world.filled(base)
    assert host.show(name).drift


def test_autostart_is_set_when_asked(world: World, host: LocalHost, base: str) -> None:
    name = world.name()
    host.clone(quick(name, base, autostart=True))
    assert world.autostart(name)


# --- plan ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_what_the_plan_says_is_what_is_made(world: World, host: LocalHost, strategy: str) -> None:
    base = world.base(disks=["qcow2", "raw"], cdrom=True, uefi=True)
    request = quick(world.name(), base, clone_strategy=strategy)
    plan = host.plan(request)
    assert plan["conflicts"] == []
    host.clone(request)
    clone = host.show(request.name)

    planned = [
        (disk["target"], disk["destination"] or disk["source"], disk["format"], disk["action"])
        for disk in plan["disks"]
    ]
    assert planned == [(d.target, d.path, d.format, d.strategy) for d in clone.disks]
    xml = world.xml(request.name)
    own, uuid = xml.findtext("./os/nvram") or "", xml.findtext("uuid") or ""
    assert plan["changes"]["nvram"]["new"] == own.replace(uuid, "<generated>")
    again = host.plan(quick(world.name("again"), base, clone_strategy=strategy))
    assert set(again) == set(plan)


def test_the_plan_is_the_definition_but_for_what_is_generated(
    world: World, host: LocalHost, base: str
) -> None:
    request = quick(world.name(), base, cpus=2)
    plan = host.plan(request)
    host.clone(request)
    xml = world.xml(request.name)
    generated = [xml.findtext("uuid"), xml.find("./devices/interface/mac").get("address")]
    assert plan["changes"]["uuid"]["new"] == "<generated>"
    assert not any(value in plan["xml"] for value in generated if value)
    assert plan["changes"]["cpus"] == {"old": 1, "new": 2}


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_a_plan_writes_nothing(world: World, host: LocalHost, strategy: str) -> None:
    base = world.base(uefi=True)
    before = world.footprint()
    host.plan(quick(world.name(), base, clone_strategy=strategy))
    assert world.footprint() == before


def test_a_plan_shows_no_console_password(world: World, host: LocalHost) -> None:
    base = world.base(devices="<graphics type='vnc' passwd='s3cr3t'/>")
    name = world.name()
    assert "s3cr3t" not in str(host.plan(quick(name, base)))
    host.clone(quick(name, base))
    assert "s3cr3t" in world.secure_xml(name)
