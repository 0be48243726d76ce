"""What hints about bases say is typed in the state in which they are given."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import libvirt
import pytest
import salt.config

from lab.common import LIBVIRT_URI, wait_until
from lab.lab import connection
from saltext.kvmclone.errors import (
    CloneInUse,
    CommandFailed,
    ConfigError,
    HostError,
    HostUnreachable,
    KvmCloneError,
    PlanRefused,
)
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle import destroy, finish_base, promote
from saltext.kvmclone.master import bases
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.hints import AT_HOST, AT_MASTER
from tests.functional.lifecycle.test_finish_base import MADE, begun
from tests.functional.lifecycle.test_promote import killed, quiet
from tests.support import hint_readers
from tests.support.debian_guests import PAIR
from tests.support.hints import Typist, hint, tries
from tests.support.world import CloneOf, World

pytestmark = pytest.mark.slow

__all__ = ["begun", "quiet"]

host = hint_readers.host


@pytest.fixture
def clone(world: World, clone_of: CloneOf) -> str:
    """A clone that is off and has the channel of a guest agent."""
    return clone_of(world.base(agent=True))


@tries("promote._require_agent")
@pytest.mark.parametrize("host", [AT_HOST], indirect=True)
def test_a_clone_without_an_agent(
    world: World, host: LocalHost, clone_of: CloneOf, typist: Typist
) -> None:
    mute = clone_of(world.base())
    typist(hint(PlanRefused, lambda: host.promote(mute, "golden"), "no channel"))
    assert world.state(mute) == "running"


@tries("promote._require_off")
@pytest.mark.parametrize("host", [AT_MASTER], indirect=True)
def test_a_clone_that_runs_or_is_saved(
    world: World, host: LocalHost, clone: str, typist: Typist, quiet: None
) -> None:
    base = world.name("golden")
    with connection() as conn:
        conn.lookupByName(clone).create()
        conn.lookupByName(clone).managedSave()
    typist(hint(PlanRefused, lambda: host.promote(clone, base), "saved memory"))
    with connection() as conn:
        conn.lookupByName(clone).create()
    typist(hint(PlanRefused, lambda: host.promote(clone, base), "is running"))

    def is_off() -> bool:
        # A guest that has just booted may not have heard it, so it is told again.
        with connection() as conn, contextlib.suppress(libvirt.libvirtError):
            conn.lookupByName(clone).shutdown()
        return world.state(clone) == "shutoff"

    wait_until(is_off, "the clone to shut off", 120, interval=3)
    host.promote(clone, base)


@tries("promote._finished_clone")
def test_a_base_that_is_to_be_promoted(
    world: World, host: LocalHost, clone: str, typist: Typist, clone_of: CloneOf, quiet: None
) -> None:
    host.promote(clone, base := world.name("golden"))
    clone_of(base, "next")
    told = typist(hint(PlanRefused, lambda: host.promote(base, "other"), "is a base already"))
    assert f'"source": "{clone}"' in told


@tries("promote._require_untouched")
def test_a_clone_that_is_started_meanwhile(
    world: World, host: LocalHost, opened: Host, clone: str, typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def meanwhile(handle: Any, *_args: Any) -> tuple[str, ...]:
        handle.power_off()
        opened.domain(clone).start()
        return ()

    monkeypatch.setattr(finish_base, "clean_and_shut_off", meanwhile)
    told = hint(PlanRefused, lambda: host.promote(clone, f"golden-{world.token}"), "running now")
    assert clone in typist(told)


@tries("promote._destroy")
def test_a_clone_that_cannot_be_destroyed_at_the_end(
    world: World, host: LocalHost, clone: str, typist: Typist, clone_of: CloneOf, quiet: None
) -> None:
    base = world.name("golden")
    killed(host, clone, base, promote, "_destroy")
    above = clone_of(clone, "above")
    told = hint(CloneInUse, lambda: host.promote(clone, base), "is a base now")
    host.destroy(above)
    typist(told, "salt-run kvmclone.promote", "salt-call kvm_clone.promote")
    assert (world.exists(clone), world.exists(base)) == (False, True)


@tries("promote._destroy")
def test_a_clone_that_was_used_since_is_destroyed_where_it_is_not_needed(
    world: World, host: LocalHost, clone: str, typist: Typist, quiet: None
) -> None:
    base = world.name("golden")
    killed(host, clone, base, promote, "_destroy")
    os.utime(world.disks(clone)[0])
    told = hint(PlanRefused, lambda: host.promote(clone, base), "is a base now")
    assert "promote" not in told
    typist(told, "salt-run kvmclone.destroy", "salt-call kvm_clone.destroy")
    assert (world.exists(clone), world.exists(base)) == (False, True)


@tries("journal.undo_stored")
def test_what_cannot_be_taken_back(
    world: World, host: LocalHost, clone: str, typist: Typist, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: Any) -> None:
        raise CommandFailed("it does not work", "Mend it.")

    base = world.name("golden")
    with monkeypatch.context() as patched:
        patched.setattr(finish_base, "clean_and_shut_off", fails)
        patched.setattr(destroy, "delete_file", fails)
        told = hint(CommandFailed, lambda: host.promote(clone, base), "does not work")
    assert base in typist(told, "salt-run kvmclone.gc", "salt-call kvm_clone.gc")


@tries("provision._require_clone")
def test_what_is_left_of_a_base_is_not_resumed(
    world: World, host: LocalHost, clone: str, typist: Typist, quiet: None
) -> None:
    base = world.name("golden")
    killed(host, clone, base, finish_base, "clean_and_shut_off")
    nobody: Any = None
    typist(hint(ConfigError, lambda: provision.resume(host, base, nobody), "made into a base"))
    assert not world.exists(base)


@tries("finish_base.delete_files")
def test_a_file_that_a_base_cannot_go_without(
    world: World, opened: Host, begun: Any, typist: Typist
) -> None:
    handle, record = begun(world.base(disks=2))
    second = world.disks(handle.name)[1]
    world.attach(world.base("other"), second, "vdx")
    told = hint(
        HostError,
        lambda: finish_base.finish(opened, handle, record, MADE, without=("vdb",)),
        "does not become a base",
    )
    assert str(second) in typist(told)


@tries("bases._destroy")
def test_a_clone_that_is_gone_and_has_left_its_key(
    world: World, typist: Typist, tmp_path: Path
) -> None:
    name = world.name("gone")
    opts = salt.config.master_config(str(tmp_path / "master.d/master"))
    fleet = Fleet(opts, lambda *_args: None)
    fleet.keys.accept(name, PAIR.public, name, LIBVIRT_URI)

    def work() -> None:
        error = bases.promote(fleet, name, "golden")["bases"]["golden"]["error"]
        raise KvmCloneError(error["message"], error["hint"])

    typist(hint(KvmCloneError, work, "no clone"), "salt-run kvmclone.destroy")
    assert fleet.keys.accepted(name) == ""


@tries("bases.promote")
def test_a_promote_that_was_finished_although_its_answer_was_lost(
    world: World, host: LocalHost, clone: str, typist: Typist, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    opts = salt.config.master_config(str(tmp_path / "master.d/master"))
    fleet = Fleet(opts, lambda *_args: None)
    found = (host, host.show(clone))

    def lost(*_args: Any) -> Any:
        host.destroy(clone)
        raise HostUnreachable("The answer was lost.")

    monkeypatch.setattr(fleet, "find", lambda _name: found)
    monkeypatch.setattr(host, "promote", lost)
    error = bases.promote(fleet, clone, "golden")["bases"]["golden"]["error"]
    assert "its key removed" in error["message"]
    assert "tree" in error["hint"]
    typist(error["hint"])
