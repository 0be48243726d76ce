"""Promises about removing a foreign machine by force: its definition goes, no file does."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest

from lab.lab import connection
from saltext.kvmclone.errors import ForeignDomain
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from tests.support.hints import Typist
from tests.support.world import World

#: Where libvirt keeps the state of emulated TPMs.
SWTPM = Path("/var/lib/libvirt/swtpm")


@pytest.fixture
def tpm_state(world: World) -> Iterator[Callable[[str], Path]]:
    """Gives a machine an emulated TPM, and answers with the file that holds its state."""
    made: list[Path] = []

    def give(name: str) -> Path:
        with connection() as conn:
            domain = conn.lookupByName(name)
            root = ElementTree.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
            devices = root.find("devices")
            assert devices is not None
            tpm = ElementTree.SubElement(devices, "tpm", model="tpm-crb")
            ElementTree.SubElement(tpm, "backend", type="emulator", version="2.0")
            conn.defineXML(ElementTree.tostring(root, encoding="unicode"))
            folder = SWTPM / domain.UUIDString()
        state = folder / "tpm2/tpm2-00.permall"
        state.parent.mkdir(parents=True)
        state.write_bytes(b"sealed secrets")
        made.append(folder)
        return state

    yield give
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


def test_nvram_and_tpm_stay_and_are_named(
    world: World, host: LocalHost, tpm_state: Callable[[str], Path]
) -> None:
    name = world.base("foreign", disks=2, uefi=True)
    state = tpm_state(name)
    store = world.lab.folder / f"nvram/{name}.fd"
    files = [*world.disks(name), store]
    before = [file.read_bytes() for file in files]
    gone = host.destroy(name, force=True)
    assert not world.exists(name)
    assert [file.read_bytes() for file in files] == before
    assert state.read_bytes() == b"sealed secrets"
    assert all(any(f"'{file}' stays" in word for word in gone.warnings) for file in files)
    assert any("TPM" in word for word in gone.warnings)


@pytest.mark.guest
def test_a_saved_one_is_refused_with_what_to_type(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    world.lab.start(base)
    with connection() as conn:
        conn.lookupByName(base).managedSave()
    before = world.footprint()
    with pytest.raises(ForeignDomain, match="saved memory image") as info:
        host.destroy(base, force=True)
    assert world.footprint() == before
    typist(info.value.hint, "virsh -c qemu:///system managedsave-remove")
    host.destroy(base, force=True)
    assert not world.exists(base)


def test_one_with_snapshots_is_refused_with_what_to_type(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    disk = world.disks(base)[0]
    with connection() as conn:
        for word in ("first", "second one"):
            xml = f"<domainsnapshot><name>{word}</name></domainsnapshot>"
            conn.lookupByName(base).snapshotCreateXML(xml)
    before = disk.read_bytes()
    with pytest.raises(ForeignDomain, match=r"snapshots.*first, second one") as info:
        host.destroy(base, force=True)
    typist(info.value.hint, "virsh -c qemu:///system snapshot-list")
    host.destroy(base, force=True)
    assert not world.exists(base)
    assert disk.read_bytes() == before, "the snapshots in it, too"


def test_a_libvirt_that_would_delete_the_tpm_is_not_asked(
    world: World,
    host: LocalHost,
    tpm_state: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    typist: Typist,
) -> None:
    """Before 8.9 there was no way to keep it."""
    name = world.base("foreign", uefi=True)
    state, store = tpm_state(name), world.lab.folder / f"nvram/{name}.fd"
    with monkeypatch.context() as patched:
        patched.setattr(Host, "version", lambda self: 8_008_000)
        with pytest.raises(ForeignDomain, match="too old") as info:
            host.destroy(name, force=True)
    assert world.exists(name)
    assert state.exists()
    typist(info.value.hint, "virsh -c qemu:///system undefine")
    assert not world.exists(name)
    assert store.exists(), "this it knew how to keep"


@pytest.mark.guest
def test_a_running_one_is_stopped_and_its_files_stay(
    world: World, host: LocalHost, base: str
) -> None:
    world.lab.start(base)
    disk = world.disks(base)[0]
    host.destroy(base, force=True)
    assert not world.exists(base)
    assert disk.exists()


@pytest.mark.guest
def test_the_memory_file_of_a_snapshot_is_named(
    world: World, host: LocalHost, base: str, typist: Typist
) -> None:
    """With the snapshot libvirt forgets the file, too."""
    memory = world.disks(base)[0].with_name(f"{base}.mem")
    world.lab.start(base)
    words = ["virsh", "snapshot-create-as", base, "s1", "--memspec"]
    subprocess.run([*words, f"file={memory},snapshot=external"], check=True, capture_output=True)
    with pytest.raises(ForeignDomain) as info:
        host.destroy(base, force=True)
    assert str(memory) in info.value.hint
    typist(info.value.hint, "virsh -c qemu:///system snapshot-list")
    host.destroy(base, force=True)
    assert memory.exists()
