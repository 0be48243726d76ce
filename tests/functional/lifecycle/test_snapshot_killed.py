"""Wherever the work on a snapshot is killed, nothing of the guest is lost, and gc ends it."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.errors import KvmCloneError
from saltext.kvmclone.hosts import gc
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.system import copying
from tests.functional.lifecycle.test_snapshot import reads, write
from tests.support.forks import forked
from tests.support.world import CloneOf, World, sha256

pytestmark = pytest.mark.slow

#: What writes something: libvirt's calls, and those of the system. Each is a point before and
#: after which the worker is killed.
CALLS = {"setMetadata", "defineXMLFlags", "createXML", "delete"}
SYSTEM = [(os, "link"), (os, "unlink"), (os, "replace"), (copying, "rebase")]

#: What is killed, and the content of the disk before and after it.
WORK: dict[str, tuple[Callable[[LocalHost, str], object], int, int]] = {
    "snapshot": (lambda host, name: host.snapshot(name, "new"), 3, 3),
    "rollback": (lambda host, name: host.rollback(name, "one"), 3, 1),
    "delete": (lambda host, name: host.delete_snapshot(name, "one"), 3, 3),
    "delete_last": (lambda host, name: host.delete_snapshot(name, "side"), 3, 3),
}


def killed_at(point: int, work: Callable[[], object]) -> bool:
    """Do something in a process of its own, which is killed at a point; whether it came to it."""

    def counted() -> None:
        _count_down(point)
        work()

    return os.WIFSIGNALED(forked(counted))


def _count_down(left: int) -> None:
    def passed() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keys: Any) -> Any:
            passed()
            done = real(*arguments, **keys)
            passed()
            return done

        return call

    call = Host.call
    seen = watched(call)
    Host.call = lambda self, function, *arguments: (  # type: ignore[method-assign, assignment]
        seen if function.__name__ in CALLS else call
    )(self, function, *arguments)
    for module, name in SYSTEM:
        setattr(module, name, watched(getattr(module, name)))


def prepare(host: LocalHost, world: World, opened: Host, clone_of: CloneOf, base: str) -> str:
    """A clone with the snapshots ``one``, ``two`` on it and ``side`` beside that."""
    name = clone_of(base, f"c{len(world.names)}")
    handle = opened.domain(name)
    record = handle.record()
    assert record is not None
    handle.save_record(replace(record.at("addressed"), goal="addressed"))
    store(world, name).write_bytes(b"1")
    write(world.disks(name)[0], 1)
    host.snapshot(name, "one")
    write(world.disks(name)[0], 4)
    host.snapshot(name, "side")
    host.rollback(name, "one")
    write(world.disks(name)[0], 2)
    host.snapshot(name, "two")
    write(world.disks(name)[0], 3)
    store(world, name).write_bytes(b"3")
    return name


def store(world: World, name: str) -> Path:
    return Path(str(world.xml(name).findtext("./os/nvram")))


def require_sound(world: World, name: str, contents: set[int], settled: bool) -> None:
    """The clone can start with what it had or is to have; the record knows every file."""
    for disk in world.disks(name):
        done = subprocess.run(["qemu-img", "info", "--backing-chain", disk], capture_output=True)
        assert done.returncode == 0, done.stderr
    assert any(reads(world.disks(name)[0], number) for number in contents)
    record = world.record(name)
    assert record is not None
    there = {str(path) for path in world.lab.folder.rglob(f"{name}*") if "console" not in str(path)}
    listed = {one.path for one in record.volumes}
    drafts = {f"{path}.{record.uuid}" for path in listed}
    assert there <= (listed if settled else listed | drafts)
    if settled:
        assert listed <= there
        assert record.under_way == ""


#: One of so many points is tried; and how the first one ends, the next one otherwise.
STEP = int(os.environ.get("KVMCLONE_POINT_STEP", "8"))
FIRST = int(os.environ.get("KVMCLONE_POINT_END", "0"))


@pytest.mark.parametrize("kind", WORK)
def test_wherever_it_is_killed_nothing_is_lost(
    world: World, host: LocalHost, opened: Host, clone_of: CloneOf, kind: str
) -> None:
    work, old, new = WORK[kind]
    base = world.base(disks=2, uefi=True)
    disk = sha256(world.disks(base)[0])
    before = world.footprint()
    for number in itertools.count():
        name = prepare(host, world, opened, clone_of, base)
        killed = killed_at(number * STEP, functools.partial(work, host, name))
        require_sound(world, name, {old, new}, settled=not killed)
        ends = ("gc", "repeated", "destroyed")[(number + FIRST) % 3]
        if ends == "gc":
            require_ended_by_gc(world, host, name, {old, new})
        if ends != "destroyed":
            require_repeatable(world, host, name, kind, new)
        assert host.destroy(name).warnings == ()
        assert world.footprint() == before
        assert sha256(world.disks(base)[0]) == disk
        if not killed:
            assert number > 1, "it passes no points"
            return


def require_ended_by_gc(world: World, host: LocalHost, name: str, contents: set[int]) -> None:
    listed = gc.collect(host, name)
    removed = gc.collect(host, name, apply=True)
    assert [(one.kind, one.path) for one in removed] == [(one.kind, one.path) for one in listed]
    assert all(one.kind in ("snapshot", "volume", "nvram") for one in listed)
    require_sound(world, name, contents, settled=True)
    assert gc.collect(host, name) == []
    assert host.doctor() == []


def require_repeatable(world: World, host: LocalHost, name: str, kind: str, content: int) -> None:
    try:
        WORK[kind][0](host, name)
    except KvmCloneError as error:  # it was done already
        assert error.type in ("SnapshotRefused", "NoSnapshot"), error
    require_sound(world, name, {content}, settled=True)
    if kind == "rollback":
        assert store(world, name).read_bytes() == b"1"
    labels = [one.label for one in host.snapshots(name)]
    contents = {"one": 1, "side": 4, "two": 2, "new": 3}
    assert set(labels) >= {"two"} | ({"new"} if kind == "snapshot" else set())
    for label in labels:
        host.rollback(name, label)
        assert reads(world.disks(name)[0], contents[label]), label
