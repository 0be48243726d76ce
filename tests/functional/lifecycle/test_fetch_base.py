"""A base arrives whole or not at all, and never looks like one before it is."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from lab.common import LIBVIRT_URI
from lab.lab import connection
from saltext.kvmclone.errors import (
    CopyFailed,
    CreateInProgress,
    HostError,
    KvmCloneError,
    PlanRefused,
    PoolFull,
)
from saltext.kvmclone.hosts import gc
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import fetch_base, offer_base
from saltext.kvmclone.model.base_copy import BaseOffer, CopyKey
from saltext.kvmclone.model.hints import AT_HOST
from saltext.kvmclone.system import copy_folder, copying, fetching, processes, ssh_server
from saltext.kvmclone.system.fetching import FetchFailed, Source
from saltext.kvmclone.system.ssh_server import NoAccess, Server
from tests.functional.lifecycle.test_hash_base import written
from tests.support.hints import Typist, hint, tries
from tests.support.world import World, quick, same_content

COPY = "0123456789abcdef"

#: Where libvirt keeps variable stores; the lab's own folder is in no pool.
STORES = Path("/var/lib/libvirt/qemu/nvram")


@pytest.fixture
def host() -> LocalHost:
    """Its hints are read on the host."""
    return LocalHost(LIBVIRT_URI, label="kvm01", ours=AT_HOST)


class Transport:
    """Two hosts that are one: files come out of the folder that is offered, under another name."""

    def __init__(self, root: Path, base: str, name: str) -> None:
        self.root, self.base, self.name = root, base, name
        self.fetched: list[str] = []
        #: Called with the name and the path of each file, before it is fetched.
        self.before: Callable[[str, Path], None] = lambda _name, _path: None

    def fetch(self, source: Source, name: str, path: str) -> None:
        self.before(name, Path(path))
        self.fetched.append(name)
        offered = self.root / "offered" / COPY / "export" / name
        if name == "definition":
            text = offered.read_text().replace(f"<name>{self.base}<", f"<name>{self.name}<")
            Path(path).write_text(text)
        else:
            shutil.copyfile(offered, path)


@pytest.fixture
def base(world: World) -> str:
    made = world.base(uefi=True)
    written(world.disks(made)[0], "3M")
    return made


@pytest.fixture
def transport(
    world: World, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Transport:
    made = Transport(tmp_path, base, world.name("copy"))
    monkeypatch.setattr(fetching, "fetch", made.fetch)
    monkeypatch.setattr(fetching, "try_out", made.fetch)
    monkeypatch.setattr(fetching, "answers", lambda _address, _port: True)
    keys = str(tmp_path / "keys")
    monkeypatch.setattr(ssh_server, "look", lambda: Server("root", 22, keys, ("ssh-ed25519 A",)))
    return made


@pytest.fixture
def offer(
    transport: Transport, host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BaseOffer:
    monkeypatch.setattr(copy_folder, "ROOT", str(tmp_path / "offered"))
    made = host.offer_base(transport.base, COPY)
    monkeypatch.setattr(copy_folder, "ROOT", str(tmp_path / "fetched"))
    return replace(made, base=transport.name, addresses=("10.0.0.1",))


def files(world: World, name: str) -> list[str]:
    """What there is of the copy, in the pool and among libvirt's stores."""
    folders = [world.lab.pool_path, world.lab.folder / "nvram", STORES]
    return sorted(one for folder in folders for one in os.listdir(folder) if name in one)


def nothing_left(world: World, host: LocalHost, name: str) -> bool:
    return not (files(world, name) or host.exists(name) or copy_folder.all_copies())


# --- the way ----------------------------------------------------------------------------


def test_a_base_arrives_as_a_machine_of_its_own(
    world: World, host: LocalHost, transport: Transport, offer: BaseOffer
) -> None:
    name = transport.name

    def half(file: str, path: Path) -> None:
        if file == "vda":  # the definition is there, and is no base, nor a machine that starts
            assert path.name.startswith(f"{name}-vda.qcow2.")
            assert [one.copying for one in host.base_states() if one.name == name] == [True]
            with connection() as conn, pytest.raises(libvirt.libvirtError):
                conn.lookupByName(name).create()
            with pytest.raises(KvmCloneError):
                host.clone(quick(world.name("early"), name))
            told = host.offer(quick("any", name), [])
            assert not told.has_base and "being made" in told.conflicts[0]

    transport.before = half
    assert host.expect_base(name).digest == ""
    key = host.prepare_copy(offer)
    assert key.public.startswith("ssh-ed25519 ")
    found = host.fetch_base(offer)
    assert found.digest == offer.digest
    assert transport.fetched == ["definition", "nvram", "vda"]
    assert same_content(world.disks(name)[0], world.disks(transport.base)[0])
    assert files(world, name) == [f"{name}-vda.qcow2", f"{name}_VARS.fd"]
    assert world.xml(name).findtext("uuid") != world.xml(transport.base).findtext("uuid")
    assert "kvmclone:clone" not in world.secure_xml(name)
    assert not copy_folder.all_copies()
    assert host.expect_base(name).digest == offer.digest
    clone = world.name("clone")
    assert host.clone(quick(clone, name)).stage == "cloned"
    host.destroy(clone)


def test_a_fetch_that_died_is_gone_on_with(
    world: World, host: LocalHost, transport: Transport, offer: BaseOffer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It dies at each file, as a file gets its own name, and just before the end."""
    name = transport.name
    exported = transport.root / "offered" / COPY / "export"

    class Died(BaseException):
        pass

    def die(*_words: Any) -> None:
        raise Died

    def at(wanted: str) -> Callable[[str, Path], None]:
        def before(file: str, path: Path) -> None:
            if file == wanted:
                shutil.copyfile(exported / file, path)
                raise Died

        return before

    with monkeypatch.context() as killed:
        killed.setattr(fetch_base, "take_back", lambda *_words: None)
        killed.setattr(copy_folder, "remove", lambda _copy: True)
        transport.before = at("nvram")
        with pytest.raises(Died):
            host.fetch_base(offer)
        assert hint(CreateInProgress, lambda: host.expect_base(name))
        killed.setattr(processes, "owner_state", lambda _owner: "dead")
        assert host.expect_base(name).copying
        transport.before = at("vda")
        with pytest.raises(Died):
            host.fetch_base(offer)
        (half,) = world.lab.pool_path.glob(f"{name}-vda.qcow2.*")
        inode = half.stat().st_ino
        transport.before = at("")
        for module, step in ((os, "link"), (fetch_base.hash_base, "write")):
            with monkeypatch.context() as later:
                later.setattr(module, step, die)
                with pytest.raises(Died):
                    host.fetch_base(offer)
        transport.fetched.clear()
        assert host.fetch_base(offer).digest == offer.digest
    assert transport.fetched == ["definition"]
    assert world.disks(name)[0].stat().st_ino == inode
    assert files(world, name) == [f"{name}-vda.qcow2", f"{name}_VARS.fd"]


def test_what_a_dead_fetch_left_is_removed_by_gc(
    world: World, host: LocalHost, transport: Transport, offer: BaseOffer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for step in ("_put_in_place", "hash_base.write"):
        with monkeypatch.context() as killed:
            killed.setattr(fetch_base, "take_back", lambda *_words: None)
            module = fetch_base.hash_base if "." in step else fetch_base

            def die(*_words: Any) -> None:
                raise KeyboardInterrupt

            killed.setattr(module, step.rpartition(".")[2], die)
            with pytest.raises(KeyboardInterrupt):
                host.fetch_base(offer)
        assert files(world, transport.name)
        monkeypatch.setattr(processes, "owner_state", lambda _owner: "dead")
        rows = gc.collect(host, transport.name, apply=True)
        assert all(row.removed for row in rows)
        assert nothing_left(world, host, transport.name), step


# --- what goes wrong --------------------------------------------------------------------


def test_what_came_is_compared(
    world: World, host: LocalHost, transport: Transport, offer: BaseOffer
) -> None:
    """The disk, the variable store, the definition."""

    def changed(file: str, path: Path) -> None:
        exported = transport.root / "offered" / COPY / "export"
        if file == part:
            real = (exported / file).resolve()
            copy = transport.root / f"changed-{file}"
            shutil.copyfile(real, copy)
            if file == "vda":
                written(copy, "5M")
            elif file == "definition":
                copy.write_text(
                    copy.read_text().replace("</devices>", "<input type='tablet'/></devices>")
                )
            else:
                copy.write_bytes(copy.read_bytes() + b"x")
            (exported / file).unlink()
            os.symlink(copy, exported / file)

    transport.before = changed
    for part, word in (("vda", "'vda'"), ("nvram", "'nvram'"), ("definition", "The definition")):
        was = os.path.realpath(transport.root / "offered" / COPY / "export" / part)
        saved = Path(was).read_bytes()
        with pytest.raises(CopyFailed, match=word):
            host.fetch_base(offer)
        assert nothing_left(world, host, transport.name), part
        link = transport.root / "offered" / COPY / "export" / part
        link.unlink()
        kept = transport.root / f"kept-{part}"
        kept.write_bytes(saved)
        os.symlink(kept, link)


@tries("fetch_base._put_in_place", "copy_target.planned_volumes")
def test_a_file_of_somebody_else_is_left_alone(
    world: World, host: LocalHost, transport: Transport, offer: BaseOffer, typist: Typist
) -> None:
    path = world.lab.pool_path / f"{transport.name}-vda.qcow2"

    def appears(file: str, _path: Path) -> None:
        if file == "vda":
            path.write_text("mine")

    transport.before = appears
    told = hint(PlanRefused, lambda: host.fetch_base(offer), "appeared in the meantime")
    assert str(path) in typist(told)
    assert path.read_text() == "mine"
    assert files(world, transport.name) == [path.name]
    told = hint(PlanRefused, lambda: host.prepare_copy(offer), "exists already")
    assert str(path) in typist(told)
    path.unlink()


@tries("copy_target.left_behind", "fetch_base._define")
def test_a_name_that_is_taken(
    world: World, host: LocalHost, transport: Transport, offer: BaseOffer, typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    clone = world.name("clone")
    host.clone(quick(clone, transport.base))
    told = hint(PlanRefused, lambda: host.expect_base(clone), "is a clone on this host")
    assert clone in typist(told)
    taken = replace(offer, base=clone)
    assert hint(PlanRefused, lambda: host.prepare_copy(taken), "is a clone") == told
    # Somebody defines a machine of that name just before.
    real = fetch_base.base_copy.definition
    minimal = (
        f"<domain type='qemu'><name>{transport.name}</name><memory>65536</memory>"
        "<os><type>hvm</type></os></domain>"
    )

    def definition(*words: Any) -> str:
        made: str = real(*words)
        with connection() as conn:
            conn.defineXML(minimal)
        return made

    monkeypatch.setattr(fetch_base.base_copy, "definition", definition)
    told = hint(CreateInProgress, lambda: host.fetch_base(offer), "at the same moment")
    assert transport.name in typist(told)
    assert not files(world, transport.name)
    with connection() as conn:
        conn.lookupByName(transport.name).undefine()


@tries("copy_target._destination")
def test_a_pool_that_the_target_lacks(
    world: World, host: LocalHost, transport: Transport, offer: BaseOffer, typist: Typist,
    outside: Path,
) -> None:  # fmt: skip
    def elsewhere(pool: str) -> BaseOffer:
        disk = replace(offer.files[0], pool=pool, folder=str(outside))
        return replace(offer, files=(disk, *offer.files[1:]))

    pool = f"{world.lab.name}-bases"
    told = hint(PlanRefused, lambda: host.prepare_copy(elsewhere(pool)), pool)
    typist(told)
    try:
        typist(hint(PlanRefused, lambda: host.prepare_copy(elsewhere(pool)), "not started"))
        assert host.prepare_copy(elsewhere(pool))
        # A disk that is in no pool goes into the folder of that name.
        assert host.prepare_copy(elsewhere(""))
    finally:
        copy_folder.remove(COPY)
        with connection() as conn:
            made = conn.storagePoolLookupByName(pool)
            made.destroy()
            made.undefine()


@tries("copy_target.require_room", "fetch_base._fetch", "fetch_base.prepare")
def test_a_target_that_is_full(
    world: World, host: LocalHost, transport: Transport, offer: BaseOffer, typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    huge = replace(offer, files=(replace(offer.files[0], allocation=2**60), offer.files[1]))
    told = hint(PoolFull, lambda: host.prepare_copy(huge), "too little room")
    assert "Avail" in typist(told)

    def no_key(_copy: str) -> str:
        raise FetchFailed("ssh-keygen failed")

    with monkeypatch.context() as broken:
        broken.setattr(fetching, "make_key", no_key)
        told = hint(CopyFailed, lambda: host.prepare_copy(offer), "ssh-keygen failed")
        os.makedirs(copy_folder.ROOT, exist_ok=True)
        assert copy_folder.ROOT in typist(told)
    assert nothing_left(world, host, transport.name)

    def cut(file: str, _path: Path) -> None:
        if file == "vda":
            raise FetchFailed("No space left on device")

    transport.before = cut
    with pytest.raises(CopyFailed, match="could not be fetched"):
        host.fetch_base(offer)
    real = os.statvfs
    full = os.statvfs_result((4096, 4096, 9, 9, 9, 9, 9, 9, 0, 255))
    with monkeypatch.context() as broken:
        broken.setattr(os, "statvfs", lambda path: full if "pool" in str(path) else real(path))
        told = hint(PoolFull, lambda: host.fetch_base(offer), "filled up")
    assert "Avail" in typist(told)
    assert nothing_left(world, host, transport.name)


def test_files_that_belong_to_the_host_must_be_the_same(host: LocalHost, offer: BaseOffer) -> None:
    kernel = next(path for path in offer.needs if "vmlinuz" in path)
    for needs in ({kernel: "0" * 64}, {"/nowhere/vmlinuz": "0" * 64}, {"/nowhere/OVMF.fd": ""}):
        with pytest.raises(PlanRefused, match=next(iter(needs))):
            host.prepare_copy(replace(offer, needs=needs))


def test_a_source_that_is_not_reached_is_named(
    world: World, host: LocalHost, transport: Transport, offer: BaseOffer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One address does not answer, and at another there is somebody else."""

    def refused(_source: Source, _name: str, _path: str) -> None:
        raise FetchFailed("Host key verification failed.")

    monkeypatch.setattr(fetching, "try_out", refused)
    monkeypatch.setattr(fetching, "answers", lambda address, _port: address != "10.0.0.1")
    two = replace(offer, addresses=("10.0.0.1", "10.0.0.2"))
    with pytest.raises(CopyFailed, match=r"10\.0\.0\.1 does not answer; 10\.0\.0\.2: Host key"):
        host.fetch_base(two)
    assert nothing_left(world, host, transport.name)


# --- hints of the source ----------------------------------------------------------------


@tries("base_content.disks", "hash_base._hashed", "hash_base._require_at_rest")
def test_a_base_that_cannot_be_read_now(
    world: World, host: LocalHost, base: str, block: str, typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def gone(*_words: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(offer_base.hash_base, "_disk_content", gone)
        assert "vda" in typist(hint(HostError, lambda: host.hash_base(base), "Input/output"))
    real = offer_base.hash_base._disk_content

    def touched(opened: Any, disk: Any) -> Any:
        os.utime(disk.path)
        return real(opened, disk)

    with monkeypatch.context() as broken:
        broken.setattr(offer_base.hash_base, "_disk_content", touched)
        told = hint(PlanRefused, lambda: host.hash_base(base), "was changed while")
        assert "shut off" in typist(told)
    world.lab.start(base)
    assert "being shutdown" in typist(hint(PlanRefused, lambda: host.hash_base(base), "running"))
    world.lab.stop(base)
    world.attach(base, Path(block), "vdx")
    told = hint(PlanRefused, lambda: host.hash_base(base), "a block device")
    assert block in typist(told)


@tries("hash_base._disk_content", "hash_base.content_of")
def test_a_disk_that_somebody_writes_or_broke(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    disk = world.disks(base)[0]
    other = world.base("other")
    world.attach(other, disk, "vdx")
    world.lab.start(other)
    told = hint(PlanRefused, lambda: host.hash_base(base), "open for writing")
    assert typist(told)
    world.lab.stop(other)
    world.detach(other, "vdx")
    with disk.open("r+b") as file:
        file.seek(40)  # where the first table is
        file.write(b"\x7f" * 8)
    told = hint(HostError, lambda: host.hash_base(base), "cannot be read")
    typist(told, exits=1)


@tries("offer_base.offer", "offer_base.admit", "offer_base._flattened")
def test_an_offer_that_cannot_be_made(
    world: World, host: LocalHost, transport: Transport, typist: Typist, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(copy_folder, "ROOT", str(tmp_path / "copies"))
    chain = world.base("chain", chain=1)

    def broken(*_words: Any) -> None:
        raise copying.ConvertFailed("it broke")

    with monkeypatch.context() as patch:
        patch.setattr(copying, "convert", broken)
        told = hint(HostError, lambda: host.offer_base(chain, COPY), "it broke")
    assert "No errors" in typist(told)
    full = os.statvfs_result((4096, 4096, 9, 9, 9, 9, 9, 9, 0, 255))
    real = os.statvfs
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda path: full if "pool" in str(path) else real(path))
        told = hint(PoolFull, lambda: host.offer_base(chain, COPY), "to flatten")
    assert "Avail" in typist(told)

    def refused(*_words: Any) -> None:
        raise OSError(30, "Read-only file system", str(tmp_path))

    with monkeypatch.context() as patch:
        patch.setattr(offer_base.export_folder, "make", refused)
        told = hint(HostError, lambda: host.offer_base(transport.base, COPY), "Read-only")
    assert str(tmp_path) in typist(told)
    host.offer_base(transport.base, COPY)
    (tmp_path / "keys").write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(ssh_server, "let_in", refused)
        key = CopyKey("ssh-ed25519 A", ("10.0.0.2",))
        told = hint(CopyFailed, lambda: host.admit_copy(transport.base, COPY, key), "Read-only")
    assert "keys" in typist(told)
    host.end_copy(COPY)


@tries("fetch_base.reached")
def test_where_a_machine_is_reached(
    host: LocalHost, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        monkeypatch.setattr(ssh_server, "addresses", lambda: ("127.0.0.2",))
        assert host.reached(["127.0.0.1", "127.0.0.2"], port) == ["127.0.0.1"]
    assert host.reached(["127.0.0.1"], port) == []

    def no_addresses() -> tuple[str, ...]:
        raise NoAccess("its addresses cannot be listed")

    monkeypatch.setattr(ssh_server, "addresses", no_addresses)
    typist(hint(CopyFailed, lambda: host.reached(["127.0.0.1"], port), "cannot be listed"))
