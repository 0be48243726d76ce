"""Promises about a clone that somebody renamed with ``virsh domrename``."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import salt.config

from lab.common import LIBVIRT_URI
from lab.lab import connection
from saltext.kvmclone.errors import NotFound, PlanRefused, Renamed
from saltext.kvmclone.hosts import gc, provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import doctor
from saltext.kvmclone.master import keys
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.record import Minion, Owner
from saltext.kvmclone.reactor.intake import expect_highstate
from saltext.kvmclone.system import processes
from tests.support.world import CloneOf, World, full, quick

pytestmark = pytest.mark.slow


def rename(world: World, name: str, word: str = "renamed") -> str:
    now = world.name(word)
    subprocess.run(
        ["virsh", "-c", LIBVIRT_URI, "domrename", name, now], check=True, capture_output=True
    )
    return now


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_it_is_destroyed_whole_under_its_new_name(
    world: World, host: LocalHost, strategy: str
) -> None:
    base = world.base(disks=2, uefi=True)
    before = world.footprint()
    name = world.name()
    host.clone(quick(name, base, clone_strategy=strategy))
    now = rename(world, name)
    gone = host.destroy(now)
    assert world.footprint() == before
    assert not [word for word in gone.warnings if "stays" in word]


def test_it_is_shown_and_listed_with_the_name_that_its_files_have(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    now = rename(world, name)
    shown = host.show(now)
    assert shown.name == now
    assert any(f"made as '{name}'" in word for word in shown.warnings)
    assert now in [clone.name for clone in host.list_clones()]
    with Host(host.url) as opened:
        assert [one for one in doctor.examine(opened) if world.token in f"{one}"] == []
    branch = host.tree()["bases"][base]["clones"]
    assert list(branch) == [now]


def test_its_old_name_leads_to_its_new_one(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    name = clone_of(base)
    now = rename(world, name)
    for ask in (host.show, host.destroy):
        with pytest.raises(NotFound, match=f"now called '{now}'"):
            ask(name)
    assert world.disks(now)[0].exists()


def test_a_new_clone_of_the_old_name_is_refused_and_nobody_is_told_to_delete_the_disk(
    world: World, host: LocalHost, clone_of: CloneOf
) -> None:
    base = world.base(uefi=True)
    name = clone_of(base)
    now = rename(world, name)
    with pytest.raises(PlanRefused) as info:
        host.clone(full(name, base))
    assert f"belongs to '{now}'" in info.value.message
    assert "vol-delete" not in str(info.value)
    assert "move it away" not in str(info.value)
    assert world.disks(now)[0].exists()


def test_what_a_dead_worker_left_is_collected_under_the_new_name(
    world: World,
    host: LocalHost,
    dead: Owner,
) -> None:
    base = world.base(disks=2)
    before = world.footprint()
    name = world.name()
    host.clone(quick(name, base), dead, "addressed")
    now = rename(world, name)
    assert gc.collect(host, name) == []
    listed = gc.collect(host, now)
    assert [item.kind for item in listed] == ["domain", "volume", "volume"]
    assert all(item.removed for item in gc.collect(host, now, apply=True))
    assert world.footprint() == before


@pytest.mark.guest
def test_a_create_that_was_kept_goes_on_under_the_new_name(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name()
    worker = processes.this_process()
    host.clone(quick(name, base), worker, "addressed")
    host.keep(name, worker.token, "AddressTimeout: none came", off=True)
    now = rename(world, name)
    with Host(host.url) as opened:
        request = quick(now, base)
        assert opened.domain(now).record() is not None
    outcome = provision.resume(host, now, lambda item: (request, provision.Secrets()))
    assert outcome.error is None, outcome.error
    assert outcome.clone is not None
    assert outcome.clone.address
    host.destroy(now)


def test_a_clone_of_a_renamed_clone_stands_on_it(
    world: World, host: LocalHost, base: str, clone_of: CloneOf
) -> None:
    first = clone_of(base, "first")
    second = clone_of(first, "second")
    now = rename(world, first)
    assert list(host.tree()["bases"][base]["clones"][now]["clones"]) == [second]
    assert host.show(second).drift is False
    with connection() as conn:
        assert first not in [domain.name() for domain in conn.listAllDomains()]


def test_the_key_of_its_minion_is_not_taken_for_one_that_was_left(
    world: World, host: LocalHost, base: str, clone_of: CloneOf, tmp_path: Path
) -> None:
    """A clone that is gone may have left its key, which goes; this one is not gone."""
    fleet = master_here(tmp_path)
    public = keys.generate(2048).public
    name = clone_of(base)
    fleet.keys.accept(name, public, name)
    with Host(host.url) as opened:
        handle = opened.domain(name)
        record = handle.record()
        assert record is not None
        minion = Minion(name, "3008", fleet.keys.fingerprint(public))
        handle.save_record(replace(record, minion=minion))
    now = rename(world, name)
    outcome = fleet.destroy(name)
    assert isinstance(outcome.error, Renamed)
    assert f"'{now}' is the minion '{name}'" in outcome.error.message
    assert fleet.keys.accepted(name)
    assert fleet.destroy(now).error is None
    assert not fleet.keys.accepted(name)
    assert not world.exists(now)


def master_here(folder: Path) -> Fleet:
    """A master with this host in its configuration, and keys of its own."""
    config = {
        "root_dir": str(folder),
        "pki_dir": str(folder / "pki"),
        "cachedir": str(folder / "cache"),
        "sock_dir": str(folder / "sock"),
        "conf_file": str(folder / "master"),
        "user": "root",
        "kvm_clone": {"providers": {"here": {"driver": "libvirt", "url": LIBVIRT_URI}}},
    }
    (folder / "master").write_text(json.dumps(config))
    (folder / "sock").mkdir()
    opts = salt.config.master_config(str(folder / "master"))
    return Fleet(opts, expect_highstate)
