"""Empty disks that the profile gives a clone and its base does not have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext.kvmclone.model import domain_xml, libvirt_xml
from saltext.kvmclone.model.facts import HostFacts, PoolFacts
from saltext.kvmclone.model.record import WANTED, Volume
from saltext.kvmclone.model.request import DiskChanges
from saltext.kvmclone.plan import planner
from saltext.kvmclone.plan.rewrite.disks import bus_of
from tests.support.plans import BASE, FACTS, GIB, QUICK, conflict, fate, wishing
from tests.unit.plan.rewrite.test_schema import faults

THREE = DiskChanges(size=3 * GIB)


def bus(target: str, facts: HostFacts = FACTS) -> str:
    made = planner.compute(facts, wishing(**{target: THREE}))
    assert made.conflicts == ()
    for element in libvirt_xml.parse(made.xml).findall("./devices/disk"):
        if domain_xml.disk_of(element).target == target:
            return bus_of(element)
    raise AssertionError(f"{target} was not made")


def test_a_disk_that_the_base_lacks_is_a_new_and_empty_one_beside_its_first() -> None:
    made = planner.compute(FACTS, wishing(vdc=THREE))
    assert made.conflicts == ()
    assert faults(made.xml) == []
    new = fate(made, "vdc")
    assert (new.action, new.source, new.pool) == ("copy", "", "pool")
    assert (new.destination, new.format) == ("/pool/web1-vdc.qcow2", "qcow2")
    assert "empty" in new.reason
    assert made.changes["disk vdc"] == {"old": None, "new": "/pool/web1-vdc.qcow2"}
    assert made.changes["disk vdc size"] == {"old": None, "new": 3 * GIB}
    disk = domain_xml.read(made.xml).disks[-1]
    assert (disk.target, disk.path, disk.format) == ("vdc", "/pool/web1-vdc.qcow2", "qcow2")


def test_it_is_recorded_and_nothing_of_the_base_with_it() -> None:
    made = planner.compute(FACTS, wishing(vdc=THREE))
    volume = Volume("vdc", "/pool/web1-vdc.qcow2", "qcow2", "copy", WANTED, 3 * GIB)
    assert volume in made.record.volumes
    assert {disk.target for disk in made.record.base_disks} == {"vda", "vdb"}
    assert made.sources == planner.compute(FACTS, QUICK).sources


def test_pool_format_size_and_numbers_are_as_the_profile_says() -> None:
    wish = DiskChanges(size=1500, pool="fast", format="raw", serial="data")
    made = planner.compute(FACTS, wishing(vdc=wish))
    new = fate(made, "vdc")
    assert (new.destination, new.format) == ("/fast/web1-vdc.raw", "raw")
    assert new.capacity == 2048, "libvirt counts in KiB"
    assert made.changes["disk vdc pool"] == {"old": None, "new": "fast"}
    assert domain_xml.read(made.xml).disks[-1].serial == "data"
    assert faults(made.xml) == []


@pytest.mark.parametrize(
    ("target", "expected"), [("vdc", "virtio"), ("sdb", "sata"), ("hdb", "ide")]
)
def test_its_bus_is_the_usual_one_for_its_name(target: str, expected: str) -> None:
    without = BASE.replace("<target dev='sda' bus='sata'/>", "<target dev='vde' bus='virtio'/>")
    without = without.replace("pc-q35-7.2", "pc-i440fx-7.2")
    assert bus(target, replace(FACTS, base_xml=without)) == expected


def test_a_machine_without_ide_or_with_scsi_gets_no_other_bus() -> None:
    without = BASE.replace("<target dev='sda' bus='sata'/>", "<target dev='vde' bus='virtio'/>")
    assert bus("hdb", replace(FACTS, base_xml=without)) == "sata", "it is a q35"
    scsi = without.replace("<devices>", "<devices><controller type='scsi' model='virtio-scsi'/>")
    assert bus("sdb", replace(FACTS, base_xml=scsi)) == "scsi"


def test_its_bus_is_that_of_the_bases_disks_of_such_a_name() -> None:
    def based(on: str) -> HostFacts:
        changed = BASE.replace("dev='vdb' bus='virtio'", f"dev='sdb' bus='{on}'")
        assert changed != BASE
        return replace(
            FACTS, base_xml=changed, sources={**FACTS.sources, "sdb": FACTS.sources["vdb"]}
        )

    assert [bus("sdc", based(on)) for on in ("scsi", "sata", "usb")] == ["scsi", "sata", "usb"]


@pytest.mark.parametrize(
    ("target", "wish"),
    [
        ("vdx", DiskChanges(pool="fast")),
        ("vdx", DiskChanges(action="skip")),
        ("vdx", DiskChanges(size=GIB, action="clone")),
        ("vdx", DiskChanges(size=GIB, strategy="full")),
    ],
)
def test_a_disk_that_cannot_be_meant_as_a_new_one_is_named_with_those_there_are(
    target: str, wish: DiskChanges
) -> None:
    said = conflict(FACTS, wishing(**{target: wish}))
    assert "'vdx', which the base does not have. It has: vda, vdb, sda." in said
    assert "disks: {vdx: {size: 10GiB}}" in said


@pytest.mark.parametrize("target", ["fda", "xvdb", "disk2", "nvme0n1", "vd/../../x"])
def test_a_name_that_no_new_disk_has_is_refused(target: str) -> None:
    assert "A new one is called vdb, sdb or hdb" in conflict(FACTS, wishing(**{target: THREE}))


def test_a_size_that_no_qcow2_shows_is_refused() -> None:
    assert "at most 2048TiB" in conflict(FACTS, wishing(vdc=DiskChanges(size=2**52)))


def test_a_pool_must_be_there_and_running() -> None:
    assert "no storage pool 'none'" in conflict(
        FACTS, wishing(vdc=DiskChanges(size=GIB, pool="none"))
    )
    asleep = replace(FACTS, pools={**FACTS.pools, "fast": PoolFacts("fast", "dir", "/fast", False)})
    assert "not started" in conflict(asleep, wishing(vdc=DiskChanges(size=GIB, pool="fast")))


def test_a_clone_without_any_disk_of_the_base_needs_a_pool_named() -> None:
    skip = DiskChanges(action="skip")
    said = conflict(FACTS, wishing(vda=skip, vdb=skip, vdc=THREE))
    assert "disks: {vdc: {size: 3GiB, pool: default}}" in said


def test_a_file_that_stands_there_is_not_overwritten() -> None:
    facts = replace(FACTS, existing=frozenset(["/pool/web1-vdc.qcow2"]))
    assert "exists already" in conflict(facts, wishing(vdc=THREE))


def test_more_than_the_pool_has_room_for_is_warned_of_and_its_tables_are_counted() -> None:
    small = replace(FACTS.pools["fast"], available=2 * GIB)
    facts = replace(FACTS, pools={**FACTS.pools, "fast": small})
    wish = DiskChanges(size=3 * GIB, pool="fast")
    warning = planner.compute(facts, wishing(vdc=wish)).warnings[0]
    assert "Disk vdc may grow to 3GiB, and storage pool 'fast' has 2.0 GiB free" in warning
    full = replace(FACTS, pools={**FACTS.pools, "fast": replace(small, available=1000)})
    assert "'fast' has 0 MiB free" in conflict(full, wishing(vdc=wish))


def test_the_format_of_a_disk_of_the_base_is_no_matter_of_choice() -> None:
    said = conflict(FACTS, wishing(vda=DiskChanges(format="raw")))
    assert "the clone's has format qcow2" in said
    assert planner.compute(FACTS, wishing(vda=DiskChanges(format="qcow2"))).conflicts == ()
