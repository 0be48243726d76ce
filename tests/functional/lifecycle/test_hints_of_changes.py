"""What hints about changes of a clone say is typed in the state in which they are given."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from lab.common import wait_until
from lab.lab import connection
from saltext.kvmclone.errors import (
    AddressTimeout,
    CreateInProgress,
    GuestStopped,
    HostError,
    KeyConflict,
    KvmCloneError,
    NotFound,
    PlanRefused,
)
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import host_facts
from saltext.kvmclone.lifecycle import create, destroy, protect, record_store
from saltext.kvmclone.model.record import Owner, Record
from saltext.kvmclone.model.request import AddressPick, Deploy, Wait
from saltext.kvmclone.plan import planner
from tests.functional.lifecycle.test_wait_for_address import panicking
from tests.support import hint_readers
from tests.support.debian_guests import enrolment
from tests.support.hints import Typist, before, hint, tries
from tests.support.world import World, quick

pytestmark = pytest.mark.slow

host = hint_readers.host
connected = hint_readers.connected


def record_of(opened: Host, name: str) -> Record:
    record = opened.domain(name).record()
    assert record is not None
    return record


# --- two workers --------------------------------------------------------------------------------


@tries("journal.define")
def test_a_name_that_another_worker_takes_at_the_same_moment(
    world: World,
    host: LocalHost,
    base: str,
    connected: Host,
    typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = quick(world.name(), base)
    planned = planner.compute(host_facts.facts(connected, request), request)
    before(monkeypatch, create, "define", lambda: host.clone(request))
    told = hint(CreateInProgress, lambda: create.apply(connected, planned))
    assert request.name in typist(told)
    host.destroy(request.name)
    assert request.name not in typist(told), "the other one may have given up, too"


@tries("create._require_base_at_rest")
@pytest.mark.parametrize("gone", [True, False])
def test_a_base_that_goes_away_or_changes_while_a_clone_is_made(
    world: World,
    host: LocalHost,
    base: str,
    typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
    gone: bool,
) -> None:
    def happens() -> None:
        if gone:
            with connection() as conn:
                conn.lookupByName(base).undefine()
        else:
            with world.disks(base)[0].open("ab") as disk:
                disk.write(bytes(512))

    before(monkeypatch, create, "_require_base_at_rest", happens)
    request = quick(world.name(), base)
    told = hint(PlanRefused, lambda: host.clone(request), "is gone" if gone else "changed")
    printed = typist(told)
    if gone:
        assert base not in printed
    else:
        assert "shut off" in printed
        host.clone(request)


@tries("create._require_base_at_rest", "hints.Commands.shut_off")
@pytest.mark.guest
@pytest.mark.parametrize("paused", [False, True])
def test_a_base_that_is_started_while_a_clone_is_made(
    world: World,
    host: LocalHost,
    base: str,
    typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
    paused: bool,
) -> None:
    def happens() -> None:
        world.lab.start(base)
        world.lab.wait_for_lease(base)
        if paused:
            with connection() as conn:
                conn.lookupByName(base).suspend()

    before(monkeypatch, create, "_require_base_at_rest", happens)
    request = quick(world.name(), base)
    told = hint(PlanRefused, lambda: host.clone(request), "paused" if paused else "running")
    typist(told)

    def is_off() -> bool:
        # A guest that has just booted may not have heard it, so it is told again.
        with connection() as conn, contextlib.suppress(libvirt.libvirtError):
            conn.lookupByName(base).shutdown()
        return world.state(base) == "shutoff"

    wait_until(is_off, "the base to shut off", 120, interval=3)
    host.clone(request)


@tries("destroy.delete_file")
def test_a_file_that_is_replaced_while_its_clone_is_destroyed(
    world: World, host: LocalHost, base: str, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]

    def replaced() -> None:
        disk.unlink()
        disk.write_bytes(b"of somebody else")

    before(monkeypatch, destroy, "delete_file", replaced)
    told = hint(HostError, lambda: host.destroy(name), "was replaced")
    assert str(disk) in typist(told)
    moved = disk.rename(disk.with_suffix(".theirs"))
    host.destroy(name)
    assert moved.read_bytes() == b"of somebody else"


@tries("destroy.changed_hands")
@pytest.mark.parametrize("gone", [False, True])
def test_a_clone_that_changes_hands_while_it_is_destroyed(
    world: World,
    host: LocalHost,
    base: str,
    opened: Host,
    away: Owner,
    typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
    gone: bool,
) -> None:
    name = world.name()
    host.clone(quick(name, base))

    def happens() -> None:
        handle = opened.domain(name)
        if gone:
            handle.undefine(False)
        else:
            handle.save_record(replace(record_of(opened, name), worker=away))

    before(monkeypatch, destroy, "delete_all", happens)
    told = hint(KvmCloneError, lambda: host.destroy(name))
    assert (name in typist(told)) is not gone


@tries("record_store.current")
def test_a_clone_that_is_removed_while_it_is_worked_on(
    world: World, host: LocalHost, base: str, connected: Host, typist: Typist
) -> None:
    name, other = world.name(), world.name("other")
    for one in (name, other):
        host.clone(quick(one, base))
    handle, seen = connected.domain(name), record_of(connected, name)
    host.destroy(name)
    printed = typist(hint(NotFound, lambda: record_store.current(handle, seen)))
    assert other in printed
    assert name not in printed


# --- guests -------------------------------------------------------------------------------------


@tries("wait_for_address._Wait._timeout", "hints.Commands.terminal", "silent_agent.check_agent")
@pytest.mark.guest
def test_a_guest_without_an_address(world: World, host: LocalHost, typist: Typist) -> None:
    base = world.base(options="tiny.nodhcp")
    request = quick(world.name(), base, pick=AddressPick(family="ipv4"), wait=Wait(timeout=3))
    host.clone(request)
    host.boot(request.name)
    told = hint(AddressTimeout, lambda: host.wait_for_address(request))
    typist.console(told, "virsh ")
    typist(told, "salt kvm01 kvm_clone.addresses", "salt-call kvm_clone.addresses")


@tries("wait_for_address._stopped", "silent_agent.watch_boot")
@pytest.mark.guest
@pytest.mark.parametrize("crashes", [False, True])
def test_a_guest_that_stops_while_its_address_is_awaited(
    world: World, host: LocalHost, typist: Typist, crashes: bool
) -> None:
    off = "tiny.nodhcp tiny.poweroff=3"
    base = panicking(world, on_crash="preserve") if crashes else world.base(options=off)
    request = quick(world.name(), base, wait=Wait(timeout=60))
    host.clone(request)
    host.boot(request.name)
    told = hint(GuestStopped, lambda: host.wait_for_address(request))
    # Until libvirt has taken its QEMU away a domain still counts as active.
    wait_until(lambda: crashes or world.state(request.name) == "shutoff", "its end", 30)
    typist.console(told, "virsh ")


@tries("bootstrap._Bootstrap._agent_connects", "silent_agent.watch_boot")
@pytest.mark.guest
@pytest.mark.parametrize("paused", [False, True])
def test_a_guest_that_stops_before_its_agent_answers(
    world: World, host: LocalHost, typist: Typist, paused: bool
) -> None:
    base = world.base(agent=True)
    request = quick(world.name(), base, deploy=Deploy(bootstrap="agent"))
    host.clone(request)
    host.boot(request.name)
    with connection() as conn:
        domain = conn.lookupByName(request.name)
        domain.suspend() if paused else domain.destroy()
    told = hint(GuestStopped, lambda: host.bootstrap(request, enrolment(request.name)))
    typist.console(told, "virsh ")


@tries("bootstrap_alone.alone")
@pytest.mark.guest
def test_a_clone_that_is_off_or_a_minion_already_is_not_bootstrapped(
    world: World, host: LocalHost, base: str, opened: Host, typist: Typist
) -> None:
    request = quick(world.name(), base)
    host.clone(request)
    told = hint(GuestStopped, lambda: host.bootstrap_alone(request, enrolment(request.name)))
    typist(told)
    assert world.state(request.name) == "running"
    handle, record = opened.domain(request.name), record_of(opened, request.name)
    handle.save_record(replace(record, stage="ready", goal="ready"))
    told = hint(KeyConflict, lambda: host.bootstrap_alone(request, enrolment(request.name)))
    typist(told)
    assert not world.exists(request.name)


# --- adjusting ----------------------------------------------------------------------------------


@tries("unchangeable.reasons")
def test_what_cannot_be_changed_is_made_again(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    (refused,) = host.adjust(quick(name, world.base("other")), dry=False).refused
    typist(refused)
    assert not world.exists(name)


@tries("pending_changes.sentence")
@pytest.mark.guest
def test_what_waits_for_the_next_start(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    request = quick(world.name(), base)
    host.clone(request)
    host.boot(request.name)
    host.wait_for_address(request)
    (note,) = host.adjust(replace(request, cpus=2), dry=False).notes
    typist(note)
    assert world.state(request.name) == "running"
    assert host.pending_changes(request.name)["changes"] == {}


@tries("adjust.compare")
@pytest.mark.guest
def test_what_a_saved_clone_starts_with(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    request = quick(world.name(), base)
    host.clone(request)
    host.boot(request.name)
    with connection() as conn:
        conn.lookupByName(request.name).managedSave()
    (note,) = host.adjust(replace(request, cpus=2), dry=False).notes
    typist(note)
    host.boot(request.name)
    assert host.pending_changes(request.name)["changes"] == {}


# --- protecting ---------------------------------------------------------------------------------


@tries("protect._require_regular", "protect._with_chains")
def test_a_base_whose_files_are_not_what_they_were(
    world: World, base: str, connected: Host, outside: Path, typist: Typist
) -> None:
    handle, missing = connected.domain(base), str(outside / f"{world.token}-missing")
    told = hint(PlanRefused, lambda: protect.check(connected, handle, [missing]))
    assert str(world.disks(base)[0]) in typist(told)
    broken = outside / f"{world.token}-broken.qcow2"
    broken.write_bytes(b"QFI\xfb\x00\x00\x00\x03" + b"\xff" * 600)
    told = hint(PlanRefused, lambda: protect.check(connected, handle, [str(broken)]), "not known")
    assert str(broken) in typist(told)


@tries("protect.unprotect")
def test_a_protection_that_is_lifted_where_the_files_are(
    world: World, base: str, typist: Typist, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = world.name()
    host.clone(quick(name, base, clone_strategy="full", protect=True))
    with monkeypatch.context() as patch:
        patch.setattr(Host, "local", property(lambda _self: False))
        told = hint(PlanRefused, lambda: host.unprotect(base))
    typist(told)
    assert world.disks(base)[0].stat().st_mode & 0o200
