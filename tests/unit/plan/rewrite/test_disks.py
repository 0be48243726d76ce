"""What a guest finds its disks by stays, is its own where that is asked for, and is told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lxml import etree

from saltext.kvmclone.config import value_types
from saltext.kvmclone.model.facts import SourceFacts
from saltext.kvmclone.model.request import DiskChanges
from saltext.kvmclone.plan import planner
from saltext.kvmclone.plan.rewrite import DiskId, Identity, NewDisk, Rewritten, rewrite
from tests.support.plans import BASE, FACTS, QUICK, disk_xml, raw, wishing, with_disk

UUID = "11111111-2222-3333-4444-555555555555"


def disk(target: str, bus: str, inside: str = "", source: str = "/x/disk") -> str:
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{source}'/>"
        f"<target dev='{target}' bus='{bus}'/>{inside}</disk>"
    )


def rewritten(devices: str, *new: NewDisk, **ids: DiskId) -> Rewritten:
    xml = (
        f"<domain type='qemu'><name>mother</name><uuid>{UUID}</uuid><memory>1024</memory>"
        f"<vcpu>1</vcpu><devices>{devices}</devices></domain>"
    )
    identity = Identity("web1", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", ())
    return rewrite(xml, identity, new, ids=ids)


def found(made: Rewritten, path: str) -> list[str | None]:
    return [one.text for one in etree.fromstring(made.xml).findall(f"./devices/{path}")]


# --- kept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bus", "inside"),
    [
        ("virtio", "<serial>data</serial>"),
        ("sata", "<serial>data</serial>"),
        ("usb", "<serial>data</serial><address type='usb' bus='0' port='2'/>"),
        ("scsi", "<wwn>5000c50015ea71ad</wwn><vendor>SEAGATE</vendor><product>ST3</product>"),
        ("scsi", "<alias name='ua-data'/><address type='drive' controller='1' unit='4'/>"),
        ("virtio", "<address type='pci' domain='0' bus='3' slot='0' function='0'/>"),
    ],
)
def test_what_a_guest_finds_a_disk_by_is_kept(bus: str, inside: str) -> None:
    made = rewritten(disk("sda", bus, inside), NewDisk("sda", "/x/web1-sda.raw", "raw"))
    assert made.conflicts == []
    assert made.warnings == []
    assert set(made.changes) == {"name", "uuid", "description", "disk sda"}
    for word in inside.replace("'", '"').split("><"):
        assert word.strip("</>") in made.xml


def test_the_number_of_an_nvme_controller_is_kept() -> None:
    made = rewritten("<controller type='nvme' index='0'><serial>data</serial></controller>")
    assert found(made, "controller/serial") == ["data"]
    assert "controller serial" not in made.changes


@pytest.mark.parametrize("number", ["mother-data", UUID, UUID[:20], UUID.replace("-", "")])
def test_a_number_that_names_the_base_is_kept_and_told(number: str) -> None:
    made = rewritten(disk("vdb", "virtio", f"<serial>{number}</serial>"))
    assert made.conflicts == []
    assert found(made, "disk/serial") == [number]
    (warning,) = made.warnings
    assert f"'{number}' of disk vdb names the base" in warning
    assert "disks: {vdb: {serial: …}}" in warning


def test_an_alias_that_a_guest_knows_a_disk_by_is_kept_though_it_names_the_base() -> None:
    """QEMU tells the alias of a SCSI disk that has no number: ``scsi-0QEMU_…_drive-ua-data``."""
    made = rewritten(disk("sda", "scsi", f"<alias name='ua-{UUID}'/>"))
    assert made.conflicts == []
    assert f'"ua-{UUID}"' in made.xml
    assert "alias" in made.warnings[0]


# --- asked for -----------------------------------------------------------------------------------


def test_a_number_of_ones_own_is_shown_as_a_change() -> None:
    made = rewritten(
        disk("vdb", "virtio", "<serial>base-data</serial>") + disk("sda", "scsi", source="/x/b"),
        vdb=DiskId(serial="data"),
        sda=DiskId(wwn="5000c50015ea71ad"),
    )
    assert made.conflicts == []
    assert made.warnings == []
    assert found(made, "disk/serial") == ["data"]
    assert found(made, "disk/wwn") == ["5000c50015ea71ad"]
    assert made.changes["disk vdb serial"] == {"old": "base-data", "new": "data"}
    assert made.changes["disk sda wwn"] == {"old": None, "new": "5000c50015ea71ad"}


def test_whoever_asks_for_a_number_that_names_the_base_is_not_warned() -> None:
    made = rewritten(disk("vdb", "virtio"), vdb=DiskId(serial="base-data"))
    assert made.warnings == []


def test_a_shared_medium_gets_the_number_that_is_asked_for() -> None:
    facts = with_disk(disk_xml("file", "<source file='/iso/x'/>", device="cdrom", target="sdc"))
    made = planner.compute(facts, wishing(sdc=DiskChanges(serial="CD-2")))
    assert made.conflicts == ()
    assert made.changes["disk sdc serial"] == {"old": None, "new": "CD-2"}
    assert "<serial>CD-2</serial>" in made.xml


def test_a_number_is_asked_for_in_a_profile() -> None:
    made = planner.compute(FACTS, wishing(vdb=DiskChanges(serial="data")))
    assert made.as_dict()["changes"]["disk vdb serial"] == {"old": None, "new": "data"}
    assert replace(QUICK, disks={"vdb": DiskChanges(serial="data")}).digest() != QUICK.digest()


@pytest.mark.parametrize(
    ("bus", "wanted", "word"),
    [
        ("virtio", DiskId(serial="a" * 21), "on bus 'virtio' a guest sees 20"),
        ("scsi", DiskId(serial="a" * 37), "on bus 'scsi' a guest sees 36"),
        ("fdc", DiskId(serial="a"), "has none of its own"),
        ("nvme", DiskId(serial="a"), "has none of its own"),
        ("virtio", DiskId(wwn="5000c50015ea71ad"), "ide and scsi"),
        ("sata", DiskId(wwn="5000c50015ea71ad"), "ide and scsi"),
    ],
)
def test_a_number_that_no_guest_would_see_is_refused(bus: str, wanted: DiskId, word: str) -> None:
    (conflict,) = rewritten(disk("sda", bus), sda=wanted).conflicts
    assert "'disks: sda'" in conflict
    assert word in conflict


def test_a_disk_that_is_left_out_is_called_nothing() -> None:
    (conflict,) = rewritten(
        disk("vdb", "virtio"), NewDisk("vdb", "", ""), vdb=DiskId(serial="data")
    ).conflicts
    assert "leaves the disk out" in conflict


@pytest.mark.parametrize("written", ["", " data", "a/b", "ä", 17, None, ["x"], "a\nb"])
def test_a_serial_number_that_qemu_cannot_show_is_no_serial_number(written: object) -> None:
    with pytest.raises(ValueError):
        value_types.SERIAL.parse(written)


@pytest.mark.parametrize("written", ["", "5000", "5000c50015ea71ag", 5000000000000001, None])
def test_a_wwn_has_sixteen_hexadecimal_digits(written: object) -> None:
    with pytest.raises(ValueError):
        value_types.WWN.parse(written)
    assert value_types.WWN.parse("0x5000C50015EA71AD") == "5000c50015ea71ad"


# --- told apart ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("<serial>data</serial>", "<serial>data</serial>", "serial"),
        # A virtio disk shows twenty characters.
        (f"<serial>{'a' * 20}1</serial>", f"<serial>{'a' * 20}2</serial>", "serial"),
        ("<wwn>5000C50015EA71AD</wwn>", "<wwn>0x5000c50015ea71ad</wwn>", "wwn"),
    ],
)
def test_two_disks_with_one_number_are_refused(one: str, other: str, kind: str) -> None:
    pair = disk("vda", "virtio", one) + disk("vdb", "virtio", other, "/x/other")
    (conflict,) = rewritten(pair).conflicts
    assert "disk vda and the disk vdb" in conflict
    assert f"disks: {{vdb: {{{kind}: …}}}}" in conflict


def test_the_cure_for_two_disks_with_one_number_works() -> None:
    number = "<serial>data</serial>"
    pair = disk("vda", "virtio", number) + disk("vdb", "virtio", number, "/x/other")
    assert rewritten(pair, vdb=DiskId(serial="data2")).conflicts == []
    assert rewritten(pair, NewDisk("vdb", "", "")).conflicts == []


def test_a_number_that_another_disk_has_already_is_refused() -> None:
    pair = disk("vda", "virtio", "<serial>data</serial>") + disk("vdb", "virtio", "", "/x/other")
    (conflict,) = rewritten(pair, vdb=DiskId(serial="data")).conflicts
    assert "one serial number, 'data'" in conflict


def test_a_disk_and_an_nvme_controller_with_one_number_are_refused() -> None:
    devices = disk("vda", "virtio", "<serial>data</serial>") + (
        "<controller type='nvme' index='0'><serial>data</serial></controller>"
    )
    (conflict,) = rewritten(devices).conflicts
    assert "disks: {vda: {serial: …}}" in conflict


def test_two_ways_to_one_disk_have_one_number() -> None:
    """Multipath: that they have is how the guest knows that they are one."""
    way = "<shareable/><serial>lun0</serial><wwn>5000c50015ea71ad</wwn>"
    made = rewritten(disk("sda", "scsi", way) + disk("sdb", "scsi", way))
    assert made.conflicts == []


def test_disks_without_a_number_are_not_alike() -> None:
    assert rewritten(disk("vda", "virtio") + disk("vdb", "virtio", "", "/x/other")).conflicts == []


def test_a_plan_tells_of_two_disks_with_one_number() -> None:
    facts = with_disk(
        disk_xml("file", "<source file='/x'/><serial>BASE-DISK</serial>"),
        vdc=SourceFacts((raw("/x"),), pool="pool"),
    )
    assert "BASE-DISK" in BASE
    (conflict,) = planner.compute(facts, QUICK).conflicts
    assert "disks: {vdc: {serial: …}}" in conflict
