"""Promises about a base whose memory is saved: whole or not there, protected, and known by all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import libvirtd
from lab.common import wait_until
from lab.lab import connection
from saltext.kvmclone.errors import (
    CloneInUse,
    CommandFailed,
    ForeignDomain,
    HostError,
    HostFull,
    NoSpare,
    NotFound,
    NotWarmed,
    PlanRefused,
    WarmImageUnusable,
)
from saltext.kvmclone.guest import warming
from saltext.kvmclone.hosts import gc, provision, warm_base
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import warm_images
from saltext.kvmclone.model.base_request import BaseRequest, Origin
from saltext.kvmclone.model.placement import HostLimits
from saltext.kvmclone.model.spares import Claim
from saltext.kvmclone.system import saved_image
from tests.support.forks import machines, warm_without_an_agent
from tests.support.world import World, quick


@pytest.fixture(autouse=True)
def obliging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests that need not be made ready; the tiny one has no agent, but it boots."""
    warm_without_an_agent(monkeypatch)


@pytest.fixture
def base(world: World) -> str:
    return world.base(agent=True, options="tiny.nodhcp")


@pytest.fixture
def warmed(world: World, host: LocalHost, base: str) -> Iterator[str]:
    """A base that is warmed."""
    host.warm(base)
    yield base


def overlay_of(world: World, base: str, generation: int = 1) -> Path:
    return world.disks(f"{base}.warm{generation}")[0]


def fork_by_hand(world: World, base: str, generation: int = 1) -> Path:
    """An image that stands on what was saved, as the disk of a fork does."""
    path = world.lab.pool_path / f"fork-{world.token}.qcow2"
    world.overlay(overlay_of(world, base, generation), path)
    return path


def fault(base: str) -> str:
    with Host("qemu:///system") as opened, pytest.raises(WarmImageUnusable) as caught:
        warm_images.usable(opened, opened.domain(base))
    assert "kvmclone.warm" in caught.value.hint or "kvm_clone.warm" in caught.value.hint
    return caught.value.message


# --- what is made -------------------------------------------------------------------------------


def test_the_memory_is_saved_without_a_network_and_its_files_are_on_record(
    world: World, host: LocalHost, opened: Host, base: str
) -> None:
    told = host.warm(base)
    name = f"{base}.warm1"
    assert (told.name, told.host, told.generation, told.machine) == (base, "kvm01", 1, name)
    memory = Path(told.path)
    assert memory.stat().st_mode & 0o777 == 0o600
    with memory.open("rb") as file:
        image = saved_image.read(file)
    assert f"<name>{name}</name>" in image.xml
    assert "<genid>" in image.xml
    assert "<interface" not in image.xml
    assert image.was_running
    record = world.record(name)
    assert record is not None and record.complete
    listed = {volume.target: (volume.path, volume.state) for volume in record.volumes}
    assert listed == {
        "vda": (str(overlay_of(world, base)), "made"),
        "memory": (str(memory), "made"),
    }
    assert told.bytes == sum(Path(path).stat().st_blocks * 512 for path, _state in listed.values())
    assert set(told.timings) == {"cloned", "booted", "made_ready", "saved"}
    assert world.state(name) == "shutoff"
    assert warm_images.usable(opened, opened.domain(base)).path == told.path


def test_uefi_variables_are_saved_with_it(world: World, host: LocalHost) -> None:
    base = world.base(agent=True, uefi=True, options="tiny.nodhcp")
    name = host.warm(base).machine
    store = world.xml(name).findtext("./os/nvram")
    assert store is not None and name in store and os.path.exists(store)
    os.utime(store)
    assert f"'{store}' was changed" in fault(base)
    assert store in host.unwarm(base).removed


def test_where_the_card_of_the_base_is_a_fork_can_have_its_own(
    world: World, host: LocalHost, warmed: str
) -> None:
    own = world.xml(warmed).find("./devices/interface/address")
    assert own is not None
    there = [
        address.attrib
        for address in world.xml(f"{warmed}.warm1").findall("./devices/*/address[@type='pci']")
    ]
    assert own.attrib not in there
    buses = world.xml(f"{warmed}.warm1").findall("./devices/controller[@model='pcie-root-port']")
    assert int(own.attrib["bus"], 16) in [int(bus.attrib["index"]) for bus in buses]


def test_a_new_generation_replaces_the_old_one(
    world: World, host: LocalHost, opened: Host, warmed: str
) -> None:
    told = host.warm(warmed)
    assert (told.generation, told.warnings) == (2, ())
    assert machines(world) == [warmed, f"{warmed}.warm2"]
    assert warm_images.usable(opened, opened.domain(warmed)).generation == 2


def test_an_old_generation_stays_while_a_fork_stands_on_it_and_then_gc_removes_it(
    world: World, host: LocalHost, warmed: str
) -> None:
    fork = fork_by_hand(world, warmed)
    told = host.warm(warmed)
    assert "stays as long as forks stand on it" in told.warnings[0]
    assert gc.collect(host) == []
    assert machines(world) == [warmed, f"{warmed}.warm1", f"{warmed}.warm2"]
    fork.unlink()
    rows = gc.collect(host, apply=True)
    assert {row.name for row in rows} == {f"{warmed}.warm1"}
    assert "a newer saved memory" in rows[0].reason
    assert machines(world) == [warmed, f"{warmed}.warm2"]
    assert not [one for one in world.lab.pool_path.glob("*warm1*") if world.token in one.name]


# --- what is refused ----------------------------------------------------------------------------


def test_what_cannot_be_forked_is_refused_before_anything_is_written(
    world: World, host: LocalHost
) -> None:
    base = world.base(agent=False, devices="<vsock model='virtio'><cid auto='yes'/></vsock>")
    before = world.footprint()
    with pytest.raises(PlanRefused) as caught:
        host.warm(base)
    assert "no channel for a guest agent" in caught.value.message
    assert "<vsock>" in caught.value.message
    assert world.footprint() == before


def test_a_clone_and_what_was_saved_are_no_bases(
    world: World, host: LocalHost, warmed: str
) -> None:
    host.clone(quick(clone := world.name(), warmed))
    for name in (clone, f"{warmed}.warm1"):
        with pytest.raises(PlanRefused, match="is no base"):
            host.warm(name)
    with pytest.raises(PlanRefused, match="holds the saved memory"):
        host.clone(quick(world.name("other"), f"{warmed}.warm1"))
    with pytest.raises(NotFound):
        host.warm(world.name("nobody"))
    with pytest.raises(NotFound):
        host.unwarm("nobody")


def test_a_host_that_has_promised_its_memory_warms_nothing(
    world: World, host: LocalHost, base: str
) -> None:
    before = world.footprint()
    with pytest.raises(HostFull, match=rf"'{base}\.warm1': memory") as caught:
        warm_base.warm(host, base, HostLimits(memory_ratio=1e-9))
    assert "kvmclone.hosts" in caught.value.hint
    assert world.footprint() == before
    assert warm_base.warm(host, base, HostLimits()).generation == 1


def test_a_machine_that_is_being_warmed_is_promised_its_memory_before_it_boots(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def promised() -> int:
        return host.condition().offer.promised.memory

    before, start = promised(), DomainHandle.start
    seen: list[int] = []

    def starts(handle: DomainHandle) -> None:
        seen.append(promised())
        start(handle)

    monkeypatch.setattr(DomainHandle, "start", starts)
    host.warm(base)
    assert seen == [before + int(world.xml(base).findtext("memory") or 0) * 1024]
    assert promised() == before


def test_a_failure_leaves_nothing(
    world: World, host: LocalHost, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.footprint()

    def fails(*_args: Any) -> None:
        raise CommandFailed("it does not work", "Mend it.")

    monkeypatch.setattr(warming, "make_ready", fails)
    with pytest.raises(CommandFailed):
        host.warm(base)
    world.refresh()
    assert world.footprint()[1] == before[1]
    assert machines(world) == [base]


# --- protected, and no clone --------------------------------------------------------------------


def test_what_was_saved_is_no_clone_to_any_command(
    world: World, host: LocalHost, opened: Host, warmed: str
) -> None:
    name = f"{warmed}.warm1"
    assert name not in [clone.name for clone in host.list_clones()]
    assert host.published()["clones"] == {}
    assert name not in host.report_domains([name], []).clones
    assert host.condition().offer.clones == 0
    for work in (
        lambda: host.power(name, "start"),
        lambda: host.show(name),
        lambda: host.destroy(name),
        lambda: host.destroy(name, force=True),
        lambda: host.snapshot(name),
        lambda: host.promote(name, world.name(f"golden{len(world.names)}")),
    ):
        with pytest.raises(ForeignDomain, match="holds the saved memory") as caught:
            work()
        assert "unwarm" in caught.value.hint
    assert [one.name for one in host.base_states([warmed])] == [warmed]


def test_its_name_is_given_to_nothing_else(
    world: World, host: LocalHost, opened: Host, warmed: str
) -> None:
    name = f"{warmed}.warm1"
    host.clone(quick(clone := world.name(), warmed))
    before, fork = world.footprint(), replace(quick(clone, name), clone_strategy="instant")
    image = BaseRequest(name, "https://example.com/d.qcow2")
    claim = Claim("alice", time.time())
    wanted = quick(name, warmed)
    for work in (
        lambda: host.clone(wanted),
        lambda: host.clone(replace(wanted, clone_strategy="instant")),
        lambda: host.base_from(image, Origin(image.source)),
        lambda: host.expected_base(image, Origin(image.source)),
        lambda: host.promote(clone, name),
        lambda: host.expect_base(name),
        lambda: host.hash_base(name),
        lambda: host.adopt(name, warmed),
        lambda: host.remove_base(name),
        lambda: host.unwarm(name),
        lambda: host.adjust(wanted, dry=False),
        lambda: host.destroy(name, dry=True),
    ):
        with pytest.raises(ForeignDomain, match=f"'{name}'.*holds the saved memory") as caught:
            work()
        assert f"unwarm {warmed}" in caught.value.hint
    outcome = provision.create(host, wanted)
    assert isinstance(outcome.error, ForeignDomain) and outcome.clone is None
    for refused in (host.plan(wanted), host.plan(fork)):
        assert f"'{name}'" in " ".join(refused["conflicts"])
    assert "holds the saved memory" in " ".join(host.plan(fork)["conflicts"])
    assert "holds the saved memory" in " ".join(host.offer(fork, []).conflicts)
    with pytest.raises(NoSpare, match="it is no clone"):
        host.claim(name, world.xml(name).findtext("uuid") or "", claim, time.time() + 60)
    assert host.base_states([name]) == []
    assert host.unprotect(name) == []
    assert world.footprint() == before
    assert warm_images.usable(opened, opened.domain(warmed)).generation == 1


def test_it_is_removed_only_where_no_fork_stands_on_it(
    world: World, host: LocalHost, opened: Host, warmed: str
) -> None:
    fork = fork_by_hand(world, warmed)
    before = world.footprint()
    with pytest.raises(CloneInUse, match="stays warm"):
        host.unwarm(warmed)
    assert world.footprint() == before
    fork.unlink()
    told = host.unwarm(warmed)
    assert len(told.removed) == 2
    assert machines(world) == [warmed]
    with pytest.raises(NotWarmed):
        warm_images.usable(opened, opened.domain(warmed))
    assert host.unwarm(warmed).removed == ()


def test_a_start_by_hand_fails_and_changes_nothing(world: World, opened: Host, warmed: str) -> None:
    handle = opened.domain(f"{warmed}.warm1")
    with pytest.raises(HostError):
        handle.start()
    assert warm_images.usable(opened, opened.domain(warmed)).generation == 1


def test_a_base_stays_while_it_is_warmed(world: World, host: LocalHost, warmed: str) -> None:
    host.hash_base(warmed)
    with pytest.raises(CloneInUse, match="is warmed") as caught:
        host.remove_base(warmed, apply=True)
    assert "unwarm" in caught.value.hint
    host.unwarm(warmed)
    host.remove_base(warmed, apply=True)
    assert not world.exists(warmed)


# --- whether it can be used ---------------------------------------------------------------------


def test_what_changed_is_told_by_name(world: World, host: LocalHost, warmed: str) -> None:
    name = f"{warmed}.warm1"
    memory = world.lab.pool_path / f"{name}-memory.save"
    head = memory.read_bytes()[:200]
    os.utime(overlay := overlay_of(world, warmed))
    assert str(overlay) in fault(warmed)
    (finding,) = [one for one in host.doctor() if one["kind"] == "warm-unusable"]
    assert (finding["name"], str(overlay) in finding["message"]) == (warmed, True)
    assert finding["hint"] == f"salt-run kvmclone.warm {warmed}"
    (saved,) = host.tree()["bases"][warmed]["warmed"]
    assert str(overlay) in saved["unusable"]
    host.warm(warmed)
    assert [one for one in host.doctor() if one["kind"] == "warm-unusable"] == []
    memory = world.lab.pool_path / f"{warmed}.warm2-memory.save"
    status = memory.stat()
    with memory.open("r+b") as file:  # somebody who hides it
        file.seek(300)
        file.write(b"x")
    os.utime(memory, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert f"'{memory}' was changed" in fault(warmed)
    assert head.startswith(saved_image.MAGIC)


def test_another_machine_or_base_is_told_by_name(
    world: World, host: LocalHost, warmed: str
) -> None:
    xml = world.secure_xml(warmed)
    for old, new, told in (
        ("</vcpu>", "</vcpu><cpu mode='custom'><model>Nehalem</model></cpu>", "CPU"),
        ("<acpi/>", "<acpi/><pae/>", "definition of the base"),
    ):
        changed = xml if "<cpu" not in xml or told != "CPU" else xml.replace("qemu64", "Nehalem")
        with connection() as conn:
            conn.defineXML(changed if changed != xml else xml.replace(old, new))
        assert told in fault(warmed)
    with connection() as conn:
        conn.defineXML(xml)
    os.utime(world.disks(warmed)[0])
    assert "of the base was changed" in fault(warmed)


def test_a_restart_of_libvirtd_changes_nothing_of_it(
    world: World, host: LocalHost, warmed: str
) -> None:
    if not libvirtd.is_ours():
        pytest.xfail("the libvirtd that runs here is not the lab's, so it is not killed")
    host.hash_base(warmed)
    before = host.base_states([warmed])
    libvirtd.crash()
    wait_until(lambda: world.exists(warmed), "libvirtd", 30)
    with Host("qemu:///system") as opened:
        assert warm_images.usable(opened, opened.domain(warmed)).generation == 1
    assert host.base_states([warmed]) == before and before[0].digest


def test_another_qemu_is_told_by_name(
    world: World, host: LocalHost, warmed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_images, "_number", lambda _host: 99001002)
    assert "QEMU is 99.1.2 now, and was" in fault(warmed)
