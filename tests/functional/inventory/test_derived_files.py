"""
Promises about files that libvirt chooses by a machine's name or uuid: they are that machine's.

The machines here boot firmware and nothing else, which is all that makes a variable store.
"""

from __future__ import annotations

import subprocess
import uuid as uuid_module
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from lab import libvirtd
from lab.lab import connection
from saltext.kvmclone.hosts import gc
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle import adopt
from saltext.kvmclone.model.derived_files import SYSTEM
from saltext.kvmclone.model.record import MADE, Owner
from tests.functional.lifecycle.test_adopt import old_clone
from tests.functional.lifecycle.test_renamed_clones import rename
from tests.support.firmware_machines import (
    EFI,
    STORES,
    TPM,
    as_made_before,
    boot,
    everything,
    is_now,
    store,
)
from tests.support.world import World, quick

pytestmark = [pytest.mark.slow, pytest.mark.guest, pytest.mark.usefixtures("as_before")]


@pytest.fixture
def base(firmware_base: str) -> str:
    return firmware_base


# --- a clone of its own -------------------------------------------------------------------------


def test_a_clones_store_is_its_own_whatever_it_and_others_are_called(
    world: World, host: LocalHost, base: str, efi: Callable[..., str]
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    own = store(world, name)
    boot(name)
    now = rename(world, name)
    efi(name)
    boot(name)
    theirs = STORES / f"{name}_VARS.fd"
    assert theirs.exists()
    assert own != theirs
    with connection() as conn:
        for one in (now, name):
            conn.lookupByName(one).create()
        stores = {world.xml(one, live=True).findtext("./os/nvram") for one in (now, name)}
        assert stores == {str(own), str(theirs)}
        conn.lookupByName(name).destroy()
    before = everything()
    gone = host.destroy(now)
    assert not own.exists()
    assert everything() == {path: what for path, what in before.items() if path != str(own)}
    assert not [word for word in gone.warnings if "VARS" in word]


def test_its_path_outlives_what_is_done_to_the_definition(
    world: World, host: LocalHost, base: str
) -> None:
    if not libvirtd.is_ours():
        pytest.skip("the libvirtd here is not the lab's")
    name = world.name()
    host.clone(quick(name, base))
    own = store(world, name)
    record = world.record(name)
    assert record is not None
    assert record.uuid in own.name
    boot(name)
    assert store(world, name) == own
    now = rename(world, name)
    subprocess.run(["virsh", "edit", now], check=True, env={"EDITOR": "sed -i s/64/65/"})
    libvirtd.crash()
    assert store(world, now) == own
    boot(now)
    assert store(world, now) == own
    with connection() as conn:
        conn.lookupByName(now).createWithFlags(libvirt.VIR_DOMAIN_START_RESET_NVRAM)
    host.destroy(now)
    assert not own.exists(), "a store that libvirt made anew is the clone's, too"


def test_a_base_called_after_its_uuid_gives_no_store_of_another_machine(
    world: World, host: LocalHost, efi: Callable[..., str]
) -> None:
    uuid = str(uuid_module.uuid4())
    base = efi(uuid, uuid=uuid)
    try:
        boot(base)
        name = world.name()
        host.clone(quick(name, base))
        own = store(world, name)
        now = rename(world, name)
        efi(name)
        boot(name)
        before = everything()
        host.destroy(now)
        before.pop(str(own))
        assert everything() == before
        assert {f"{STORES}/{one}_VARS.fd" for one in (name, uuid)} <= before.keys()
    finally:
        with connection() as conn:
            conn.lookupByName(base).undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)


def test_a_file_where_libvirt_would_put_the_clones_stays_and_is_not_used(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name()
    left = STORES / f"{name}_VARS.fd"
    left.write_bytes(b"of a machine that was called so before")
    before = everything()
    host.clone(quick(name, base))
    boot(name)
    assert store(world, name) != left
    host.destroy(name)
    assert everything() == before


def test_its_tpm_goes_and_no_other(world: World, host: LocalHost, efi: Callable[..., str]) -> None:
    tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
    base = efi(world.name("base"), tpm)
    boot(base)
    name = world.name()
    host.clone(quick(name, base))
    boot(name)
    uuid = world.xml(name).findtext("uuid")
    assert (TPM / f"{uuid}").is_dir()
    now = rename(world, name)
    efi(name, tpm)
    boot(name)
    before = everything()
    own = {str(path) for path in (TPM / f"{uuid}").rglob("*")} | {str(store(world, now))}
    host.destroy(now)
    assert everything() == {path: what for path, what in before.items() if path not in own}
    assert not (TPM / f"{uuid}").exists()
    assert (STORES / f"{name}_VARS.fd").exists()


def test_its_log_is_not_what_libvirt_writes_for_another_machine(
    world: World, host: LocalHost, efi: Callable[..., str]
) -> None:
    logs = Path(SYSTEM.logs)
    base = world.name("base")
    efi(base, f"<serial type='pty'><log file='{logs}/{base}-late.log'/></serial>")
    name = world.name()
    host.clone(quick(name, base))
    own = world.xml(name).find("./devices/serial/log")
    assert own is not None
    assert own.attrib["file"] == f"{logs}/{name}-late.log"
    host.destroy(name)
    efi(f"{name}-late")
    again = host.plan(quick(name, base))["changes"]["serial 0 log file"]["new"]
    assert again == f"{logs}/{name}-late-2.log"


# --- clones of the version before ---------------------------------------------------------------


def test_the_store_of_a_machine_of_the_old_name_stays(
    world: World, host: LocalHost, old: Callable[..., str], efi: Callable[..., str]
) -> None:
    """The definition of one whose firmware libvirt chooses names no store once it is off."""
    name = old()
    now = rename(world, name)
    efi(name)
    boot(name)
    before = everything()
    gone = host.destroy(now)
    assert everything() == before
    assert any(f"{name}_VARS.fd' stays" in word and f"'{name}'" in word for word in gone.warnings)
    assert not world.exists(now)


def test_a_store_that_two_machines_would_write_is_a_danger(
    world: World, host: LocalHost, base: str, old: Callable[..., str], efi: Callable[..., str]
) -> None:
    host.clone(quick(world.name("new"), base))
    name = old()

    def found() -> list[tuple[str, str, str]]:
        return [
            (one["name"], one["level"], one["hint"])
            for one in host.doctor()
            if one["kind"] == "nvram-shared"
        ]

    assert found() == []
    now = rename(world, name)
    efi(name, firmware="")
    assert found() == [], "that one has no variables"
    with connection() as conn:
        conn.lookupByName(name).undefine()
    efi(name)
    assert found() == [(now, "danger", f"ssh -t kvm01 'virsh -c qemu:///system edit {now}'")]
    is_now(now, STORES / f"{now}-own.fd")
    assert found() == []


@pytest.mark.parametrize("how", ["never started", "without firmware variables", "transient"])
def test_it_stays_however_that_machine_is_defined(
    world: World,
    host: LocalHost,
    old: Callable[..., str],
    efi: Callable[..., str],
    how: str,
) -> None:
    name = old()
    now = rename(world, name)
    efi(name, firmware="" if how == "without firmware variables" else EFI)
    with connection() as conn:
        domain = conn.lookupByName(name)
        if how == "transient":
            domain.create()
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
        before = everything()
        host.destroy(now)
        assert everything() == before
        if how == "transient":
            domain.destroy()


def test_it_stays_where_only_a_snapshot_has_that_name(
    world: World, host: LocalHost, old: Callable[..., str], base: str
) -> None:
    name = old()
    now = rename(world, name)
    other = world.base(name.replace("clone", "third"))
    third = rename_to(other, name)
    with connection() as conn:
        xml = "<domainsnapshot><name>then</name></domainsnapshot>"
        conn.lookupByName(third).snapshotCreateXML(xml)
    last = rename(world, third, "fourth")
    store_now = STORES / f"{name}_VARS.fd"
    before = everything()
    gone = host.destroy(now)
    assert everything() == before
    assert store_now.exists()
    assert any(str(store_now) in word and f"'{last}'" in word for word in gone.warnings)


def rename_to(name: str, now: str) -> str:
    subprocess.run(["virsh", "domrename", name, now], check=True, capture_output=True)
    return now


def test_two_that_swapped_their_names_never_lose_the_others(
    world: World, host: LocalHost, old: Callable[..., str]
) -> None:
    one, other = old("one"), old("other")
    spare = rename(world, one, "spare")
    rename_to(other, one)
    rename_to(spare, other)
    before = everything()
    host.destroy(other)
    assert everything() == before, f"'{one}' is called as the file of '{other}'"
    host.destroy(one)
    assert not (STORES / f"{other}_VARS.fd").exists()


@pytest.mark.parametrize("renamed", [False, True])
def test_with_nobody_of_that_name_it_goes(
    world: World, host: LocalHost, old: Callable[..., str], renamed: bool
) -> None:
    name = old()
    now = rename(world, name) if renamed else name
    gone = host.destroy(now)
    assert not (STORES / f"{name}_VARS.fd").exists()
    assert not [word for word in gone.warnings if "stays" in word]


def test_another_file_in_the_place_of_an_adopted_clones_store_stays(
    world: World, host: LocalHost, opened: Host
) -> None:
    name = old_clone(world, world.base(uefi=True))
    path = STORES / f"{name}_VARS.fd"
    path.write_bytes(b"the clone's own")
    is_now(name, path)
    adopt.adopt(opened, name)
    path.rename(path.with_suffix(".aside"))
    path.write_bytes(b"somebody else's")
    gone = host.destroy(name)
    assert path.read_bytes() == b"somebody else's"
    assert any("another file was put in its place" in word for word in gone.warnings)


def test_an_old_clone_is_not_adopted_with_the_store_of_another_machine(
    world: World, host: LocalHost, opened: Host, efi: Callable[..., str]
) -> None:
    name = old_clone(world, world.base(uefi=True))
    path = STORES / f"{name}_VARS.fd"
    is_now(name, path)
    now = rename(world, name)
    efi(name)
    boot(name)
    is_now(now, path)
    before = everything()
    record = adopt.adopt(opened, now)
    assert not record.owns(str(path))
    host.destroy(now)
    assert everything() == before


def test_what_a_dead_worker_left_is_collected_without_it(
    world: World,
    host: LocalHost,
    base: str,
    efi: Callable[..., str],
    dead: Owner,
) -> None:
    name = world.name()
    host.clone(quick(name, base), dead, "addressed")
    path = as_made_before(world, name)
    now = rename(world, name)
    efi(name)
    boot(name)
    before = everything()
    listed = gc.collect(host, now)
    assert [item.kind for item in listed if item.path == str(path)] == ["kept"]
    gc.collect(host, now, apply=True)
    assert not world.exists(now)
    assert everything() == before


def test_a_foreign_machine_goes_by_force_and_every_store_stays(
    world: World, host: LocalHost, old: Callable[..., str], efi: Callable[..., str]
) -> None:
    name = old()
    rename(world, name)
    efi(name)
    boot(name)
    before = everything()
    host.destroy(name, force=True)
    assert everything() == before


# --- over a remote url --------------------------------------------------------------------------


def test_far_away_libvirt_deletes_no_store_of_another_machine(
    world: World, base: str, efi: Callable[..., str], far_host: LocalHost
) -> None:
    for word in ("neighbour", "link", "edited"):
        name = world.name(word)
        far_host.clone(quick(name, base))
        path = as_made_before(world, name)
        boot(name)
        now = rename(world, name, f"{word}2")
        if word == "neighbour":
            efi(name)
            boot(name)
        elif word == "link":  # two names of one folder, which nobody can see from here
            is_now(efi(world.name("third")), Path("/elsewhere/nvram") / path.name)
        else:
            is_now(now, None)
            boot(now)
        before = everything()
        gone = far_host.destroy(now)
        assert everything() == before, word
        assert any(str(path) in text and "stays" in text for text in gone.warnings), word


def test_far_away_a_clones_own_store_goes_and_no_other(
    world: World, base: str, efi: Callable[..., str], far_host: LocalHost
) -> None:
    name = world.name()
    far_host.clone(quick(name, base))
    own = store(world, name)
    boot(name)
    now = rename(world, name)
    efi(name)
    boot(name)
    before = everything()
    far_host.destroy(now)
    assert before.pop(str(own))
    assert everything() == before
    assert f"{STORES}/{name}_VARS.fd" in before


def test_records_tell_which_file_a_store_was(world: World, host: LocalHost, base: str) -> None:
    name = world.name()
    host.clone(quick(name, base))
    record = world.record(name)
    assert record is not None
    (one,) = [volume for volume in record.volumes if volume.target == "nvram"]
    assert one.state == MADE
    assert one.inode.startswith(f"{store(world, name).stat().st_ino}.")
