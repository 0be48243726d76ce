"""Promises about a clone's record: a wait overwrites nothing that others wrote meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.errors import CreateInProgress, NotFound
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle import record_store, wait_for_address
from saltext.kvmclone.model.record import DESTROYING, Owner, Record
from saltext.kvmclone.plan.planner import PlannedDisk
from tests.support.world import CloneOf, World, full, quick


def _read(opened: Host, name: str) -> Record:
    record = opened.domain(name).record()
    assert record is not None
    return record


def _mark(name: str, host: LocalHost, worker: Owner) -> None:
    """Begin to destroy it, as somebody on another machine who was told to do it by force."""
    with Host(host.url) as opened:
        handle = opened.domain(name)
        handle.save_record(replace(_read(opened, name), stage=DESTROYING, worker=worker))


def test_what_others_wrote_meanwhile_stays(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base, tags=("old",))
    with Host(host.url) as opened:
        handle, seen = opened.domain(name), _read(opened, name)
        found = replace(seen, address="192.0.2.7", warnings=("slow",)).at("booted", booted=1.0)
        host.adjust(quick(name, base, tags=("new",)), dry=False)
        written = record_store.save(handle, seen, found)
    assert written == world.record(name)
    assert (written.tags, written.stage, written.warnings) == (("new",), "booted", ("slow",))
    assert written.address == "192.0.2.7"


def test_a_destroy_is_never_written_over(
    world: World, host: LocalHost, base: str, clone_of: CloneOf, away: Owner
) -> None:
    name = clone_of(base)
    with Host(host.url) as opened:
        handle, seen = opened.domain(name), _read(opened, name)
        _mark(name, host, away)
        marked = world.record(name)
        with pytest.raises(CreateInProgress) as refused:
            record_store.save(handle, seen, seen.at("booted"))
    assert "kvm99" in refused.value.message
    assert world.record(name) == marked


def test_a_clone_that_is_gone_is_told(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    with Host(host.url) as opened:
        handle, seen = opened.domain(name), _read(opened, name)
        host.destroy(name)
        with pytest.raises(NotFound):
            record_store.save(handle, seen, seen.at("booted"))
    assert not world.exists(name)


def test_a_create_leaves_its_clone_to_whoever_took_it(
    world: World, host: LocalHost, away: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, name = world.base(disks=2), world.name()
    real = volumes.create

    def create(opened: Host, disk: PlannedDisk, exists: Callable[[], None]) -> str:
        if disk.target == "vdb":
            _mark(name, host, away)
        return real(opened, disk, exists)

    monkeypatch.setattr(volumes, "create", create)
    with pytest.raises(CreateInProgress):
        host.clone(full(name, base))
    record = world.record(name)
    assert record is not None
    assert (record.stage, record.worker.token) == (DESTROYING, away.token)
    monkeypatch.undo()
    host.destroy(name, force=True)
    assert not world.exists(name)
    assert not list(world.lab.pool_path.glob(f"{name}-*"))


@pytest.mark.guest
@pytest.mark.parametrize("deed", ["adjust", "destroy"])
def test_what_happens_while_an_address_is_awaited_is_not_undone(
    world: World,
    host: LocalHost,
    base: str,
    clone_of: CloneOf,
    monkeypatch: pytest.MonkeyPatch,
    deed: str,
) -> None:
    before = world.footprint()
    name = clone_of(base)
    host.boot(name)
    real = wait_for_address.arrive

    def arrive(*args: Any, **keys: Any) -> wait_for_address.Arrival:
        found = real(*args, **keys)
        if deed == "adjust":
            LocalHost(host.url).adjust(quick(name, base, tags=("meanwhile",)), dry=False)
        else:
            LocalHost(host.url).destroy(name)
        return found

    monkeypatch.setattr(wait_for_address, "arrive", arrive)
    request = quick(name, base, reset_identity=False)
    if deed == "destroy":
        with pytest.raises(NotFound):
            host.wait_for_address(request)
        assert world.footprint() == before
        return
    clone = host.wait_for_address(request)
    record = world.record(name)
    assert record is not None
    assert (record.stage, record.tags) == ("addressed", ("meanwhile",))
    assert record.address == clone.address != ""
