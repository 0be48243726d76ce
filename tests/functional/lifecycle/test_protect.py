"""Promises about protected bases: they cannot be started, their clones can, all can be undone."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import libvirt
import pytest

from saltext.kvmclone.errors import CloneInUse, HostError, PlanRefused
from saltext.kvmclone.hosts import gc
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import host_facts
from saltext.kvmclone.inventory.base_protection import protection
from saltext.kvmclone.lifecycle import create, journal, protect
from saltext.kvmclone.model.record import Owner
from saltext.kvmclone.plan import planner
from tests.support.world import CloneOf, World, quick


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def protected(host: Host, world: World, base: str) -> DomainHandle:
    handle = host.domain(base)
    protect.protect(host, handle, [str(disk) for disk in world.disks(base)])
    return handle


def test_every_file_of_the_chain_becomes_read_only_and_gets_its_own_mode_back(
    world: World, opened: Host
) -> None:
    base = world.base(disks=2, chain=1)
    one, two = world.disks(base)
    below = one.with_name(f"{base}-0-below0.qcow2")
    modes = {one: 0o640, two: 0o600, below: 0o664}
    for path, bits in modes.items():
        path.chmod(bits)
    handle = protected(opened, world, base)
    assert {path: mode(path) for path in modes} == {one: 0o440, two: 0o400, below: 0o444}
    assert sorted(protect.unprotect(opened, handle)) == sorted(map(str, modes))
    assert {path: mode(path) for path in modes} == modes


def test_the_mark_tells_what_was_before_and_leaves_without_a_trace(
    world: World, base: str, opened: Host
) -> None:
    before = world.secure_xml(base)
    handle = opened.domain(base)
    assert protection(opened, handle) is None
    protected(opened, world, base)
    mark = protection(opened, handle)
    assert mark is not None
    assert [file.path for file in mark.files] == [str(disk) for disk in world.disks(base)]
    protect.unprotect(opened, handle)
    assert protection(opened, handle) is None
    assert world.secure_xml(base).replace("  <metadata/>\n", "") == before


def test_doing_it_twice_is_doing_it_once(world: World, base: str, opened: Host) -> None:
    disk = world.disks(base)[0]
    disk.chmod(0o644)
    handle = protected(opened, world, base)
    first = protection(opened, handle)
    protected(opened, world, base)
    assert protection(opened, handle) == first
    protect.unprotect(opened, handle)
    assert protect.unprotect(opened, handle) == []
    assert mode(disk) == 0o644


def test_a_crash_between_two_files_is_healed_by_doing_it_again(
    world: World, opened: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base(disks=2)
    disks = world.disks(base)
    for disk in disks:
        disk.chmod(0o644)
    real = os.chmod
    done: list[str] = []

    def once(path: str, bits: int) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(path)
        real(path, bits)

    for step in (
        lambda: protected(opened, world, base),
        lambda: protect.unprotect(opened, opened.domain(base)),
    ):
        done.clear()
        with monkeypatch.context() as patched:
            patched.setattr(os, "chmod", once)
            with pytest.raises(KeyboardInterrupt):
                step()
        assert protection(opened, opened.domain(base)) is not None
        step()
    assert [mode(disk) for disk in disks] == [0o644, 0o644]
    assert protection(opened, opened.domain(base)) is None


def test_a_mode_that_cannot_be_changed_is_told(
    world: World, base: str, opened: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: str, _bits: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(os, "chmod", refuse)
        with pytest.raises(HostError, match="not permitted"):
            protected(opened, world, base)
    protect.unprotect(opened, opened.domain(base))


def test_a_file_of_two_bases_stays_read_only_until_both_are_free(
    world: World, base: str, opened: Host
) -> None:
    disk = world.disks(base)[0]
    disk.chmod(0o644)
    other = world.base("other")
    world.attach(other, disk, "vdx")
    one, two = protected(opened, world, base), protected(opened, world, other)
    assert str(disk) not in protect.unprotect(opened, one)
    assert mode(disk) == 0o444
    protect.unprotect(opened, two)
    assert mode(disk) == 0o644


def test_that_holds_for_two_names_of_one_file(world: World, opened: Host) -> None:
    first, second = world.base("first"), world.base("second")
    disk, theirs = world.disks(first)[0], world.disks(second)[0]
    disk.chmod(0o644)
    theirs.unlink()
    theirs.hardlink_to(disk)
    one, two = protected(opened, world, first), protected(opened, world, second)
    assert protect.unprotect(opened, one) == []
    assert mode(disk) == 0o444
    protect.unprotect(opened, two)
    assert mode(disk) == 0o644


def test_a_base_with_a_snapshot_of_its_own_can_be_freed(
    world: World, base: str, opened: Host, host: LocalHost, clone_of: CloneOf
) -> None:
    disk = world.disks(base)[0]
    bits = mode(disk)
    handle = protected(opened, world, base)
    for word in ("one", "two"):
        words = ["virsh", "snapshot-create-as", base, word, "--disk-only", "--no-metadata"]
        subprocess.run(words, check=True, capture_output=True)
    clone = clone_of(base)  # stands on the second snapshot, and through it on the protected file
    with pytest.raises(CloneInUse, match=clone) as info:
        protect.unprotect(opened, handle)
    assert clone in info.value.hint
    host.destroy(clone)
    stray = disk.with_name(f"stray-{world.token}.qcow2")
    world.overlay(disk, stray)
    with pytest.raises(CloneInUse, match=stray.name) as info:
        protect.unprotect(opened, handle)
    assert f"If nobody needs it: rm {stray}" in info.value.hint
    stray.unlink()
    assert protect.unprotect(opened, handle) == [str(disk)]
    assert mode(disk) == bits


def test_a_mark_that_was_copied_into_another_machine_is_void(
    world: World, base: str, opened: Host
) -> None:
    protected(opened, world, base)
    copy = opened.domain(world.copy_of(base))
    assert protection(opened, copy) is None
    assert protect.unprotect(opened, copy) == []
    assert mode(world.disks(base)[0]) & 0o222 == 0


def test_a_base_with_quick_clones_stays_protected(
    world: World, base: str, opened: Host, host: LocalHost, clone_of: CloneOf
) -> None:
    handle = protected(opened, world, base)
    names = [clone_of(base, "one"), clone_of(base, "two")]
    clone_of(base, "full", clone_strategy="full")
    with pytest.raises(CloneInUse) as info:
        protect.unprotect(opened, handle)
    assert all(name in info.value.message and name in info.value.hint for name in names)
    assert "full" not in info.value.message
    assert mode(world.disks(base)[0]) & 0o222 == 0
    for name in names:
        host.destroy(name)
    assert protect.unprotect(opened, handle)


def test_out_of_reach_it_is_refused_with_what_to_do(
    world: World, base: str, opened: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Host, "local", False)
    with pytest.raises(PlanRefused) as info:
        protected(opened, world, base)
    assert "host:" in info.value.hint


def test_a_missing_disk_is_refused_before_anything_changes(world: World, opened: Host) -> None:
    base = world.base(disks=2)
    one, two = world.disks(base)
    two.unlink()
    before = mode(one)
    with pytest.raises(PlanRefused, match=str(two)):
        protected(opened, world, base)
    assert mode(one) == before
    assert protection(opened, opened.domain(base)) is None


@pytest.mark.guest
@pytest.mark.parametrize("bits", [0o644, 0o600])
def test_a_protected_base_cannot_be_started_and_its_quick_clone_runs(
    world: World, base: str, opened: Host, host: LocalHost, clone_of: CloneOf, bits: int
) -> None:
    disk = world.disks(base)[0]
    disk.chmod(bits)
    shutil.chown(disk, "libvirt-qemu")  # whom libvirt leaves it to after a run
    before = disk.read_bytes()
    handle = protected(opened, world, base)
    name = clone_of(base)
    for _ in range(2):  # libvirt changes the file's owner on the way; its mode stays
        with pytest.raises(libvirt.libvirtError, match="Permission denied"):
            world.lab.start(base)
    host.boot(name)
    world.lab.wait_for_lease(name)
    with pytest.raises(libvirt.libvirtError, match="Permission denied"):
        world.lab.start(base)
    assert world.state(name) == "running"
    assert mode(disk) == bits & 0o444
    assert disk.read_bytes() == before
    host.power(name, "off")
    host.power(name, "start")  # also after the base's vain start took the file back
    world.lab.wait_for_lease(name)
    host.destroy(name)
    protect.unprotect(opened, handle)
    world.lab.start(base)
    assert world.state(base) == "running"


@pytest.mark.guest
def test_a_running_base_is_not_protected(world: World, base: str, opened: Host) -> None:
    world.lab.start(base)
    with pytest.raises(PlanRefused, match="runs"):
        protected(opened, world, base)
    world.lab.stop(base)
    protected(opened, world, base)


# --- and if nothing comes of the create ---------------------------------------------------------


def modes(world: World, base: str) -> list[int]:
    return [mode(disk) for disk in world.disks(base)]


def fail(*_arguments: object) -> None:
    raise HostError("the second step failed")


def test_a_create_that_fails_takes_its_protection_back(
    world: World, base: str, host: LocalHost, opened: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = modes(world, base)
    with monkeypatch.context() as patched:
        patched.setattr(create, "_require_base_at_rest", fail)
        with pytest.raises(HostError, match="second step"):
            host.clone(quick(world.name(), base, protect=True))
    assert modes(world, base) == before
    assert protection(opened, opened.domain(base)) is None


def test_a_create_that_fails_leaves_the_protection_of_others(
    world: World, base: str, host: LocalHost, opened: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever put it there: somebody by hand, or another create."""
    first, third = world.name("first"), world.name("third")
    host.clone(quick(first, base, protect=True))
    with monkeypatch.context() as patched:
        patched.setattr(create, "_require_base_at_rest", fail)
        with pytest.raises(HostError, match="second step"):
            host.clone(quick(world.name("second"), base, protect=True))
    assert modes(world, base) == [0o444]
    host.destroy(first)
    assert modes(world, base) == [0o444], "its create succeeded, so the base stays protected"
    with monkeypatch.context() as patched:
        patched.setattr(create, "_require_base_at_rest", fail)
        with pytest.raises(HostError, match="second step"):
            host.clone(quick(third, base, protect=True))
    assert modes(world, base) == [0o444]
    protect.unprotect(opened, opened.domain(base))


def test_a_worker_that_dies_leaves_a_protection_that_gc_takes_back(
    world: World,
    base: str,
    host: LocalHost,
    opened: Host,
    dead: Owner,
) -> None:
    before = modes(world, base)
    for word, started in (("early", True), ("late", False)):
        name = world.name(word)
        request = quick(name, base, protect=True)
        if started:  # it died between the record and the first file
            planned = planner.compute(host_facts.facts(opened, request), request, dead)
            journal.define(opened, planned.xml, planned.record, True)
            sources = planned.sources
            protect.protect(opened, opened.domain(base), sources, planned.record.uuid)
        else:
            host.clone(request, dead, "addressed")
        assert modes(world, base) != before
        listed = gc.collect(host, name)
        assert ("protection", base) in [(item.kind, item.path) for item in listed]
        removed = gc.collect(host, name, apply=True)
        assert {(item.kind, item.path) for item in removed} == {
            (item.kind, item.path) for item in listed
        }
        assert modes(world, base) == before
        assert protection(opened, opened.domain(base)) is None
