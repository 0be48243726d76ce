"""Promises about destroying over a remote url, where nobody can look at the host's files."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.domain import OVMF_VARS
from lab.lab import connection
from saltext.kvmclone.errors import CloneInUse, OutOfReach, PlanRefused
from saltext.kvmclone.hosts import gc
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.record import Owner
from tests.support.edited_definitions import respell
from tests.support.hints import Typist, commands, tries
from tests.support.remote_url import libvirt_over_ssh
from tests.support.storage import storage_pool
from tests.support.world import World, full, quick

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with libvirt_over_ssh(tmp_path_factory.mktemp("far")) as made:
        yield made


@pytest.fixture
def far(url: str) -> LocalHost:
    return LocalHost(url)


@pytest.fixture
def pool(world: World) -> Iterator[str]:
    """A pool beside the lab's own, which a test may switch off."""
    name = f"far-{world.token}"
    with storage_pool(name, world.lab.folder / name):
        yield name
    (world.lab.folder / name).rmdir()


def switch(pool: str, on: bool) -> None:
    with connection() as conn:
        raw = conn.storagePoolLookupByName(pool)
        if on:
            raw.create()
        else:
            raw.destroy()


def test_what_was_made_goes_and_nothing_else(world: World, far: LocalHost) -> None:
    base = world.base(disks=["qcow2", "raw"], cdrom=True)
    before = world.footprint()
    for wish in (quick, full):
        name = world.name(wish.__name__)
        far.clone(wish(name, base))
        far.destroy(name)
    assert world.footprint() == before


def test_the_variable_store_is_deleted_with_its_definition(
    world: World, far: LocalHost, host: LocalHost
) -> None:
    """It lies in no pool, so that libvirt alone can delete it."""
    base = world.base(uefi=True)
    name = world.name()
    far.clone(quick(name, base))
    nvram = store(world, name)
    assert not nvram.exists(), "libvirt makes it at the first boot"
    shutil.copy(OVMF_VARS, nvram)
    far.destroy(name)
    assert not nvram.exists()
    assert store(world, base).exists()


def test_a_strangers_variable_store_is_not_taken_for_the_clones(
    world: World, far: LocalHost
) -> None:
    """An earlier machine of that name may have left one, and nobody can look."""
    base = world.base(uefi=True)
    name = world.name()
    left = world.lab.folder / f"nvram/{name}.fd"
    left.write_bytes(b"of a machine that was called so before")
    far.clone(quick(name, base))
    assert store(world, name) != left
    far.destroy(name)
    assert left.read_bytes().startswith(b"of a machine")


def test_a_variable_store_that_another_machine_uses_stays_and_is_named(
    world: World, far: LocalHost
) -> None:
    name = world.name()
    far.clone(quick(name, world.base(uefi=True)))
    nvram = store(world, name)
    shutil.copy(OVMF_VARS, nvram)
    copy = world.copy_of(name)
    gone = far.destroy(name)
    assert nvram.exists()
    assert any(str(nvram) in word and copy in word for word in gone.warnings)


def test_a_disk_in_a_pool_that_is_off_keeps_the_definition(
    world: World, base: str, far: LocalHost, pool: str
) -> None:
    name = world.name()
    far.clone(quick(name, base, pool=pool))
    disk = world.disks(name)[0]
    before = world.footprint()
    switch(pool, on=False)
    with pytest.raises(OutOfReach, match=f"'{disk}'.*'{pool}' is not running") as info:
        far.destroy(name)
    assert f"pool-start {pool}" in info.value.hint
    assert world.footprint() == before
    switch(pool, on=True)
    far.destroy(name)
    assert not disk.exists()
    assert not world.exists(name)


def test_a_disk_in_a_pool_that_is_gone_keeps_the_definition_unless_forced(
    world: World, base: str, far: LocalHost, pool: str
) -> None:
    name = world.name()
    far.clone(quick(name, base, pool=pool))
    disk = world.disks(name)[0]
    with connection() as conn:
        raw = conn.storagePoolLookupByName(pool)
        raw.destroy()
        raw.undefine()
    with pytest.raises(OutOfReach):
        far.destroy(name)
    assert world.exists(name)
    gone = far.destroy(name, force=True)
    assert disk.exists()
    assert any(str(disk) in word and "stays" in word for word in gone.warnings)
    assert not world.exists(name)


def test_an_overlay_in_a_pool_that_is_off_still_counts(
    world: World, base: str, far: LocalHost, pool: str
) -> None:
    """Nobody can read its header now, but its clone's record tells what it stands on."""
    first, second = world.name("first"), world.name("second")
    far.clone(quick(first, base))
    far.clone(quick(second, first, pool=pool))
    switch(pool, on=False)
    with pytest.raises(CloneInUse, match=second):
        far.destroy(first)
    assert world.disks(first)[0].exists()
    switch(pool, on=True)
    far.destroy(second)
    far.destroy(first)


@tries("disks.check_volume")
def test_what_is_in_the_way_of_a_create_is_deleted_there_and_not_here(
    world: World, base: str, far: LocalHost, url: str, typist: Typist
) -> None:
    name = world.name()
    stranger = world.lab.pool_path / f"{name}-vda.qcow2"
    stranger.write_bytes(b"of nobody")
    with pytest.raises(PlanRefused, match="not ours to overwrite") as info:
        far.clone(quick(name, base))
    (command,) = commands(info.value.message)
    assert shlex.split(command) == ["virsh", "-c", url, "vol-delete", str(stranger)]
    typist(info.value.message)
    assert not stranger.exists()


@pytest.mark.parametrize("lost", [False, True])
def test_a_clone_with_a_snapshot_goes_by_force_with_its_own_disk(
    world: World, base: str, far: LocalHost, lost: bool
) -> None:
    name = world.name()
    far.clone(quick(name, base))
    disk = world.disks(name)[0]
    subprocess.run(["virsh", "snapshot-create-as", name, "s1", "--disk-only"], check=True)
    overlay = world.disks(name)[0]
    if lost:
        overlay.unlink()
    with pytest.raises(CloneInUse, match="its own snapshots") as info:
        far.destroy(name)
    assert ("blockcommit" in info.value.hint) is not lost
    far.destroy(name, force=True)
    assert not world.exists(name)
    assert not disk.exists()
    assert overlay.exists() is not lost


@tries("snapshots._delete")
def test_overlays_in_the_way_are_deleted_where_they_lie(
    world: World, base: str, far: LocalHost, typist: Typist
) -> None:
    """``rm`` would take what lies at that path on the machine where the hint is read."""
    name = world.name()
    far.clone(quick(name, base))
    disk = world.disks(name)[0]
    subprocess.run(["virsh", "snapshot-create-as", name, "s1", "--disk-only"], check=True)
    own, stranger = world.disks(name)[0], disk.with_name(f"stranger-{world.token}.qcow2")
    respell(name, disk)  # back to the state before, by hand
    world.overlay(disk, stranger)
    for overlay in (stranger, own):
        with pytest.raises(CloneInUse, match=str(overlay)) as info:
            far.destroy(name)
        told = [one for one in commands(info.value.hint) if one.startswith(("rm ", "virsh "))]
        assert [one.startswith("virsh ") for one in told] == [True]
        typist(info.value.hint, "virsh ")
        assert not overlay.exists()
    far.destroy(name)
    assert not disk.exists()


def test_a_pool_that_goes_off_while_files_are_deleted_keeps_the_definition(
    world: World,
    base: str,
    far: LocalHost,
    pool: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from saltext.kvmclone.errors import HostError
    from saltext.kvmclone.hypervisor.domain import DomainHandle

    name = world.name()
    far.clone(quick(name, base, pool=pool))
    disk = world.disks(name)[0]

    def off(handle: DomainHandle) -> None:
        switch(pool, on=False)

    with monkeypatch.context() as patched:
        patched.setattr(DomainHandle, "power_off", off)
        with pytest.raises(HostError, match="no storage pool"):
            far.destroy(name)
    assert disk.exists()
    assert world.exists(name)
    switch(pool, on=True)
    far.destroy(name)
    assert not disk.exists()


def test_gc_over_a_remote_url_lists_what_it_removes(
    world: World,
    base: str,
    far: LocalHost,
    pool: str,
    dead: Owner,
) -> None:
    name = world.name()
    far.clone(quick(name, base, pool=pool), dead, "addressed")
    disk = world.disks(name)[0]
    switch(pool, on=False)
    listed = gc.collect(far, name)
    assert {item.kind for item in listed} == {"kept"}
    assert any("pool-start" in item.reason for item in listed)
    removed = gc.collect(far, name, apply=True)
    assert not any(item.removed for item in removed)
    assert world.exists(name)
    switch(pool, on=True)
    listed = gc.collect(far, name)
    assert [(item.kind, item.path) for item in listed] == [("domain", ""), ("volume", str(disk))]
    removed = gc.collect(far, name, apply=True)
    assert [(item.kind, item.path, item.removed) for item in removed] == [
        (item.kind, item.path, True) for item in listed
    ]


def store(world: World, name: str) -> Path:
    """The path of a machine's variable store."""
    element = world.xml(name).find("./os/nvram")
    assert element is not None, ElementTree.tostring(world.xml(name))
    return Path((element.text or "").strip())
