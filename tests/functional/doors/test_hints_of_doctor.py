"""What doctor finds goes by what its remedy says, word for word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.lab import connection
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.system import processes
from tests.support.edited_definitions import respell
from tests.support.hints import Typist, tries
from tests.support.refusals import Change, both
from tests.support.world import World, quick

pytestmark = pytest.mark.slow


def finding(host: LocalHost, kind: str) -> dict[str, str]:
    (found,) = [one for one in host.doctor() if one["kind"] == kind]
    return found


@both
@tries("doctor._Examination._work")
def test_unfinished_work(
    world: World, host: LocalHost, base: str, change: Change, typist: Typist
) -> None:
    name, failed = world.name(), world.name("failed")
    for one in (name, failed):
        host.clone(quick(one, base))
    worker = replace(processes.this_process(), pid=2**22 + 1)  # there is none
    change(name, stage="destroying", goal="destroying", worker=worker)
    change(failed, failed="No.", goal="addressed")
    typist(finding(host, "unfinished")["hint"])
    typist(finding(host, "failed")["hint"])
    assert not world.exists(name)
    assert not world.exists(failed)


@tries("doctor._Examination._work")
@pytest.mark.parametrize("stage", ["destroying", "cloned"])
def test_unfinished_work_of_another_machine(
    world: World, host: LocalHost, base: str, change: Change, typist: Typist, stage: str
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    away = replace(processes.this_process(), host="kvm99", boot="boot/1", machine="machine")
    change(name, stage=stage, goal="addressed", worker=away)
    hint = finding(host, "unfinished")["hint"]
    typist(hint if "apply" in hint else f"{hint} apply=True")
    assert not world.exists(name)


@both
@tries("doctor._Examination._reattach", "overlays.delete")
def test_volumes_without_a_user(
    world: World, host: LocalHost, base: str, change: Change, typist: Typist
) -> None:
    name, undefined = world.name(), world.name("undefined")
    for one in (name, undefined):
        host.clone(quick(one, base))
        change(one, goal="cloned")
    disk, stray = world.disks(name)[0], world.disks(undefined)[0]
    world.detach(name, "vda")
    with connection() as conn:
        conn.lookupByName(undefined).undefine()
    typist(finding(host, "volume-unused")["hint"])
    assert world.disks(name) == [disk]
    typist(finding(host, "volume-without-clone")["hint"])
    assert not stray.exists()
    assert host.doctor() == []


@tries("doctor._Examination._copies", "doctor._Examination._damaged")
def test_copies_and_damaged_records(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    copy = world.copy_of(name)
    typist(finding(host, "copied-record")["hint"])
    assert not world.exists(copy)


@both
@tries("base_findings.protected_without_base", "protect._change")
def test_read_only_files_whose_base_is_gone(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    request = quick(name, base, clone_strategy="full", protect=True)
    host.clone(request)
    disk = world.disks(base)[0]
    with connection() as conn:
        conn.lookupByName(base).undefine()
    assert not disk.stat().st_mode & 0o222
    typist(finding(host, "protected-without-base")["hint"])
    assert disk.stat().st_mode & 0o200


@tries("base_findings.written", "doctor._Examination._drift", "doctor._Examination.findings")
@pytest.mark.guest
def test_bases_that_write(world: World, host: LocalHost, base: str, typist: Typist) -> None:
    name = world.name()
    host.clone(quick(name, base))
    world.lab.start(base)
    typist(finding(host, "base-running")["hint"])
    world.lab.start(base)
    with connection() as conn:
        conn.lookupByName(base).managedSave()
    typist(finding(host, "base-saved")["hint"])
    changed = [one for one in host.doctor() if one["kind"] == "base-changed"]
    for one in changed:
        typist(one["hint"])
    assert not {one["kind"] for one in host.doctor()} & {"base-running", "base-saved"}


@tries("base_findings.shared", "doctor._Examination._look_at")
def test_machines_that_share_a_bases_disk(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    machine = world.base("machine")
    respell(machine, world.disks(base)[0])
    assert str(world.disks(base)[0]) in typist(finding(host, "base-shared")["hint"])
