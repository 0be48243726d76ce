"""Processors and memory as asked for, or a reason why not."""

from __future__ import annotations

from math import prod

import pytest

from saltext.kvmclone.model import domain_xml, libvirt_xml
from saltext.kvmclone.plan.rewrite import Identity, Rewritten, Sizing, rewrite
from tests.unit.plan.rewrite.test_schema import faults

GIB = 2**30
IDENTITY = Identity("child", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", ())


def base(inside: str = "", vcpu: str = "<vcpu current='2'>4</vcpu>", devices: str = "") -> str:
    return (
        "<domain type='kvm'><name>mother</name><uuid>5eed0000-1111-4222-8333-444455556666</uuid>"
        f"<memory unit='GiB'>1</memory><currentMemory unit='MiB'>512</currentMemory>{vcpu}"
        f"{inside}<os><type>hvm</type></os><devices>{devices}</devices></domain>"
    )


def sized(xml: str, cpus: int | None = None, memory: int | None = None) -> Rewritten:
    rewritten = rewrite(xml, IDENTITY, (), Sizing(cpus, memory))
    assert rewritten.conflicts or faults(rewritten.xml) == []
    return rewritten


def test_all_processors_that_were_asked_for_are_plugged_in() -> None:
    rewritten = sized(base(), cpus=3)
    assert "current=" not in rewritten.xml
    assert domain_xml.read(rewritten.xml).cpus == 3
    assert rewritten.changes["cpus"] == {"old": 2, "new": 3}
    assert rewritten.changes["cpus maximum"] == {"old": 4, "new": 3}


def test_all_memory_that_was_asked_for_is_there_from_the_start() -> None:
    root = libvirt_xml.parse(sized(base(), memory=2 * GIB).xml)
    for tag in ("memory", "currentMemory"):
        assert libvirt_xml.bytes_of(root.find(tag)) == 2 * GIB


def test_what_was_not_asked_for_stays() -> None:
    rewritten = sized(base())
    assert "cpus" not in rewritten.changes
    assert 'current="2"' in rewritten.xml
    assert domain_xml.read(rewritten.xml).memory == GIB


def test_a_base_that_names_no_processors_gets_them() -> None:
    assert domain_xml.read(sized(base(vcpu=""), cpus=2).xml).cpus == 2


@pytest.mark.parametrize(
    ("inside", "word"),
    [
        ("<vcpus><vcpu id='0' enabled='yes'/></vcpus>", "<vcpus>"),
        ("<cpu><numa><cell id='0' cpus='0-3' memory='1' unit='GiB'/></numa></cpu>", "<numa>"),
        (
            "<cputune><cachetune vcpus='0-1'><cache id='0' level='3' type='both' size='3' "
            "unit='MiB'/></cachetune></cputune>",
            "<cachetune>",
        ),
    ],
)
def test_processors_that_the_base_fixes_are_refused_with_the_way_out(
    inside: str, word: str
) -> None:
    conflicts = sized(base(inside), cpus=2).conflicts
    assert len(conflicts) == 1
    assert word in conflicts[0]
    assert "Write cpus: 4" in conflicts[0]
    assert sized(base(inside), cpus=4).conflicts == [], "as many as before change nothing"


def test_a_topology_that_makes_as_many_is_kept() -> None:
    inside = "<cpu><topology sockets='2' cores='3' threads='1'/></cpu>"
    assert sized(base(inside, vcpu="<vcpu>4</vcpu>"), cpus=6).conflicts == []


@pytest.mark.parametrize(
    ("had", "cpus", "old", "new"),
    [
        ({"sockets": 1, "cores": 1, "threads": 1}, 2, "1 of each", "2 sockets"),
        ({"sockets": 4, "cores": 1, "threads": 1}, 3, "4 sockets", "3 sockets"),
        (
            {"sockets": 1, "dies": 1, "cores": 4, "threads": 2},
            16,
            "4 cores 2 threads",
            "4 cores 2 sockets 2 threads",
        ),
        ({"sockets": 1, "dies": 1, "cores": 4, "threads": 2}, 4, "4 cores 2 threads", "4 sockets"),
        ({"sockets": 1, "dies": 2, "cores": 2, "threads": 1}, 6, "2 cores 2 dies", "6 sockets"),
    ],
)
def test_a_topology_is_adapted_and_what_is_in_a_socket_stays_where_that_is_possible(
    had: dict[str, int], cpus: int, old: str, new: str
) -> None:
    inside = "<cpu><topology " + " ".join(f"{k}='{v}'" for k, v in had.items()) + "/></cpu>"
    made = sized(base(inside, vcpu=f"<vcpu>{prod(had.values())}</vcpu>"), cpus=cpus)
    assert made.conflicts == []
    assert made.changes["topology"] == {"old": old, "new": new}
    topology = libvirt_xml.parse(made.xml).find("./cpu/topology")
    assert topology is not None
    assert prod(map(int, topology.attrib.values())) == cpus
    assert set(topology.attrib) == set(had)


def test_cells_that_name_no_processors_do_not_fix_them() -> None:
    cells = "<cpu><numa><cell id='0' memory='1' unit='GiB'/></numa></cpu>"
    assert sized(base(cells), cpus=2).conflicts == []


@pytest.mark.parametrize(
    ("cpus", "pins", "sched"),
    [(1, ["0"], ["0"]), (3, ["0"], ["0,2"]), (4, ["0", "3"], ["0-3,^1"])],
)
def test_pins_of_processors_that_are_gone_go_with_them(
    cpus: int, pins: list[str], sched: list[str]
) -> None:
    inside = (
        "<cputune><vcpupin vcpu='0' cpuset='0'/><vcpupin vcpu='3' cpuset='1'/>"
        "<vcpusched vcpus='0-3,^1' scheduler='batch'/></cputune>"
    )
    root = libvirt_xml.parse(sized(base(inside), cpus=cpus).xml)
    assert [pin.get("vcpu") for pin in root.findall("./cputune/vcpupin")] == pins
    assert [each.get("vcpus") for each in root.findall("./cputune/vcpusched")] == sched


def test_a_schedule_for_none_is_dropped() -> None:
    inside = "<cputune><vcpusched vcpus='3' scheduler='batch'/></cputune>"
    assert "vcpusched" not in sized(base(inside), cpus=2).xml


DIMM = "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>"


@pytest.mark.parametrize(
    ("inside", "devices", "word"),
    [
        ("<maxMemory slots='2' unit='MiB'>1536</maxMemory>", "", "<maxMemory>"),
        ("<memtune><hard_limit unit='MiB'>1536</hard_limit></memtune>", "", "<hard_limit>"),
        ("<cpu><numa><cell id='0' cpus='0-3' memory='1' unit='GiB'/></numa></cpu>", "", "<numa>"),
        ("", DIMM, "memory devices"),
    ],
)
def test_memory_that_the_base_does_not_allow_is_refused(
    inside: str, devices: str, word: str
) -> None:
    conflicts = sized(base(inside, devices=devices), memory=2 * GIB).conflicts
    assert len(conflicts) == 1
    assert word in conflicts[0]
    assert sized(base(inside, devices=devices), memory=GIB).conflicts == []


def test_memory_must_fill_huge_pages() -> None:
    pages = "<memoryBacking><hugepages><page size='1' unit='G'/></hugepages></memoryBacking>"
    assert "huge pages" in sized(base(pages), memory=GIB + 2**20).conflicts[0]
    assert sized(base(pages), memory=2 * GIB).conflicts == []


def test_a_description_that_xml_cannot_hold_is_refused() -> None:
    rewritten = rewrite(base(), IDENTITY, (), Sizing(description="bell \a"))
    assert "control characters" in rewritten.conflicts[0]
