"""
Whatever disks a base has and whatever is wished for them: the plan refuses, or its XML is one that
libvirt's own schema accepts and that names no image of the base but the shared ones.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lxml import etree

from saltext.kvmclone.model.facts import SourceFacts
from saltext.kvmclone.model.request import DiskChanges
from saltext.kvmclone.plan import planner
from tests.support.plans import BASE, FACTS, GIB, QUICK, VDA, VDB, qcow2, raw

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")

pytestmark = pytest.mark.skipif(not SCHEMA.exists(), reason="libvirt's schema is not here")

BUS = {"vd": "virtio", "sd": "scsi", "fd": "fdc"}
PREFIX = {"disk": "vd", "cdrom": "sd", "lun": "sd", "floppy": "fd"}

#: A source of each kind; ``N`` stands for the number of the disk.
SOURCES = {
    "file": (
        "<source file='/x/N'/>",
        "<source file='/x/N' startupPolicy='optional'/>",
        "<source file='/x/N'><seclabel model='dac' relabel='no'/></source>",
        "<source file='/x/N'><slices><slice type='storage' offset='0' size='9'/></slices></source>",
        "<source file='/x/N'><encryption format='luks'><secret type='passphrase' "
        "uuid='f52a81b2-424e-490c-823d-6bd4235bc572'/></encryption></source>",
    ),
    "block": (
        "<source dev='/dev/xN'/>",
        "<source dev='/dev/xN'><reservations managed='yes'/></source>",
    ),
    "volume": ("<source pool='p' volume='vN'/>", "<source pool='p' volume='vN' mode='host'/>"),
    "network": ("<source protocol='nbd' name='n'><host name='h' port='1'/></source>",),
    "dir": ("<source dir='/srv/N'/>",),
    "nvme": (
        "<source type='pci' managed='yes' namespace='1'><address domain='0x0000' bus='0x01' "
        "slot='0x00' function='0x0'/></source>",
    ),
    "vhostuser": ("<source type='unix' path='/run/N'/>",),
}
DRIVERS = (
    "<driver name='qemu'/>",
    "<driver name='qemu' type='qcow2' cache='none' io='native' discard='unmap'/>",
    "<driver name='qemu' type='raw' queues='2' iothread='1'/>",
    "<driver name='qemu' type='vmdk'/>",
)
CHILDREN = (
    "<backingStore/>",
    "<backingStore type='file'><format type='qcow2'/><source file='/x/below'/></backingStore>",
    "<iotune><total_bytes_sec>1000</total_bytes_sec><group_name>g</group_name></iotune>",
    "<blockio logical_block_size='512'/>",
    "<readonly/>",
    "<shareable/>",
    "<transient/>",
    "<serial>SERIALN</serial>",
    "<wwn>5000c50015ea71aN</wwn>",
    "<alias name='ua-dN'/>",
    "<boot order='N'/>",
)


@st.composite
def disks(draw: st.DrawFn, number: int) -> tuple[str, str]:
    """The target of a disk, and its element."""
    kind = draw(st.sampled_from(["file"] * 8 + sorted(SOURCES)))
    device = draw(st.sampled_from(["disk", "disk", *sorted(PREFIX)]))
    target = PREFIX[device] + chr(ord("c") + number)
    empty = device in ("cdrom", "floppy") and draw(st.booleans())
    inside = "" if empty else draw(st.sampled_from(SOURCES[kind]))
    # In the order of CHILDREN, and few of each kind: else most bases are no definitions.
    children = sorted(draw(st.sets(st.sampled_from(CHILDREN), max_size=4)), key=CHILDREN.index)
    host_device = " sgio='filtered' rawio='yes'" if device == "lun" and kind == "block" else ""
    xml = (
        f"<disk type='{kind}' device='{device}'{host_device}>{draw(st.sampled_from(DRIVERS))}"
        f"{inside}<target dev='{target}' bus='{BUS[target[:2]]}'/>{''.join(children)}</disk>"
    )
    return target, xml.replace("N", str(number + 1))


def sources(number: int) -> st.SearchStrategy[SourceFacts]:
    device = replace(raw(f"/dev/x{number}"), kind="block")
    return st.sampled_from(
        [
            SourceFacts((raw(f"/x/{number}"),), pool="pool"),
            SourceFacts((raw(f"/x/{number}"),)),
            SourceFacts((qcow2(f"/x/{number}"),), pool="pool"),
            SourceFacts(
                (qcow2(f"/x/{number}", backing="/x/below"), qcow2("/x/below")), pool="pool"
            ),
            SourceFacts((device,)),
            SourceFacts(asleep="z"),
        ]
    )


WISHES = st.builds(
    DiskChanges,
    size=st.sampled_from([None, None, 20 * GIB]),
    pool=st.sampled_from(["", "fast"]),
    strategy=st.sampled_from(["", "full", "quick"]),
    action=st.sampled_from(["", "", "clone", "share", "skip"]),
    serial=st.sampled_from(["", "", "data", "a-2.b+c 3"]),
    wwn=st.sampled_from(["", "", "500000000000abcd"]),
)


@cache
def schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(str(SCHEMA)))


def valid(xml: str) -> bool:
    return bool(schema().validate(etree.fromstring(xml)))


def assert_shared_for_a_reason(element: etree._Element, text: str) -> None:
    """Nobody writes it; or everybody may, and then it is raw and one and the same disk."""
    readonly = element.find("readonly") is not None or element.get("device") == "cdrom"
    shareable = element.find("shareable") is not None
    driver = element.find("driver")
    form = driver.get("type") if driver is not None else None
    assert readonly or shareable or element.find("source") is None
    assert readonly or form in (None, "raw") or element.find("source") is None


@settings(max_examples=400)
@given(data=st.data(), strategy=st.sampled_from(["quick", "full"]), count=st.integers(1, 2))
def test_a_plan_refuses_or_gives_a_definition_that_libvirt_accepts(
    data: st.DataObject, strategy: str, count: int
) -> None:
    made = [data.draw(disks(number)) for number in range(count)]
    targets = [target for target, _xml in made]
    base_xml = BASE.replace(
        "<interface type='network'>",
        "".join(xml for _target, xml in made) + "<interface type='network'>",
        1,
    )
    assume(valid(base_xml))
    found = {target: data.draw(sources(number)) for number, target in enumerate(targets, 1)}
    facts = replace(FACTS, base_xml=base_xml, sources={"vda": VDA, "vdb": VDB, **found})
    wishes = data.draw(st.dictionaries(st.sampled_from(targets), WISHES))
    pool = data.draw(st.sampled_from(["", "fast"]))
    planned = planner.compute(
        facts, replace(QUICK, clone_strategy=strategy, pool=pool, disks=wishes)
    )
    planned.as_dict()
    if planned.conflicts:
        return
    assert valid(planned.xml), schema().error_log.last_error
    for disk, element in zip(
        [disk for disk in planned.disks if disk.action != "skip"],
        etree.fromstring(planned.xml).findall("./devices/disk"),
        strict=True,
    ):
        text = etree.tostring(element, encoding="unicode")
        if disk.action == "share":
            assert_shared_for_a_reason(element, text)
            continue
        assert [dict(source.attrib) for source in element.findall("source")] == [
            {"file": disk.destination}
        ]
        assert not list(element.find("source"))
        for stale in ("/x/", "/dev/x", "<shareable", "<backingStore", "rawio"):
            assert stale not in text
