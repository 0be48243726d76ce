"""Planning decides every disk, and names every reason to refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saltext.kvmclone import plan
from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.facts import HostFacts, PoolFacts, VolumeFacts
from saltext.kvmclone.plan import ClonePlan
from saltext.kvmclone.request import Request

BASE = (Path(__file__).parent.parent / "data" / "full_base.xml").read_text()
GIB = 2**30

FACTS = HostFacts(
    base_xml=BASE,
    volumes={
        "/pool/base.qcow2": VolumeFacts(
            "/pool/base.qcow2", "pool", "qcow2", 10 * GIB, GIB, "/pool/golden.qcow2", 1700000000.0
        ),
        "/pool/base-data.img": VolumeFacts("/pool/base-data.img", "pool", "raw", 5 * GIB, GIB),
    },
    pools={"pool": PoolFacts("pool", "dir", "/pool", True, 100 * GIB)},
)
QUICK = Request(name="web1", base_domain="base", clone_strategy="quick")
FULL = replace(QUICK, clone_strategy="full")


def disk_xml(kind: str, inside: str, device: str = "disk") -> str:
    return f"<disk type='{kind}' device='{device}'>{inside}<target dev='vdc'/></disk>"


def fates(made: ClonePlan) -> dict[str, str]:
    return {disk.target: disk.action for disk in made.disks}


def test_quick_lays_an_overlay_on_every_disk_and_shares_the_cdrom() -> None:
    made = plan.compute(FACTS, QUICK)
    assert made.conflicts == ()
    assert fates(made) == {"vda": "overlay", "vdb": "overlay", "sda": "share"}
    assert {disk.format for disk in made.disks if disk.destination} == {"qcow2"}


def test_full_copies_and_keeps_the_format() -> None:
    made = plan.compute(FACTS, FULL)
    assert fates(made) == {"vda": "copy", "vdb": "copy", "sda": "share"}
    assert [d.destination for d in made.disks][:2] == ["/pool/web1-vda.qcow2", "/pool/web1-vdb.raw"]


def test_a_quick_clone_of_a_raw_disk_names_raw_as_the_backing_format() -> None:
    data = next(disk for disk in plan.compute(FACTS, QUICK).disks if disk.target == "vdb")
    assert (data.format, data.source_format) == ("qcow2", "raw")


def test_the_record_lists_every_file_before_it_exists() -> None:
    record = plan.compute(FACTS, QUICK).record
    assert record.stage == "planned"
    assert {volume.path for volume in record.volumes} == {
        "/pool/web1-vda.qcow2",
        "/pool/web1-vdb.qcow2",
        "/var/lib/libvirt/qemu/nvram/web1_VARS.fd",
    }


def test_generated_values_are_masked_and_everything_else_is_shown() -> None:
    shown = plan.compute(FACTS, QUICK).as_dict()
    assert shown["changes"]["uuid"]["new"] == "<generated>"
    assert shown["changes"]["interface 0 mac"]["new"] == "<generated>"
    assert plan.compute(FACTS, QUICK).as_dict() == shown


def test_a_shown_plan_holds_no_console_password() -> None:
    assert "vnc-canary" in plan.compute(FACTS, QUICK).xml
    assert "vnc-canary" not in str(plan.compute(FACTS, QUICK).as_dict())


def test_two_plans_are_two_machines() -> None:
    first, second = plan.compute(FACTS, QUICK), plan.compute(FACTS, QUICK)
    assert first.record.uuid != second.record.uuid
    assert not set(first.generated) & set(second.generated)


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (replace(FACTS, base_state="running"), "virsh shutdown base"),
        (replace(FACTS, base_saved=True), "managedsave-remove"),
        (replace(FACTS, taken=True), "exists already; choose another name"),
        (replace(FACTS, volumes={}), "no active storage pool"),
        (replace(FACTS, pools={}), "virsh pool-list"),
        (replace(FACTS, existing=frozenset({"/pool/web1-vda.qcow2"})), "virsh vol-delete"),
        (replace(FACTS, local=False), "host:"),
        (
            replace(FACTS, pools={"pool": PoolFacts("pool", "rbd", "", True, GIB)}),
            "type 'rbd'",
        ),
    ],
)
def test_a_refusal_says_what_to_do(facts: HostFacts, word: str) -> None:
    made = plan.compute(facts, QUICK)
    assert any(word in conflict for conflict in made.conflicts)
    with pytest.raises(PlanRefused) as refused:
        made.check()
    assert word in refused.value.message
    assert refused.value.hint


def test_a_copy_that_cannot_fit_is_refused_up_front() -> None:
    small = {"pool": PoolFacts("pool", "dir", "/pool", True, GIB)}
    assert "MiB free" in plan.compute(replace(FACTS, pools=small), FULL).conflicts[0]
    assert plan.compute(replace(FACTS, pools=small), QUICK).conflicts == ()


def test_all_reasons_are_given_at_once() -> None:
    facts = replace(FACTS, base_state="running", taken=True)
    assert len(plan.compute(facts, QUICK).conflicts) == 2


@pytest.mark.parametrize(
    ("disk", "word"),
    [
        (disk_xml("block", "<source dev='/dev/sdb'/>"), "block"),
        (disk_xml("network", "<source protocol='rbd'/>"), "network"),
        (disk_xml("block", "<source dev='/dev/sdb'/>", device="lun"), "lun"),
        (disk_xml("file", "<driver type='vmdk'/><source file='/x'/>"), "vmdk"),
        (disk_xml("file", "<source file='/x'><encryption format='luks'/></source>"), "encrypted"),
    ],
)
def test_a_disk_that_cannot_be_cloned_is_refused_and_never_shared(disk: str, word: str) -> None:
    facts = replace(
        FACTS,
        base_xml=BASE.replace("<interface type='network'>", disk + "<interface type='network'>", 1),
    )
    made = plan.compute(facts, QUICK)
    assert len(made.conflicts) == 1
    assert word in made.conflicts[0]
    assert made.disks[3].action == "skip"


def test_a_key_of_a_later_stage_is_refused_by_name() -> None:
    made = plan.compute(FACTS, replace(QUICK, later={"protect": True}))
    assert "'protect'" in made.conflicts[0]
