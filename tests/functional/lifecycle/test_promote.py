"""Promises about a clone that becomes a base: the one or the other is whole, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError

from lab.lab import connection
from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    AlreadyExists,
    CloneInUse,
    CommandFailed,
    ConfigError,
    CreateInProgress,
    ForeignDomain,
    Interrupted,
    InvalidName,
    KeptAfterFailure,
    KvmCloneError,
    NotFound,
    PlanRefused,
)
from saltext.kvmclone.hosts import gc, make_base, provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import silent_agent
from saltext.kvmclone.inventory.base_source import base_record
from saltext.kvmclone.lifecycle import destroy, finish_base, promote, protect
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.record import DESTROYING
from saltext.kvmclone.system import processes
from tests.support.forks import forked
from tests.support.world import CloneOf, Salt, World, quick, same_content


@pytest.fixture
def clone(world: World, clone_of: CloneOf) -> str:
    """A clone that is off and has the channel of a guest agent."""
    # Without a network it would ask for an address for a while, before it hears a power button.
    return clone_of(world.base(agent=True, options="tiny.nodhcp"))


@pytest.fixture
def obliging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests that need no cleaning; the tiny one has no agent, but it boots and shuts down."""
    monkeypatch.setattr(finish_base, "await_agent", lambda *_args: None)
    monkeypatch.setattr(finish_base.base_cleaning, "clean", lambda *_args: ())
    monkeypatch.setattr(finish_base, "_ASK_AGAIN_S", 1.0)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests that are off as soon as they were to be cleaned."""
    monkeypatch.setattr(
        promote.finish_base, "clean_and_shut_off", lambda handle, *_args: handle.power_off() or ()
    )


def files(world: World) -> set[str]:
    return {path.name for path in world.lab.pool_path.glob(f"*{world.token}*")}


# --- what becomes of a clone --------------------------------------------------------------------


def test_the_base_has_the_content_of_the_clone_and_the_clone_is_gone(
    world: World, host: LocalHost, opened: Host, clone: str, obliging: None
) -> None:
    (overlay,) = world.disks(clone)
    copy = overlay.with_name(f"copy-{world.token}.qcow2")
    copy.write_bytes(overlay.read_bytes())
    uuid = opened.domain(clone).uuid
    base = world.name("golden")
    told = host.promote(clone, base)
    assert not world.exists(clone)
    assert not overlay.exists()
    (disk,) = world.disks(base)
    assert same_content(copy, disk)
    assert told == {
        "name": base,
        "host": "kvm01",
        "source": clone,
        "protected": True,
        "disks": [{"target": "vda", "path": str(disk), "format": "qcow2"}],
        "promoted": clone,
        "warnings": [],
    }
    made = base_record(opened.domain(base))
    assert made is not None and (made.source, made.from_uuid) == (clone, uuid)


def test_the_base_is_another_machine_and_an_ordinary_base(
    world: World, host: LocalHost, clone: str, quiet: None
) -> None:
    before = world.xml(clone)
    base = world.name("golden")
    host.promote(clone, base)
    after = world.xml(base)
    for path in ("uuid", "./devices/interface/mac"):
        one, other = before.find(path), after.find(path)
        assert one is not None and other is not None
        assert (one.text, one.attrib) != (other.text, other.attrib)
    assert after.find("./devices/interface/link") is None
    assert [entry["name"] for entry in host.bases() if entry["name"] == base] == [base]
    name = world.name("next")
    host.clone(quick(name, base))
    tree = host.tree()["bases"][base]
    assert list(tree["clones"]) == [name]
    assert tree["source"] == clone


def test_a_link_that_is_down_stays_down(
    world: World, host: LocalHost, clone: str, quiet: None
) -> None:
    xml = world.secure_xml(clone).replace("</interface>", "<link state='down'/></interface>")
    with connection() as conn:
        conn.defineXML(xml)
    base = world.name("golden")
    host.promote(clone, base)
    link = world.xml(base).find("./devices/interface/link")
    assert link is not None and link.get("state") == "down"


# --- what is refused ----------------------------------------------------------------------------


@pytest.fixture
def refused(world: World, host: LocalHost) -> Callable[..., str]:
    """Has a promote refused, sees that nothing changed, and returns the error's text."""

    def run(error: type[KvmCloneError], name: str, base: str = "") -> str:
        base = base or f"golden-{world.token}"
        before = world.footprint()
        with pytest.raises(error) as caught:
            host.promote(name, base)
        assert caught.value.type == error.__name__
        assert caught.value.hint
        assert world.footprint() == before
        return str(caught.value)

    return run


def test_what_is_no_clone_of_ours_is_refused(
    world: World, base: str, refused: Callable[..., str]
) -> None:
    assert "not made by kvm_clone" in refused(ForeignDomain, base)
    refused(NotFound, world.name("nobody"))


def test_a_base_is_refused(
    world: World, host: LocalHost, clone: str, quiet: None, refused: Callable[..., str]
) -> None:
    base = world.name("golden")
    host.promote(clone, base)
    assert f"is a base already, made from '{clone}'" in refused(PlanRefused, base, "other")


def test_a_name_that_is_taken_or_none_is_refused(
    world: World, host: LocalHost, clone: str, clone_of: CloneOf, quiet: None,
    refused: Callable[..., str],
) -> None:  # fmt: skip
    second = clone_of(world.base("second", agent=True), "other")
    host.promote(second, golden := world.name("golden"))
    assert "is a base already" in refused(AlreadyExists, clone, golden)
    assert "not made by kvm_clone" in refused(AlreadyExists, clone, world.base("foreign"))
    refused(AlreadyExists, clone, clone_of(world.base("third"), "third-clone"))
    refused(InvalidName, clone, "a_base")
    refused(ConfigError, clone, clone)


def test_a_clone_that_runs_is_refused_and_the_hint_shuts_it_off(
    host: LocalHost, clone: str, opened: Host, refused: Callable[..., str]
) -> None:
    opened.domain(clone).start()
    assert "shutdown" in refused(PlanRefused, clone)


def test_a_clone_without_a_guest_agent_is_refused(
    world: World, opened: Host, clone: str, clone_of: CloneOf, refused: Callable[..., str]
) -> None:
    assert "no channel" in refused(PlanRefused, clone_of(world.base("plain"), "mute"))
    handle = opened.domain(clone)
    record = handle.record()
    assert record is not None
    handle.save_record(replace(record, agent=silent_agent.SILENT))
    assert "did not answer" in refused(PlanRefused, clone)


def test_a_clone_that_is_not_finished_is_refused(
    opened: Host, clone: str, refused: Callable[..., str]
) -> None:
    handle = opened.domain(clone)
    record = handle.record()
    assert record is not None
    handle.save_record(replace(record, goal="ready"))
    refused(CreateInProgress, clone)
    handle.save_record(replace(record, failed="the guest has no address"))
    refused(KeptAfterFailure, clone)


def test_a_clone_that_something_stands_on_is_refused(
    clone: str, clone_of: CloneOf, refused: Callable[..., str]
) -> None:
    above = clone_of(clone, "above")
    assert above in refused(CloneInUse, clone)


def test_a_host_whose_files_are_elsewhere_is_refused(
    far_host: LocalHost, clone: str, refused: Callable[..., str]
) -> None:
    assert "'host:'" in refused(PlanRefused, clone)


# --- what fails ---------------------------------------------------------------------------------


def test_a_pool_without_room_refuses_it_beforehand(
    clone: str, small_pool: str, world: World, host: LocalHost, clone_of: CloneOf,
    refused: Callable[..., str],
) -> None:  # fmt: skip
    raw = clone_of(world.base("big", fmt="raw", size="200M", agent=True), "wide", pool=small_pool)
    path = world.disks(raw)[0]
    words = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 9M", str(path)]
    subprocess.run(words, check=True, capture_output=True)
    assert "pool" in refused(PlanRefused, raw)


@pytest.mark.parametrize("place", ["clean", "finish"])
def test_a_failure_takes_the_base_back_and_leaves_the_clone(
    world: World, host: LocalHost, clone: str, place: str, quiet: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fails(*_args: Any) -> None:
        raise CommandFailed("machine_id: it cannot be written", "Look.")

    target = "clean_and_shut_off" if place == "clean" else "_as_base"
    monkeypatch.setattr(finish_base, target, fails)
    before = world.footprint()
    with pytest.raises(CommandFailed, match="machine_id"):
        host.promote(clone, f"golden-{world.token}")
    assert world.footprint() == before


def test_an_interrupt_takes_the_base_back_and_leaves_the_clone(
    world: World, host: LocalHost, clone: str, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_args: Any) -> None:
        raise interrupts.Interrupt

    monkeypatch.setattr(finish_base, "clean_and_shut_off", interrupted)
    before = world.footprint()
    with pytest.raises(Interrupted, match=r"was interrupted\. Nothing of it is left\."):
        make_base.promote(host, clone, f"golden-{world.token}")
    assert world.footprint() == before


def test_a_host_whose_master_was_interrupted_stops_and_leaves_the_clone(
    world: World, host: LocalHost, clone: str, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, worker = f"golden-{world.token}", processes.this_process()

    def cleared(*_args: Any) -> tuple[str, ...]:
        host.clear(base, worker.token)
        return ()

    monkeypatch.setattr(finish_base, "clean_and_shut_off", cleared)
    before = world.footprint()
    with pytest.raises(KvmCloneError) as caught:
        host.promote(clone, base, worker)
    assert "left" not in caught.value.hint
    assert world.footprint() == before


def test_a_clone_that_was_started_meanwhile_stays_and_the_base_goes(
    world: World, host: LocalHost, opened: Host, clone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(handle: Any, *_args: Any) -> tuple[str, ...]:
        handle.power_off()
        opened.domain(clone).start()
        return ()

    monkeypatch.setattr(finish_base, "clean_and_shut_off", meanwhile)
    with pytest.raises(PlanRefused, match="running now"):
        host.promote(clone, f"golden-{world.token}")
    assert not world.exists(f"golden-{world.token}")
    assert world.state(clone) == "running"


def test_a_guest_that_is_switched_off_makes_no_base(
    world: World, host: LocalHost, clone: str, obliging: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DomainHandle, "shut_down", lambda handle: handle.power_off())
    before = world.footprint()
    with pytest.raises(KvmCloneError, match="somebody stopped it"):
        host.promote(clone, f"golden-{world.token}")
    assert world.footprint() == before


# --- what a kill leaves -------------------------------------------------------------------------


def killed(host: LocalHost, name: str, base: str, where: Any, function: str) -> None:
    """Promote in a process of its own, which dies as it calls a function."""

    def dies() -> None:
        setattr(where, function, lambda *_args, **_keys: os.kill(os.getpid(), signal.SIGKILL))
        host.promote(name, base)

    assert os.WIFSIGNALED(forked(dies)), f"it never called {function}"


@pytest.mark.parametrize(
    ("where", "function"),
    [
        (volumes, "_convert"),
        (volumes, "create"),
        (finish_base, "clean_and_shut_off"),
        (promote, "_require_untouched"),
        (protect, "_change"),
        (finish_base, "_as_base"),
    ],
)
def test_killed_before_the_base_is_finished_the_clone_is_untouched_and_gc_removes_the_rest(
    world: World, host: LocalHost, clone: str, quiet: None, where: Any, function: str
) -> None:
    base = world.name("golden")
    before = world.footprint()
    killed(host, clone, base, where, function)
    assert world.exists(base)
    with pytest.raises(CreateInProgress) as caught:
        host.promote(clone, base)
    assert "kvmclone.gc" in caught.value.hint
    with pytest.raises(ConfigError, match="made into a base") as refused:
        provision.resume(host, base, lambda _item: pytest.fail("it is no clone"))
    assert f"gc {base} apply=True" in refused.value.hint
    removed = gc.collect(host, base, apply=True)
    assert {row.kind for row in removed} <= {"domain", "volume"}
    assert world.footprint() == before


@pytest.mark.parametrize(
    ("where", "function"),
    [(promote, "_destroy"), (destroy, "delete_file"), (DomainHandle, "undefine")],
)
def test_killed_after_that_the_same_command_goes_on(
    world: World, host: LocalHost, opened: Host, clone: str, quiet: None, where: Any, function: str
) -> None:
    base = world.name("golden")
    (overlay,) = world.disks(clone)
    killed(host, clone, base, where, function)
    assert opened.domain(base).record() is None
    told = host.promote(clone, base)
    assert (told["name"], told["protected"]) == (base, True)
    assert not world.exists(clone)
    assert not overlay.exists()
    again = host.promote(clone, base)
    assert again["warnings"] == [f"'{clone}' was destroyed already."]


def test_a_clone_that_was_used_after_the_kill_is_not_destroyed(
    world: World, host: LocalHost, clone: str, quiet: None
) -> None:
    base = world.name("golden")
    killed(host, clone, base, promote, "_destroy")
    (overlay,) = world.disks(clone)
    os.utime(overlay)
    with pytest.raises(PlanRefused, match=f"'{base}' is a base now, but '{clone}' stays"):
        host.promote(clone, base)
    assert overlay.exists()
    record = world.record(clone)
    assert record is not None and record.stage != DESTROYING


def test_no_create_takes_over_what_was_to_become_a_base(
    world: World, host: LocalHost, clone: str, quiet: None
) -> None:
    base = world.name("golden")
    killed(host, clone, base, finish_base, "clean_and_shut_off")
    before = world.footprint()
    outcome = provision.create(host, quick(base, world.xml(clone).findtext("name") or ""))
    assert isinstance(outcome.error, CreateInProgress)
    (item,) = host.unfinished(base)
    with pytest.raises(CreateInProgress):
        host.take_over(base, item.work.worker.token, processes.this_process())
    left = next(one for one in host.list_clones() if one.name == base)
    nobody: Any = None
    with pytest.raises(ConfigError, match="made into a base"):
        Fleet._as_before(nobody, host, left, {})
    assert world.footprint() == before


def test_salt_fails_the_job_of_a_refused_promote(
    world: World, base: str, salt_minion: Salt
) -> None:
    with pytest.raises(CommandExecutionError, match=r"^ForeignDomain: .* Hint: "):
        salt_minion("kvm_clone.promote", base, f"golden-{world.token}")


def test_what_is_left_can_be_destroyed_by_its_name(
    world: World, host: LocalHost, clone: str, quiet: None
) -> None:
    base = world.name("golden")
    killed(host, clone, base, finish_base, "clean_and_shut_off")
    assert world.state(base) == "running"
    assert {item.name: item.stage for item in host.list_clones()}[base] == "booted"
    host.destroy(base)
    assert not any(base in name for name in files(world))
    assert Path(world.disks(clone)[0]).exists()
