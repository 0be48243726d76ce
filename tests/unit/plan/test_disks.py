"""Every disk is cloned, shared for a stated reason, or refused; none is shared by accident."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext.kvmclone.model.domain_xml import Disk
from saltext.kvmclone.model.facts import ImageFacts, SourceFacts
from saltext.kvmclone.model.request import DiskChanges
from saltext.kvmclone.plan import disk_wishes, planner
from tests.support.plans import (
    BASE,
    FACTS,
    FAST,
    FULL,
    GIB,
    POOL,
    QUICK,
    VDA,
    VDB,
    conflict,
    disk_xml,
    fate,
    fates,
    raw,
    wishing,
    with_disk,
)


def test_quick_lays_an_overlay_on_every_disk_and_shares_the_cdrom() -> None:
    made = planner.compute(FACTS, QUICK)
    assert made.conflicts == ()
    assert fates(made) == {"vda": "overlay", "vdb": "overlay", "sda": "share"}
    assert {disk.format for disk in made.disks if disk.destination} == {"qcow2"}


def test_full_copies_and_keeps_the_format() -> None:
    made = planner.compute(FACTS, FULL)
    assert fates(made) == {"vda": "copy", "vdb": "copy", "sda": "share"}
    assert [d.destination for d in made.disks][:2] == ["/pool/web1-vda.qcow2", "/pool/web1-vdb.raw"]


def test_a_quick_clone_of_a_raw_disk_names_raw_as_the_backing_format() -> None:
    data = fate(planner.compute(FACTS, QUICK), "vdb")
    assert (data.format, data.source_format) == ("qcow2", "raw")


def test_a_chain_is_flattened_and_counted_whole() -> None:
    made = planner.compute(FACTS, FULL)
    assert fate(made, "vda").bytes == 2 * GIB
    assert (fate(made, "vda").method, fate(made, "vdb").method) == ("convert", "bytes")


def test_without_the_hosts_files_libvirt_copies() -> None:
    made = planner.compute(replace(FACTS, local=False), FULL)
    assert {disk.method for disk in made.disks if disk.destination} == {"daemon"}


def test_blocks_are_shared_only_within_a_file_system_that_can() -> None:
    can = replace(POOL, shares_blocks=True)
    facts = replace(FACTS, pools={"pool": can, "fast": FAST})
    made = planner.compute(facts, FULL)
    assert fates(made)["vdb"] == "reflink"
    assert fate(made, "vdb").bytes == 0
    assert "share blocks" in fate(made, "vdb").reason
    assert fates(made)["vda"] == "copy"  # a chain must be flattened

    assert fates(planner.compute(facts, replace(FULL, pool="fast")))["vdb"] == "copy"
    other_kind = replace(VDB, copies_on_write=False)
    facts = replace(facts, sources={"vda": VDA, "vdb": other_kind})
    assert fates(planner.compute(facts, FULL))["vdb"] == "copy"


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
    assert fate(planner.compute(facts, QUICK), "vdc").action == "skip"

    without = planner.compute(facts, wishing(vdc=DiskChanges(action="skip")))
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
    made = planner.compute(with_disk(disk), QUICK)
    assert made.conflicts == ()
    assert fate(made, "vdc").action == "share"
    assert reason in fate(made, "vdc").reason
    assert fate(
        planner.compute(with_disk(disk), wishing(vdc=DiskChanges(action="share"))), "vdc"
    ).action


def test_a_floppy_that_is_written_gets_a_file_of_its_own() -> None:
    floppy = disk_xml("file", "<source file='/pool/f.img'/>", device="floppy", target="fda")
    made = planner.compute(with_disk(floppy, fda=SourceFacts((raw("/pool/f.img"),), "")), FULL)
    assert "is in no active storage pool" in made.conflicts[0]
    made = planner.compute(
        with_disk(floppy, fda=SourceFacts((raw("/pool/f.img"),), pool="pool")), FULL
    )
    assert fate(made, "fda").destination == "/pool/web1-fda.raw"


@pytest.mark.parametrize(
    ("source", "word"),
    [
        (SourceFacts((ImageFacts("/x", "missing"),)), "does not exist"),
        (SourceFacts((ImageFacts("/x", "folder"),), pool="pool"), "is a folder"),
        (SourceFacts((ImageFacts("rbd/x", "elsewhere"),), pool="pool"), "is on the network"),
        (SourceFacts((ImageFacts("/x", "special"),), pool="pool"), "is a pipe"),
        (SourceFacts((ImageFacts("/x", "block"),), pool="pool"), "is a block device although"),
        (SourceFacts((ImageFacts("/x", "missing"),), asleep="old"), "pool-start old"),
        (SourceFacts((raw("/x"),)), "pool-create-as files dir --target /"),
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
    for request in (replace(QUICK, pool="fast"), wishing(vdc=DiskChanges(pool="fast"))):
        made = planner.compute(facts, request)
        assert made.conflicts == ()
        assert fate(made, "vdc").destination == "/fast/web1-vdc.qcow2"
        assert made.changes["disk vdc pool"] == {"old": None, "new": "fast"}


def test_a_block_device_becomes_a_file() -> None:
    disk = disk_xml("block", "<driver type='raw' cache='none' io='native'/><source dev='/dev/x'/>")
    device = ImageFacts("/dev/x", "block", "/dev/x", size=GIB, allocation=GIB)
    facts = with_disk(disk, vdc=SourceFacts((device,)))
    made = planner.compute(facts, replace(FULL, pool="fast"))
    assert made.conflicts == ()
    assert (fate(made, "vdc").format, fate(made, "vdc").bytes) == ("raw", GIB)
    assert '<disk type="file" device="disk"><driver type="raw" cache="none" io="native"/>' in (
        made.xml
    )
    assert made.changes["disk vdc type"] == {"old": "block", "new": "file"}
    assert fate(planner.compute(facts, replace(QUICK, pool="fast")), "vdc").source_format == "raw"


def test_a_block_device_far_away_is_refused() -> None:
    disk = disk_xml("block", "<driver type='raw'/><source dev='/dev/x'/>")
    device = ImageFacts("/dev/x", "block", "/dev/x", size=GIB, allocation=GIB)
    facts = replace(with_disk(disk, vdc=SourceFacts((device,), pool="pool")), local=False)
    assert "host:" in conflict(facts)


def test_a_volume_is_cloned_and_becomes_a_file() -> None:
    disk = disk_xml("volume", "<driver type='raw'/><source pool='p' volume='v' mode='host'/>")
    facts = with_disk(disk, vdc=SourceFacts((raw("/p/v"),), pool="pool"))
    made = planner.compute(facts, QUICK)
    assert made.conflicts == ()
    assert fate(made, "vdc").source == "/p/v"
    assert '<source file="/pool/web1-vdc.qcow2"/>' in made.xml
    assert "mode=" not in made.xml.partition("web1-vdc")[2].partition("</disk>")[0]
    assert "pool-start p" in conflict(with_disk(disk, vdc=SourceFacts(asleep="p")))
    assert "'p' that is not there" in conflict(with_disk(disk, vdc=SourceFacts(unknown_pool="p")))


def test_targets_that_cannot_be_told_apart_or_made_a_file_name_are_refused() -> None:
    twice = disk_xml("file", "<source file='/x'/>", target="vdb")
    made = planner.compute(with_disk(twice), QUICK)
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
@pytest.mark.parametrize("folder", ["/pool", "/pool/../pool/"])
def test_a_file_that_the_base_writes_is_not_shared_under_another_target(
    device: str, folder: str
) -> None:
    source = f"<source file='{folder}/base-data.img'/><readonly/>"
    facts = with_disk(disk_xml("file", source, device))
    assert "with the base, whose disk vdb it is" in conflict(facts)
    assert planner.compute(facts, wishing(vdc=DiskChanges(action="skip"))).conflicts == ()


def test_a_volume_that_the_base_writes_is_not_shared_under_another_target() -> None:
    volume = "<driver type='raw'/><source pool='p' volume='v'/>"
    both = disk_xml("volume", volume) + disk_xml("volume", volume, "cdrom", "sdb")
    facts = with_disk(both, vdc=SourceFacts((raw("/pool/v"),), pool="pool"))
    assert "would share 'p/v' with the base, whose disk vdc it is" in conflict(facts)


def test_a_transient_disk_is_cloned_with_a_warning() -> None:
    disk = disk_xml("file", "<source file='/x'/><transient/>")
    made = planner.compute(with_disk(disk, vdc=SourceFacts((raw("/x"),), pool="pool")), QUICK)
    assert made.conflicts == ()
    assert "transient" in made.warnings[0]


def test_nothing_of_the_old_source_remains_on_a_new_file() -> None:
    disk = disk_xml(
        "file",
        "<driver name='qemu' type='raw'/>"
        "<source file='/x' index='3' startupPolicy='optional'><seclabel model='dac'/>"
        "<reservations managed='yes'/></source><iotune><group_name>g</group_name></iotune>"
        "<mirror/>",
    )
    made = planner.compute(with_disk(disk, vdc=SourceFacts((raw("/x"),), pool="pool")), QUICK)
    for word in (
        "seclabel model='dac'",
        "reservations",
        "startupPolicy",
        "mirror",
    ):
        assert word.replace("'", '"') not in made.xml.replace("'", '"')
    assert "<group_name>g</group_name>" in made.xml


def test_a_drive_that_is_shared_keeps_its_number() -> None:
    disk = disk_xml("file", "<source file='/iso/x'/><serial>CD-1</serial>", device="cdrom")
    made = planner.compute(with_disk(disk), QUICK)
    assert made.conflicts == ()
    assert "<serial>CD-1</serial>" in made.xml
    assert "disk vdc serial" not in made.changes


def test_a_disk_on_an_nvme_controller_is_cloned_as_any_other() -> None:
    emulated = BASE.replace("dev='vdb' bus='virtio'", "dev='nvme0n1' bus='nvme'")
    made = planner.compute(
        replace(FACTS, base_xml=emulated, sources={"vda": VDA, "nvme0n1": VDB}), QUICK
    )
    assert made.conflicts == ()
    assert fate(made, "nvme0n1").destination == "/pool/web1-nvme0n1.qcow2"


def test_nothing_else_in_the_definition_speaks_of_a_disk_that_the_clone_has_otherwise() -> None:
    tuned = BASE.replace(
        "<sysinfo",
        "<blkiotune><device><path>/pool/base.qcow2</path><weight>200</weight></device></blkiotune>"
        "<sysinfo",
    )
    made = planner.compute(replace(FACTS, base_xml=tuned), QUICK)
    assert made.conflicts == ()
    assert "blkiotune" not in made.xml

    told = BASE.replace(
        "</libosinfo:libosinfo>",
        "</libosinfo:libosinfo><a:b xmlns:a='urn:a'>disks: /pool/base.qcow2.</a:b>",
    )
    made = planner.compute(replace(FACTS, base_xml=told), QUICK)
    assert made.conflicts == ()
    assert "/pool/base.qcow2" not in made.xml
    assert made.changes["metadata a:b"]["new"] is None

    booted = BASE.replace(
        "<smbios", "<cmdline>root=/pool/base.qcow2 x=/pool/base.qcow2-old</cmdline><smbios"
    )
    assert "a disk of the base" in conflict(replace(FACTS, base_xml=booted))


@pytest.mark.parametrize(
    "target", ["vda", "vdaa", "sda", "hda", "fda", "xvda", "ubda", "nvme0n1", "nvme10n12"]
)
@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_a_volume_tells_by_its_name_whose_it_was(target: str, strategy: str) -> None:
    disk = Disk(target, "disk", "file", "/pool/base", "raw", False, False, False)
    request = replace(QUICK, name="web-1.example.com", clone_strategy=strategy)
    assert disk_wishes.clone_named_in(disk_wishes.volume_name(disk, request)) == "web-1.example.com"


@pytest.mark.parametrize(
    "file", ["base.qcow2", "web1.vda.qcow2", "web1-vda.iso", "backup-sdcard.raw", "-vda.qcow2"]
)
def test_another_file_is_no_clones_by_its_name(file: str) -> None:
    assert disk_wishes.clone_named_in(file) == ""
