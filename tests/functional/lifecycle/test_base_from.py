"""Promises about a base from an image: it is made whole or not at all, and never of a bad one."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.errors import (
    AlreadyExists,
    ChannelError,
    PlanRefused,
)
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.lifecycle import base_from
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.system import download, processes
from tests.support.made_bases import CANARY, MIB, Make
from tests.support.web import Site
from tests.support.world import CloneOf, Salt, World, quick, sha256

# --- what comes of it ---------------------------------------------------------------------------


@pytest.mark.usefixtures("instant")
def test_a_base_has_its_disk_its_record_and_nothing_else(
    world: World, make: Make, site: Site, disk: Path, tmp_path: Path
) -> None:
    name = world.name("base")
    site.files["/disk.raw"] = disk
    url = f"http://user:{CANARY}@{site.url.removeprefix('http://')}/disk.raw?token={CANARY}"
    made = make(name, url, sha256=sha256(disk), disks={"vda": {"size": "32MiB"}})
    (path,) = world.disks(name)
    assert made.as_dict() == {
        "name": name,
        "host": "kvm01",
        "source": f"{site.url}/disk.raw",
        "digest": f"sha256:{sha256(disk)}",
        "disks": [{"target": "vda", "path": str(path), "format": "qcow2", "capacity": 32 * MIB}],
        "protected": True,
        "warnings": ["cloud-init complains: of nothing"],
        "timings": made.timings,
    }
    assert list(made.timings) == ["downloaded", "converted", "installed", "cleaned"]
    assert not os.access(path, os.W_OK) or path.stat().st_mode & 0o222 == 0
    assert [file.name for file in world.lab.pool_path.glob(f"{name}*")] == [path.name]
    secure = world.secure_xml(name)
    assert CANARY not in secure
    assert "kvmclone:clone" not in secure
    subprocess.run(["qemu-img", "convert", "-O", "raw", path, tmp_path / "whole"], check=True)
    assert (tmp_path / "whole").read_bytes() == disk.read_bytes().ljust(32 * MIB, b"\0")


@pytest.mark.usefixtures("instant")
def test_a_base_can_be_cloned_and_the_tree_names_its_source(
    world: World, host: LocalHost, make: Make, disk: Path, clone_of: CloneOf
) -> None:
    name = world.name("base")
    make(name, str(disk))
    clone = clone_of(name)
    assert host.tree()["bases"][name]["source"] == str(disk)
    assert list(host.tree()["bases"][name]["clones"]) == [clone]
    assert [one for one in host.doctor() if name in one["name"]] == []


@pytest.mark.usefixtures("instant")
def test_the_same_again_is_there_already_and_another_image_is_refused(
    world: World, make: Make, disk: Path, tmp_path: Path
) -> None:
    name = world.name("base")
    make(name, str(disk))
    before = world.footprint()
    for keys in ({}, {"sha256": sha256(disk)}):
        with pytest.raises(AlreadyExists, match=f"made from '{disk}'"):
            make(name, str(disk), **keys)
    with pytest.raises(PlanRefused, match="and '/srv/other' is asked for"):
        make(name, "/srv/other")
    with pytest.raises(PlanRefused, match="asked for"):
        make(name, str(disk), sha256="0" * 64)
    with pytest.raises(PlanRefused, match="cannot be compared") as told:
        make(name, str(disk), sha256="0" * 128)
    assert f"sha256={sha256(disk)}" in told.value.hint
    assert world.footprint() == before


def test_a_name_that_another_machine_has_is_refused(
    world: World, make: Make, base: str, clone_of: CloneOf, disk: Path
) -> None:
    clone = clone_of(base)
    before = world.footprint()
    for name in (base, clone):
        with pytest.raises(PlanRefused, match=f"a machine '{name}' already"):
            make(name, str(disk))
    assert world.footprint() == before


def test_a_clone_that_was_kept_or_left_unfinished_is_not_cleared(
    world: World, host: LocalHost, make: Make, base: str, disk: Path
) -> None:
    kept, left = world.name("kept"), world.name("left")
    dead = replace(processes.this_process(), pid=0, started=0)
    for name in (kept, left):
        host.clone(quick(name, base), dead, "addressed")
    host.keep(kept, dead.token, "it failed", False)
    before = world.footprint()
    for name in (kept, left):
        with pytest.raises(PlanRefused, match=f"a machine '{name}' already"):
            make(name, str(disk))
    assert world.footprint() == before


@pytest.mark.usefixtures("instant")
def test_a_vendors_checksum_file_is_read(
    world: World, make: Make, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{hashlib.sha512(disk.read_bytes()).hexdigest()}  ./{disk.name}\n{'0' * 128}  x\n"
    monkeypatch.setattr(download, "text", lambda _url: text)
    name = world.name("base")
    made = make(name, str(disk), sha256="https://vendor.example/SHA512SUMS?token=x")
    assert made.digest.startswith("sha512:")
    with pytest.raises(AlreadyExists):  # which is not read again for that
        make(name, str(disk), sha256="https://vendor.example/SHA512SUMS")
    with pytest.raises(PlanRefused):
        make(name, str(disk), sha256=sha256(disk))


# --- UEFI ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def efi_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with an EFI system partition, and nothing for a BIOS."""
    path = tmp_path_factory.mktemp("efi") / "disk.raw"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    table = "label: gpt\nstart=2048, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n"
    subprocess.run(["sfdisk", "--quiet", path], input=table, text=True, check=True)
    return path


@pytest.mark.usefixtures("instant")
def test_a_disk_that_needs_uefi_gets_it(world: World, make: Make, efi_disk: Path) -> None:
    name = world.name("base")
    make(name, str(efi_disk))
    system = world.xml(name).find("./os")
    assert system is not None
    assert system.get("firmware") == "efi" or system.find("loader") is not None


@pytest.mark.guest
@pytest.mark.usefixtures("nothing_left")
def test_a_uefi_guest_that_never_reports_leaves_no_variables(
    world: World, make: Make, efi_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = world.name("base")
    stores: list[str] = []
    real = base_from.base_setup.wait

    def wait(*arguments: Any) -> tuple[str, ...]:
        store = domain_xml.read(world.secure_xml(name)).nvram
        assert store is not None
        assert Path(store.path).exists()
        stores.append(store.path)
        return real(*arguments)

    monkeypatch.setattr(base_from.base_setup, "wait", wait)
    with pytest.raises(ChannelError):
        make(name, str(efi_disk))
    (store,) = stores
    assert not Path(store).exists()


# --- the state ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("instant")
def test_the_state_makes_it_once_and_never_changes_it(
    world: World, disk: Path, packages: Path, salt_minion: Salt, salt_dry: Salt
) -> None:
    name = world.name("base")
    keys: dict[str, Any] = {
        "source": str(disk), "pool": world.lab.pool, "networks": [{"network": world.lab.network}],
        "domain_type": world.lab.domain_type, "memory": "128MiB", "packages": str(packages),
    }  # fmt: skip
    planned = salt_dry.state("kvm_clone.base", name, **keys)
    assert planned["result"] is None
    assert planned["changes"]["base"]["new"]["source"] == str(disk)
    assert not world.exists(name)
    made = salt_minion.state("kvm_clone.base", name, **keys)
    assert made["result"] is True
    assert made["changes"]["base"]["new"]["digest"] == f"sha256:{sha256(disk)}"
    for salt in (salt_minion, salt_dry):
        again = salt.state("kvm_clone.base", name, **keys)
        assert (again["result"], again["changes"]) == (True, {})
    for change in ({"source": "/srv/other.qcow2"}, {"sha256": "0" * 64}, {"ttl": "12h"}):
        other = salt_minion.state("kvm_clone.base", name, **{**keys, **change})
        assert other["result"] is False
        assert "Hint:" in other["comment"]
        assert other["changes"] == {}


def test_plain_http_without_a_digest_is_refused_at_the_door(
    world: World, salt_minion: Salt
) -> None:
    answer = salt_minion.state("kvm_clone.base", world.name("base"), source="http://x.example/d")
    assert answer["result"] is False
    assert "plain http" in answer["comment"]
