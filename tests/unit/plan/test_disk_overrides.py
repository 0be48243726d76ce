"""What a profile may wish for a disk, and what no wish can bring about."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.model.facts import SourceFacts
from saltext.kvmclone.model.request import DiskChanges, Request
from saltext.kvmclone.plan import planner
from tests.support.plans import (
    FACTS,
    FULL,
    GIB,
    QUICK,
    conflict,
    disk_xml,
    fate,
    fates,
    raw,
    wishing,
    with_disk,
)


def test_disks_can_be_cloned_each_in_its_own_way() -> None:
    request = wishing(vda=DiskChanges(strategy="full"), vdb=DiskChanges(pool="fast"))
    made = planner.compute(FACTS, request)
    assert made.conflicts == ()
    assert fates(made) == {"vda": "copy", "vdb": "overlay", "sda": "share"}
    assert fate(made, "vdb").destination == "/fast/web1-vdb.qcow2"
    assert "profile says strategy full" in fate(made, "vda").reason
    assert made.record.strategy == "quick"


@pytest.mark.parametrize("request_", [QUICK, FULL])
def test_a_disk_can_grow(request_: Request) -> None:
    made = planner.compute(FACTS, wishing(request_, vda=DiskChanges(size=20 * GIB)))
    assert made.conflicts == ()
    assert fate(made, "vda").capacity == 20 * GIB
    assert made.changes["disk vda size"] == {"old": 10 * GIB, "new": 20 * GIB}
    assert made.record.volumes[0].capacity == 20 * GIB


def test_a_disk_does_not_grow_beyond_what_its_format_can_show() -> None:
    wish = DiskChanges(size=2**52)
    assert "qcow2 image has at most 2048TiB" in conflict(FACTS, wishing(vda=wish))
    assert "qcow2 image has at most" in conflict(FACTS, wishing(vdb=wish))
    assert planner.compute(FACTS, wishing(FULL, vdb=wish)).conflicts == ()  # raw: the file system's


def test_a_disk_never_shrinks() -> None:
    said = conflict(FACTS, wishing(vda=DiskChanges(size=9 * GIB)))
    assert "9GiB" in said
    assert "10GiB" in said


def test_a_disk_that_both_would_write_is_not_shared_even_when_asked() -> None:
    assert "<shareable/>" in conflict(FACTS, wishing(vda=DiskChanges(action="share")))


def test_a_medium_is_copied_when_asked() -> None:
    iso = SourceFacts((raw("/iso/debian.iso", GIB, GIB),))
    facts = replace(FACTS, sources={**FACTS.sources, "sda": iso})
    made = planner.compute(facts, wishing(sda=DiskChanges(action="clone", pool="fast")))
    assert made.conflicts == ()
    medium = fate(made, "sda")
    assert (medium.action, medium.destination) == ("copy", "/fast/web1-sda.raw")


def test_a_shareable_disk_is_copied_when_asked_and_then_its_own() -> None:
    disk = disk_xml("file", "<driver type='raw'/><source file='/x'/><shareable/>")
    facts = with_disk(disk, vdc=SourceFacts((raw("/x"),), pool="pool"))
    assert fate(planner.compute(facts, QUICK), "vdc").action == "share"
    made = planner.compute(facts, wishing(vdc=DiskChanges(action="clone")))
    assert made.conflicts == ()
    assert fate(made, "vdc").action == "copy"
    assert "<shareable/>" not in made.xml
    quick = wishing(vdc=DiskChanges(action="clone", strategy="quick"))
    assert "others write" in conflict(facts, quick)


@pytest.mark.parametrize(
    "wish",
    [
        DiskChanges(action="skip", size=GIB),
        DiskChanges(action="skip", pool="fast"),
        DiskChanges(action="share", strategy="full"),
    ],
)
def test_a_wish_that_contradicts_itself_is_refused(wish: DiskChanges) -> None:
    assert "Take one of them out" in conflict(FACTS, wishing(sda=wish))


def test_a_wish_for_a_shared_disk_needs_it_cloned() -> None:
    assert "action: clone" in conflict(FACTS, wishing(sda=DiskChanges(size=GIB)))


WISHES = st.builds(
    DiskChanges,
    size=st.none() | st.integers(1, 40 * GIB),
    pool=st.sampled_from(["", "pool", "fast", "none"]),
    strategy=st.sampled_from(["", "full", "quick"]),
    action=st.sampled_from(["", "clone", "share", "skip"]),
)


@given(
    wishes=st.dictionaries(st.sampled_from(["vda", "vdb", "sda", "vdz"]), WISHES),
    strategy=st.sampled_from(["full", "quick"]),
)
def test_whatever_is_wished_a_disk_of_the_base_is_never_written(
    wishes: dict[str, DiskChanges], strategy: str
) -> None:
    made = planner.compute(FACTS, replace(QUICK, clone_strategy=strategy, disks=wishes))
    targets = {disk.target for disk in made.disks}
    assert targets - {"vdz"} == {"vda", "vdb", "sda"}
    if made.conflicts:
        return
    assert ("vdz" in targets) == ("vdz" in wishes)
    for disk in made.disks:
        assert disk.reason
        if disk.action == "share":
            assert disk.target == "sda"
        elif disk.action == "skip":
            assert wishes[disk.target].action == "skip"
        else:
            assert disk.destination.split("/")[-1].startswith("web1-")
            assert disk.capacity >= disk.source_capacity
            assert disk.destination in made.xml
        if disk.action != "share":
            assert f'"{disk.source}"' not in made.xml
