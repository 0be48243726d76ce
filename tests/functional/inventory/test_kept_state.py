"""What libvirt keeps under a name, memory and snapshots, is never another machine's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import libvirtd
from lab.lab import connection
from saltext.kvmclone.errors import CloneInUse, PlanRefused
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.derived_files import SYSTEM
from tests.functional.lifecycle.test_renamed_clones import rename
from tests.support.firmware_machines import (
    STATE,
    everything,
)
from tests.support.hints import Typist, tries
from tests.support.world import World, quick

pytestmark = [pytest.mark.slow, pytest.mark.guest, pytest.mark.usefixtures("as_before")]


@pytest.fixture
def base(firmware_base: str) -> str:
    return firmware_base


def saved_memory(name: str) -> bytes:
    """The saved memory of a machine called so, which is gone again."""
    with connection() as conn:
        xml = (
            f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory><os>"
            "<type arch='x86_64' machine='q35'>hvm</type></os></domain>"
        )
        domain = conn.defineXML(xml)
        domain.create()
        domain.managedSave()
        content = (STATE / "save" / f"{name}.save").read_bytes()
        domain.managedSaveRemove()
        domain.undefine()
    return content


@tries("derived_files.aside")
def test_no_clone_is_started_from_the_memory_of_an_earlier_machine(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    name = world.name()
    left = STATE / "save" / f"{name}.save"
    left.write_bytes(saved_memory(name))
    snapshot = STATE / "snapshot" / name / "then.xml"
    snapshot.parent.mkdir(parents=True)
    snapshot.write_text("<domainsnapshot/>")
    before = everything()
    with pytest.raises(PlanRefused, match="earlier machine") as info:
        host.clone(quick(name, base))
    assert not world.exists(name)
    assert everything() == before
    typist(info.value.message)
    host.clone(quick(name, base))
    host.destroy(name)
    assert sorted(path.name for path in (STATE / f"left-by-another-{name}").rglob("*.*")) == [
        f"{name}.save",
        "then.xml",
    ]


@pytest.fixture
def unloaded(world: World) -> Iterator[Callable[[str], Path]]:
    """Leaves the definition of a machine that this libvirtd did not understand at its start."""
    made: list[Path] = []

    def make(name: str) -> Path:
        path = Path(SYSTEM.definitions) / f"{name}.xml"
        path.write_text(f"<domain type='another'><name>{name}</name></domain>")
        made.append(path)
        return path

    yield make
    for path in made:
        path.unlink(missing_ok=True)
        shutil.rmtree(path.parent / f"left-by-another-{path.stem}", ignore_errors=True)


@tries("derived_files.aside")
def test_a_definition_that_libvirtd_could_not_load_is_not_overwritten(
    world: World, host: LocalHost, base: str, unloaded: Callable[[str], Path], typist: Typist
) -> None:
    name = world.name()
    left = unloaded(name)
    before = left.read_text()
    with pytest.raises(PlanRefused, match=re.escape(str(left))) as info:
        host.clone(quick(name, base))
    assert left.read_text() == before
    typist(info.value.message)
    host.clone(quick(name, base))
    assert (left.parent / f"left-by-another-{name}" / left.name).read_text() == before


def test_the_store_of_a_machine_that_libvirtd_could_not_load_stays(
    world: World, host: LocalHost, old: Callable[..., str], unloaded: Callable[[str], Path]
) -> None:
    name = old()
    now = rename(world, name)
    unloaded(name)
    before = everything()
    gone = host.destroy(now)
    assert everything() == before
    assert any(f"{name}_VARS.fd' stays" in word for word in gone.warnings)


@tries("derived_files.aside", "state_files.require_own")
@pytest.mark.parametrize(
    ("kind", "restarted"),
    [("save", False), ("save", True), ("snapshot", False), ("checkpoint", False)],
)
def test_a_destroy_does_not_delete_what_another_machine_left_under_the_name(
    world: World, host: LocalHost, base: str, kind: str, restarted: bool, typist: Typist
) -> None:
    """libvirt deletes it with any definition of that name."""
    if restarted and not libvirtd.is_ours():
        pytest.skip("the libvirtd here is not the lab's")
    name = world.name()
    host.clone(quick(name, base))
    if kind == "save":
        left = STATE / "save" / f"{name}.save"
        left.write_bytes(saved_memory(name.replace("clone", "earlier")))
    else:
        left = STATE / kind / name / "then.xml"
        left.parent.mkdir(parents=True)
        left.write_text("<domainsnapshot/>")
    if restarted:
        libvirtd.crash()
    before = everything()
    for force in (False, True):
        with pytest.raises(CloneInUse, match=re.escape(str(left))) as info:
            host.destroy(name, force=force)
        assert everything() == before
        assert world.exists(name)
    typist(info.value.hint)
    host.destroy(name)
    assert not world.exists(name)
    assert (STATE / f"left-by-another-{name}" / left.name).exists()


def test_what_a_restarted_libvirtd_takes_for_the_clones_snapshot_stays(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    if not libvirtd.is_ours():
        pytest.skip("the libvirtd here is not the lab's")
    name, other = world.name(), world.name("other")
    for one in (name, other):
        host.clone(quick(one, base))
        with connection() as conn:
            xml = f"<domainsnapshot><name>of {one}</name></domainsnapshot>"
            conn.lookupByName(one).snapshotCreateXML(xml)
    theirs = STATE / "snapshot" / other / f"of {other}.xml"
    left = theirs.rename(STATE / "snapshot" / name / theirs.name)
    libvirtd.crash()
    with connection() as conn:
        assert f"of {other}" in conn.lookupByName(name).snapshotListNames()
    before = everything()
    for force in (False, True):
        with pytest.raises(CloneInUse, match=re.escape(str(left))) as info:
            host.destroy(name, force=force)
        assert f"of {name}" not in str(info.value), "its own goes with it"
        assert everything() == before
    typist(info.value.hint)
    host.destroy(name)
    assert not world.exists(name)
    assert (STATE / f"left-by-another-{name}" / left.name).exists()


def test_a_clones_own_saved_memory_and_snapshots_go_with_it(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name()
    before = everything()
    host.clone(quick(name, base))
    with connection() as conn:
        domain = conn.lookupByName(name)
        domain.snapshotCreateXML("<domainsnapshot><name>second one</name></domainsnapshot>")
        domain.create()
        domain.managedSave()
    image = STATE / "save" / f"{name}.save"
    with image.open("r+b") as file:  # as a crash of the host leaves it
        file.write(b"LibvirtQemudPart")
    host.destroy(name)
    assert everything() == before


@tries("derived_files.aside")
def test_a_foreign_machine_does_not_take_that_along_either(
    world: World, host: LocalHost, efi: Callable[..., str], typist: Typist
) -> None:
    name = efi(world.name("foreign"))
    left = STATE / "snapshot" / name / "then.xml"
    left.parent.mkdir(parents=True)
    left.write_text("<domainsnapshot/>")
    with pytest.raises(CloneInUse, match=r"then\.xml") as info:
        host.destroy(name, force=True)
    typist(info.value.hint)
    host.destroy(name, force=True)
    assert (STATE / f"left-by-another-{name}/then.xml").exists()
