"""Promises about a KVM host that the master reaches by jobs: it is the same host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.errors import (
    AlreadyExists,
    CreateInProgress,
    ForeignDomain,
    NotFound,
    OtherVersion,
)
from saltext.kvmclone.hosts import provision, remote_server
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.operations import OPERATIONS, VERSION
from saltext.kvmclone.model.record import Owner
from saltext.kvmclone.model.request import Secrets
from tests.support.wire import Wire
from tests.support.world import World, quick


@pytest.fixture
def wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(tmp_path, monkeypatch)


def test_a_host_tells_the_master_what_it_tells_here(
    world: World, host: LocalHost, wire: Wire, base: str
) -> None:
    request = quick(world.name(), base, tags=("one",), cpus=1)
    assert wire.plan(request)["disks"] == host.plan(request)["disks"]
    made = wire.clone(request)
    shown = host.show(request.name)
    assert replace(made, timings={}) == replace(shown, timings={}), "a record rounds them"
    assert wire.show(request.name) == shown
    assert shown in wire.list_clones()
    assert wire.unfinished(request.name) == host.unfinished(request.name)
    names = [request.name]
    assert wire.report_domains(names, []) == host.report_domains(names, [])
    assert [clone.uuid for clone in wire.report_domains(names, []).clones] == [made.uuid]
    for name in ("daemon", "tree", "bases", "doctor"):
        assert getattr(wire, name)() == getattr(host, name)(), name
    assert set(wire.capacity()) == set(host.capacity())
    with pytest.raises(ForeignDomain):
        wire.destroy(base)
    with pytest.raises(AlreadyExists) as caught:
        wire.clone(request)
    assert caught.value.clone == shown.as_dict()
    gone = wire.destroy(request.name)
    assert (gone.uuid, gone.stage) == (made.uuid, "destroying")
    with pytest.raises(NotFound):
        wire.show(request.name)


def test_whoever_makes_a_clone_is_told_over_the_wire_and_what_it_left_is_removed(
    world: World, host: LocalHost, wire: Wire, base: str
) -> None:
    name = world.name()
    away = Owner("kvm99", "boot/1", 7, 8, "token", "machine")
    host.clone(quick(name, base), away, "addressed")
    with pytest.raises(CreateInProgress) as caught:
        wire.destroy(name)
    assert caught.value.work is not None
    assert caught.value.work["worker"]["token"] == "token"
    (item,) = wire.unfinished(name)
    assert item == host.unfinished(name)[0]
    rows = wire.clear(name, "token")
    assert {row.kind for row in rows} == {"domain", "volume"}
    assert all(row.removed for row in rows)
    assert not world.exists(name)


@pytest.mark.guest
def test_a_create_that_an_upgrade_of_the_host_cut_short_is_gone_on_with(
    world: World, wire: Wire, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = quick(world.name(), base, profile="web")

    def upgrade(operation: str) -> None:
        if operation == OPERATIONS["wait_for_address"].wire_name:
            monkeypatch.setattr(remote_server, "VERSION", VERSION + 1)

    wire.before = upgrade
    cut = provision.create(wire, request)
    assert isinstance(cut.error, OtherVersion)
    assert "salt-run saltutil.sync_all" in cut.error.hint
    assert f"salt-run kvmclone.resume {request.name}" in cut.error.hint
    assert world.state(request.name) == "running"
    assert not any('"destroy@' in asked for asked in wire.published)

    monkeypatch.setattr(remote_server, "VERSION", VERSION)
    wire.before = lambda _operation: None
    resumed: Any = provision.resume(wire, request.name, lambda _item: (request, Secrets()))
    assert resumed.error is None, resumed.error
    assert resumed.stage == "addressed"
    assert resumed.clone.address
    wire.destroy(request.name)
