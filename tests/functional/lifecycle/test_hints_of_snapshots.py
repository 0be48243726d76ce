"""What hints about snapshots say is typed in the state in which they are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.common import LIBVIRT_URI, run
from saltext.kvmclone.errors import (
    CloneInUse,
    CreateInProgress,
    HostError,
    NoSnapshot,
    PoolFull,
    SnapshotRefused,
)
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle.snapshot_work import SnapshotWork
from saltext.kvmclone.model.hints import AT_HOST
from saltext.kvmclone.system import copying, filesystems
from tests.functional.lifecycle import test_snapshot
from tests.functional.lifecycle.test_snapshot import Clone
from tests.support import hint_readers
from tests.support.hints import Typist, hint, tries
from tests.support.world import CloneOf, World

pytestmark = pytest.mark.slow

host = hint_readers.host
clone = test_snapshot.clone


@tries("snapshot_checks.require_ready")
def test_a_protected_base_is_made_writable_before(
    world: World, host: LocalHost, base: str, clone: Clone, clone_of: CloneOf, typist: Typist
) -> None:
    name = clone(base)
    host.destroy(clone_of(name, "upper", protect=True))
    typist(hint(SnapshotRefused, lambda: host.snapshot(name, "before")))
    host.snapshot(name, "before")


@tries("snapshot_checks.free_label", "snapshot_checks.known")
def test_a_label_is_made_free_and_the_others_are_listed(
    world: World, host: LocalHost, base: str, clone: Clone, typist: Typist
) -> None:
    name = clone(base)
    host.snapshot(name, "before")
    host.snapshot(name, "after")
    assert "after" in typist(hint(NoSnapshot, lambda: host.rollback(name, "afer")))
    typist(hint(SnapshotRefused, lambda: host.snapshot(name, "before")))
    host.snapshot(name, "before")


@tries("snapshot_checks.require_quiet", "snapshot_delete._require_off")
@pytest.mark.guest
def test_a_guest_without_an_agent_is_stopped_before(
    world: World, base: str, clone: Clone, typist: Typist
) -> None:
    host = LocalHost(LIBVIRT_URI, label="kvm01", ours=AT_HOST)
    name = clone(base)
    host.snapshot(name, "before")
    host.power(name, "start")
    told = hint(SnapshotRefused, lambda: host.snapshot(name, "more"))
    assert hint(SnapshotRefused, lambda: host.delete_snapshot(name, "before")) == told
    back = host.rollback(name, "before")
    assert back.state == "running"
    typist(told)
    host.snapshot(name, "more")
    host.delete_snapshot(name, "before")


@tries("snapshot_checks.require_room")
def test_one_sees_how_much_room_there_is_and_which_pools_there_are(
    world: World,
    host: LocalHost,
    base: str,
    clone: Clone,
    typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = clone(base)
    with monkeypatch.context() as patch:
        patch.setattr(filesystems, "of", lambda _folder: filesystems.Filesystem(available=9))
        typist(hint(PoolFull, lambda: host.snapshot(name)))
    with monkeypatch.context() as patch:
        patch.setattr("saltext.kvmclone.hypervisor.pools.holder", lambda _host, _path: None)
        assert world.lab.pool in typist(hint(HostError, lambda: host.snapshot(name)))


@tries("snapshot_checks.require_alone", "snapshot_rollback._require_whole")
@tries("snapshot_delete._take_over", "doctor._Examination._snapshots")
def test_what_is_in_the_way_or_lost_is_looked_at(
    world: World,
    host: LocalHost,
    base: str,
    clone: Clone,
    typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = clone(base)
    host.snapshot(name, "one")
    top = world.disks(name)[0]
    by_hand = top.with_name(f"by-hand-{world.token}.qcow2")
    world.overlay(top, by_hand)
    told = hint(CloneInUse, lambda: host.rollback(name, "one"))
    typist(told, "salt-run kvmclone.tree", "salt-call kvm_clone.tree")
    by_hand.unlink()
    with monkeypatch.context() as patch:

        def fail(*_arguments: object) -> None:
            raise copying.ConvertFailed("no space")

        patch.setattr(copying, "rebase", fail)
        typist(hint(HostError, lambda: host.delete_snapshot(name, "one")))
    host.snapshot(name, "two")
    host.rollback(name, "one")
    record = world.record(name)
    assert record is not None
    Path(record.snapshots[1].disks[0].path).unlink()
    (found,) = [one for one in host.doctor() if one["kind"] == "snapshot-incomplete"]
    assert "two" in typist(found["hint"])
    typist(hint(SnapshotRefused, lambda: host.rollback(name, "two")))
    assert [one.label for one in host.snapshots(name)] == ["one"]


@tries("snapshot_checks.require_no_internal_snapshots")
def test_snapshots_of_another_tool_inside_a_disk_are_not_lost(
    world: World, host: LocalHost, base: str, clone: Clone, typist: Typist
) -> None:
    name = clone(base)
    host.snapshot(name, "before")
    run(["qemu-img", "snapshot", "-c", "inside", world.disks(name)[0]])
    told = hint(SnapshotRefused, lambda: host.delete_snapshot(name, "before"), "1 internal")
    assert hint(SnapshotRefused, lambda: host.rollback(name, "before")) == told
    assert "inside" in typist(told)
    run(["qemu-img", "snapshot", "-d", "inside", world.disks(name)[0]])
    host.rollback(name, "before")
    host.delete_snapshot(name, "before")


@tries("snapshot_work._require_off")
def test_a_rollback_that_stopped_before_the_variables_ends_while_the_clone_is_off(
    world: World,
    host: LocalHost,
    clone: Clone,
    typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = b"1" * 2**17  # a size that QEMU takes
    name = clone(world.base(uefi=True))
    nvram = Path(str(world.xml(name).findtext("./os/nvram")))
    nvram.write_bytes(first)
    host.snapshot(name, "before")
    nvram.write_bytes(b"2" * len(first))

    def full(_work: SnapshotWork, _copy: str) -> None:
        raise HostError("no space left")

    with monkeypatch.context() as patch, pytest.raises(HostError, match="no space"):
        patch.setattr(SnapshotWork, "put_store_back", full)
        host.rollback(name, "before")
    with pytest.raises(CreateInProgress):
        host.power(name, "start")
    run(["virsh", "-c", LIBVIRT_URI, "start", name])
    typist(hint(SnapshotRefused, lambda: host.delete_snapshot(name, "before"), "UEFI variables"))
    assert nvram.read_bytes() != first, "a running machine keeps the file that it has open"
    run(["virsh", "-c", LIBVIRT_URI, "destroy", name])  # nothing in it hears of a shutdown
    host.snapshot(name, "after")
    assert nvram.read_bytes() == first
