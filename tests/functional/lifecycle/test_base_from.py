"""Promises about a base from an image: it is made whole or not at all, and never of a bad one."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.lab import Lab
from saltext.kvmclone.config import base_keys
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.errors import (
    AlreadyExists,
    BadImage,
    ChannelError,
    ChecksumMismatch,
    CreateInProgress,
    DownloadFailed,
    GuestStopped,
    KvmCloneError,
    NotFound,
    PlanRefused,
    PoolFull,
)
from saltext.kvmclone.hosts import gc, make_base
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import base_from, finish_base
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.made_base import MadeBase
from saltext.kvmclone.system import base_image, download, images, processes
from tests.support.web import Site, served
from tests.support.world import CloneOf, Salt, World, quick, sha256

MIB = 2**20
CANARY = "canary-b4se"

#: Makes a base of a name; keywords are keys of ``base_from``.
Make = Callable[..., MadeBase]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "FIRST_PAUSE_S", 0.01)
    made = Site()
    with served(made):
        yield made


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk that boots nothing: a partition table, and some content."""
    path = tmp_path_factory.mktemp("images") / "disk.raw"
    with path.open("wb") as file:
        file.truncate(16 * MIB)
        file.write(b"\xf4" + b"\0" * 509 + b"\x55\xaa")
        file.seek(MIB)
        file.write(os.urandom(2 * MIB))
    return path


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    (folder / "qemu-guest-agent.deb").write_bytes(b"no package")
    return folder


@pytest.fixture
def make(world: World, host: LocalHost, packages: Path) -> Make:
    def made(name: str, source: str, **keys: Any) -> MadeBase:
        given: dict[str, Any] = {
            "pool": world.lab.pool,
            "networks": [{"network": world.lab.network}],
            "domain_type": world.lab.domain_type,
            "memory": "128MiB",
            "cpus": 1,
            "packages": str(packages),
            "timeout": 3,
            **keys,
        }
        request, origin = base_keys.request(Catalogue(), source, name, given, "kvm01")
        return make_base.make(host, request, origin)

    return made


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that is done at once, and is not even started."""

    def booted(making: Any) -> tuple[str, ...]:
        making._found("installed")
        return ("cloud-init complains: of nothing",)

    monkeypatch.setattr(base_from._Making, "_boot", booted)
    monkeypatch.setattr(finish_base, "clean_and_shut_off", lambda *_arguments: ())


# --- what comes of it ---------------------------------------------------------------------------


@pytest.mark.usefixtures("instant")
def test_a_base_has_its_disk_its_record_and_nothing_else(
    world: World, make: Make, site: Site, disk: Path, tmp_path: Path
) -> None:
    name = world.name("base")
    site.files["/disk.raw"] = disk
    url = f"http://user:{CANARY}@{site.url.removeprefix('http://')}/disk.raw?token={CANARY}"
    made = make(name, url, sha256=sha256(disk), disks={"vda": {"size": "32MiB"}})
    (path,) = world.disks(name)
    assert made.as_dict() == {
        "name": name,
        "host": "kvm01",
        "source": f"{site.url}/disk.raw",
        "digest": f"sha256:{sha256(disk)}",
        "disks": [{"target": "vda", "path": str(path), "format": "qcow2", "capacity": 32 * MIB}],
        "protected": True,
        "warnings": ["cloud-init complains: of nothing"],
        "timings": made.timings,
    }
    assert list(made.timings) == ["downloaded", "converted", "installed", "cleaned"]
    assert not os.access(path, os.W_OK) or path.stat().st_mode & 0o222 == 0
    assert [file.name for file in world.lab.pool_path.glob(f"{name}*")] == [path.name]
    secure = world.secure_xml(name)
    assert CANARY not in secure
    assert "kvmclone:clone" not in secure
    subprocess.run(["qemu-img", "convert", "-O", "raw", path, tmp_path / "whole"], check=True)
    assert (tmp_path / "whole").read_bytes() == disk.read_bytes().ljust(32 * MIB, b"\0")


@pytest.mark.usefixtures("instant")
def test_a_base_can_be_cloned_and_the_tree_names_its_source(
    world: World, host: LocalHost, make: Make, disk: Path, clone_of: CloneOf
) -> None:
    name = world.name("base")
    make(name, str(disk))
    clone = clone_of(name)
    assert host.tree()["bases"][name]["source"] == str(disk)
    assert list(host.tree()["bases"][name]["clones"]) == [clone]
    assert [one for one in host.doctor() if name in one["name"]] == []


@pytest.mark.usefixtures("instant")
def test_the_same_again_is_there_already_and_another_image_is_refused(
    world: World, make: Make, disk: Path, tmp_path: Path
) -> None:
    name = world.name("base")
    make(name, str(disk))
    before = world.footprint()
    for keys in ({}, {"sha256": sha256(disk)}):
        with pytest.raises(AlreadyExists, match=f"made from '{disk}'"):
            make(name, str(disk), **keys)
    with pytest.raises(PlanRefused, match="and '/srv/other' is asked for"):
        make(name, "/srv/other")
    with pytest.raises(PlanRefused, match="asked for"):
        make(name, str(disk), sha256="0" * 64)
    with pytest.raises(PlanRefused, match="cannot be compared") as told:
        make(name, str(disk), sha256="0" * 128)
    assert f"sha256={sha256(disk)}" in told.value.hint
    assert world.footprint() == before


def test_a_name_that_another_machine_has_is_refused(
    world: World, make: Make, base: str, clone_of: CloneOf, disk: Path
) -> None:
    clone = clone_of(base)
    before = world.footprint()
    for name in (base, clone):
        with pytest.raises(PlanRefused, match=f"a machine '{name}' already"):
            make(name, str(disk))
    assert world.footprint() == before


def test_a_clone_that_was_kept_or_left_unfinished_is_not_cleared(
    world: World, host: LocalHost, make: Make, base: str, disk: Path
) -> None:
    kept, left = world.name("kept"), world.name("left")
    dead = replace(processes.this_process(), pid=0, started=0)
    for name in (kept, left):
        host.clone(quick(name, base), dead, "addressed")
    host.keep(kept, dead.token, "it failed", False)
    before = world.footprint()
    for name in (kept, left):
        with pytest.raises(PlanRefused, match=f"a machine '{name}' already"):
            make(name, str(disk))
    assert world.footprint() == before


@pytest.mark.usefixtures("instant")
def test_a_vendors_checksum_file_is_read(
    world: World, make: Make, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{hashlib.sha512(disk.read_bytes()).hexdigest()}  ./{disk.name}\n{'0' * 128}  x\n"
    monkeypatch.setattr(download, "text", lambda _url: text)
    name = world.name("base")
    made = make(name, str(disk), sha256="https://vendor.example/SHA512SUMS?token=x")
    assert made.digest.startswith("sha512:")
    with pytest.raises(AlreadyExists):  # which is not read again for that
        make(name, str(disk), sha256="https://vendor.example/SHA512SUMS")
    with pytest.raises(PlanRefused):
        make(name, str(disk), sha256=sha256(disk))


# --- bad input ----------------------------------------------------------------------------------


@pytest.fixture
def nothing_left(world: World) -> Iterator[None]:
    """Whatever the test does leaves neither a machine nor a file of its own."""
    before = world.footprint()
    yield
    assert world.footprint() == before


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


# --- UEFI ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def efi_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with an EFI system partition, and nothing for a BIOS."""
    path = tmp_path_factory.mktemp("efi") / "disk.raw"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    table = "label: gpt\nstart=2048, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n"
    subprocess.run(["sfdisk", "--quiet", path], input=table, text=True, check=True)
    return path


@pytest.mark.usefixtures("instant")
def test_a_disk_that_needs_uefi_gets_it(world: World, make: Make, efi_disk: Path) -> None:
    name = world.name("base")
    make(name, str(efi_disk))
    system = world.xml(name).find("./os")
    assert system is not None
    assert system.get("firmware") == "efi" or system.find("loader") is not None


@pytest.mark.guest
@pytest.mark.usefixtures("nothing_left")
def test_a_uefi_guest_that_never_reports_leaves_no_variables(
    world: World, make: Make, efi_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = world.name("base")
    stores: list[str] = []
    real = base_from.base_setup.wait

    def wait(*arguments: Any) -> tuple[str, ...]:
        store = domain_xml.read(world.secure_xml(name)).nvram
        assert store is not None
        assert Path(store.path).exists()
        stores.append(store.path)
        return real(*arguments)

    monkeypatch.setattr(base_from.base_setup, "wait", wait)
    with pytest.raises(ChannelError):
        make(name, str(efi_disk))
    (store,) = stores
    assert not Path(store).exists()


# --- the worker dies, or another one comes ------------------------------------------------------

_CHILD = """
import sys, time
from saltext.kvmclone.config import base_keys
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.hosts import make_base
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import base_from
step = sys.argv[1]
def stop(*_arguments, **_keys):
    print("here", flush=True)
    time.sleep(600)
if step == "download":
    base_from.download.fetch = stop
elif step == "convert":
    base_from.journal.volumes.copying.convert = stop
elif step == "seed":
    base_from.seed_image.write = stop
elif step == "wait":
    base_from.base_setup.wait = stop
keys = eval(sys.argv[4])
request, origin = base_keys.request(Catalogue(), sys.argv[2], sys.argv[3], keys, "kvm01")
make_base.make(LocalHost("qemu:///system", "kvm01"), request, origin)
"""


def killed(lab: Lab, packages: Path, step: str, source: str, name: str, digest: str) -> int:
    """Have a process make a base, and kill it at a step; return its process id."""
    keys = {
        "pool": lab.pool, "networks": [{"network": lab.network}], "memory": "128MiB", "cpus": 1,
        "domain_type": lab.domain_type, "packages": str(packages), "sha256": digest,
    }  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, step, source, name, repr(keys)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "here\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    return child.pid


@pytest.mark.guest
@pytest.mark.parametrize("step", ["download", "convert", "seed", "wait"])
def test_after_a_kill_gc_removes_everything(
    world: World, host: LocalHost, site: Site, disk: Path, packages: Path, step: str
) -> None:
    before = world.footprint()
    site.files["/d"], name = disk, world.name("base")
    killed(world.lab, packages, step, f"{site.url}/d", name, sha256(disk))
    assert world.exists(name)
    listed = gc.collect(host)
    assert {row.kind for row in listed} == {"domain", "volume"}
    assert gc.collect(host, apply=True)
    assert world.footprint() == before


@pytest.mark.usefixtures("instant")
def test_the_same_again_clears_what_a_dead_worker_left(
    world: World, host: LocalHost, make: Make, site: Site, disk: Path, packages: Path
) -> None:
    site.files["/d"], name = disk, world.name("base")
    killed(world.lab, packages, "download", f"{site.url}/d", name, sha256(disk))
    given = {"pool": world.lab.pool, "networks": [{"network": world.lab.network}]}
    given |= {"sha256": sha256(disk), "memory": "128MiB", "domain_type": world.lab.domain_type}
    request, origin = base_keys.request(Catalogue(), f"{site.url}/d", name, given, "kvm01")
    before = world.footprint()
    assert host.expected_base(request, origin).name == name
    assert world.footprint() == before
    made = make(name, f"{site.url}/d", sha256=sha256(disk))
    assert [file.name for file in world.lab.pool_path.glob(f"{name}*")] == [
        Path(made.disks[0].path).name
    ]


def test_a_worker_that_lives_is_left_alone(
    world: World, host: LocalHost, make: Make, site: Site, disk: Path
) -> None:
    site.files["/d"], name = disk, world.name("base")
    told: list[KvmCloneError] = []

    def second() -> None:
        if not told:
            told.append(KvmCloneError("being asked"))
            for attempt in (lambda: make(name, str(disk)), lambda: host.destroy(name)):
                with pytest.raises(CreateInProgress) as busy:
                    attempt()
                told.append(busy.value)

    site.before = second
    with pytest.raises(ChecksumMismatch):
        make(name, f"{site.url}/d", sha256="0" * 64)
    assert len(told) == 3
    assert not world.exists(name)


def test_a_worker_that_lost_its_machine_stops_downloading(
    world: World, host: LocalHost, make: Make, site: Site, disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(base_from, "_OWNER_POLL_S", 0.0)
    site.files["/d"], name = disk, world.name("base")

    def forced() -> None:
        record = world.record(name)
        assert record is not None
        host.destroy(name, token=record.worker.token)

    site.before = forced
    before = world.footprint()
    with pytest.raises(KvmCloneError):
        make(name, f"{site.url}/d", sha256=sha256(disk))
    assert world.footprint() == before


# --- the state ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("instant")
def test_the_state_makes_it_once_and_never_changes_it(
    world: World, disk: Path, packages: Path, salt_minion: Salt, salt_dry: Salt
) -> None:
    name = world.name("base")
    keys: dict[str, Any] = {
        "source": str(disk), "pool": world.lab.pool, "networks": [{"network": world.lab.network}],
        "domain_type": world.lab.domain_type, "memory": "128MiB", "packages": str(packages),
    }  # fmt: skip
    planned = salt_dry.state("kvm_clone.base", name, **keys)
    assert planned["result"] is None
    assert planned["changes"]["base"]["new"]["source"] == str(disk)
    assert not world.exists(name)
    made = salt_minion.state("kvm_clone.base", name, **keys)
    assert made["result"] is True
    assert made["changes"]["base"]["new"]["digest"] == f"sha256:{sha256(disk)}"
    for salt in (salt_minion, salt_dry):
        again = salt.state("kvm_clone.base", name, **keys)
        assert (again["result"], again["changes"]) == (True, {})
    for change in ({"source": "/srv/other.qcow2"}, {"sha256": "0" * 64}, {"ttl": "12h"}):
        other = salt_minion.state("kvm_clone.base", name, **{**keys, **change})
        assert other["result"] is False
        assert "Hint:" in other["comment"]
        assert other["changes"] == {}


def test_plain_http_without_a_digest_is_refused_at_the_door(
    world: World, salt_minion: Salt
) -> None:
    answer = salt_minion.state("kvm_clone.base", world.name("base"), source="http://x.example/d")
    assert answer["result"] is False
    assert "plain http" in answer["comment"]
