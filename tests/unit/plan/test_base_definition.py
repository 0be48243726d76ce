"""A base's definition has what its guest needs, and nothing else: word by word."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lxml import etree

from saltext.kvmclone.model.base_request import BaseRequest
from saltext.kvmclone.model.machine_types import MachineType
from saltext.kvmclone.plan import base_definition
from saltext.kvmclone.plan.base_definition import BaseFiles

DATA = Path(__file__).parents[2] / "data/bases"
UUID = "6c1e3b1a-2f0d-4c4f-9d53-0c9a8a1f7a11"
FILES = BaseFiles("/pool/debian12-vda.qcow2", "/pool/debian12-vdb.iso")
REQUEST = BaseRequest("debian12", "https://x/d.qcow2", cpus=2, memory=2**30)

CASES = {
    "kvm": (REQUEST, MachineType("kvm", "x86_64", "q35", True), False),
    "qemu": (
        BaseRequest("debian12", "/d", bridge="br0", description="Debian 12 <cloud>"),
        MachineType("qemu", "x86_64", "pc"),
        False,
    ),
    "efi": (REQUEST, MachineType("kvm", "x86_64", "q35", True), True),
    "arm": (REQUEST, MachineType("kvm", "aarch64", "virt", True), True),
}


@pytest.mark.parametrize("case", CASES)
def test_the_definition_is_the_one_that_was_looked_at(case: str) -> None:
    request, machine, efi = CASES[case]
    made = base_definition.definition(request, UUID, machine, FILES)
    made = base_definition.with_efi(made) if efi else made
    root = etree.fromstring(made)
    etree.indent(root)
    shown = etree.tostring(root, encoding="unicode") + "\n"
    assert shown == (DATA / f"{case}.xml").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_libvirts_schema_takes_the_definition(case: str) -> None:
    words = ["virt-xml-validate", str(DATA / f"{case}.xml"), "domain"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_portgroup_is_one_of_the_network() -> None:
    request = BaseRequest("debian12", "/d", network="lan", portgroup="blue")
    machine = CASES["kvm"][1]
    root = etree.fromstring(base_definition.definition(request, UUID, machine, FILES))
    source = root.find("./devices/interface/source")
    assert source is not None
    assert dict(source.attrib) == {"network": "lan", "portgroup": "blue"}


def test_the_seed_is_a_virtio_disk_that_nobody_writes() -> None:
    root = etree.fromstring(base_definition.definition(REQUEST, UUID, CASES["kvm"][1], FILES))
    seed = root.find("./devices/disk/target[@dev='vdb']/..")
    assert seed is not None
    assert seed.get("device") == "disk"
    assert seed.find("readonly") is not None
