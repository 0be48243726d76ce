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


def test_a_disk_that_could_not_be_looked_at_is_told_of() -> None:
    made = planner.compute(replace(FACTS, unread=frozenset({"sda"})), QUICK)
    assert any("If it is a cloud-init seed" in warning for warning in made.warnings)
    skipped = wishing(sda=DiskChanges(action="skip"))
    made = planner.compute(replace(FACTS, unread=frozenset({"sda"})), skipped)
    assert not any("cloud-init" in warning for warning in made.warnings)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("root=/dev/vda ds=nocloud;s=http://10.0.0.1/ quiet", "root=/dev/vda quiet"),
        ("ds=nocloud-net;s=http://x/;i=base", ""),
        ("a cloud-config-url=http://x/y b", "a b"),
        ("a cc: {runcmd: [reboot]} end_cc b", "a b"),
        ("ads=nocloud x", "ads=nocloud x"),
    ],
)
def test_a_seed_on_the_kernels_command_line_is_left_out(words: str, left: str) -> None:
    old = "<os>"
    kernel = f"<os><kernel>/boot/vmlinuz</kernel><cmdline>{words}</cmdline>"
    changed = replace(FACTS, base_xml=BASE.replace(old, kernel, 1))
    made = planner.compute(changed, QUICK)
    assert (etree.fromstring(made.xml).findtext("./os/cmdline") or "") == left
    assert ("cmdline seed" in made.changes) == (words != left)
    kept = planner.compute(changed, replace(QUICK, seed="keep"))
    assert etree.fromstring(kept.xml).findtext("./os/cmdline") == words


# --- a seed of the clone's own ------------------------------------------------------------------

OWN = replace(QUICK, seed="own")


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
