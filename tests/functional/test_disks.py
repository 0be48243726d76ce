"""Promises about every kind of disk: cloned for real, shared for a reason, or refused."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.common import wait_until
from lab.lab import connection
from saltext.kvmclone import copying, images, volumes
from saltext.kvmclone.errors import HostError, PlanRefused
from saltext.kvmclone.facts import ImageFacts
from saltext.kvmclone.host import Host
from saltext.kvmclone.operations import LocalHost
from saltext.kvmclone.ownership import MAKING, Volume
from saltext.kvmclone.request import DiskWish, Request
from tests.functional.places import loop_device, storage_pool
from tests.functional.world import World, full, image_info, quick, same_content, sha256

MIB = 2**20


def img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def write(path: Path | str, pattern: int, where: str, form: str = "qcow2") -> None:
    """Let a guest's hand write something."""
    words = ["qemu-io", "-f", form, "-c", f"write -P {pattern} {where}", str(path)]
    subprocess.run(words, check=True, capture_output=True)


def disk_xml(
    kind: str, source: str, form: str = "raw", target: str = "vdb", rest: str = "", **keys: str
) -> str:
    device = keys.get("device", "disk")
    bus = {"v": "virtio", "f": "fdc", "s": "scsi"}[target[0]]
    return (
        f"<disk type='{kind}' device='{device}'><driver name='qemu' type='{form}'/>{source}"
        f"<target dev='{target}' bus='{bus}'/>{rest}</disk>"
    )


def file_xml(path: Path, form: str = "raw", target: str = "vdb", rest: str = "") -> str:
    return disk_xml("file", f"<source file='{path}'/>", form, target, rest)


@pytest.fixture
def outside(world: World) -> Path:
    """A folder that no pool is over; QEMU may walk there."""
    folder = world.lab.folder / "outside"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    return folder


@pytest.fixture
def other_pool(world: World) -> Iterator[str]:
    name = f"{world.lab.name}-other-{world.token}"
    with storage_pool(name, world.lab.folder / name):
        yield name
    shutil.rmtree(world.lab.folder / name)


@pytest.fixture
def block(world: World, outside: Path) -> Iterator[str]:
    """A block device of 64 MiB with something on it."""
    image = outside / f"block-{world.token}.img"
    with image.open("wb") as file:
        file.write(os.urandom(MIB))
        file.seek(40 * MIB)
        file.write(os.urandom(MIB))
        file.truncate(64 * MIB)
    with loop_device(image) as device:
        yield device


@pytest.fixture
def far_host(host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> LocalHost:
    """The same libvirtd, as if its files were on another machine."""
    monkeypatch.setattr(Host, "local", property(lambda _self: False))
    return host


def conflicts(host: LocalHost, world: World, base: str, **keys: Any) -> list[str]:
    """Why a clone would be refused; nothing is written by asking, nor by trying."""
    request = quick(world.name(f"no{len(world.names)}"), base, **keys)
    before = world.footprint()
    found = list(host.plan(request)["conflicts"])
    assert found
    with pytest.raises(PlanRefused):
        host.clone(request)
    assert world.footprint() == before
    return found


def planned(host: LocalHost, base: str, name: str, target: str, **keys: Any) -> dict[str, Any]:
    plan = host.plan(quick(name, base, **keys))
    assert plan["conflicts"] == []
    return next(disk for disk in plan["disks"] if disk["target"] == target)


# --- where a disk lies ---------------------------------------------------------------------------


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
        assert f"virsh pool-start {other_pool}" in conflicts(host, world, base)[0]
    assert f"virsh pool-start {other_pool}" in conflicts(host, world, plain, pool=other_pool)[0]


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


# --- what an image is ----------------------------------------------------------------------------


def test_internal_snapshots_stay_with_the_base(world: World, host: LocalHost) -> None:
    base = world.base()
    source = world.disks(base)[0]
    write(source, 1, "0 1M")
    img("snapshot", "-c", "before", source)
    write(source, 2, "0 1M")
    for make in (full, quick):
        clone = host.clone(make(world.name(make.__name__), base))
        assert "snapshots" not in image_info(clone.disks[0].path)
        assert same_content(source, clone.disks[0].path)
        assert any("internal snapshot" in warning for warning in clone.warnings)


def test_an_external_snapshot_of_the_base_is_told(world: World, host: LocalHost) -> None:
    base = world.base()
    overlay = world.lab.pool_path / f"snap-{world.token}.qcow2"
    with connection() as conn:
        conn.lookupByName(base).snapshotCreateXML(
            "<domainsnapshot><name>s</name><disks>"
            f"<disk name='vda' snapshot='external'><source file='{overlay}'/></disk>"
            "</disks></domainsnapshot>",
            16,  # disk only
        )
    write(overlay, 4, "1M 1M")
    for make in (full, quick):
        clone = host.clone(make(world.name(make.__name__), base))
        assert same_content(overlay, clone.disks[0].path)
        assert any("1 snapshot(s)" in warning for warning in clone.warnings)


def test_an_external_data_file_is_brought_together_or_refused(
    world: World, host: LocalHost, outside: Path
) -> None:
    path, data = (outside / f"{word}-{world.token}" for word in ("meta.qcow2", "data.raw"))
    img("create", "-f", "qcow2", "-o", f"data_file={data}", path, "32M")
    write(path, 6, "1M 1M")
    base = world.base(devices=file_xml(path, "qcow2"))
    (said,) = conflicts(host, world, base, pool=world.lab.pool)
    assert "clone_strategy: full" in said
    clone = host.clone(full(world.name(), base, pool=world.lab.pool))
    made = image_info(clone.disks[1].path)
    assert "data-file" not in made.get("format-specific", {}).get("data", {})
    assert same_content(path, clone.disks[1].path)
    record = world.record(clone.name)
    assert record is not None
    assert str(data) in [disk.path for disk in record.base_disks]


@pytest.mark.parametrize("far", [False, True])
def test_a_corrupt_image_is_refused_and_a_dirty_one_told(
    world: World, host: LocalHost, request: pytest.FixtureRequest, far: bool
) -> None:
    if far:
        request.getfixturevalue("far_host")
    base = world.base()
    source = world.disks(base)[0]
    _set_feature(source, 1)
    world.refresh()
    plan = host.plan(quick(world.name("dirty"), base))
    assert plan["conflicts"] == []
    assert any("not closed properly" in warning for warning in plan["warnings"])
    _set_feature(source, 2)
    world.refresh()
    assert "qemu-img check -r all" in conflicts(host, world, base)[0]


def _set_feature(path: Path, bits: int) -> None:
    with path.open("r+b") as file:
        file.seek(72)
        file.write(struct.pack(">Q", bits))


def test_an_encrypted_image_is_refused(world: World, host: LocalHost, outside: Path) -> None:
    path = outside / f"secret-{world.token}.qcow2"
    options = "encrypt.format=aes,encrypt.key-secret=s"
    secret = "secret,id=s,data=abc"
    img("create", "-f", "qcow2", "--object", secret, "-o", options, path, "32M")
    base = world.base(devices=file_xml(path, "qcow2"))
    for strategy in ("quick", "full"):
        found = conflicts(host, world, base, pool=world.lab.pool, clone_strategy=strategy)
        assert "is encrypted" in found[0]


@pytest.mark.parametrize("far", [False, True])
def test_an_image_that_the_definition_calls_raw_is_cloned_as_the_guest_sees_it(
    world: World, host: LocalHost, request: pytest.FixtureRequest, far: bool
) -> None:
    if far:
        request.getfixturevalue("far_host")
    path = world.lab.pool_path / f"odd-{world.token}.img"
    img("create", "-f", "qcow2", path, "64M")
    write(path, 9, "0 1M")
    world.refresh()
    base = world.base(devices=file_xml(path))
    clone = host.clone(quick(world.name(), base))
    info = image_info(clone.disks[1].path)
    assert info["backing-filename-format"] == "raw"
    assert info["virtual-size"] == -(-path.stat().st_size // 1024) * 1024
    assert any("looks like qcow2" in warning for warning in clone.warnings)
    record = world.record(clone.name)
    assert record is not None
    assert record.volumes[1].capacity == info["virtual-size"]
    if far:
        # libvirt would copy what a qcow2 shows, and its guest could have named any file there.
        found = conflicts(host, world, base, clone_strategy="full")
        assert "would follow what its guest wrote" in found[0]
        return
    copy = host.clone(full(world.name("copy"), base))
    assert sha256(copy.disks[1].path) == sha256(path)


def test_an_image_that_is_not_what_the_definition_says_is_refused(
    world: World, host: LocalHost
) -> None:
    path = world.lab.pool_path / f"odd-{world.token}.img"
    path.write_bytes(b"\0" * MIB)
    base = world.base(devices=file_xml(path, "qcow2"))
    assert "is raw: the base itself cannot start" in conflicts(host, world, base)[0]


def test_a_missing_backing_file_is_named(world: World, host: LocalHost) -> None:
    base = world.base(chain=1)
    below = Path(image_info(world.disks(base)[0])["backing-filename"])
    below.rename(below.with_suffix(".away"))
    for strategy in ("quick", "full"):
        assert str(below) in conflicts(host, world, base, clone_strategy=strategy)[0]


def test_the_record_knows_every_file_below_a_quick_clone(world: World, host: LocalHost) -> None:
    base = world.base(chain=2)
    clone = host.clone(quick(world.name(), base))
    record = world.record(clone.name)
    assert record is not None
    top = world.disks(base)[0]
    assert [disk.path for disk in record.base_disks] == [
        str(top),
        str(top.with_name(f"{base}-0-below1.qcow2")),
        str(top.with_name(f"{base}-0-below0.qcow2")),
    ]
    for disk in record.base_disks:
        assert disk.modified == pytest.approx(os.stat(disk.path).st_mtime, abs=1e-5)


def test_an_image_that_somebody_writes_is_refused(world: World, host: LocalHost) -> None:
    base = world.base(disks=["qcow2", "raw"])
    for index, form in enumerate(("qcow2", "raw")):
        path = world.disks(base)[index]
        writer = subprocess.Popen(
            ["qemu-io", "-f", form, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write("length\n")
        writer.stdin.flush()
        writer.stdout.readline()
        try:
            (said,) = conflicts(host, world, base)
            assert f"'{path}' is open for writing" in said
        finally:
            writer.stdin.close()
            writer.wait()
    assert host.clone(quick(world.name(), base)).stage == "cloned"


def test_a_qcow2_image_on_a_block_device_is_read_as_one(
    world: World, host: LocalHost, block: str
) -> None:
    img("create", "-f", "qcow2", block, "32M")
    write(block, 7, "1M 1M")
    base = world.base(devices=disk_xml("block", f"<source dev='{block}'/>", "qcow2"))
    for make in (quick, full):
        clone = host.clone(make(world.name(make.__name__), base, pool=world.lab.pool))
        assert image_info(clone.disks[1].path)["virtual-size"] == 32 * MIB
        assert same_content(block, clone.disks[1].path)


# --- what a disk is for --------------------------------------------------------------------------


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
    clone = host.clone(quick(world.name(), base, disks={target: DiskWish(action="skip")}))
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


# --- a host whose files are elsewhere ------------------------------------------------------------


def test_far_away_everything_goes_through_libvirt(world: World, far_host: LocalHost) -> None:
    base = world.base(chain=2, uefi=True)
    top = world.disks(base)[0]
    write(top, 5, "8M 1M")
    world.refresh()
    nvram = world.lab.folder / "nvram"
    for make in (full, quick):
        clone = far_host.clone(make(world.name(make.__name__), base))
        assert same_content(top, clone.disks[0].path)
        assert ("backing-filename" in image_info(clone.disks[0].path)) == (make is quick)
        assert any("fresh ones from the template" in warning for warning in clone.warnings)
        assert not (nvram / f"{clone.name}.fd").exists()
        record = world.record(clone.name)
        assert record is not None
        assert len(record.base_disks) == 3
        far_host.destroy(clone.name)
        assert not world.exists(clone.name)
        assert not list(world.lab.pool_path.glob(f"{clone.name}-*"))


def test_far_away_a_disk_grows_too(world: World, far_host: LocalHost) -> None:
    base = world.base(disks=["qcow2", "raw"])
    wishes = {target: DiskWish(size=128 * MIB) for target in ("vda", "vdb")}
    clone = far_host.clone(full(world.name(), base, disks=wishes))
    sizes = [image_info(disk.path)["virtual-size"] for disk in clone.disks]
    assert sizes == [128 * MIB, 128 * MIB]


def test_far_away_a_disk_outside_any_pool_is_refused(
    world: World, far_host: LocalHost, outside: Path
) -> None:
    path = outside / f"disk-{world.token}.raw"
    path.write_bytes(b"\0" * MIB)
    base = world.base(devices=file_xml(path))
    found = conflicts(far_host, world, base, pool=world.lab.pool)
    assert "over a remote connection" in found[0]


@pytest.mark.parametrize("make", [quick, full])
def test_a_file_that_root_may_not_read_is_cloned_by_libvirt(
    world: World,
    host: LocalHost,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[..., Request],
) -> None:
    base = world.base(disks=["qcow2", "raw"])
    world.filled(base, 1)
    write(world.disks(base)[0], 5, "8M 1M")

    def keep_out(_path: str) -> ImageFacts:  # a network file system with root_squash
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(images, "look", keep_out)
        patched.setattr(copying, "copy", keep_out)
        clone = host.clone(make(world.name(), base))
    for disk, source in zip(clone.disks, world.disks(base), strict=True):
        assert same_content(source, disk.path)


def test_a_guest_cannot_name_a_file_that_libvirt_would_copy_for_it(
    world: World, far_host: LocalHost, outside: Path
) -> None:
    """A raw disk whose guest wrote the header of another format into it, of any kind."""
    base = world.base(disks=["raw"])
    disk = world.disks(base)[0]
    secret = outside / "secret.img"
    secret.write_bytes(b"secret " * MIB)
    for form in ("qcow2", "qed", "vmdk"):
        fake = outside / f"fake.{form}"
        backing = [] if form == "vmdk" else ["-F", "raw", "-b", secret]
        img("create", "-q", "-f", form, *backing, fake, "7M")
        with disk.open("r+b") as file:
            file.write(fake.read_bytes()[:MIB])
        world.refresh()
        found = conflicts(far_host, world, base, clone_strategy="full")
        assert f"looks like {form}" in found[0]


# --- after a crash -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_half_made_volume_is_told_from_somebody_elses_file(world: World, host: LocalHost) -> None:
    def being_made(path: Path, form: str, strategy: str) -> Volume:
        return Volume("vda", str(path), form, strategy, MAKING, 64 * MIB)

    made, other = (world.lab.pool_path / f"{word}-{world.token}.x" for word in ("made", "other"))
    img("create", "-f", "qcow2", made, "64M")
    img("create", "-f", "qcow2", other, "32M")
    with Host(host.url) as connected:
        assert volumes.resembles(connected, being_made(made, "qcow2", "overlay"))
        assert not volumes.resembles(connected, being_made(other, "qcow2", "overlay"))
        # A copy has its source's size until it is grown at the very end.
        assert volumes.resembles(connected, being_made(other, "qcow2", "copy"))
        other.write_bytes(b"\0" * 65 * MIB)
        assert not volumes.resembles(connected, being_made(other, "qcow2", "copy"))
        assert not volumes.resembles(connected, being_made(other, "raw", "copy"))
        os.truncate(other, 10 * MIB)
        # Marked as made before the first byte is filled in: what holds data is no work of ours.
        assert not volumes.resembles(connected, being_made(other, "raw", "copy"))
        os.truncate(other, 0)
        os.truncate(other, 10 * MIB)
        assert volumes.resembles(connected, being_made(other, "raw", "copy"))
        other.unlink()
        assert not volumes.resembles(connected, being_made(other, "raw", "copy"))


@pytest.fixture
def being_made(world: World) -> Iterator[Path]:
    """A volume that libvirt is still filling for somebody else."""
    source, made = (world.lab.pool_path / f"{word}-{world.token}.raw" for word in ("big", "made"))
    with source.open("wb") as file:
        for _ in range(400):
            file.write(os.urandom(MIB))
    world.refresh()

    def make() -> None:
        with connection() as conn:
            conn.storagePoolLookupByName(world.lab.pool).createXMLFrom(
                f"<volume><name>{made.name}</name><capacity>1</capacity><allocation>0</allocation>"
                "<target><format type='raw'/></target></volume>",
                conn.storageVolLookupByPath(str(source)),
            )

    maker = threading.Thread(target=make)
    maker.start()
    wait_until(made.exists, "the volume", 10, interval=0.001)
    yield made
    maker.join()


def test_a_delete_waits_until_libvirt_has_finished_writing(
    host: LocalHost, being_made: Path
) -> None:
    with Host(host.url) as connected:
        assert volumes.delete(connected, str(being_made))
        assert not being_made.exists()


def test_a_look_at_a_pool_waits_until_libvirt_has_finished_writing(
    world: World, host: LocalHost, being_made: Path
) -> None:
    with Host(host.url) as connected:
        assert volumes.refresh_folder(connected, str(world.lab.pool_path))


def test_a_file_that_libvirt_has_not_noticed_is_cloned_while_it_is_busy(
    world: World, host: LocalHost, being_made: Path
) -> None:
    path = world.lab.pool_path / f"new-{world.token}.raw"
    path.write_bytes(os.urandom(MIB))
    clone = host.clone(quick(world.name(), world.base(devices=file_xml(path))))
    assert same_content(path, clone.disks[1].path)


def test_a_delete_does_not_wait_for_ever(
    world: World, host: LocalHost, being_made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "PATIENCE", 0)
    with Host(host.url) as connected:
        with pytest.raises(HostError, match="still writing") as info:
            volumes.delete(connected, str(being_made))
        assert info.value.hint
        assert being_made.exists()
