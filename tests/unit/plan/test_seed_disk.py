"""The base's cloud-init seed is never the clone's, unless the profile says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lxml import etree

from saltext.kvmclone.model.cloud_seed import Seed
from saltext.kvmclone.model.request import DiskChanges
from saltext.kvmclone.plan import planner
from saltext.kvmclone.plan.planner import ClonePlan
from tests.support.plans import BASE, FACTS, QUICK, conflict, fate, wishing

SEED = Seed("cidata")
OWN = replace(QUICK, seed="own")


def facts(target: str, seed: Seed = SEED, **more):
    return replace(FACTS, seeds={target: seed}, **more)


def element(made: ClonePlan, target: str) -> etree._Element | None:
    for disk in etree.fromstring(made.xml).findall("./devices/disk"):
        if disk.find("target").get("dev") == target:
            return disk
    return None


def test_a_seed_on_a_disk_is_left_out_with_its_disk() -> None:
    made = planner.compute(facts("vdb"), QUICK)
    assert made.conflicts == ()
    disk = fate(made, "vdb")
    assert (disk.action, disk.destination) == ("skip", "")
    assert disk.reason == (
        "it is the base's cloud-init seed (label 'cidata'); 'seed: keep' would keep it"
    )
    assert element(made, "vdb") is None
    assert [volume.target for volume in made.record.volumes if volume.target != "nvram"] == ["vda"]
    assert made.record.seed == "out"


def test_a_seed_in_a_drive_leaves_the_drive() -> None:
    made = planner.compute(facts("sda"), QUICK)
    assert fate(made, "sda").action == "skip"
    drive = element(made, "sda")
    assert drive is not None
    assert drive.find("source") is None
    assert made.changes["disk sda"]["new"] is None


def test_a_seed_that_is_kept_is_treated_like_any_disk_and_told_of() -> None:
    made = planner.compute(facts("sda"), replace(QUICK, seed="keep"))
    assert fate(made, "sda").action == "share"
    assert element(made, "sda").find("source") is not None
    assert any("keeps the base's cloud-init seed on sda" in warning for warning in made.warnings)
    assert made.record.seed == "keep"


@pytest.mark.parametrize("action", ["clone", "share"])
def test_a_wish_for_the_seeds_disk_is_refused(action: str) -> None:
    said = conflict(facts("sda"), wishing(sda=DiskChanges(action=action)))
    assert "seed: keep" in said


def test_a_seed_beside_other_things_is_refused() -> None:
    inside = Seed(folder="/var/lib/cloud/seed/nocloud", alone=False)
    for seed in ("none", "own"):
        said = planner.compute(facts("vda", inside), replace(QUICK, seed=seed)).conflicts[0]
        assert "rm -r /var/lib/cloud/seed/nocloud" in said
        assert "seed: keep" in said
    assert planner.compute(facts("vda", inside), replace(QUICK, seed="keep")).conflicts == ()
    part = Seed("cidata", 3, alone=False)
    assert "partition 3, label 'cidata'" in conflict(facts("vda", part))


def test_a_clone_that_nobody_resets_is_told_what_it_lacks() -> None:
    def said(request) -> list[str]:
        warnings = planner.compute(facts("sda"), request).warnings
        return [warning for warning in warnings if "seed is left out" in warning]

    assert said(QUICK) == []
    (warning,) = said(replace(QUICK, reset_identity=False))
    assert "with 'reset_identity: false' nothing tells the clone's network" in warning
    agentless = BASE.replace("org.qemu.guest_agent.0", "other")
    made = planner.compute(facts("sda", base_xml=agentless), QUICK)
    assert any("without a guest agent nothing tells" in warning for warning in made.warnings)
    told_of_a_source = agentless.replace("BASE-SERIAL", "ds=nocloud")
    made = planner.compute(facts("sda", base_xml=told_of_a_source), QUICK)
    assert not any("seed is left out" in warning for warning in made.warnings)


def test_a_disk_that_could_not_be_looked_at_is_told_of() -> None:
    made = planner.compute(replace(FACTS, unread=frozenset({"sda"})), QUICK)
    assert any("If it is a cloud-init seed" in warning for warning in made.warnings)
    skipped = wishing(sda=DiskChanges(action="skip"))
    made = planner.compute(replace(FACTS, unread=frozenset({"sda"})), skipped)
    assert not any("cloud-init" in warning for warning in made.warnings)


def told(words: str, request=QUICK) -> tuple[ClonePlan, str]:
    """The plan for a base whose kernel is told these words, and what the clone's is told."""
    kernel = f"<os><kernel>/boot/vmlinuz</kernel><cmdline>{words}</cmdline>"
    made = planner.compute(replace(FACTS, base_xml=BASE.replace("<os>", kernel, 1)), request)
    return made, etree.fromstring(made.xml).findtext("./os/cmdline") or ""


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("ds=nocloud cloud-config-url=http://x/y", "ds=nocloud"),
        ("a cloud-config-url=http://x/y b", "a b"),
        ("a cc: {runcmd: [reboot]} end_cc b", "a b"),
        ("ads=nocloud x", "ads=nocloud x"),
    ],
)
def test_a_seed_on_the_kernels_command_line_is_left_out(words: str, left: str) -> None:
    made, said = told(words)
    assert said == left
    assert ("cmdline seed" in made.changes) == (words != left)
    assert told(words, replace(QUICK, seed="keep"))[1] == words


@pytest.mark.parametrize("seed", ["none", "keep"])
def test_a_server_that_hands_out_seeds_is_asked_by_the_clone_as_itself(seed: str) -> None:
    made, said = told("ds=nocloud;s=http://10.0.0.1/;i=7;h=old quiet", replace(QUICK, seed=seed))
    assert said == f"ds=nocloud;s=http://10.0.0.1/;i={made.record.uuid};h=web1 quiet"
    assert made.warnings == planner.compute(FACTS, replace(QUICK, seed=seed)).warnings
    shown = made.as_dict()["changes"]
    assert shown["cmdline instance-id"] == {"old": "<hidden>", "new": "<generated>"}


def serial(value: str, request=QUICK, name: str = "mother") -> tuple[ClonePlan, str]:
    """The plan for a base with this serial number, and the clone's."""
    xml = BASE.replace("<name>base<", f"<name>{name}<").replace("BASE-SERIAL", value)
    made = planner.compute(replace(FACTS, base_xml=xml), request)
    entry = etree.fromstring(made.xml).find("./sysinfo/system/entry[@name='serial']")
    return made, "" if entry is None else entry.text


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("seed/mother/", "seed/web1/"),
        ("mother?v=1", "web1?v=1"),
        ("11111111-2222-3333-4444-555555555555/", "UUID/"),
        ("pxe/525400aabbcc/", "pxe/MAC/"),
    ],
)
def test_a_seed_at_an_address_of_the_bases_is_asked_for_at_the_clones(path: str, own: str) -> None:
    made, said = serial(f"ds=nocloud-net;s=http://mother.test/{path}")
    mac = etree.fromstring(made.xml).find("./devices/interface/mac").get("address")
    own = own.replace("UUID", made.record.uuid).replace("MAC", mac.replace(":", ""))
    assert said == f"ds=nocloud-net;s=http://mother.test/{own}"
    assert made.conflicts == ()
    (warning,) = (warning for warning in made.warnings if "cloud-init" in warning)
    assert "seed: {user_data: …}" in warning
    assert "'seed: keep'" in warning


def test_a_seed_that_is_kept_is_asked_for_at_the_bases_address() -> None:
    words = "ds=nocloud;s=http://seeds.test/mother/"
    assert serial(words, replace(QUICK, seed="keep"))[1] == words


@pytest.mark.parametrize(
    ("number", "word"), [("ds=nocloud", "told"), ("SYS-0815", "out"), ("role=web", "out")]
)
def test_it_is_on_record_whether_cloud_init_is_told_to_be_at_work(number: str, word: str) -> None:
    """It then sees to the network before the agent starts, which is waited for."""
    xml = BASE.replace("BASE-SERIAL", number)
    assert planner.compute(facts("sda", base_xml=xml), QUICK).record.seed == word
    assert planner.compute(facts("sda", base_xml=xml), OWN).record.seed == "own"


def test_a_folder_called_like_a_distribution_is_no_address_of_the_bases() -> None:
    words = "ds=nocloud;s=http://seeds.test/debian-12/"
    made, said = serial(words, name="debian-12")
    assert said == words
    assert not any("seed" in warning for warning in made.warnings)


@pytest.mark.parametrize("head", ["ds=nocloud", "ds=nocloud-net"])
def test_beside_a_seed_of_its_own_cloud_init_is_told_of_no_other(head: str) -> None:
    """What is said there would count for more than what the seed's disk says."""
    words = f"{head};s=http://10.0.0.1/;i=7"
    made, said = serial(words, OWN)
    assert said == "ds=nocloud"
    assert made.changes["sysinfo system serial seed"] == {"old": "of the base", "new": None}
    assert told(f"{words} quiet", OWN)[1] == "ds=nocloud quiet"


@pytest.mark.parametrize("spelled", [str.lower, str.upper, lambda uuid: uuid.replace("-", "")])
def test_a_machine_that_passes_for_one_of_ec2_has_a_clone_that_does(spelled) -> None:
    """cloud-init goes by equal numbers that begin with ec2."""
    old, new = "11111111-2222-3333-4444-555555555555", "ec2e1916-9099-7caf-fd21-012345abcdef"
    xml = BASE.replace(old, new).replace("BASE-SERIAL", spelled(new))
    made = planner.compute(replace(FACTS, base_xml=xml), QUICK)
    uuid = made.record.uuid
    assert uuid.startswith("ec2")
    assert uuid != new
    assert f">{spelled(uuid)}</entry>" in made.xml
    assert not planner.compute(FACTS, QUICK).record.uuid.startswith("ec2")


# --- a seed of the clone's own ------------------------------------------------------------------


def test_a_seed_of_its_own_is_a_disk_that_goes_with_the_clone() -> None:
    made = planner.compute(FACTS, OWN)
    assert made.conflicts == ()
    disk = made.disks[-1]
    assert (disk.target, disk.action, disk.destination) == ("vdc", "copy", "/pool/web1-vdc.raw")
    assert element(made, "vdc").find("target").get("bus") == "virtio"
    assert element(made, "vdc").find("readonly") is not None
    assert "/pool/web1-vdc.raw" in {volume.path for volume in made.record.volumes}
    assert "/pool/web1-vdc.raw" not in made.sources
    assert {disk.target for disk in made.record.base_disks} == {"vda", "vdb"}


def test_it_takes_the_place_of_the_bases_seed() -> None:
    made = planner.compute(facts("vdb"), OWN)
    assert [(disk.target, disk.action) for disk in made.disks if disk.target == "vdb"] == [
        ("vdb", "skip"),
        ("vdb", "copy"),
    ]
    assert element(made, "vdb").find("source").get("file") == "/pool/web1-vdb.raw"
    assert made.changes["disk vdb"] == {
        "old": "/pool/base-data.img",
        "new": "/pool/web1-vdb.raw",
    }


def test_without_a_program_that_writes_it_it_is_refused_with_the_install_line() -> None:
    assert "apt install xorriso" in conflict(replace(FACTS, writes_seeds=False), OWN)


def test_a_file_in_its_place_is_not_overwritten() -> None:
    taken = replace(FACTS, existing=frozenset({"/pool/web1-vdc.raw"}))
    assert "not ours to overwrite" in conflict(taken, OWN)
