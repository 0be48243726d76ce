"""A copy of a base is the same machine to the guest, and another one to everybody else."""

from __future__ import annotations

import pytest

from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.model import domain_xml, libvirt_xml, normal_definition
from saltext.kvmclone.plan import base_copy
from saltext.kvmclone.plan.base_copy import Place
from tests.unit.model.test_normal_definition import BASE, CORPUS

PLACE = Place(
    "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", "bbbbbbbb-cccc-4ddd-8eee-ffffffffffff",
    {"vda": "/pool/base-vda.qcow2"}, "/nvram/base_VARS.fd",
)  # fmt: skip
MORE = """<disk type='file' device='disk'><driver type='qcow2'/>
<source file='/images/top.qcow2'><seclabel model='dac' relabel='no'/></source>
<backingStore type='file'><format type='raw'/><source file='/images/below'/></backingStore>
<target dev='vda'/></disk>
<disk type='file' device='cdrom'><source file='/iso/tools.iso'/><target dev='sda'/></disk>"""


def with_disks(disks: str) -> str:
    start, end = BASE.index("<disk "), BASE.index("</disk>") + len("</disk>")
    return BASE[:start] + disks + BASE[end:]


def test_nothing_of_the_sources_identity_comes_along() -> None:
    made = base_copy.definition(BASE, PLACE, ())
    root = libvirt_xml.parse(made)
    assert root.findtext("name") == "base"
    assert root.findtext("uuid") == PLACE.uuid
    assert root.findtext("genid") == PLACE.genid
    assert root.findtext("./sysinfo/system/entry[@name='serial']") == PLACE.uuid
    assert root.findtext("./os/nvram") == PLACE.nvram
    for mark in (
        "11111111-2222",
        "99999999-2222",
        "52:54:00:00:00:01",
        "tap7",
        "urn:x",
        "The base",
    ):
        assert mark not in made
    assert domain_xml.read(made).interfaces[0].mac.startswith("52:54:00:")


def test_every_copy_has_an_address_of_its_own() -> None:
    made = {domain_xml.read(base_copy.definition(BASE, PLACE, ())).interfaces[0].mac for _ in "abc"}
    assert len(made) == 3


def test_a_disk_is_the_file_that_was_fetched() -> None:
    made = libvirt_xml.parse(base_copy.definition(with_disks(MORE), PLACE, ()))
    disk = made.find("./devices/disk")
    assert disk is not None
    assert (disk.get("type"), domain_xml.disk_of(disk).path) == ("file", "/pool/base-vda.qcow2")
    assert disk.find("backingStore") is None
    assert disk.find(".//seclabel") is None


@pytest.mark.parametrize("there", [True, False])
def test_a_medium_stays_where_the_target_has_it_too(there: bool) -> None:
    original = with_disks(MORE)
    assert base_copy.media(original) == ["/iso/tools.iso"]
    made = base_copy.definition(original, PLACE, ["/iso/tools.iso"] if there else [])
    drive = domain_xml.read(made).disks[1]
    assert (drive.device, drive.path) == ("cdrom", "/iso/tools.iso" if there else "")


def test_the_guest_sees_the_same_machine() -> None:
    for original in (BASE, with_disks(MORE)):
        made = base_copy.definition(original, PLACE, ())
        assert normal_definition.normal(made) == normal_definition.normal(original)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_whatever_a_base_has_its_copy_has_too(path) -> None:  # type: ignore[no-untyped-def]
    original = path.read_text(encoding="utf-8")
    try:
        targets = [disk.target for disk in domain_xml.read(original).disks if disk.device == "disk"]
    except PlanRefused:
        pytest.skip("no definition that can be read")
    place = Place(PLACE.uuid, PLACE.genid, {name: f"/pool/{name}" for name in targets}, PLACE.nvram)
    made = base_copy.definition(original, place, ())
    devices = [child.tag for child in libvirt_xml.parse(original).find("devices")]
    assert [child.tag for child in libvirt_xml.parse(made).find("devices")] == [
        tag for tag in devices if tag != "emulator"
    ]
