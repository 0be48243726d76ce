"""Promises about the doctor: what is wrong is found, worst first, with the next command to type."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import libvirt
import pytest

from lab.common import run
from lab.lab import connection
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import doctor
from saltext.kvmclone.inventory.findings import KINDS, Finding
from saltext.kvmclone.lifecycle import protect
from saltext.kvmclone.model.hints import AT_HOST, Commands
from saltext.kvmclone.model.record import DESTROYING, Owner
from saltext.kvmclone.model.record_xml import NAMESPACE
from saltext.kvmclone.system import processes
from tests.functional.lifecycle.test_adopt import old_clone
from tests.support.open_images import open_in_a_tool
from tests.support.storage import storage_pool
from tests.support.world import CloneOf, Salt, World

#: A process that has ended, on this machine or on one that nobody can ask.
NOBODY = Owner(host="elsewhere", boot="another", pid=2**22, started=1, token="x")


def findings(world: World, host: Host) -> list[Finding]:
    """What the doctor finds that is this test's."""
    found = doctor.examine(host)
    return [one for one in found if world.token in f"{one.name} {one.message}"]


def the_finding(world: World, host: Host, kind: str) -> Finding:
    """The only thing that is found, and that it is complete."""
    (found,) = findings(world, host)
    assert found.kind == kind
    assert found.as_dict()["level"] == KINDS[kind]
    assert found.message.endswith((".", "garbage"))
    assert shlex.split(found.hint)[0] in ("virsh", "salt-run", "salt", "salt-call", "rm", "chmod")
    return found


def paste(hint: str, salt_minion: Salt) -> None:
    """Type what a hint says, word for word; our own commands through Salt's loader."""
    words = shlex.split(hint)
    if words[0] != "salt-call":
        subprocess.run(hint, shell=True, check=True, capture_output=True)
        return
    _positions, keys = [w for w in words[2:] if "=" not in w], [w for w in words[2:] if "=" in w]
    salt_minion(words[1], *_positions, **dict(key.split("=", 1) for key in keys))


def write_record(opened: Host, name: str, **changes: object) -> None:
    handle = opened.domain(name)
    record = handle.record()
    assert record is not None
    handle.save_record(replace(record, **changes))  # type: ignore[arg-type]


def test_a_healthy_host_has_nothing(
    world: World, opened: Host, host: LocalHost, clone_of: CloneOf
) -> None:
    base = world.base(disks=["qcow2", "raw"], cdrom=True, uefi=True, chain=1)
    first = clone_of(base, "first")
    for name in (
        first,
        clone_of(base, "full", clone_strategy="full"),
        clone_of(first, "second"),
    ):
        write_record(opened, name, stage="addressed", goal="addressed")
    protect.protect(opened, opened.domain(base), [str(disk) for disk in world.disks(base)])
    assert findings(world, opened) == []


@pytest.fixture
def name(world: World, base: str, opened: Host, clone_of: CloneOf) -> str:
    """A finished quick clone of the base."""
    made = clone_of(base)
    write_record(opened, made, stage="addressed", goal="addressed")
    return made


def test_a_changed_base_is_a_danger_for_a_quick_clone(
    world: World, base: str, opened: Host, name: str
) -> None:
    os.utime(world.disks(base)[0])
    found = the_finding(world, opened, "base-changed")
    assert (found.name, found.level) == (name, "danger")


def test_a_changed_base_is_a_note_for_a_full_clone(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    made = clone_of(base, clone_strategy="full")
    write_record(opened, made, stage="addressed", goal="addressed")
    os.utime(world.disks(base)[0])
    assert the_finding(world, opened, "base-differs").level == "note"


@pytest.mark.guest
def test_a_base_that_runs_or_is_saved_is_a_danger(
    world: World, base: str, opened: Host, name: str
) -> None:
    stamp = world.disks(base)[0].stat()
    world.lab.start(base)
    os.utime(world.disks(base)[0], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    found = the_finding(world, opened, "base-running")
    assert found.name == base
    assert name in found.message
    with connection() as conn:
        conn.lookupByName(base).managedSave()
    os.utime(world.disks(base)[0], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert "managedsave-remove" in the_finding(world, opened, "base-saved").hint


def test_a_missing_disk_is_a_danger(world: World, opened: Host, name: str) -> None:
    disk = world.disks(name)[0]
    disk.unlink()
    assert str(disk) in the_finding(world, opened, "disk-missing").message


def test_a_disk_whose_folder_is_away_is_not_called_lost(
    world: World, opened: Host, base: str, clone_of: CloneOf
) -> None:
    folder = world.lab.folder / f"away-{world.token}"
    with storage_pool(folder.name, folder):
        made = clone_of(base, pool=folder.name)
        write_record(opened, made, stage="addressed", goal="addressed")
        elsewhere = folder.rename(folder.with_name(f"elsewhere-{world.token}"))
        found = [one for one in findings(world, opened) if one.kind == "disk-missing"]
        elsewhere.rename(folder)
        assert f"its folder '{folder}' does not exist" in found[0].message
        assert "backup" not in found[0].message
        assert "destroy" not in found[0].hint
        LocalHost(opened.url).destroy(made)
    folder.rmdir()


def test_a_failed_create_that_was_kept_is_found(world: World, opened: Host, name: str) -> None:
    write_record(opened, name, stage="booted", failed="No address within 5 s.")
    found = the_finding(world, opened, "failed")
    assert "No address" in found.message
    assert found.hint == f"salt-run kvmclone.destroy {name}"


def test_a_create_that_nobody_goes_on_with_is_unfinished(
    world: World, opened: Host, name: str
) -> None:
    write_record(opened, name, stage="booted", worker=NOBODY)
    found = the_finding(world, opened, "unfinished")
    assert found.hint == f"salt-run kvmclone.gc {name} force=True", "from here nobody can tell"


def test_a_destroy_that_stopped_midway_is_unfinished(world: World, opened: Host, name: str) -> None:
    write_record(opened, name, stage=DESTROYING, worker=NOBODY)
    found = the_finding(world, opened, "unfinished")
    assert found.hint == f"salt-run kvmclone.gc {name} apply=True force=True"


def test_a_recorded_disk_that_was_detached_is_found(
    world: World, opened: Host, clone_of: CloneOf
) -> None:
    made = clone_of(world.base(disks=2))
    write_record(opened, made, stage="addressed", goal="addressed")
    disk = world.disks(made)[1]
    world.detach(made, "vdb")
    assert str(disk) in the_finding(world, opened, "volume-unused").message


def test_a_machine_that_writes_a_bases_disk_is_a_danger(
    world: World, base: str, opened: Host, clone_of: CloneOf
) -> None:
    """Somebody gave it the template's disk; it runs, and whatever stands on that reads garbage."""
    clone = clone_of(base)
    clone_of(clone, "second")
    clone_of(base, "full", clone_strategy="full")
    for name in ("clone", "second", "full"):
        write_record(opened, f"{name}-{world.token}", stage="addressed", goal="addressed")
    assert findings(world, opened) == []
    machine = world.base("machine")
    world.attach(machine, world.disks(base)[0], "vdx")
    found = the_finding(world, opened, "base-shared")
    assert found.name == machine
    assert clone in found.message
    assert "full" not in found.message


@pytest.mark.guest
def test_a_clone_that_was_committed_into_its_base_is_a_danger(
    world: World, base: str, opened: Host, host: LocalHost, clone_of: CloneOf
) -> None:
    """``virsh blockcommit`` without --base: from then on it runs on its base's disk."""
    clone, other = clone_of(base), clone_of(base, "other")
    write_record(opened, other, stage="addressed", goal="addressed")
    host.boot(clone)
    disk = world.disks(clone)[0]
    words = ["virsh", "blockcommit", clone, "vda", "--active", "--pivot", "--wait"]
    subprocess.run(words, check=True, capture_output=True)
    write_record(opened, clone, stage="addressed", goal="addressed")
    found = {one.kind: one for one in findings(world, opened)}
    assert other in found["committed-into-base"].message
    assert clone == found["committed-into-base"].name
    assert "base-shared" not in found, "it is told once, as what it is"
    assert "open for writing" in found["base-changed"].message
    # Nobody is told to attach the old disk again: what was in it is in the base.
    assert "volume-unused" not in found
    assert any("was committed into" in word for word in host.show(clone).warnings)
    assert not any("read garbage" in word for word in host.show(clone).warnings)
    gone = host.destroy(clone)
    assert disk.exists()
    assert world.disks(base)[0].exists()
    assert any("uses it, too" in word for word in gone.warnings)


def test_a_disk_whose_clone_was_undefined_by_hand_is_found(
    world: World, opened: Host, name: str
) -> None:
    disk = world.disks(name)[0]
    with connection() as conn:
        conn.lookupByName(name).undefine()
    found = the_finding(world, opened, "volume-without-clone")
    assert found.name == str(disk)
    assert name in found.message


def test_such_a_disk_is_left_alone_where_others_stand_on_it(
    world: World, opened: Host, name: str, clone_of: CloneOf
) -> None:
    second = clone_of(name, "second")
    write_record(opened, second, stage="addressed", goal="addressed")
    with connection() as conn:
        conn.lookupByName(name).undefine()
    assert findings(world, opened) == []


def test_such_a_disk_is_left_alone_where_somebody_has_it_open(
    world: World, opened: Host, name: str
) -> None:
    disk = world.disks(name)[0]
    with connection() as conn:
        conn.lookupByName(name).undefine()
    with open_in_a_tool(disk):
        assert findings(world, opened) == []
    assert [one.name for one in findings(world, opened)] == [str(disk)]


def test_a_copy_by_another_tool_is_a_note(world: World, opened: Host, name: str) -> None:
    copy = world.copy_of(name)
    found = the_finding(world, opened, "copied-record")
    assert (found.name, found.level) == (copy, "note")
    assert name in found.message


def test_an_old_clone_is_offered_for_adoption(world: World, base: str, opened: Host) -> None:
    old = old_clone(world, base)
    found = the_finding(world, opened, "adoptable")
    assert found.hint == f"salt-call kvm_clone.adopt {old}"


def test_a_pool_that_is_off_and_holds_a_clones_disk_is_found(
    world: World, base: str, opened: Host, clone_of: CloneOf, small_pool: str
) -> None:
    made = clone_of(base, pool=small_pool)
    write_record(opened, made, stage="addressed", goal="addressed")
    with connection() as conn:
        conn.storagePoolLookupByName(small_pool).destroy()
    try:
        found = the_finding(world, opened, "pool-inactive")
    finally:
        with connection() as conn:
            conn.storagePoolLookupByName(small_pool).create()
    assert found.hint.endswith(f"pool-start {small_pool}")


def test_two_machines_with_one_mac_address_are_found(
    world: World, base: str, opened: Host, name: str
) -> None:
    mac = world.xml(base).find("./devices/interface/mac")
    xml = world.xml(name)
    own = xml.find("./devices/interface/mac")
    assert mac is not None
    assert own is not None
    own.set("address", mac.attrib["address"])
    with connection() as conn:
        conn.defineXML(ElementTree.tostring(xml, encoding="unicode"))
    found = the_finding(world, opened, "duplicate-mac")
    assert base in found.message
    assert name in found.message


def test_read_only_files_of_a_base_that_is_gone_are_found(
    world: World, base: str, opened: Host, name: str
) -> None:
    disk = world.disks(base)[0]
    protect.protect(opened, opened.domain(base), [str(disk)])
    with connection() as conn:
        conn.lookupByName(base).undefine()
    found = the_finding(world, opened, "protected-without-base")
    assert found.name == str(disk)
    assert "chmod" not in found.hint  # its quick clone stands on it
    overlay = world.disks(name)[0]
    run(["qemu-img", "rebase", "-u", "-b", "", overlay])
    assert the_finding(world, opened, "protected-without-base").hint == f"chmod u+w {disk}"


def test_an_image_that_cannot_be_read_is_told(world: World, base: str, opened: Host) -> None:
    broken = world.lab.pool_path / f"broken-{world.token}.qcow2"
    broken.write_bytes(world.disks(base)[0].read_bytes()[:20])
    assert str(broken) in the_finding(world, opened, "not-checked").message


def test_the_worst_comes_first(world: World, base: str, opened: Host, clone_of: CloneOf) -> None:
    names = [clone_of(base, word) for word in ("a", "b", "c", "d")]
    write_record(opened, names[0], stage="addressed", goal="addressed")
    write_record(opened, names[1], stage="booted", goal="addressed", worker=NOBODY)
    write_record(opened, names[2], stage="booted", goal="addressed", failed="No.")
    write_record(opened, names[3], stage="addressed", goal="addressed")
    world.disks(names[3])[0].unlink()
    world.copy_of(names[0])
    stray = world.lab.pool_path / f"stray-{world.token}-vda.qcow2"
    shutil.copy(world.disks(base)[0], stray)
    kinds = [one.kind for one in findings(world, opened)]
    assert kinds == [
        "disk-missing",
        "failed",
        "unfinished",
        "volume-without-clone",
        "copied-record",
    ]


def test_without_a_look_at_the_files_it_finds_the_same(
    world: World, opened: Host, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.refresh()
    monkeypatch.setattr(Host, "local", False)
    assert findings(world, opened) == []
    world.disks(name)[0].unlink()
    assert the_finding(world, opened, "disk-missing").name == name


# --- and each hint can be pasted ----------------------------------------------------------------


def failed(world: World, opened: Host, name: str) -> None:
    write_record(opened, name, stage="booted", failed="No address.")


def destroyed_halfway(world: World, opened: Host, name: str) -> None:
    gone = replace(NOBODY, boot=processes._boot(), host="")
    write_record(opened, name, stage=DESTROYING, worker=gone)


def disk_lost(world: World, opened: Host, name: str) -> None:
    world.disks(name)[0].unlink()


def disk_detached(world: World, opened: Host, name: str) -> None:
    world.detach(name, "vda")


def undefined_by_hand(world: World, opened: Host, name: str) -> None:
    with connection() as conn:
        conn.lookupByName(name).undefine()


def undefined_and_unnoticed(world: World, opened: Host, name: str) -> None:
    """libvirt does not know the file: it was moved there by hand."""
    disk = world.disks(name)[0]
    undefined_by_hand(world, opened, name)
    disk.rename(disk.with_name("away"))
    world.refresh()
    disk.with_name("away").rename(disk)


def copied(world: World, opened: Host, name: str) -> None:
    world.copy_of(name)


@pytest.mark.parametrize(
    "harm",
    [
        failed,
        destroyed_halfway,
        disk_lost,
        disk_detached,
        undefined_by_hand,
        undefined_and_unnoticed,
        copied,
    ],
)
def test_what_is_found_is_gone_after_its_hint_was_pasted(
    world: World,
    opened: Host,
    name: str,
    salt_minion: Salt,
    harm: Callable[[World, Host, str], None],
) -> None:
    harm(world, opened, name)
    commands = Commands(opened.url, AT_HOST)
    (found,) = [one for one in doctor.examine(opened, commands) if world.token in f"{one}"]
    paste(found.hint, salt_minion)
    assert findings(world, opened) == []


def test_a_hint_can_be_pasted_whatever_a_pool_or_a_url_is_called(
    world: World, opened: Host, clone_of: CloneOf, base: str, salt_minion: Salt
) -> None:
    pool = f"it's a $pool; {world.token}"
    folder = world.lab.folder / f"odd-{world.token}"
    with storage_pool(pool, folder):
        made = clone_of(base, pool=pool)
        write_record(opened, made, stage="addressed", goal="addressed")
        with connection() as conn:
            conn.storagePoolLookupByName(pool).destroy()
        url = "qemu+unix:///system?socket=/run/libvirt/libvirt-sock&no_tty=1"
        (found,) = [one for one in doctor.examine(opened, Commands(url, AT_HOST))
                    if world.token in f"{one}"]  # fmt: skip
        assert found.kind == "pool-inactive"
        paste(found.hint, salt_minion)
        assert findings(world, opened) == []
        LocalHost(opened.url).destroy(made)
    folder.rmdir()


def test_our_commands_are_those_of_whoever_reads_them() -> None:
    there = Commands("qemu:///system", AT_HOST)
    assert there.clone("destroy", "web1") == "salt-call kvm_clone.destroy web1"
    far = Commands("qemu+ssh://kvm02/system?no_tty=1", AT_HOST)
    assert far.clone("gc", "web1").endswith(" 'url=qemu+ssh://kvm02/system?no_tty=1'")
    assert far.virsh("list") == "virsh -c 'qemu+ssh://kvm02/system?no_tty=1' list"
    master = Commands("qemu:///system", minion="kvm01")
    assert master.clone("destroy", "web1") == "salt-run kvmclone.destroy web1"
    assert master.on_host("adopt", "web1") == "salt kvm01 kvm_clone.adopt web1"


def test_a_damaged_record_is_found_and_hides_nothing(
    world: World, opened: Host, name: str, clone_of: CloneOf, base: str
) -> None:
    other = clone_of(base, "other")
    write_record(opened, other, stage="booted", failed="No address.")
    with connection() as conn:
        domain = conn.lookupByName(name)
        element = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
        broken = re.sub(r'created="[^"]*"', 'created="soon"', element)
        kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
        domain.setMetadata(kind, broken, "kvmclone", NAMESPACE, 2)
    kinds = [one.kind for one in findings(world, opened)]
    assert kinds == ["record-damaged", "failed"]
