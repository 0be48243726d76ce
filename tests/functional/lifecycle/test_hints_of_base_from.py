"""What the errors of a base that is made from an image say to type."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.lab import connection
from saltext.kvmclone.config import base_keys
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.errors import (
    AlreadyExists,
    BadImage,
    HostError,
    HostUnreachable,
    KvmCloneError,
    PlanRefused,
    PoolFull,
)
from saltext.kvmclone.hosts import make_base, rollback
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import base_from, destroy, finish_base, journal
from saltext.kvmclone.model.made_base import MadeBase
from saltext.kvmclone.system import base_image
from tests.support import hint_readers
from tests.support.hints import Typist, hint, tries
from tests.support.world import World

MIB = 2**20

host = hint_readers.host

Make = Callable[..., MadeBase]


@pytest.fixture
def make(world: World, host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a base whose guest is done at once."""
    (tmp_path / "a.deb").touch()
    monkeypatch.setattr(base_from._Making, "_boot", lambda _making: ())
    monkeypatch.setattr(finish_base, "clean_and_shut_off", lambda *_arguments: ())

    def made(source: Any, name: str, **keys: Any) -> MadeBase:
        given = {"pool": world.lab.pool, "networks": [{"network": world.lab.network}], **keys}
        given |= {"packages": str(tmp_path), "domain_type": "qemu", "memory": "128MiB"}
        request, origin = base_keys.request(Catalogue(), str(source), name, given, "kvm01")
        return make_base.make(host, request, origin)

    return made


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"\0" * 510 + b"\x55\xaa" + b"\0" * MIB)
    return path


def message(kind: type[KvmCloneError], work: Callable[[], object]) -> str:
    """What the error says, where the command stands in that."""
    with pytest.raises(kind) as told:
        work()
    return told.value.message


@tries("base_facts._network")
def test_a_network_that_is_not_there(world: World, make: Make, disk: Path, typist: Typist) -> None:
    networks = [{"network": "nothing"}]
    told = message(PlanRefused, lambda: make(disk, world.name(), networks=networks))
    assert world.lab.network in typist(told)
    xml = f"<network><name>{world.name('net')}</name></network>"
    with connection() as conn:
        network = conn.networkDefineXML(xml)
        networks = [{"network": network.name()}]
        told = message(PlanRefused, lambda: make(disk, world.name("two"), networks=networks))
        typist(told)
        assert network.isActive()
        networks = [{"network": network.name(), "portgroup": "blue"}]
        told = message(PlanRefused, lambda: make(disk, world.name("three"), networks=networks))
        assert "has no portgroup 'blue'; it has none." in told
        network.destroy()
        network.undefine()


@tries("base_plan._of_the_pool")
def test_a_pool_that_is_not_there(
    world: World, make: Make, disk: Path, typist: Typist, tmp_path: Path
) -> None:
    told = message(PlanRefused, lambda: make(disk, world.name(), pool="nothing"))
    assert world.lab.pool in typist(told)
    name = world.name("pool")
    xml = f"<pool type='dir'><name>{name}</name><target><path>{tmp_path}</path></target></pool>"
    with connection() as conn:
        pool = conn.storagePoolDefineXML(xml)
        told = message(PlanRefused, lambda: make(disk, world.name("two"), pool=name))
        typist(told)
        assert pool.isActive()
        pool.destroy()
        pool.undefine()


@tries("base_facts.refuse_existing")
def test_a_name_that_is_taken(
    world: World, make: Make, disk: Path, base: str, typist: Typist
) -> None:
    assert base in typist(hint(PlanRefused, lambda: make(disk, base)))
    name = world.name("made")
    make(disk, name)
    typist(hint(AlreadyExists, lambda: make(disk, name)))


@tries("base_image.judge")
def test_an_image_that_has_to_be_converted_first(
    world: World, make: Make, disk: Path, tmp_path: Path, typist: Typist
) -> None:
    stands = tmp_path / "stands.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", stands]
    subprocess.run(words, check=True)
    foreign = tmp_path / "foreign.vmdk"
    subprocess.run(["qemu-img", "convert", "-O", "vmdk", disk, foreign], check=True)
    for number, path in enumerate((stands, foreign)):
        typist(
            hint(BadImage, lambda path=path, number=number: make(path, world.name(f"b{number}")))
        )
        assert make(f"{path}.whole.qcow2", world.name(f"whole{number}")).protected


@tries("base_image.unreadable", "base_image.judge")
def test_an_image_that_cannot_be_read(
    world: World, make: Make, tmp_path: Path, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone.raw"
    told = hint(BadImage, lambda: make(gone, world.name()))
    gone.touch()
    assert str(gone) in typist(told)
    gone.unlink()
    monkeypatch.setattr(base_from._Making, "_image", lambda _making: (str(gone), ""))
    told = hint(BadImage, lambda: make(gone, world.name("two")))
    gone.touch()
    assert str(gone) in typist(told)


@tries("base_image.identity")
def test_what_is_no_file(world: World, make: Make, tmp_path: Path, typist: Typist) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    assert str(pipe) in typist(hint(BadImage, lambda: make(pipe, world.name())))


@tries("base_from._Making._require_unchanged")
def test_an_image_that_changes_while_it_is_read(
    world: World, make: Make, disk: Path, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_image, "check_tables", lambda *_given: os.utime(disk))
    with disk.open("rb"):
        typist(hint(BadImage, lambda: make(disk, world.name())), "fuser")


@tries("journal.undo")
def test_what_cannot_be_taken_back(
    world: World, make: Make, disk: Path, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: Any) -> None:
        raise HostError("It does not work.", "Mend it.")

    name = world.name()
    with monkeypatch.context() as patched:
        patched.setattr(base_from._Making, "_boot", fails)
        patched.setattr(destroy, "delete_file", fails)
        told = hint(HostError, lambda: make(disk, name), "does not work")
    assert name in typist(told, "salt-run kvmclone.gc", "salt-call kvm_clone.gc")


@tries("base_from._Making._image")
def test_an_image_that_a_machine_runs_on(world: World, make: Make, typist: Typist) -> None:
    running = world.base()
    world.lab.start(running)
    told = hint(BadImage, lambda: make(world.disks(running)[0], world.name("new")))
    typist(told)
    world.lab.stop(running)


@tries("base_from._Making._judged", "base_from._Making._convert")
def test_a_pool_that_has_no_room(
    world: World, make: Make, disk: Path, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> None:
        raise PoolFull("It filled up.", "use 'clone_strategy: quick'")

    with monkeypatch.context() as patched:
        patched.setattr(journal, "make_volume", full)
        told = hint(PoolFull, lambda: make(disk, world.name()))
    assert "quick" not in told
    assert world.lab.pool in typist(told)
    monkeypatch.setattr(base_from._Making, "_room", lambda _making: 5)
    assert world.lab.pool in typist(hint(PoolFull, lambda: make(disk, world.name("two"))))


@tries("make_base._removed")
def test_a_base_that_could_not_be_removed(
    world: World, host: LocalHost, make: Make, disk: Path, typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def lost(*_arguments: Any) -> Any:
        raise HostUnreachable("The answer was lost.")

    def refused(*_arguments: Any) -> Any:
        raise HostError("It does not go.")

    monkeypatch.setattr(rollback, "ROLLBACK_RETRY_TIMEOUT_S", 0.0)
    monkeypatch.setattr(host, "base_from", lost)
    monkeypatch.setattr(host, "clear", refused)
    told = message(HostUnreachable, lambda: make(disk, world.name()))
    assert "It could not be removed: It does not go." in told
    typist(told)
