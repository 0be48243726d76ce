"""What is made for a copy is on record before it is made, and nothing of it outlives the copy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from saltext.kvmclone.errors import CopyFailed, HostError, PlanRefused, PoolFull
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import offer_base
from saltext.kvmclone.model.base_copy import CopyKey
from saltext.kvmclone.system import copy_folder, copying, ssh_server
from saltext.kvmclone.system.ssh_server import NoAccess, Server
from tests.functional.lifecycle.test_hash_base import written
from tests.support.world import World, same_content

COPY, OTHER = "0123456789abcdef", "ffffffffffffffff"
KEY = CopyKey("ssh-ed25519 AAAA", ("10.0.0.2",))


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of keys, and the folder of copies, are ours; sshd is not asked."""
    path = tmp_path / "ssh/authorized_keys"
    server = Server("root", 22, str(path), ("ssh-ed25519 HOST",))
    monkeypatch.setattr(ssh_server, "look", lambda: server)
    monkeypatch.setattr(copy_folder, "ROOT", str(tmp_path / "copies"))
    return path


def copies(base: str, world: World) -> bool:
    return "kvmclone-copies" in world.secure_xml(base)


def test_a_whole_disk_is_offered_as_it_is(world: World, host: LocalHost, keys: Path) -> None:
    base = world.base(uefi=True)
    before = set(os.listdir(world.lab.pool_path))
    offer = host.offer_base(base, COPY)
    disk = world.disks(base)[0]
    assert [file.name for file in offer.files] == ["vda", "nvram"]
    assert (offer.files[0].pool, offer.files[0].length) == (world.lab.pool, disk.stat().st_size)
    assert os.readlink(copy_folder.path(COPY, "export", "vda")) == str(disk)
    assert world.secure_xml(base).find("<domain") >= 0
    assert not keys.exists()
    assert host.admit_copy(base, COPY, KEY) == str(keys)
    assert f"kvm_clone-copy-{COPY}" in keys.read_text()
    assert {row.kind for row in host.end_copy(COPY)} == {"ssh key", "copy"}
    assert not host.end_copy(COPY)
    assert not copies(base, world)
    assert set(os.listdir(world.lab.pool_path)) == before
    assert not os.path.exists(copy_folder.path(COPY))


def test_a_chain_is_offered_as_one_image(world: World, host: LocalHost) -> None:
    base = world.base(chain=2)
    written(world.disks(base)[0], "3M")
    offer = host.offer_base(base, COPY)
    staged = os.readlink(copy_folder.path(COPY, "export", "vda"))
    assert COPY in staged
    assert same_content(staged, world.disks(base)[0])
    assert offer.files[0].length == os.path.getsize(staged)
    assert os.stat(staged).st_mode & 0o077 == 0
    assert {row.kind for row in host.end_copy(COPY)} == {"volume", "copy"}
    assert not os.path.exists(staged)


def test_two_hosts_may_copy_one_base_at_once(world: World, host: LocalHost, keys: Path) -> None:
    base = world.base(chain=1)
    for copy in (COPY, OTHER):
        host.offer_base(base, copy)
        host.admit_copy(base, copy, KEY)
    host.end_copy(COPY)
    assert OTHER in keys.read_text()
    assert COPY not in keys.read_text()
    assert copies(base, world)
    assert os.path.exists(copy_folder.path(OTHER, "export", "vda"))
    host.end_copy(OTHER)
    assert not copies(base, world)


def test_what_a_crash_left_is_found_once_its_time_is_over(
    world: World, host: LocalHost, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a boot has emptied the folder of copies."""
    base = world.base(chain=1)
    host.offer_base(base, COPY)
    host.admit_copy(base, COPY, KEY)
    assert not host.dead_copies()
    monkeypatch.setattr(copy_folder, "ROOT", str(keys.parent.parent / "after-a-boot"))
    assert {row.kind for row in host.dead_copies(base)} == {"ssh key", "volume"}
    assert not host.dead_copies("another")
    removed = host.dead_copies(apply=True)
    assert all(row.removed and row.name == base for row in removed)
    assert (keys.exists(), copies(base, world), host.dead_copies()) == (False, False, [])


@pytest.mark.parametrize("step", ["staging", "export"])
def test_an_offer_that_fails_leaves_nothing(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    base = world.base(chain=1)
    before = set(os.listdir(world.lab.pool_path))

    def fail(*_words: object) -> None:
        raise copying.ConvertFailed("it broke") if step == "staging" else OSError(28, "full", "/x")

    place = (copying, "convert") if step == "staging" else (offer_base.export_folder, "make")
    monkeypatch.setattr(*place, fail)
    with pytest.raises(HostError):
        host.offer_base(base, COPY)
    assert set(os.listdir(world.lab.pool_path)) == before
    assert not copies(base, world)
    assert not copy_folder.all_copies()


def test_there_must_be_room_for_one_image(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base(chain=1)
    real = os.statvfs
    full = os.statvfs_result((4096, 4096, 9, 9, 9, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: full if "pool" in str(path) else real(path))
    with pytest.raises(PoolFull, match="to flatten the disk 'vda'"):
        host.offer_base(base, COPY)
    assert not copies(base, world)


def test_a_server_that_lets_nobody_in_is_named(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> Server:
        raise NoAccess("its ssh server does not let root in (PermitRootLogin no)")

    monkeypatch.setattr(ssh_server, "look", look)
    base = world.base()
    with pytest.raises(CopyFailed, match="PermitRootLogin"):
        host.offer_base(base, COPY)
    assert not copy_folder.all_copies()


def test_nobody_is_let_in_for_what_was_not_offered(
    world: World, host: LocalHost, keys: Path
) -> None:
    base = world.base()
    with pytest.raises(PlanRefused, match="under way"):
        host.admit_copy(base, COPY, KEY)
    with pytest.raises(PlanRefused, match="not the id"):
        host.offer_base(base, "../../etc")
    assert not keys.exists()
