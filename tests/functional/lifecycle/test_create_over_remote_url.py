"""Where the files of a host are out of reach, libvirt clones every disk, or it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.facts import ImageFacts
from saltext.kvmclone.model.request import DiskChanges, Request
from saltext.kvmclone.system import copying, images
from tests.support.disk_cases import conflicts, file_xml, img, write
from tests.support.storage import MIB
from tests.support.world import World, full, image_info, quick, same_content


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
    wishes = {target: DiskChanges(size=128 * MIB) for target in ("vda", "vdb")}
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
