"""Planning decides every disk and interface, and names every reason to refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone import cards, names, ownership, plan
from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.facts import HostFacts, ImageFacts, PoolFacts, SourceFacts
from saltext.kvmclone.image_header import Header
from saltext.kvmclone.plan import ClonePlan
from saltext.kvmclone.request import DiskWish, NetworkWish, Request

BASE = (Path(__file__).parent.parent / "data" / "full_base.xml").read_text()
GIB = 2**30


def qcow2(path: str, allocation: int = GIB, **header: Any) -> ImageFacts:
    header = {"plain": not header, **header}
    return ImageFacts(
        path,
        real=path,
        header=Header("qcow2", 10 * GIB, **header),
        size=allocation,
        allocation=allocation,
        modified=1700000000.0,
    )


def raw(path: str, size: int = 5 * GIB, allocation: int = GIB) -> ImageFacts:
    return ImageFacts(path, real=path, size=size, allocation=allocation)


VDA = SourceFacts(
    (
        qcow2("/pool/base.qcow2", backing="/pool/golden.qcow2", backing_format="qcow2"),
        qcow2("/pool/golden.qcow2"),
    ),
    pool="pool",
    filesystem="8:1",
)
VDB = SourceFacts((raw("/pool/base-data.img"),), pool="pool", filesystem="8:1")
POOL = PoolFacts("pool", "dir", "/pool", True, 100 * GIB, "8:1")
FAST = PoolFacts("fast", "dir", "/fast", True, 100 * GIB, "8:2", shares_blocks=True)
FACTS = HostFacts(
    base_xml=BASE, sources={"vda": VDA, "vdb": VDB}, pools={"pool": POOL, "fast": FAST}
)
QUICK = Request(name="web1", base_domain="base", clone_strategy="quick")
FULL = replace(QUICK, clone_strategy="full")


def wishing(request: Request = QUICK, **disks: DiskWish) -> Request:
    return replace(request, disks=disks)


def with_disk(xml: str, **sources: SourceFacts) -> HostFacts:
    """The facts with one disk more."""
    return replace(
        FACTS,
        base_xml=BASE.replace("<interface type='network'>", xml + "<interface type='network'>", 1),
        sources={**FACTS.sources, **sources},
    )


def disk_xml(kind: str, inside: str, device: str = "disk", target: str = "vdc") -> str:
    return f"<disk type='{kind}' device='{device}'>{inside}<target dev='{target}'/></disk>"


def fates(made: ClonePlan) -> dict[str, str]:
    return {disk.target: disk.action for disk in made.disks}


def fate(made: ClonePlan, target: str) -> plan.PlannedDisk:
    return next(disk for disk in made.disks if disk.target == target)


def conflict(facts: HostFacts, request: Request = QUICK) -> str:
    """The one reason to refuse."""
    (only,) = plan.compute(facts, request).conflicts
    return only


# --- disks ----------------------------------------------------------------------------


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
    data = fate(plan.compute(FACTS, QUICK), "vdb")
    assert (data.format, data.source_format) == ("qcow2", "raw")


def test_a_chain_is_flattened_and_counted_whole() -> None:
    made = plan.compute(FACTS, FULL)
    assert fate(made, "vda").bytes == 2 * GIB
    assert (fate(made, "vda").method, fate(made, "vdb").method) == ("convert", "bytes")


def test_without_the_hosts_files_libvirt_copies() -> None:
    made = plan.compute(replace(FACTS, local=False), FULL)
    assert {disk.method for disk in made.disks if disk.destination} == {"daemon"}


def test_blocks_are_shared_only_within_a_file_system_that_can() -> None:
    can = replace(POOL, shares_blocks=True)
    facts = replace(FACTS, pools={"pool": can, "fast": FAST})
    made = plan.compute(facts, FULL)
    assert fates(made)["vdb"] == "reflink"
    assert fate(made, "vdb").bytes == 0
    assert "share blocks" in fate(made, "vdb").reason
    assert fates(made)["vda"] == "copy"  # a chain must be flattened

    assert fates(plan.compute(facts, replace(FULL, pool="fast")))["vdb"] == "copy"
    other_kind = replace(VDB, copies_on_write=False)
    facts = replace(facts, sources={"vda": VDA, "vdb": other_kind})
    assert fates(plan.compute(facts, FULL))["vdb"] == "copy"


@pytest.mark.parametrize("header", [{"snapshots": 2}, {"data_file": "x.raw"}])
def test_what_is_more_than_the_present_disk_is_not_copied_along(header: dict[str, Any]) -> None:
    source = SourceFacts((qcow2("/pool/base.qcow2", **header),), pool="pool", filesystem="8:1")
    facts = replace(FACTS, base_xml=_alone(BASE), sources={"vda": source, "vdb": VDB})
    facts = replace(facts, pools={"pool": replace(POOL, shares_blocks=True)})
    made = plan.compute(facts, FULL)
    assert made.conflicts == ()
    assert (fate(made, "vda").action, fate(made, "vda").method) == ("copy", "convert")
    assert ("internal snapshot" in "".join(made.warnings)) == ("snapshots" in header)


def _alone(xml: str) -> str:
    """The base without a word about backing files."""
    start, end = xml.index("      <backingStore"), xml.index("</backingStore>")
    return xml[:start] + xml[end + len("</backingStore>") :]


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ({"corrupt": True}, "qemu-img check -r all /pool/base.qcow2"),
        ({"encrypted": True}, "encrypted"),
        ({"data_file": "x.raw"}, "clone_strategy: full"),
        ({"fault": "it ends within its header"}, "ends within its header"),
    ],
)
def test_an_image_that_would_not_be_the_same_disk_is_refused(
    header: dict[str, Any], word: str
) -> None:
    source = SourceFacts((qcow2("/pool/base.qcow2", **header),), pool="pool")
    facts = replace(FACTS, base_xml=_alone(BASE), sources={"vda": source, "vdb": VDB})
    assert word in conflict(facts)


def test_the_definitions_word_about_the_format_counts_and_a_doubt_is_told() -> None:
    looks_like_qcow2 = replace(raw("/pool/base-data.img"), header=Header("qcow2", 99 * GIB))
    source = SourceFacts((looks_like_qcow2,), pool="pool")
    made = plan.compute(replace(FACTS, sources={"vda": VDA, "vdb": source}), QUICK)
    assert made.conflicts == ()
    assert fate(made, "vdb").source_format == "raw"
    assert fate(made, "vdb").capacity == 5 * GIB
    assert "looks like qcow2" in made.warnings[0]

    is_raw = SourceFacts((raw("/pool/base.qcow2"),), pool="pool")
    facts = replace(FACTS, sources={"vda": is_raw, "vdb": VDB})
    assert "is raw: the base itself cannot start" in conflict(facts)


def test_a_definition_that_contradicts_the_image_about_its_backing_file_is_refused() -> None:
    facts = replace(FACTS, base_xml=BASE.replace("/pool/golden.qcow2", "/pool/other.qcow2"))
    assert "<backingStore>" in conflict(facts)
    alone = replace(FACTS, sources={"vda": SourceFacts((qcow2("/pool/base.qcow2"),), pool="pool")})
    assert "<backingStore>" in plan.compute(alone, QUICK).conflicts[0]


def test_a_definition_that_contradicts_the_image_about_its_backing_format_is_refused() -> None:
    other = BASE.replace("<format type='qcow2'/>", "<format type='raw'/>")
    assert "for raw, and the image above it for qcow2" in conflict(replace(FACTS, base_xml=other))


def test_a_definition_that_contradicts_the_image_about_its_data_is_refused() -> None:
    disk = disk_xml(
        "file",
        "<driver type='qcow2'/><source file='/pool/x'><dataStore type='file'><format type='raw'/>"
        "<source file='/pool/x.data'/></dataStore></source>",
    )
    image = qcow2("/pool/x", data_file="/pool/x.data")
    for data, expected in (("/pool/x.data", ()), ("/pool/other", ("<dataStore>",))):
        source = SourceFacts((image,), (raw(data),), pool="pool")
        made = plan.compute(with_disk(disk, vdc=source), FULL)
        assert len(made.conflicts) == len(expected)
        assert all(word in reason for word, reason in zip(expected, made.conflicts, strict=True))
        assert expected or ("dataStore" not in made.xml and "x.data" not in made.xml)


@pytest.mark.parametrize(
    ("disk", "word"),
    [
        (disk_xml("network", "<source protocol='rbd'/>"), "network"),
        (disk_xml("block", "<source dev='/dev/sdb'/>", device="lun"), "lun"),
        (disk_xml("block", "<source dev='/dev/sdb'/><readonly/>", device="lun"), "lun"),
        (disk_xml("file", "<driver type='vmdk'/><source file='/x'/>"), "qemu-img convert"),
        (disk_xml("file", "<source file='/x'><encryption format='luks'/></source>"), "encrypted"),
        (disk_xml("file", "<source file='/x'><slices/></source>"), "slice"),
        (
            disk_xml(
                "file",
                "<source file='/x'/><backingStore type='file'><format type='raw'/>"
                "<source file='/y'><slices/></source></backingStore>",
            ),
            "slice",
        ),
        (
            disk_xml("file", "<driver type='qcow2'/><source file='/x'/><shareable/>"),
            "two machines that write one such image destroy it",
        ),
        (
            disk_xml(
                "network",
                "<source protocol='iscsi'><initiator><iqn name='iqn.2013-07.test:b'/></initiator>"
                "</source><shareable/>",
            ),
            "iqn.2013-07.test:b",
        ),
        (disk_xml("dir", "<source dir='/srv'/>"), "folder"),
        (disk_xml("nvme", "<source type='pci'/>"), "drive of the host"),
        (disk_xml("nvme", "<source type='pci'/><readonly/>"), "drive of the host"),
        (disk_xml("vhostuser", "<source type='unix' path='/s'/>"), "socket"),
        (disk_xml("vhostvdpa", "<source dev='/dev/vhost-vdpa-0'/><shareable/>"), "device of the"),
        (disk_xml("file", ""), "no source"),
        (disk_xml("file", "<source file='-O.raw'/>"), "whole path"),
        (disk_xml("unheard", ""), "does not know"),
    ],
)
def test_a_disk_that_cannot_be_cloned_is_refused_and_never_shared(disk: str, word: str) -> None:
    facts = with_disk(disk)
    assert word in conflict(facts)
    assert "action: skip" in conflict(facts)
    assert fate(plan.compute(facts, QUICK), "vdc").action == "skip"

    without = plan.compute(facts, wishing(vdc=DiskWish(action="skip")))
    assert without.conflicts == ()
    assert "'vdc'" not in without.xml
    assert '"vdc"' not in without.xml


@pytest.mark.parametrize(
    ("disk", "reason"),
    [
        (disk_xml("file", "<source file='/x'/><readonly/>"), "read-only"),
        (disk_xml("network", "<source protocol='rbd'/><shareable/>"), "shareable"),
        (disk_xml("block", "<source dev='/dev/sdb'/><shareable/>", device="lun"), "shareable"),
        (disk_xml("network", "<source protocol='http'/>", device="cdrom"), "cdrom"),
        (disk_xml("block", "<source dev='/dev/sr0'/>", device="cdrom"), "cdrom"),
        (disk_xml("dir", "<source dir='/srv'/><readonly/>"), "read-only"),
        (disk_xml("file", "<source file='/x'/><readonly/>", device="floppy"), "read-only"),
        (disk_xml("block", "", device="cdrom"), "empty drive"),
        (disk_xml("file", "", device="floppy"), "empty drive"),
    ],
)
def test_what_nobody_or_everybody_writes_is_shared_for_a_stated_reason(
    disk: str, reason: str
) -> None:
    made = plan.compute(with_disk(disk), QUICK)
    assert made.conflicts == ()
    assert fate(made, "vdc").action == "share"
    assert reason in fate(made, "vdc").reason
    assert fate(plan.compute(with_disk(disk), wishing(vdc=DiskWish(action="share"))), "vdc").action


def test_a_floppy_that_is_written_gets_a_file_of_its_own() -> None:
    floppy = disk_xml("file", "<source file='/pool/f.img'/>", device="floppy", target="fda")
    made = plan.compute(with_disk(floppy, fda=SourceFacts((raw("/pool/f.img"),), "")), FULL)
    assert "lies in no active storage pool" in made.conflicts[0]
    made = plan.compute(
        with_disk(floppy, fda=SourceFacts((raw("/pool/f.img"),), pool="pool")), FULL
    )
    assert fate(made, "fda").destination == "/pool/web1-fda.raw"


@pytest.mark.parametrize(
    ("source", "word"),
    [
        (SourceFacts((ImageFacts("/x", "missing"),)), "does not exist"),
        (SourceFacts((ImageFacts("/x", "folder"),), pool="pool"), "is a folder"),
        (SourceFacts((ImageFacts("rbd/x", "elsewhere"),), pool="pool"), "lies on the network"),
        (SourceFacts((ImageFacts("/x", "special"),), pool="pool"), "is a pipe"),
        (SourceFacts((ImageFacts("/x", "block"),), pool="pool"), "is a block device although"),
        (SourceFacts((ImageFacts("/x", "missing"),), asleep="old"), "virsh pool-start old"),
        (SourceFacts((raw("/x"),)), "pool-create-as NAME dir --target /"),
    ],
)
def test_a_source_that_is_not_there_is_refused_with_what_to_do(
    source: SourceFacts, word: str
) -> None:
    disk = disk_xml("file", "<source file='/x'/>")
    assert word in conflict(with_disk(disk, vdc=source))


def test_a_disk_outside_any_pool_goes_where_the_profile_says() -> None:
    disk = disk_xml("file", "<source file='/srv/x.img'/>")
    facts = with_disk(disk, vdc=SourceFacts((raw("/srv/x.img"),)))
    assert "'pool:'" in conflict(facts)
    for request in (replace(QUICK, pool="fast"), wishing(vdc=DiskWish(pool="fast"))):
        made = plan.compute(facts, request)
        assert made.conflicts == ()
        assert fate(made, "vdc").destination == "/fast/web1-vdc.qcow2"
        assert made.changes["disk vdc pool"] == {"old": None, "new": "fast"}


def test_a_block_device_becomes_a_file() -> None:
    disk = disk_xml("block", "<driver type='raw' cache='none' io='native'/><source dev='/dev/x'/>")
    device = ImageFacts("/dev/x", "block", "/dev/x", size=GIB, allocation=GIB)
    facts = with_disk(disk, vdc=SourceFacts((device,)))
    made = plan.compute(facts, replace(FULL, pool="fast"))
    assert made.conflicts == ()
    assert (fate(made, "vdc").format, fate(made, "vdc").bytes) == ("raw", GIB)
    assert '<disk type="file" device="disk"><driver type="raw" cache="none" io="native"/>' in (
        made.xml
    )
    assert made.changes["disk vdc type"] == {"old": "block", "new": "file"}
    assert fate(plan.compute(facts, replace(QUICK, pool="fast")), "vdc").source_format == "raw"


def test_a_block_device_far_away_is_refused() -> None:
    disk = disk_xml("block", "<driver type='raw'/><source dev='/dev/x'/>")
    device = ImageFacts("/dev/x", "block", "/dev/x", size=GIB, allocation=GIB)
    facts = replace(with_disk(disk, vdc=SourceFacts((device,), pool="pool")), local=False)
    assert "host:" in conflict(facts)


def test_an_image_that_another_machine_writes_is_refused() -> None:
    written = replace(VDB, images=(replace(VDB.images[0], written=True),))
    facts = replace(FACTS, sources={"vda": VDA, "vdb": written})
    assert "open for writing" in conflict(facts)
    assert "virsh shutdown" in conflict(replace(facts, base_state="running"))


def test_a_name_too_long_for_a_file_is_refused() -> None:
    long = replace(QUICK, name=".".join(["a" * 60] * 4))
    made = plan.compute(FACTS, long)
    assert made.conflicts == ()
    longer = replace(QUICK, name=".".join(["a" * 62] * 4))
    found = [said for said in plan.compute(FACTS, longer).conflicts if "longer name" in said]
    assert [path in " ".join(found) for path in ("-vda.", "-vdb.", "_VARS.fd")] == [True] * 3


def test_a_volume_is_cloned_and_becomes_a_file() -> None:
    disk = disk_xml("volume", "<driver type='raw'/><source pool='p' volume='v' mode='host'/>")
    facts = with_disk(disk, vdc=SourceFacts((raw("/p/v"),), pool="pool"))
    made = plan.compute(facts, QUICK)
    assert made.conflicts == ()
    assert fate(made, "vdc").source == "/p/v"
    assert '<source file="/pool/web1-vdc.qcow2"/>' in made.xml
    assert "mode=" not in made.xml.partition("web1-vdc")[2].partition("</disk>")[0]
    assert "virsh pool-start p" in conflict(with_disk(disk, vdc=SourceFacts(asleep="p")))
    assert "'p' that is not there" in conflict(with_disk(disk, vdc=SourceFacts(unknown_pool="p")))


def test_targets_that_cannot_be_told_apart_or_made_a_file_name_are_refused() -> None:
    twice = disk_xml("file", "<source file='/x'/>", target="vdb")
    made = plan.compute(with_disk(twice), QUICK)
    assert any("two disks 'vdb'" in conflict for conflict in made.conflicts)
    empty = disk_xml("file", "", "cdrom", "vdb")
    assert conflict(with_disk(empty)) == made.conflicts[0]
    for target in ("../../etc/passwd", "nvram", "", "vda/b"):
        hostile = disk_xml("file", "<source file='/x'/>", target=target)
        assert "no target that this version clones" in conflict(with_disk(hostile))


def test_one_file_under_two_targets_is_refused() -> None:
    again = disk_xml("file", "<driver type='raw'/><source file='/pool/base-data.img'/>")
    assert "are the same file" in conflict(with_disk(again, vdc=VDB))


@pytest.mark.parametrize("device", ["disk", "cdrom"])
def test_a_file_that_the_base_writes_is_not_shared_under_another_target(device: str) -> None:
    facts = with_disk(disk_xml("file", "<source file='/pool/base-data.img'/><readonly/>", device))
    assert "with the base, whose disk vdb it is" in conflict(facts)
    assert plan.compute(facts, wishing(vdc=DiskWish(action="skip"))).conflicts == ()


def test_a_volume_that_the_base_writes_is_not_shared_under_another_target() -> None:
    volume = "<driver type='raw'/><source pool='p' volume='v'/>"
    both = disk_xml("volume", volume) + disk_xml("volume", volume, "cdrom", "sdb")
    facts = with_disk(both, vdc=SourceFacts((raw("/pool/v"),), pool="pool"))
    assert "would share 'p/v' with the base, whose disk vdc it is" in conflict(facts)


def test_a_transient_disk_is_cloned_with_a_warning() -> None:
    disk = disk_xml("file", "<source file='/x'/><transient/>")
    made = plan.compute(with_disk(disk, vdc=SourceFacts((raw("/x"),), pool="pool")), QUICK)
    assert made.conflicts == ()
    assert "transient" in made.warnings[0]


def test_nothing_of_the_old_source_remains_on_a_new_file() -> None:
    disk = disk_xml(
        "file",
        "<driver name='qemu' type='raw'/>"
        "<source file='/x' index='3' startupPolicy='optional'><seclabel model='dac'/>"
        "<reservations managed='yes'/></source><iotune><group_name>g</group_name></iotune>"
        "<mirror/><serial>S</serial><wwn>5000c50015ea71ad</wwn>",
    )
    made = plan.compute(with_disk(disk, vdc=SourceFacts((raw("/x"),), pool="pool")), QUICK)
    for word in (
        "seclabel model='dac'",
        "reservations",
        "startupPolicy",
        "mirror",
        ">S<",
        "ea71ad",
    ):
        assert word.replace("'", '"') not in made.xml.replace("'", '"')
    assert "<group_name>g</group_name>" in made.xml


def test_a_drive_that_is_shared_has_no_number_of_the_bases() -> None:
    disk = disk_xml("file", "<source file='/iso/x'/><serial>CD-1</serial>", device="cdrom")
    made = plan.compute(with_disk(disk), QUICK)
    assert made.conflicts == ()
    assert "CD-1" not in made.xml
    assert made.changes["disk vdc serial"] == {"old": "CD-1", "new": None}


def test_nothing_else_in_the_definition_speaks_of_a_disk_that_the_clone_has_otherwise() -> None:
    tuned = BASE.replace(
        "<sysinfo",
        "<blkiotune><device><path>/pool/base.qcow2</path><weight>200</weight></device></blkiotune>"
        "<sysinfo",
    )
    made = plan.compute(replace(FACTS, base_xml=tuned), QUICK)
    assert made.conflicts == ()
    assert "blkiotune" not in made.xml

    told = BASE.replace(
        "</libosinfo:libosinfo>",
        "</libosinfo:libosinfo><a:b xmlns:a='urn:a'>disks: /pool/base.qcow2.</a:b>",
    )
    made = plan.compute(replace(FACTS, base_xml=told), QUICK)
    assert made.conflicts == ()
    assert "/pool/base.qcow2" not in made.xml
    assert any("'urn:a'" in warning for warning in made.warnings)

    booted = BASE.replace(
        "<smbios", "<cmdline>root=/pool/base.qcow2 x=/pool/base.qcow2-old</cmdline><smbios"
    )
    assert "a disk of the base" in conflict(replace(FACTS, base_xml=booted))


# --- the record -------------------------------------------------------------------------


def test_the_record_lists_every_file_before_it_exists_and_marks_the_first() -> None:
    record = plan.compute(replace(FACTS, nvram_size=540672), QUICK).record
    assert record.stage == "planned"
    assert [(v.path, v.state, v.capacity) for v in record.volumes] == [
        ("/pool/web1-vda.qcow2", ownership.MAKING, 10 * GIB),
        ("/pool/web1-vdb.qcow2", ownership.WANTED, 5 * GIB),
        ("/var/lib/libvirt/qemu/nvram/web1_VARS.fd", ownership.WANTED, 540672),
    ]


def test_the_record_knows_the_whole_chain_below_each_disk() -> None:
    record = plan.compute(FACTS, QUICK).record
    assert [(disk.target, disk.path) for disk in record.base_disks] == [
        ("vda", "/pool/base.qcow2"),
        ("vda", "/pool/golden.qcow2"),
        ("vdb", "/pool/base-data.img"),
    ]


def test_generated_values_are_masked_and_everything_else_is_shown() -> None:
    shown = plan.compute(FACTS, QUICK).as_dict()
    assert shown["changes"]["uuid"]["new"] == "<generated>"
    assert shown["changes"]["interface 0 mac"]["new"] == "<generated>"
    assert plan.compute(FACTS, QUICK).as_dict() == shown


def test_a_shown_plan_holds_no_cookie() -> None:
    disk = disk_xml(
        "network",
        "<source protocol='https' name='x.iso'><host name='h.test' port='443'/><cookies>"
        "<cookie name='session'>cookie-canary</cookie></cookies></source>",
        device="cdrom",
    )
    made = plan.compute(with_disk(disk), QUICK)
    assert "cookie-canary" in made.xml
    assert "cookie-canary" not in str(made.as_dict())


def test_a_shown_plan_holds_no_console_password() -> None:
    assert "vnc-canary" in plan.compute(FACTS, QUICK).xml
    assert "vnc-canary" not in str(plan.compute(FACTS, QUICK).as_dict())


def test_two_plans_are_two_machines() -> None:
    first, second = plan.compute(FACTS, QUICK), plan.compute(FACTS, QUICK)
    assert first.record.uuid != second.record.uuid
    assert not set(first.generated) & set(second.generated)


# --- refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (replace(FACTS, base_state="running"), "virsh shutdown base"),
        (replace(FACTS, base_saved=True), "managedsave-remove"),
        (replace(FACTS, taken=True), "exists already; choose another name"),
        (replace(FACTS, sources={}), "does not exist"),
        (replace(FACTS, sources={}, local=False), "no active storage pool"),
        (replace(FACTS, pools={}), "virsh pool-list"),
        (replace(FACTS, pools={"pool": replace(POOL, active=False)}), "virsh pool-start pool"),
        (replace(FACTS, existing=frozenset({"/pool/web1-vda.qcow2"})), "virsh vol-delete"),
        (replace(FACTS, pools={"pool": PoolFacts("pool", "rbd", "", True, GIB)}), "type 'rbd'"),
        (replace(FACTS, sources={"vda": replace(VDA, fault="it is broken"), "vdb": VDB}), "broken"),
    ],
)
def test_a_refusal_says_what_to_do(facts: HostFacts, word: str) -> None:
    made = plan.compute(facts, QUICK)
    assert any(word in conflict for conflict in made.conflicts)
    with pytest.raises(PlanRefused) as refused:
        made.check()
    assert word in refused.value.message
    assert refused.value.hint


def test_all_reasons_are_given_at_once_and_each_once() -> None:
    facts = replace(FACTS, base_state="running", taken=True)
    assert len(plan.compute(facts, QUICK).conflicts) == 2
    assert len(plan.compute(replace(FACTS, pools={}), QUICK).conflicts) == 1  # not once per disk


def test_a_key_of_a_later_stage_is_refused_by_name() -> None:
    made = plan.compute(FACTS, replace(QUICK, later={"placement": "free"}))
    assert "'placement'" in made.conflicts[0]


def test_a_tag_that_no_record_could_hold_is_refused() -> None:
    assert "take them out" in conflict(FACTS, replace(QUICK, tags=("ok", "\x1b[31m")))


def test_snapshots_of_the_base_are_told() -> None:
    made = plan.compute(replace(FACTS, base_snapshots=2), QUICK)
    assert "2 snapshot(s)" in made.warnings[0]


# --- room -----------------------------------------------------------------------------------


def test_a_copy_that_cannot_fit_is_refused_up_front() -> None:
    facts = replace(FACTS, pools={"pool": replace(POOL, available=GIB)})
    assert "MiB free" in conflict(facts, FULL)
    assert plan.compute(facts, QUICK).conflicts == ()


def test_pools_on_one_file_system_share_its_room() -> None:
    pools = {
        "pool": replace(POOL, available=int(2.5 * GIB)),
        "fast": replace(POOL, name="fast", path="/fast", available=int(2.5 * GIB)),
    }
    facts = replace(FACTS, pools=pools)
    assert "'pool', 'fast'" in conflict(facts, wishing(FULL, vdb=DiskWish(pool="fast")))
    apart = {**pools, "fast": replace(pools["fast"], filesystem="8:9")}
    request = wishing(FULL, vdb=DiskWish(pool="fast"))
    assert plan.compute(replace(FACTS, pools=apart), request).conflicts == ()


# --- firmware -------------------------------------------------------------------------------


def test_far_away_the_clone_gets_fresh_uefi_variables_from_the_template() -> None:
    made = plan.compute(replace(FACTS, local=False), QUICK)
    assert made.conflicts == ()
    assert made.nvram is None
    assert "fresh ones from the template" in made.warnings[0]
    store = made.record.volumes[-1]
    assert (store.target, store.strategy, store.state) == ("nvram", "fresh", ownership.MADE)
    assert store.path in made.xml


def test_far_away_and_without_a_template_uefi_variables_are_refused() -> None:
    bare = BASE.replace(" template='/usr/share/OVMF/OVMF_VARS.fd'", "")
    assert "host:" in conflict(replace(FACTS, base_xml=bare, local=False))


def test_a_variable_store_that_is_there_is_not_overwritten() -> None:
    taken = frozenset({"/var/lib/libvirt/qemu/nvram/web1_VARS.fd"})
    assert "exists already" in conflict(replace(FACTS, existing=taken))


# --- wishes for disks -------------------------------------------------------------------------


def test_disks_can_be_cloned_each_in_its_own_way() -> None:
    request = wishing(vda=DiskWish(strategy="full"), vdb=DiskWish(pool="fast"))
    made = plan.compute(FACTS, request)
    assert made.conflicts == ()
    assert fates(made) == {"vda": "copy", "vdb": "overlay", "sda": "share"}
    assert fate(made, "vdb").destination == "/fast/web1-vdb.qcow2"
    assert "profile says strategy full" in fate(made, "vda").reason
    assert made.record.strategy == "quick"


@pytest.mark.parametrize("request_", [QUICK, FULL])
def test_a_disk_can_grow(request_: Request) -> None:
    made = plan.compute(FACTS, wishing(request_, vda=DiskWish(size=20 * GIB)))
    assert made.conflicts == ()
    assert fate(made, "vda").capacity == 20 * GIB
    assert made.changes["disk vda size"] == {"old": 10 * GIB, "new": 20 * GIB}
    assert made.record.volumes[0].capacity == 20 * GIB


def test_a_disk_does_not_grow_beyond_what_its_format_can_show() -> None:
    wish = DiskWish(size=2**52)
    assert "qcow2 image has at most 2048 TiB" in conflict(FACTS, wishing(vda=wish))
    assert "qcow2 image has at most" in conflict(FACTS, wishing(vdb=wish))
    assert plan.compute(FACTS, wishing(FULL, vdb=wish)).conflicts == ()  # raw: the file system's


def test_a_disk_never_shrinks() -> None:
    said = conflict(FACTS, wishing(vda=DiskWish(size=9 * GIB)))
    assert "9 GiB" in said
    assert "10 GiB" in said


def test_a_disk_that_the_base_does_not_have_is_named_with_those_it_has() -> None:
    said = conflict(FACTS, wishing(vdx=DiskWish(size=GIB)))
    assert "'vdx'" in said
    assert "vda, vdb, sda" in said


def test_a_disk_that_both_would_write_is_not_shared_even_when_asked() -> None:
    assert "<shareable/>" in conflict(FACTS, wishing(vda=DiskWish(action="share")))


def test_a_medium_is_copied_when_asked() -> None:
    iso = SourceFacts((raw("/iso/debian.iso", GIB, GIB),))
    facts = replace(FACTS, sources={**FACTS.sources, "sda": iso})
    made = plan.compute(facts, wishing(sda=DiskWish(action="clone", pool="fast")))
    assert made.conflicts == ()
    medium = fate(made, "sda")
    assert (medium.action, medium.destination) == ("copy", "/fast/web1-sda.raw")


def test_a_shareable_disk_is_copied_when_asked_and_then_its_own() -> None:
    disk = disk_xml("file", "<driver type='raw'/><source file='/x'/><shareable/>")
    facts = with_disk(disk, vdc=SourceFacts((raw("/x"),), pool="pool"))
    assert fate(plan.compute(facts, QUICK), "vdc").action == "share"
    made = plan.compute(facts, wishing(vdc=DiskWish(action="clone")))
    assert made.conflicts == ()
    assert fate(made, "vdc").action == "copy"
    assert "<shareable/>" not in made.xml
    quick = wishing(vdc=DiskWish(action="clone", strategy="quick"))
    assert "others write" in conflict(facts, quick)


@pytest.mark.parametrize(
    "wish",
    [
        DiskWish(action="skip", size=GIB),
        DiskWish(action="skip", pool="fast"),
        DiskWish(action="share", strategy="full"),
    ],
)
def test_a_wish_that_contradicts_itself_is_refused(wish: DiskWish) -> None:
    assert "Take one of them out" in conflict(FACTS, wishing(sda=wish))


def test_a_wish_for_a_shared_disk_needs_it_cloned() -> None:
    assert "action: clone" in conflict(FACTS, wishing(sda=DiskWish(size=GIB)))


# --- wishes for networks ------------------------------------------------------------------------


def networking(*wishes: NetworkWish) -> Request:
    return replace(QUICK, networks=wishes)


NET_FACTS = replace(
    FACTS,
    networks={"lan": True, "old": False},
    bridges={"br0": "bridge", "eth0": "other", "br9": "missing"},
    macs={"52:54:00:00:00:09": "other-machine"},
)


def test_networks_replace_in_order_and_add_the_rest() -> None:
    made = plan.compute(
        NET_FACTS,
        networking(
            NetworkWish(network="lan"),
            NetworkWish(bridge="br0", model="e1000e"),
            NetworkWish(network="lan", mac="52:54:00:00:00:01"),
        ),
    )
    assert made.conflicts == ()
    assert made.changes["interface 0"] == {"old": "network default", "new": "network lan"}
    assert made.changes["interface 1"] == {"old": "bridge ovsbr0", "new": "bridge br0"}
    assert made.changes["interface 1 model"] == {"old": "virtio", "new": "e1000e"}
    assert made.changes["interface 2"] == {"old": None, "new": "added"} or (
        made.changes["interface 2"]["new"] == "network lan"
    )
    shown = made.as_dict()
    assert shown["changes"]["interface 2 mac"]["new"] == "52:54:00:00:00:01"
    assert shown["changes"]["interface 0 mac"]["new"] == "<generated>"
    for stale in ("ovsbr0", "openvswitch", "base0", "default"):
        assert stale not in made.xml.partition("<interface")[2].partition("<serial")[0]


@pytest.mark.parametrize(
    ("wish", "word"),
    [
        (NetworkWish(), "neither"),
        (NetworkWish(network="lan", bridge="br0"), "both"),
        (NetworkWish(network="none"), "virsh net-list"),
        (NetworkWish(network="old"), "virsh net-start old"),
        (NetworkWish(bridge="br9"), "no bridge 'br9'"),
        (NetworkWish(bridge="../br0"), "no bridge"),
        (NetworkWish(bridge="eth0"), "no Linux bridge"),
        (NetworkWish(network="lan", model="rocket"), "no network card 'rocket'"),
        (NetworkWish(network="lan", mac="53:54:00:00:00:01"), "multicast"),
        (NetworkWish(network="lan", mac="00:00:00:00:00:00"), "no address"),
        (NetworkWish(network="lan", mac="52:54:00:00:00:09"), "'other-machine' already"),
    ],
)
def test_a_network_that_cannot_be_is_refused(wish: NetworkWish, word: str) -> None:
    made = plan.compute(NET_FACTS, networking(wish))
    assert len(made.conflicts) == 1
    assert word in made.conflicts[0]


def test_an_address_that_is_made_up_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(
        [
            "52:54:00:aa:bb:cc",
            "52:54:00:00:00:01",
            "52:54:00:00:00:02",
            "52:54:00:00:00:02",
            "52:54:00:00:00:09",
            "52:54:00:00:00:03",
        ]
    )
    monkeypatch.setattr(cards, "random_mac", lambda: next(drawn))
    wishes = (
        NetworkWish(network="lan"),
        NetworkWish(network="lan"),
        NetworkWish(network="lan", mac="52:54:00:00:00:01"),
    )
    made = plan.compute(NET_FACTS, networking(*wishes))
    assert made.conflicts == ()
    assert made.generated[2:] == ("52:54:00:00:00:02", "52:54:00:00:00:03")


def test_one_mac_address_twice_is_refused() -> None:
    wish = NetworkWish(network="lan", mac="52:54:00:00:00:01")
    assert "twice" in conflict(NET_FACTS, networking(wish, wish))


def test_a_bridge_that_cannot_be_seen_is_a_warning() -> None:
    facts = replace(NET_FACTS, bridges={})
    made = plan.compute(facts, networking(NetworkWish(bridge="br0")))
    assert made.conflicts == ()
    assert "cannot be seen from here" in "".join(made.warnings)


# --- everything that is asked for is shown --------------------------------------------------------


def test_more_processors_than_the_machine_can_have_are_refused() -> None:
    facts = replace(FACTS, most_cpus=288)
    assert "can have 288" in conflict(facts, replace(QUICK, cpus=300))
    assert plan.compute(facts, replace(QUICK, cpus=288)).conflicts == ()


def test_memory_that_the_host_does_not_have_is_told_and_too_little_refused() -> None:
    facts = replace(FACTS, host_memory=8 * GIB)
    made = plan.compute(facts, replace(QUICK, memory=9 * GIB))
    assert made.conflicts == ()
    assert "the host has 8.0" in made.warnings[0]
    assert "less than any machine" in conflict(facts, replace(QUICK, memory=1000))


def test_every_override_stands_in_the_plan() -> None:
    request = replace(
        QUICK, cpus=2, memory=GIB, description="x", autostart=True, tags=("a",), pool="fast"
    )
    shown = plan.compute(FACTS, request).as_dict()
    assert shown["changes"]["cpus"] == {"old": 1, "new": 2}
    assert shown["changes"]["memory"]["new"] == GIB
    assert shown["changes"]["description"]["new"] == "x"
    assert shown["changes"]["autostart"] == {"old": None, "new": True}
    assert shown["changes"]["tags"] == {"old": [], "new": ["a"]}
    assert shown["changes"]["disk vda pool"] == {"old": "pool", "new": "fast"}
    assert next(d["destination"] for d in shown["disks"]) == "/fast/web1-vda.qcow2"


WISHES = st.builds(
    DiskWish,
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
    wishes: dict[str, DiskWish], strategy: str
) -> None:
    made = plan.compute(FACTS, replace(QUICK, clone_strategy=strategy, disks=wishes))
    assert {disk.target for disk in made.disks} == {"vda", "vdb", "sda"}
    if made.conflicts:
        return
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


LABELS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", fullmatch=True)
CLONES = (
    st.lists(LABELS, min_size=1, max_size=4)
    .map(".".join)
    .filter(lambda name: len(name) <= names.LONGEST_NAME)
    | st.sampled_from(["base", "007", "null", "vda", "nvram", "base-data", "x" * 63])
)  # fmt: skip


@given(pair=st.tuples(CLONES, CLONES), strategy=st.sampled_from(["full", "quick"]))
def test_files_of_a_clone_are_called_after_it_and_after_no_other(
    pair: tuple[str, str], strategy: str
) -> None:
    def files(name: str) -> set[str]:
        request = Request(name=names.check(name), base_domain="base", clone_strategy=strategy)
        made = plan.compute(FACTS, request)
        paths = [Path(volume.path) for volume in made.record.volumes]
        too_long = [path for path in paths if len(path.name) > 255]
        assert len(made.conflicts) == len(too_long)
        assert {path.parent.as_posix() for path in paths} == {
            "/pool", "/var/lib/libvirt/qemu/nvram"
        }  # fmt: skip
        assert all(name in path.name for path in paths)
        return {str(path) for path in paths}

    one, other = map(files, pair)
    assert not one & {"/pool/base.qcow2", "/pool/base-data.img", "/pool/golden.qcow2"}
    assert pair[0] == pair[1] or not one & other
