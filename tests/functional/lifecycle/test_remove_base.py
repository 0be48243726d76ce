"""A base goes with the files on its record, and never from under a clone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.errors import CloneInUse, CreateInProgress, KvmCloneError, PlanRefused
from saltext.kvmclone.hosts import gc
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import destroy, protect, remove_base
from saltext.kvmclone.system import copy_folder, images, processes, ssh_server
from saltext.kvmclone.system.ssh_server import Server
from tests.support.hints import Typist, hint, tries
from tests.support.world import World, full, quick


def test_a_base_goes_with_its_disks_and_its_store_and_nothing_else(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base(chain=1, uefi=True)
    store = world.xml(base).findtext("./os/nvram") or ""
    kernel = world.xml(base).findtext("./os/kernel") or ""
    host.hash_base(base)
    copy = world.name("copy")
    host.clone(full(copy, base))
    read: list[str] = []
    look = images.look

    def counted(path: str, *words: Any) -> Any:
        read.append(path)
        return look(path, *words)

    with monkeypatch.context() as counting:
        counting.setattr(images, "look", counted)
        foreseen = host.remove_base(base)
    assert len(read) == len(set(read)) == 2, "each image is looked at once"
    assert world.exists(base) and all(map(os.path.exists, foreseen.files))
    assert host.remove_base(base, apply=True) == foreseen
    names = {Path(path).name for path in foreseen.files}
    assert names == {f"{base}-0.qcow2", Path(store).name}
    assert not world.exists(base)
    assert os.path.exists(kernel)
    below = world.lab.pool_path / f"{base}-0-below0.qcow2"
    assert any(str(below) in sentence for sentence in foreseen.kept)
    assert below.exists(), "somebody may make another base of it"
    host.destroy(copy)


def test_a_base_stays_while_a_clone_stands_on_it(world: World, host: LocalHost) -> None:
    base, name = world.base(), world.name()
    host.hash_base(base)
    host.clone(quick(name, base))
    for apply in (False, True):
        with pytest.raises(CloneInUse, match=name):
            host.remove_base(base, apply)
    assert "kvmclone:clone" not in world.secure_xml(base)
    host.destroy(name)
    assert host.remove_base(base, apply=True).files


def test_a_file_that_another_machine_uses_stays(world: World, host: LocalHost) -> None:
    base, other = world.base(), world.base("other")
    shared = world.disks(base)[0]
    world.attach(other, shared, "vdx")
    host.hash_base(base)
    gone = host.remove_base(base, apply=True)
    assert gone.files == () and any(other in sentence for sentence in gone.kept)
    assert shared.exists() and not world.exists(base)


@tries(
    "remove_base._require_known", "remove_base._require_base", "remove_base._require_removable"
)  # fmt: skip
def test_what_is_no_base_or_not_known_to_be_idle_stays(
    world: World, host: LocalHost, typist: Typist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = world.base()

    def refused(kind: type[KvmCloneError], words: str, apply: bool = True) -> str:
        return hint(kind, lambda: host.remove_base(base, apply), words)

    typist(refused(PlanRefused, "not on record"))
    world.lab.start(base)
    assert "shutdown" in refused(PlanRefused, "it is running")
    world.lab.stop(base)
    handle_files = [str(disk) for disk in world.disks(base)]
    _protect(base, handle_files)
    told = refused(PlanRefused, "it is protected")
    typist(told)
    assert host.remove_base(base).files
    # A copy of it to another host.
    keys = str(tmp_path / "keys")
    monkeypatch.setattr(ssh_server, "look", lambda: Server("root", 22, keys, ("ssh-ed25519 A",)))
    host.offer_base(base, "0123456789abcdef")
    refused(CreateInProgress, "being copied")
    monkeypatch.setattr(copy_folder, "is_dead", lambda _copy: True)
    assert "gc" in refused(PlanRefused, "was interrupted")
    assert gc.collect(host, base, apply=True)
    clone = world.name()
    host.clone(quick(clone, base))
    told = hint(PlanRefused, lambda: host.remove_base(clone), "is a clone")
    typist(told)
    assert not world.exists(clone)


def _protect(base: str, disks: list[str]) -> None:
    from saltext.kvmclone.hypervisor.host import Host

    with Host(LocalHost("qemu:///system").url) as opened:
        protect.protect(opened, opened.domain(base), disks)


@pytest.mark.parametrize("step", ["delete_file", "release"])
def test_a_removal_that_was_killed_is_no_base_and_gc_completes_it(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = world.footprint()
    base = world.base(disks=2)
    host.hash_base(base)
    real: Callable[..., bool] = destroy.delete_file
    deleted: list[object] = []

    class Died(BaseException):
        pass

    def die(*words: object) -> bool:
        if deleted or step == "release":
            raise Died
        deleted.append(words)
        return real(*words)

    with monkeypatch.context() as killed, pytest.raises(Died):
        killed.setattr(destroy, "delete_file", die)
        killed.setattr(destroy, "release", lambda *_words: None)
        host.remove_base(base, apply=True)
    with pytest.raises(CreateInProgress):
        host.remove_base(base, apply=True)
    with pytest.raises(KvmCloneError):
        host.clone(quick(world.name(), base))
    monkeypatch.setattr(processes, "owner_state", lambda _owner: "dead")
    told = hint(PlanRefused, lambda: host.remove_base(base))
    assert f"gc {base}" in told
    assert hint(PlanRefused, lambda: host.expect_base(base), "was being removed") == told
    rows = gc.collect(host, base, apply=True)
    assert rows and all(row.removed for row in rows)
    assert world.footprint() == before


def test_a_removal_that_was_killed_while_a_clone_was_made_leaves_a_base(
    world: World, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, name = world.base(uefi=True), world.name()
    host.hash_base(base)
    before = world.secure_xml(base)

    class Died(BaseException):
        pass

    held_open = destroy.held_open

    def clone_comes(*words: Any) -> Any:
        host.clone(quick(name, base))
        return held_open(*words)

    def die(*_words: object) -> None:
        raise Died

    with monkeypatch.context() as killed, pytest.raises(Died):
        # The clone comes right before the mark, and the worker dies before it takes that off.
        killed.setattr(destroy, "held_open", clone_comes)
        killed.setattr(remove_base, "_unmark", die)
        host.remove_base(base, apply=True)
    assert world.secure_xml(base) != before
    monkeypatch.setattr(processes, "owner_state", lambda _owner: "dead")
    listed = gc.collect(host, base)
    assert [(row.kind, row.path, row.removed) for row in listed] == [("removal", base, False)]
    removed = gc.collect(host, base, apply=True)
    assert [(row.kind, row.path, row.removed) for row in removed] == [("removal", base, True)]
    assert world.secure_xml(base) == before and gc.collect(host, base) == []
    with pytest.raises(CloneInUse):
        host.remove_base(base, apply=True)
