"""Promises about the last step to a base: whole or not at all, and gc knows what is not whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from saltext.kvmclone.errors import HostError, PlanRefused
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import host_facts
from saltext.kvmclone.inventory.base_protection import protection
from saltext.kvmclone.inventory.base_source import base_record
from saltext.kvmclone.lifecycle import create, finish_base, protect
from saltext.kvmclone.model.base_record import BaseRecord
from saltext.kvmclone.model.record import BASE, Record
from saltext.kvmclone.plan import planner
from saltext.kvmclone.system import processes
from tests.support.world import World, full

MADE = BaseRecord("", "https://images.test/debian.qcow2", "sha256:0123", 1796000000.0)

Begun = Callable[..., tuple[DomainHandle, Record]]


@pytest.fixture
def begun(world: World, opened: Host) -> Begun:
    """Makes a machine that is to become a base, as far as its files are there."""

    def make(base: str, word: str = "made") -> tuple[DomainHandle, Record]:
        request = full(world.name(word), base)
        facts = host_facts.facts(opened, request)
        plan = planner.compute(facts, request, processes.this_process())
        plan = replace(plan, record=replace(plan.record, goal="ready", becomes=BASE))
        return create.apply(opened, plan)

    return make


def test_a_finished_base_is_protected_and_knows_what_it_was_made_from(
    world: World, base: str, opened: Host, begun: Begun
) -> None:
    handle, record = begun(base)
    finish_base.finish(opened, handle, record, MADE)
    assert handle.record() is None
    assert base_record(handle) == replace(MADE, uuid=handle.uuid)
    mark = protection(opened, handle)
    assert mark is not None
    assert [file.path for file in mark.files] == [str(disk) for disk in world.disks(handle.name)]
    assert all(not os.stat(disk).st_mode & stat.S_IWUSR for disk in world.disks(handle.name))


def test_to_lift_the_protection_leaves_the_record_of_a_base(
    base: str, opened: Host, begun: Begun
) -> None:
    handle, record = begun(base)
    finish_base.finish(opened, handle, record, MADE)
    protect.unprotect(opened, handle)
    assert protection(opened, handle) is None
    assert base_record(handle) is not None


def test_a_clone_of_a_finished_base_has_no_record_of_a_base(
    world: World, base: str, opened: Host, host: LocalHost, begun: Begun
) -> None:
    handle, record = begun(base)
    finish_base.finish(opened, handle, record, MADE)
    name = world.name()
    assert host.clone(full(name, handle.name)).stage == "cloned"
    assert base_record(opened.domain(name)) is None
    assert "source:1" not in world.secure_xml(name)


def test_a_disk_that_was_only_needed_to_make_it_goes_with_its_file(
    world: World, opened: Host, begun: Begun
) -> None:
    handle, record = begun(world.base(disks=2))
    kept, gone = world.disks(handle.name)
    finish_base.finish(opened, handle, record, MADE, without=("vdb",))
    assert world.disks(handle.name) == [kept]
    assert kept.exists()
    assert not gone.exists()


def test_a_file_of_another_machine_is_not_deleted_and_nothing_is_finished(
    world: World, opened: Host, begun: Begun
) -> None:
    handle, record = begun(world.base(disks=2))
    second = world.disks(handle.name)[1]
    world.attach(world.base("other"), second, "vdx")
    with pytest.raises(HostError, match="other"):
        finish_base.finish(opened, handle, record, MADE, without=("vdb",))
    assert second.exists()
    now = handle.record()
    assert now is not None and now.volumes == record.volumes


def test_a_machine_that_runs_is_not_finished(base: str, opened: Host, begun: Begun) -> None:
    handle, record = begun(base)
    handle.start()
    with pytest.raises(PlanRefused, match="runs"):
        finish_base.finish(opened, handle, record, MADE)
    now = handle.record()
    assert now is not None and now.volumes == record.volumes


@pytest.mark.parametrize("last", ["delete_file", "protect", "define"])
def test_what_a_kill_leaves_before_the_last_step_is_removed_by_gc(
    world: World,
    opened: Host,
    host: LocalHost,
    begun: Begun,
    last: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle, record = begun(world.base(disks=2))
    files = world.disks(handle.name)

    class Killed(BaseException):
        pass

    def dies(*_args: object, **_keys: object) -> None:
        raise Killed

    places = {
        "delete_file": (finish_base.destroy, "delete_file"),
        "protect": (finish_base.protect, "_change"),
        "define": (Host, "define"),
    }
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(*places[last], dies)
        finish_base.finish(opened, handle, record, MADE, without=("vdb",))
    handle.save_record(replace(record, worker=processes.released(record.worker)))
    (item,) = host.unfinished(handle.name)
    host.clear(handle.name, item.work.worker.token)
    assert not world.exists(handle.name)
    assert not any(map(Path.exists, files))


def test_only_the_run_without_a_network_has_its_links_down(
    world: World, base: str, opened: Host, begun: Begun
) -> None:
    handle, record = begun(base)
    record = finish_base.boot_without_network(handle, record)
    assert record.stage == "booted"
    links = world.xml(handle.name, live=True).findall("./devices/interface/link")
    assert [link.get("state") for link in links] == ["down"]
    assert world.xml(handle.name).find("./devices/interface/link") is None
    handle.power_off()
    assert handle.is_persistent()
    assert world.xml(handle.name).find("./devices/interface/link") is None
