"""What is no image, or not the right one, is refused before a base is made of it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.errors import (
    BadImage,
    ChannelError,
    ChecksumMismatch,
    DownloadFailed,
    GuestStopped,
    NotFound,
    PlanRefused,
    PoolFull,
)
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import base_from
from saltext.kvmclone.system import base_image, images
from tests.support.made_bases import MIB, Make
from tests.support.web import Site
from tests.support.world import World, sha256


def backed(path: Path, data: bool = False) -> bytes:
    """A qcow2 image that names a file of the host."""
    words = ["qemu-img", "create", "-q", "-f", "qcow2"]
    if data:
        words += ["-o", f"data_file={path.with_suffix('.data')}", str(path), "1M"]
    else:
        words += ["-u", "-b", "/etc/passwd", "-F", "raw", str(path), "1M"]
    subprocess.run(words, check=True)
    return path.read_bytes()


BAD: dict[str, Callable[[Path], bytes]] = {
    "a web page": lambda _path: b"<html>404</html>".ljust(MIB),
    "neither a partition table": lambda _path: b"x" * MIB,
    "names a backing file": backed,
    "names a data file": lambda path: backed(path, data=True),
    "compressed by xz": lambda _path: b"\xfd7zXZ\0".ljust(MIB, b"x"),
}


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("word", BAD)
def test_an_image_that_is_none_is_refused(
    world: World, make: Make, site: Site, tmp_path: Path, word: str
) -> None:
    data = BAD[word](tmp_path / "image")
    site.files["/d.qcow2"] = data
    with pytest.raises(BadImage, match=word):
        make(world.name("base"), f"{site.url}/d.qcow2", sha256=hashlib.sha256(data).hexdigest())


@pytest.mark.usefixtures("nothing_left")
def test_a_checksum_that_differs(world: World, make: Make, site: Site, disk: Path) -> None:
    site.files["/d"] = disk
    with pytest.raises(ChecksumMismatch, match=f"its digest is sha256:{sha256(disk)}"):
        make(world.name("base"), f"{site.url}/d", sha256="0" * 64)


@pytest.mark.usefixtures("nothing_left")
def test_a_download_that_is_cut_again_and_again(
    world: World, make: Make, site: Site, disk: Path
) -> None:
    site.files["/d"], site.ranges, site.cuts["/d"] = disk, False, [MIB] * 50
    with pytest.raises(DownloadFailed, match="cannot be made, or broke"):
        make(world.name("base"), f"{site.url}/d", sha256=sha256(disk))


@pytest.mark.usefixtures("instant")
def test_a_download_that_is_cut_once_is_gone_on_with(
    world: World, make: Make, site: Site, disk: Path
) -> None:
    site.files["/d"], site.cuts["/d"] = disk, [5 * MIB, MIB]
    make(world.name("base"), f"{site.url}/d", sha256=sha256(disk))
    assert [wanted for _path, wanted in site.asked] == [
        "",
        f"bytes={5 * MIB}-",
        f"bytes={6 * MIB}-",
    ]


@pytest.mark.usefixtures("nothing_left")
def test_an_image_that_is_larger_than_its_pool(
    world: World, make: Make, site: Site, disk: Path, small_pool: str, tmp_path: Path
) -> None:
    site.files["/d"] = disk
    with pytest.raises(PoolFull, match="there is room for 0 MiB"):  # 16 MiB, less what stays free
        make(world.name("base"), f"{site.url}/d", sha256=sha256(disk), pool=small_pool)
    large = tmp_path / "large.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", large, "512M"], check=True)
    with pytest.raises(PoolFull, match=rf"may take 512MiB, and the storage pool '{small_pool}'"):
        make(world.name("second"), str(large), pool=small_pool)
    assert list(Path(world.lab.folder, small_pool).iterdir()) == []


@pytest.mark.usefixtures("nothing_left")
def test_what_the_host_lacks_is_told_before_a_byte_is_fetched(
    world: World, make: Make, site: Site, tmp_path: Path
) -> None:
    (tmp_path / "README").write_text("no packages")
    with pytest.raises(PlanRefused) as told:
        make(
            world.name("base"),
            f"{site.url}/d",
            sha256="0" * 64,
            pool="nowhere",
            networks=[{"network": "nothing"}],
            packages=str(tmp_path),
            salt="/srv/nowhere",
        )
    for word in ("no storage pool 'nowhere'", "no network 'nothing'", "ends with .deb or .rpm"):
        assert word in told.value.message
    assert "'/srv/nowhere' on the KVM host cannot be read" in told.value.message
    assert site.asked == []


@pytest.mark.usefixtures("nothing_left")
def test_a_path_is_one_of_the_host(world: World, make: Make) -> None:
    with pytest.raises(BadImage, match="cannot be read on the KVM host: No such file"):
        make(world.name("base"), "/srv/nowhere.qcow2")


@pytest.mark.usefixtures("nothing_left")
def test_an_image_that_changes_while_it_is_read_is_refused(
    world: World, make: Make, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Path(shutil.copy(disk, tmp_path / "image"))
    real = base_image.judge

    def replaced(*given: Any) -> Any:
        judged = real(*given)
        shutil.copy(disk, tmp_path / "other")
        (tmp_path / "other").replace(image)
        return judged

    monkeypatch.setattr(base_image, "judge", replaced)
    with pytest.raises(BadImage, match="was changed while it was read"):
        make(world.name("base"), str(image))


@pytest.mark.usefixtures("nothing_left")
def test_a_worker_that_lost_its_machine_stops_reading(
    world: World, host: LocalHost, make: Make, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_from, "_OWNER_POLL_S", 0.0)
    name, real = world.name("base"), images.is_written

    def forced(path: str) -> bool:
        record = world.record(name)
        assert record is not None
        host.destroy(name, token=record.worker.token)
        return real(path)

    monkeypatch.setattr(images, "is_written", forced)
    monkeypatch.setattr(base_image, "judge", lambda *_given: pytest.fail("it went on"))
    with pytest.raises(NotFound):
        make(name, str(disk))


@pytest.mark.usefixtures("nothing_left")
def test_a_disk_is_never_made_smaller(world: World, make: Make, disk: Path) -> None:
    with pytest.raises(PlanRefused, match="it can be made larger, not 8MiB"):
        make(world.name("base"), str(disk), disks={"vda": {"size": "8MiB"}})


def test_a_disk_that_a_machine_runs_on_is_no_image(world: World, make: Make) -> None:
    running = world.base()
    world.lab.start(running)
    with pytest.raises(BadImage, match="open for writing"):
        make(world.name("new"), str(world.disks(running)[0]))
    world.lab.stop(running)
    assert not world.exists(f"new-{world.token}")


@pytest.mark.guest
@pytest.mark.usefixtures("nothing_left")
def test_a_guest_that_never_reports(world: World, make: Make, disk: Path) -> None:
    """Its disk halts the processor in its first instruction."""
    with pytest.raises(ChannelError, match="did not report within 3 s: no guest agent") as told:
        make(world.name("base"), str(disk))
    assert "Booting from Hard Disk" in told.value.message or "silent" in told.value.message
    assert "firmware=efi" in told.value.hint


@pytest.mark.guest
@pytest.mark.usefixtures("nothing_left")
def test_a_guest_that_stops(
    world: World, host: LocalHost, make: Make, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = world.name("base")
    real = base_from.base_setup.wait

    def wait(*arguments: Any) -> tuple[str, ...]:
        world.lab.stop(name)
        return real(*arguments)

    monkeypatch.setattr(base_from.base_setup, "wait", wait)
    with pytest.raises(GuestStopped, match=r"stopped \(shutoff\) before it was done"):
        make(name, str(disk))
