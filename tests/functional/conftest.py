"""One scratch world on the real libvirtd for all tests here; every test cleans up after itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import salt.loader

from lab.common import LIBVIRT_URI, run
from lab.lab import Lab, connection
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.record import DEAD, Owner
from saltext.kvmclone.system import processes
from tests.support import hints
from tests.support.storage import MIB, loop_device
from tests.support.world import CloneOf, Salt, World, minion_opts, quick


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab() as world:
        yield world


@pytest.fixture
def world(lab: Lab, request: pytest.FixtureRequest) -> Iterator[World]:
    number = request.session.stash.setdefault(_COUNT, 0) + 1
    request.session.stash[_COUNT] = number
    world = World(lab, f"{lab.name[-4:]}t{number}")
    yield world
    world.tidy()


_COUNT: pytest.StashKey[int] = pytest.StashKey()


@pytest.fixture
def host() -> LocalHost:
    return LocalHost(LIBVIRT_URI, label="kvm01")


@pytest.fixture
def opened() -> Iterator[Host]:
    """A connection to libvirt, as the library makes one."""
    with Host(LIBVIRT_URI) as host:
        yield host


@pytest.fixture
def outside(world: World) -> Path:
    """A folder that no pool is over; QEMU may walk there."""
    folder = world.lab.folder / "outside"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    return folder


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


@pytest.fixture
def base(world: World) -> str:
    """The plainest base: one qcow2 disk."""
    return world.base()


@pytest.fixture
def clone_of(world: World, host: LocalHost) -> CloneOf:
    """Makes a finished clone (shut off) and answers with its name."""

    def make(base: str, word: str = "clone", **keys: Any) -> str:
        name = world.name(word)
        host.clone(quick(name, base, **keys))
        return name

    return make


@pytest.fixture(scope="session")
def tiny_filesystem(lab: Lab) -> Iterator[str]:
    """A storage pool on a file system of 16 MiB of its own; its name is also its folder's."""
    name = f"{lab.name}-small"
    folder = lab.folder / name
    folder.mkdir(mode=0o755)
    run(["mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", folder])
    try:
        with connection() as conn:
            pool = conn.storagePoolDefineXML(
                f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"
            )
            pool.create()
        yield name
        with connection() as conn:
            pool = conn.storagePoolLookupByName(name)
            pool.destroy()
            pool.undefine()
    finally:
        run(["umount", folder])


@pytest.fixture
def small_pool(lab: Lab, world: World, tiny_filesystem: str) -> Iterator[str]:
    """The pool of 16 MiB, empty; it is emptied again after the clones of the test are gone."""
    with connection() as conn:
        conn.storagePoolLookupByName(tiny_filesystem).refresh()
    yield tiny_filesystem
    for path in (lab.folder / tiny_filesystem).iterdir():
        path.unlink()


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Salt]:
    """Loads the plugins from the checkout into a minion's loader; keywords are its opts."""

    def make(**extra: Any) -> Salt:
        opts = minion_opts(tmp_path_factory.mktemp("minion"))
        opts.update(extra)
        functions = salt.loader.minion_mods(opts, context={})
        states = salt.loader.states(opts, functions, {}, None, context={})
        return Salt(opts, functions, states)

    return make


@pytest.fixture(scope="session")
def salt_minion(load: Callable[..., Salt]) -> Salt:
    """What a user of the minion ``kvm01`` calls."""
    return load()


@pytest.fixture(scope="session")
def salt_dry(load: Callable[..., Salt]) -> Salt:
    """The same with ``test=True``."""
    return load(test=True)


@pytest.fixture
def typist(tmp_path: Path) -> hints.Typist:
    """Types what a hint says."""
    return hints.typist(tmp_path)


@pytest.fixture
def dead() -> Owner:
    """A worker of this machine whose process has ended."""
    with subprocess.Popen(["sleep", "60"]) as child:
        started = processes._started(child.pid)
        worker = replace(processes.this_process(), pid=child.pid, started=started)
        child.kill()
    assert processes.owner_state(worker) == DEAD
    return worker


@pytest.fixture
def away() -> Owner:
    """A worker of a machine that we know nothing of."""
    return replace(processes.this_process(), host="kvm99", boot="boot/1", machine="machine")
