"""Promises about looking at many domains again: cheap where nothing changed, true where it did."""

from __future__ import annotations

import time
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from lab.lab import connection
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import domain_files, file_usage_scan
from tests.support.world import CloneOf, World


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe the files of definitions at once, as after a second."""
    monkeypatch.setattr(domain_files, "_SETTLED_S", -60.0)


@pytest.fixture
def asked(opened: Host, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the domains whose definitions libvirt was asked for."""
    names: list[str] = []
    handle = domain_files.DomainHandle
    definition = handle.definition

    def noted(self: domain_files.DomainHandle) -> str:
        names.append(self.name)
        return definition(self)

    monkeypatch.setattr(handle, "definition", noted)
    return names


def redefine(name: str, change: Callable[[ElementTree.Element], None]) -> None:
    with connection() as conn:
        root = ElementTree.fromstring(conn.lookupByName(name).XMLDesc())
        change(root)
        conn.defineXML(ElementTree.tostring(root, encoding="unicode"))


@pytest.mark.usefixtures("settled")
def test_a_definition_that_did_not_change_is_not_asked_for_again(
    base: str, clone_of: CloneOf, opened: Host, asked: list[str]
) -> None:
    clone_of(base, "one")
    before = file_usage_scan.scan(opened)
    asked.clear()
    again = file_usage_scan.scan(opened)
    assert asked == []
    assert (again.uses, again.claims, again.links) == (before.uses, before.claims, before.links)


@pytest.mark.usefixtures("settled")
def test_a_disk_that_was_added_since_is_seen(
    world: World, base: str, opened: Host, asked: list[str]
) -> None:
    other, disk = world.base("other"), str(world.disks(base)[0])
    assert file_usage_scan.scan(opened).users(disk) == [base]
    asked.clear()

    def share(root: ElementTree.Element) -> None:
        devices = root.find("devices")
        assert devices is not None
        added = ElementTree.SubElement(devices, "disk", type="file", device="disk")
        ElementTree.SubElement(added, "driver", name="qemu", type="qcow2")
        ElementTree.SubElement(added, "source", file=disk)
        ElementTree.SubElement(added, "target", dev="vdz", bus="virtio")

    redefine(other, share)
    assert file_usage_scan.scan(opened).users(disk) == sorted([base, other])
    assert asked == [other]


@pytest.mark.usefixtures("settled")
def test_a_record_that_was_written_since_is_seen(
    base: str, clone_of: CloneOf, opened: Host
) -> None:
    name = clone_of(base, "one")
    (claim,) = [one for one in file_usage_scan.scan(opened).claims if one.domain == name]

    def forget(root: ElementTree.Element) -> None:
        metadata = root.find("metadata")
        assert metadata is not None
        root.remove(metadata)

    redefine(name, forget)
    assert claim not in file_usage_scan.scan(opened).claims


def test_a_definition_of_this_moment_is_asked_for_again(
    world: World, opened: Host, asked: list[str]
) -> None:
    """Two changes within one tick of the clock could leave the same time on the file."""
    base = world.base("new")
    file_usage_scan.scan(opened)
    file_usage_scan.scan(opened)
    assert asked.count(base) == 2
    time.sleep(1.1)
    file_usage_scan.scan(opened)
    file_usage_scan.scan(opened)
    assert asked.count(base) == 3


@pytest.mark.usefixtures("settled")
def test_of_a_domain_that_is_gone_nothing_is_kept(
    base: str, clone_of: CloneOf, opened: Host
) -> None:
    name = clone_of(base, "one")
    file_usage_scan.scan(opened)
    domain = opened.domain(name)
    uuid = domain.uuid
    assert uuid in opened.defined
    domain.raw.undefine()
    assert name not in {use.domain for use in file_usage_scan.scan(opened).uses}
    assert uuid not in opened.defined
