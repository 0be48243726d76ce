"""Promises about gc: it lists exactly what it removes, and says of the rest why it stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.hosts import gc
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle import destroy
from saltext.kvmclone.model.leftovers import Leftover
from saltext.kvmclone.model.record import Owner
from saltext.kvmclone.system import processes
from tests.support.world import World, full, quick

Left = Callable[..., str]


@pytest.fixture
def left(world: World, host: LocalHost, dead: Owner) -> Left:
    """Makes a clone whose worker died before it was complete."""

    def make(base: str, word: str = "left") -> str:
        name = world.name(word)
        host.clone(quick(name, base), dead, "addressed")
        return name

    return make


def goes(rows: list[Leftover]) -> list[tuple[str, str]]:
    return [(row.kind, row.path) for row in rows if row.kind != "kept"]


def stays(rows: list[Leftover]) -> list[tuple[str, str]]:
    assert not [row for row in rows if row.kind == "kept" and row.removed]
    return [(row.path, row.reason) for row in rows if row.kind == "kept"]


def footprint(paths: list[Path]) -> list[bool]:
    return [path.exists() for path in paths]


def test_a_disk_that_another_machine_took_is_listed_as_kept(
    world: World, host: LocalHost, left: Left
) -> None:
    name = left(world.base(disks=2))
    one, two = world.disks(name)
    taker = world.base("taker")
    world.attach(taker, one, "vdx")
    listed = gc.collect(host, name)
    assert goes(listed) == [("domain", ""), ("volume", str(two))]
    ((path, reason),) = stays(listed)
    assert path == str(one)
    assert f"'{taker}' uses it" in reason
    removed = gc.collect(host, name, apply=True)
    assert goes(removed) == goes(listed)
    assert stays(removed) == stays(listed)
    assert all(row.removed for row in removed if row.kind != "kept")
    assert footprint([one, two]) == [True, False]


def test_nothing_is_listed_as_removed_where_a_destroy_would_be_refused(
    world: World, host: LocalHost, base: str, left: Left
) -> None:
    name = left(base)
    disk = world.disks(name)[0]
    above = disk.with_name(f"by-hand-{world.token}.qcow2")
    world.overlay(disk, above)
    for apply in (False, True):
        rows = gc.collect(host, name, apply=apply)
        assert goes(rows) == []
        assert any(str(above) in reason for _path, reason in stays(rows))
    assert world.exists(name)
    above.unlink()
    rows = gc.collect(host, name, apply=True)
    assert goes(rows) == [("domain", ""), ("volume", str(disk))]
    assert not world.exists(name)


def test_what_was_attached_by_hand_is_listed_as_kept(
    world: World, host: LocalHost, base: str, left: Left
) -> None:
    name = left(base)
    data = world.lab.pool_path / f"data-{world.token}.qcow2"
    shutil.copy(world.disks(base)[0], data)
    world.attach(name, data, "vdx")
    assert [path for path, _reason in stays(gc.collect(host, name))] == [str(data)]
    gc.collect(host, name, apply=True)
    assert data.exists()
    assert not world.exists(name)


def test_the_store_of_uefi_variables_and_shared_media_are_told_apart(
    world: World, host: LocalHost, left: Left
) -> None:
    before = world.footprint()
    base = world.base(cdrom=True, uefi=True)
    standing = world.footprint()
    name = left(base)
    listed = gc.collect(host, name)
    assert [kind for kind, _path in goes(listed)] == ["domain", "nvram", "volume"]
    assert stays(listed) == []
    gc.collect(host, name, apply=True)
    assert world.footprint() == standing != before


def test_what_could_not_be_removed_is_told_as_it_is(
    world: World, host: LocalHost, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = left(world.base(disks=2))
    paths = world.disks(name)
    real = volumes.delete

    def delete(opened: Host, path: str) -> bool:
        if path.endswith("vda.qcow2"):
            raise HostError("busy")
        return real(opened, path)

    with monkeypatch.context() as patched:
        patched.setattr(volumes, "delete", delete)
        rows = gc.collect(host, name, apply=True)
    assert goes(rows) == []
    assert all("busy" in reason for _path, reason in stays(rows))
    assert footprint(paths) == [True, False]
    rows = gc.collect(host, name, apply=True)
    assert goes(rows) == [("domain", ""), ("volume", str(paths[0]))]


def test_a_dead_destroy_is_listed_as_far_as_it_did_not_come(
    world: World,
    host: LocalHost,
    dead: Owner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = world.name()
    host.clone(full(name, world.base(disks=2)))
    paths = world.disks(name)
    real = destroy.delete_file

    def die(opened: Host, file: destroy.deletion_plan.FileToDelete) -> bool:
        real(opened, file)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(processes, "this_process", lambda: replace(dead))
        patched.setattr(destroy, "delete_file", die)
        with pytest.raises(KeyboardInterrupt):
            host.destroy(name)
    assert footprint(paths) == [True, False]
    rows = gc.collect(host, name)
    assert goes(rows) == [("domain", ""), ("volume", str(paths[0]))]
    assert stays(rows) == []
    assert goes(gc.collect(host, name, apply=True)) == goes(rows)
