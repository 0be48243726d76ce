"""A clone has what the guest of its base sees, whatever the image is; or it is refused."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest
import salt.payload

from lab.lab import connection
from saltext.kvmclone.hosts.local import LocalHost
from tests.support.disk_cases import conflicts, disk_xml, file_xml, img, write
from tests.support.storage import MIB
from tests.support.world import World, full, image_info, quick, same_content, sha256


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


def test_a_backing_file_whose_name_libvirt_cannot_say_is_refused_or_left_behind(
    world: World, host: LocalHost, base: str
) -> None:
    disk = world.disks(base)[0]
    odd = os.fsencode(disk.with_name(world.token)) + b"\xe9.qcow2"
    disk.rename(Path(os.fsdecode(odd)))
    img("create", "-f", "qcow2", "-F", "qcow2", "-b", os.fsdecode(odd), disk)
    assert "not valid UTF-8" in conflicts(host, world, base)[0]
    salt.payload.dumps(host.plan(quick(world.name(), base)))
    copied = world.name("full")
    host.clone(full(copied, base))
    assert same_content(disk, world.disks(copied)[0])
    salt.payload.dumps(host.tree())


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
