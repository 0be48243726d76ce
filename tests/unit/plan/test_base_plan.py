"""Whatever speaks against a base is told at once, before a byte of its image is fetched."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.model.base_request import BaseRequest
from saltext.kvmclone.model.facts import PoolFacts
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.machine_types import MachineType
from saltext.kvmclone.model.record import BASE, MADE, Owner, Volume
from saltext.kvmclone.plan import base_plan
from saltext.kvmclone.plan.base_plan import BaseFacts, BasePlan

REQUEST = BaseRequest("debian12", "https://x/d.qcow2")
POOL = PoolFacts("default", "dir", "/pool", True, 2**40)
FACTS = BaseFacts(machine=MachineType("kvm", "x86_64", "q35", True), pool=POOL, memory=2**36)


def planned(facts: BaseFacts = FACTS, downloads: bool = True, **keys: Any) -> BasePlan:
    request = dataclasses.replace(REQUEST, **keys)
    return base_plan.compute(request, facts, "uuid", downloads, Owner(token="t"), Commands())


def test_the_record_lists_every_file_before_it_is_made() -> None:
    record = planned().record
    assert record.becomes == BASE
    assert (record.base, record.name, record.stage) == ("", "debian12", "planned")
    assert [(v.target, v.path, v.state) for v in record.volumes] == [
        ("vda", "/pool/debian12-vda.qcow2", "wanted"),
        ("vdb", "/pool/debian12-vdb.iso", "wanted"),
        ("download", "/pool/debian12-download.part", "wanted"),
    ]
    assert all(record.could_have_made(volume) for volume in record.volumes)
    assert len(planned(downloads=False).record.volumes) == 2


def test_only_a_download_of_a_base_to_be_is_named_by_no_definition() -> None:
    record = planned().record
    assert [record.may_be_unnamed(volume) for volume in record.volumes] == [False, False, True]
    clone = dataclasses.replace(record, becomes="")
    assert not clone.may_be_unnamed(
        Volume("download", "/pool/x-download.part", "raw", "copy", MADE)
    )


def test_the_disk_has_the_size_that_the_image_turns_out_to_have() -> None:
    plan = planned()
    record = base_plan.with_disk_of(plan, plan.record, 512)
    assert [volume.capacity for volume in record.volumes] == [512, 0, 0]


@pytest.mark.parametrize(
    ("facts", "keys", "word"),
    [
        ({"local": False}, {}, "out of reach from here. Set 'host:'"),
        ({"machine": None}, {"domain_type": "kvm"}, "no machine of the type 'kvm'"),
        ({"machine": MachineType("qemu", "x86_64", "pc")}, {"firmware": "efi"}, "install ovmf"),
        ({"pool": None}, {"pool": "fast"}, "There is no storage pool 'fast'"),
        ({"pool": dataclasses.replace(POOL, active=False)}, {}, "pool-start default"),
        ({"pool": dataclasses.replace(POOL, type="logical")}, {}, "of the type 'logical'"),
        ({"network": "There is no network 'x'."}, {}, "There is no network 'x'."),
        ({"existing": ("/pool/debian12-vda.qcow2",)}, {}, "exist already, and are not ours"),
        ({"left_behind": ("/save",)}, {}, "an earlier 'debian12': /save"),
        ({"folders": ("packages: the folder '/srv' has no file",)}, {}, "the folder '/srv'"),
        ({"missing": ("qemu-img (apt install qemu-utils)",)}, {}, "Not installed on the host"),
        ({"memory": 2**30}, {"memory": 2**31}, "The host has 1024 MiB of memory"),
    ],
)
def test_what_speaks_against_it_is_named(
    facts: dict[str, Any], keys: dict[str, Any], word: str
) -> None:
    with pytest.raises(PlanRefused, match="debian12") as told:
        planned(dataclasses.replace(FACTS, **facts), **keys)
    assert word in told.value.message


def test_all_of_it_is_named_at_once() -> None:
    with pytest.raises(PlanRefused) as told:
        planned(dataclasses.replace(FACTS, network="No network.", existing=("/pool/x",)))
    assert "No network." in told.value.message
    assert "/pool/x" in told.value.message


@pytest.mark.parametrize(
    ("keys", "folders"),
    [
        ({}, {}),
        ({"salt": "repository"}, {}),
        ({"salt": "/s", "packages": "/p"}, {"salt": "/s", "packages": "/p"}),
    ],
)
def test_folders_of_the_host_go_into_the_seed(keys: dict[str, Any], folders: Any) -> None:
    assert base_plan.folders_of(dataclasses.replace(REQUEST, **keys)) == folders
