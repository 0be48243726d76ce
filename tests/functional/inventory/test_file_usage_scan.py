"""Promises about finding everybody who needs a file, wherever and under whatever name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.lab import connection
from saltext.kvmclone.errors import CloneInUse
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import file_usage, file_usage_scan
from tests.support.storage import storage_pool
from tests.support.world import CloneOf, World, quick


@pytest.fixture
def elsewhere(world: World) -> Path:
    """A folder that no storage pool knows."""
    folder = world.lab.folder / f"elsewhere-{world.token}"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def asleep(world: World) -> Iterator[Path]:
    """The folder of a storage pool that is defined and does not run."""
    name = f"asleep-{world.token}"
    folder = world.lab.folder / name
    folder.mkdir(mode=0o755)
    with connection() as conn:
        pool = conn.storagePoolDefineXML(
            f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"
        )
        yield folder
        pool.undefine()


def overlay(backing: Path | str, path: Path, *options: str) -> Path:
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing, *options]
    subprocess.run([*words, path, "64M"], check=True)
    return path


def rename_backing(path: Path, name: str) -> None:
    """Write another backing name into an overlay, unchecked."""
    words = ["qemu-img", "rebase", "-u", "-F", "qcow2", "-b", name, path]
    subprocess.run(words, check=True, cwd=path.parent)


def standing(host: Host, disk: Path) -> list[str]:
    return file_usage_scan.scan(host).overlays_on([str(disk)]).get(str(disk), [])


def test_nothing_stands_on_a_lonely_disk(world: World, base: str, opened: Host) -> None:
    assert standing(opened, world.disks(base)[0]) == []


def test_overlays_in_every_pool_are_found(
    world: World, base: str, opened: Host, clone_of: CloneOf, small_pool: str
) -> None:
    disk = world.disks(base)[0]
    names = [clone_of(base, "one"), clone_of(base, "two", pool=small_pool)]
    assert standing(opened, disk) == sorted(str(world.disks(name)[0]) for name in names)


@pytest.mark.parametrize("spelling", ["relative", "json", "json-dots", "file", "symlink", "detour"])
def test_an_overlay_is_found_however_it_spells_its_backing_file(
    world: World, base: str, opened: Host, spelling: str
) -> None:
    disk = world.disks(base)[0]
    path = overlay(disk, disk.with_name(f"hand-{world.token}.qcow2"))
    link = disk.with_name(f"link-{world.token}.qcow2")
    link.symlink_to(disk)
    file = {"driver": "file", "filename": str(disk)}
    rename_backing(
        path,
        {
            "relative": disk.name,
            "json": "json:" + json.dumps({"driver": "qcow2", "file": file}),
            "json-dots": "json:" + json.dumps({"file.filename": str(disk), "driver": "qcow2"}),
            "file": f"file:{disk}",
            "symlink": str(link),
            "detour": f"{disk.parent}/../{disk.parent.name}/./{disk.name}",
        }[spelling],
    )
    assert standing(opened, disk) == [str(path)]


def test_an_overlay_on_a_hard_link_or_a_bind_mount_is_found(
    world: World, base: str, opened: Host, elsewhere: Path
) -> None:
    disk = world.disks(base)[0]
    twin = disk.with_name(f"twin-{world.token}.qcow2")
    os.link(disk, twin)
    one = overlay(twin, disk.with_name(f"one-{world.token}.qcow2"))
    subprocess.run(["mount", "--bind", disk.parent, elsewhere], check=True)
    try:
        two = overlay(elsewhere / disk.name, disk.with_name(f"two-{world.token}.qcow2"))
        assert standing(opened, disk) == [str(one), str(two)]
    finally:
        subprocess.run(["umount", elsewhere], check=True)


def test_an_overlay_in_a_pool_that_is_off_is_found(
    world: World, base: str, opened: Host, asleep: Path
) -> None:
    disk = world.disks(base)[0]
    path = overlay(disk, asleep / f"top-{world.token}.qcow2")
    found = file_usage_scan.scan(opened)
    assert found.overlays_on([str(disk)]) == {str(disk): [str(path)]}
    assert not [one for one in found.unchecked if asleep.name in one]


def test_an_overlay_beside_a_clones_disk_is_found_though_its_pool_is_gone(
    world: World, host: LocalHost, base: str, opened: Host, elsewhere: Path
) -> None:
    name = world.name()
    with storage_pool(elsewhere.name, elsewhere):
        host.clone(quick(name, base, pool=elsewhere.name))
        with connection() as conn:
            pool = conn.storagePoolLookupByName(elsewhere.name)
            pool.destroy()
            pool.undefine()
        disk = world.disks(name)[0]
        above = overlay(disk, elsewhere / "above.qcow2")
        assert standing(opened, disk) == [str(above)]
        with pytest.raises(CloneInUse):
            host.destroy(name)
        above.unlink()
        host.destroy(name)


def test_what_is_handed_to_qemu_past_libvirt_counts_as_used(
    world: World, host: LocalHost, base: str, opened: Host, elsewhere: Path
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    above = overlay(disk, elsewhere / "above.qcow2")
    machine = world.base("machine")
    space = "http://libvirt.org/schemas/domain/qemu/1.0"
    xml = world.xml(machine)
    words = ElementTree.SubElement(xml, f"{{{space}}}commandline")
    for value in ("-drive", f"if=none,file={disk},format=qcow2", f'{{"filename":"{above}"}}'):
        ElementTree.SubElement(words, f"{{{space}}}arg", value=value)
    with connection() as conn:
        conn.defineXML(ElementTree.tostring(xml, encoding="unicode"))
    found = file_usage_scan.scan(opened)
    assert found.users(str(disk)) == [name, machine]
    assert found.users(str(above)) == [machine]
    assert found.overlays_on([str(disk)]) == {str(disk): [str(above)]}
    with pytest.raises(CloneInUse):
        host.destroy(name)
    above.unlink()
    assert "uses it" in host.destroy(name).warnings[0]
    assert disk.exists()


def test_a_machines_disk_outside_any_pool_is_found_down_to_the_end_of_its_chain(
    world: World, base: str, opened: Host, elsewhere: Path
) -> None:
    disk = world.disks(base)[0]
    below = overlay(disk, elsewhere / f"below-{world.token}.qcow2")
    top = overlay(below, elsewhere / f"top-{world.token}.qcow2")
    world.attach(world.base("other"), top, "vdx")
    assert standing(opened, disk) == [str(below)]
    assert standing(opened, below) == [str(top)]


def test_the_file_that_holds_an_images_data_is_needed_too(
    world: World, base: str, opened: Host
) -> None:
    folder = world.disks(base)[0].parent
    data, image = folder / f"data-{world.token}.raw", folder / f"image-{world.token}.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data}", image, "1M"]
    subprocess.run(words, check=True)
    assert standing(opened, data) == [str(image)]


@pytest.mark.parametrize("form", ["qed", "qcow"])
def test_a_rare_format_is_asked_of_qemu(world: World, base: str, opened: Host, form: str) -> None:
    disk = world.disks(base)[0]
    path = disk.with_name(f"old-{world.token}.{form}")
    words = ["qemu-img", "create", "-q", "-f", form, "-F", "qcow2", "-b", disk, path]
    subprocess.run(words, check=True)
    assert standing(opened, disk) == [str(path)]
    assert file_usage_scan.scan(opened).unchecked == ()


def test_what_a_guest_wrote_into_its_raw_disk_is_no_claim(world: World, opened: Host) -> None:
    base = world.base(disks=["qcow2", "raw"])
    disk, raw = world.disks(base)
    forged = overlay(disk, disk.with_name(f"forged-{world.token}.qcow2"))
    raw.write_bytes(forged.read_bytes())
    forged.unlink()
    assert standing(opened, disk) == []


def test_a_damaged_image_is_told_and_not_passed_over(world: World, base: str, opened: Host) -> None:
    disk = world.disks(base)[0]
    broken = disk.with_name(f"broken-{world.token}.qcow2")
    broken.write_bytes(disk.read_bytes()[:20])
    found = file_usage_scan.scan(opened)
    assert [one for one in found.unchecked if str(broken) in one]


def test_a_pool_that_cannot_be_looked_into_is_told(world: World, base: str, opened: Host) -> None:
    name = f"volumes-{world.token}"
    with connection() as conn:
        pool = conn.storagePoolDefineXML(
            f"<pool type='logical'><name>{name}</name><source><name>{name}</name></source></pool>"
        )
        try:
            found = file_usage_scan.scan(opened)
        finally:
            pool.undefine()
    assert [one for one in found.unchecked if name in one]


def test_a_disk_that_may_be_where_nobody_can_look_is_told(
    world: World, base: str, opened: Host
) -> None:
    folder = world.lab.folder / f"unmounted-{world.token}"
    folder.mkdir()
    disk = folder / "x.qcow2"
    world.attach(base, disk, "vdb")
    (said,) = [one for one in file_usage_scan.scan(opened).unchecked if str(disk) in one]
    assert base in said
    assert "is empty" in said
    (folder / "other").touch()  # so it is mounted, and the disk is simply gone
    assert not [one for one in file_usage_scan.scan(opened).unchecked if str(disk) in one]
    shutil.rmtree(folder)
    assert [one for one in file_usage_scan.scan(opened).unchecked if str(disk) in one]


def test_a_pipe_in_a_pool_holds_nobody_up(world: World, base: str, opened: Host) -> None:
    disk = world.disks(base)[0]
    os.mkfifo(disk.with_name(f"pipe-{world.token}"))
    try:
        assert standing(opened, disk) == []
    finally:
        disk.with_name(f"pipe-{world.token}").unlink()


def test_machines_and_files_may_come_and_go_meanwhile(
    world: World, base: str, opened: Host
) -> None:
    disk = world.disks(base)[0]
    xml = world.xml(base)
    stop = threading.Event()

    def churn() -> None:
        number = 0
        with connection() as conn:
            while not stop.is_set():
                number += 1
                name = xml.find("name")
                assert name is not None
                name.text = f"churn{number}-{world.token}"
                uuid = xml.find("uuid")
                if uuid is not None:
                    xml.remove(uuid)
                path = disk.with_name(f"churn{number}-{world.token}.raw")
                path.write_bytes(b"")
                conn.defineXML(ElementTree.tostring(xml, encoding="unicode")).undefine()
                path.unlink()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(30):
            assert standing(opened, disk) == []
            file_usage_scan.scan(opened)
    finally:
        stop.set()
        thread.join()


def used(host: Host, path: Path | str, uuid: str = "") -> str:
    """Who uses a file, as the usage tells it."""
    found = file_usage_scan.scan(host)
    return found.used_by_others(uuid).get(found.file_id(str(path)), "")


def test_every_kind_of_file_of_a_machine_counts_as_used(world: World, opened: Host) -> None:
    base = world.base(disks=2, cdrom=True, uefi=True)
    uuid = world.xml(base).findtext("uuid") or ""
    files = [
        *world.disks(base),
        world.lab.folder / f"nvram/{base}.fd",
    ]
    assert [used(opened, file) for file in files] == [base] * 3
    assert [used(opened, file, uuid) for file in files] == [""] * 3
    assert used(opened, world.lab.pool_path / "shared.iso")
    assert used(opened, world.lab.boot.kernel)
    assert used(opened, world.lab.boot.initrd)


def test_a_disk_named_by_pool_and_volume_counts_as_used(world: World, opened: Host) -> None:
    other, base = world.base("other"), world.base()
    disk = world.disks(base)[0].rename(world.lab.pool_path / f"loose-{world.token}.qcow2")
    world.refresh()
    with connection() as conn:
        conn.lookupByName(other).attachDeviceFlags(
            "<disk type='volume' device='disk'><driver name='qemu' type='qcow2'/>"
            f"<source pool='{world.lab.pool}' volume='{disk.name}'/><target dev='vdx'/></disk>",
            2,
        )
    assert used(opened, disk) == other


def test_a_file_used_under_another_name_is_the_same_file(
    world: World, base: str, opened: Host, elsewhere: Path
) -> None:
    disk = world.disks(base)[0]
    link = elsewhere / f"link-{world.token}.qcow2"
    link.symlink_to(disk)
    other = world.base("other")
    world.attach(other, link, "vdx")
    uuid = world.xml(base).findtext("uuid") or ""
    assert used(opened, disk, uuid) == other
    identity = file_usage_scan.scan(opened).file_id
    assert identity(str(disk)) == identity(str(link))
    assert identity(str(elsewhere / "none")) == str(elsewhere / "none")


def test_what_a_machines_snapshots_name_counts_as_used(
    world: World, opened: Host, elsewhere: Path
) -> None:
    other = world.base("other")
    disk, top = world.disks(other)[0], elsewhere / f"snap-{world.token}.qcow2"
    with connection() as conn:
        conn.lookupByName(other).snapshotCreateXML(
            "<domainsnapshot><disks><disk name='vda' snapshot='external'>"
            f"<source file='{top}'/></disk></disks></domainsnapshot>",
            16,  # disks only
        )
    assert str(top) in world.secure_xml(other)
    assert used(opened, top) == other
    assert used(opened, disk) == other
    assert standing(opened, disk) == [str(top)]


def test_a_link_to_a_block_device_is_that_device(world: World, elsewhere: Path) -> None:
    image = elsewhere / f"loop-{world.token}.raw"
    image.write_bytes(b"\0" * 2**20)
    words = ["losetup", "--find", "--show", image]
    device = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    try:
        link = elsewhere / f"link-{world.token}"
        link.symlink_to(device)
        assert file_usage.file_id(str(link), True) == file_usage.file_id(device, True)
        assert file_usage.file_id(device, True) != file_usage.file_id(str(image), True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.guest
def test_a_machine_that_exists_only_while_it_runs_counts(
    world: World, base: str, opened: Host, elsewhere: Path
) -> None:
    disk = world.disks(base)[0]
    top = overlay(disk, elsewhere / f"top-{world.token}.qcow2")
    xml = world.secure_xml(base).replace(base, made := world.name("fleeting"))
    xml = xml.replace(str(disk).replace(base, made), str(top))
    xml = xml.replace(world.xml(base).findtext("uuid") or "", str(uuid.uuid4()))
    with connection() as conn:
        conn.createXML(xml)
    try:
        assert standing(opened, disk) == [str(top)]
        assert used(opened, top) == made
    finally:
        world.lab.stop(made)


@pytest.mark.guest
def test_a_disk_plugged_into_a_running_guest_counts_with_all_below_it(
    world: World, host: LocalHost, base: str, opened: Host, elsewhere: Path, clone_of: CloneOf
) -> None:
    disk = world.disks(world.base("data"))[0]
    top = overlay(disk, elsewhere / f"hot-{world.token}.qcow2")
    name = clone_of(base)
    host.boot(name)
    with connection() as conn:
        conn.lookupByName(name).attachDeviceFlags(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
            f"<source file='{top}'/><target dev='vdx' bus='virtio'/></disk>",
            1,  # only in the running guest, not in its definition
        )
    assert standing(opened, disk) == [str(top)]
    assert used(opened, top) == name
    assert name in file_usage_scan.scan(opened).users(str(disk))
    with connection() as conn:
        conn.lookupByName(name).managedSave()
    assert standing(opened, disk) == [str(top)]
    assert used(opened, top) == name
