"""
Every refusal has a way out that works: what its hint says is typed, word for word, in the state in
which it was given, and then what was refused is possible.

``tests/unit/test_hints.py`` holds that no hint of the library is forgotten.
"""

from __future__ import annotations

from pathlib import Path

import libvirt
import pytest

from lab.lab import connection
from saltext.kvmclone.errors import (
    AlreadyExists,
    CloneInUse,
    ConfigError,
    DamagedRecord,
    ForeignDomain,
    HostError,
    NotFound,
    OutOfReach,
    Renamed,
)
from saltext.kvmclone.hosts import gc, provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.record import Minion
from saltext.kvmclone.model.record_xml import NAMESPACE
from tests.functional.lifecycle.test_adopt import old_clone
from tests.support.hints import Typist, commands, tries
from tests.support.refusals import Change, both, refusal
from tests.support.storage import storage_pool
from tests.support.world import World, quick

pytestmark = pytest.mark.slow


# --- a destroy that is refused ------------------------------------------------------------------


@both
@tries("destroy_foreign._judge", "hints.Commands.on_host")
def test_a_foreign_machine(world: World, host: LocalHost, base: str, typist: Typist) -> None:
    hint = refusal(ForeignDomain, lambda: host.destroy(base))
    disk = world.disks(base)[0]
    typist(hint, "force=True")
    assert not world.exists(base)
    assert disk.exists()


@tries("destroy_foreign._judge", "adopt.adopt")
def test_a_clone_of_the_old_driver(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    old = old_clone(world, base)
    hint = refusal(ForeignDomain, lambda: host.destroy(old))
    typist(hint, *[one for one in commands(hint) if "adopt" in one])
    typist(refusal(AlreadyExists, lambda: host.adopt(old)))
    host.destroy(old)
    foreign = world.base("foreign")
    hint = refusal(ForeignDomain, lambda: host.adopt(foreign))
    typist(hint.replace("base_domain=BASE", f"base_domain={base}"))


@both
@tries(
    "destroy._require_definition", "destroy_foreign._keeps", "hints.Commands.redefine",
    "hints.Commands.line",
)  # fmt: skip
@pytest.mark.guest
def test_a_clone_that_was_undefined_while_it_runs(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    host.boot(name)
    with connection() as conn:
        conn.lookupByName(name).undefine()
    typist(refusal(HostError, lambda: host.destroy(name)))
    host.destroy(name)
    assert not disk.exists()


@both
@tries("out_of_reach.refusal", "out_of_reach._way_to")
@pytest.mark.parametrize("lost", [False, True])
def test_a_disk_that_is_out_of_reach(
    world: World, host: LocalHost, base: str, outside: Path, typist: Typist, lost: bool
) -> None:
    name, folder = world.name(), outside / f"pool-{world.token}"
    with storage_pool(folder.name, folder):
        host.clone(quick(name, base, pool=folder.name))
        disk = world.disks(name)[0]
        away = folder.rename(folder.with_name(f"away-{world.token}"))
        hint = refusal(OutOfReach, lambda: host.destroy(name))
        if lost:
            typist(hint, "force=True")
            assert not world.exists(name)
        away.rename(folder)
        assert disk.exists()
        if not lost:
            typist(hint, "ls ")
            host.destroy(name)
            assert not disk.exists()


@tries("domain.DomainHandle._record")
def test_a_record_that_cannot_be_read(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    disk = world.disks(name)[0]
    with connection() as conn:
        domain = conn.lookupByName(name)
        element = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
        broken = element.replace('created="', 'created="soon')
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, broken, "kvmclone", NAMESPACE, 2)
    typist(refusal(DamagedRecord, lambda: host.destroy(name)))
    typist(refusal(ForeignDomain, lambda: host.destroy(name)), "force=True")
    assert not world.exists(name)
    assert disk.exists()


@both
@tries("snapshots.in_the_way")
def test_a_protected_base_that_others_stand_on(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name, kid = world.name(), world.name("kid")
    host.clone(quick(name, base, protect=True))
    host.clone(quick(kid, name))
    over = world.disks(base)[0].with_name(f"over-{world.token}.qcow2")
    world.overlay(world.disks(base)[0], over)
    typist(refusal(CloneInUse, lambda: host.unprotect(base)))
    assert not world.exists(kid)
    assert not world.exists(name)
    typist(refusal(CloneInUse, lambda: host.unprotect(base)), "rm ")
    host.unprotect(base)


# --- what is not there --------------------------------------------------------------------------


@both
@tries("host.Host.domain", "record_store.clone_record", "hints.Commands.virsh")
def test_what_is_not_there_or_not_ours(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    assert base in typist(refusal(NotFound, lambda: host.show(name)))
    assert base in typist(refusal(ForeignDomain, lambda: host.show(base)))


@tries("domain.DomainHandle.start", "doctor._Examination._files")
def test_a_clone_that_cannot_start(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    """What it lacks is told by the doctor, with what to do."""
    name = world.name()
    host.clone(quick(name, base))
    world.disks(name)[0].unlink()
    (command,) = commands(refusal(HostError, lambda: host.boot(name)))
    assert "doctor" in command
    (found,) = [one for one in host.doctor() if one["name"] == name]
    typist(found["hint"])
    assert not world.exists(name)


@tries("gc.require_not_renamed")
def test_a_clone_that_was_renamed(
    world: World, host: LocalHost, base: str, change: Change, typist: Typist
) -> None:
    name, now = world.name(), world.name("now")
    host.clone(quick(name, base))
    change(name, minion=Minion(id=name), goal="cloned")
    with connection() as conn:
        conn.lookupByName(name).rename(now)
    hint = refusal(Renamed, lambda: gc.require_not_renamed(name, [], [host.list_clones()]))
    assert now in typist(hint)


@tries("provision.resume")
def test_nothing_to_resume(world: World, host: LocalHost, base: str, typist: Typist) -> None:
    name = world.name()
    host.clone(quick(name, base))

    def nothing(_item: object) -> object:
        raise AssertionError

    hint = refusal(ConfigError, lambda: provision.resume(host, name, nothing))  # type: ignore[arg-type]
    assert name in typist(hint)
