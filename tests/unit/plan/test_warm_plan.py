"""The machine whose memory is saved: its base without a card, and refused where it cannot be."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.facts import HostFacts
from saltext.kvmclone.model.record import Owner
from saltext.kvmclone.model.record_xml import embed
from saltext.kvmclone.plan import planner, warm_plan
from saltext.kvmclone.plan.clone_plan import ClonePlan
from tests.support.plans import BASE, FACTS, QUICK

ROOT_PORT = "<controller type='pci' index='1' model='pcie-root-port'/>"
AT_PORT = "<address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>"


def plan(facts: HostFacts = FACTS) -> ClonePlan:
    request = warm_plan.request_for("base", "base.warm1", "qemu:///system")
    return warm_plan.compute(facts, request, Owner())


def with_device(text: str) -> HostFacts:
    return replace(FACTS, base_xml=BASE.replace("</devices>", f"{text}</devices>", 1))


def against(facts: HostFacts) -> set[str]:
    return set(plan(facts).conflicts) - set(plan().conflicts)


def test_it_is_a_quick_clone_without_a_card_and_with_a_generation_id() -> None:
    root = libvirt_xml.parse(plan().xml)
    assert root.find("./devices/interface") is None
    assert re.fullmatch(r"[0-9a-f-]{36}", root.findtext("genid") or "")
    assert root.findtext("name") == "base.warm1"
    tags = [child.tag for child in root]
    assert tags[tags.index("uuid") + 1] == "genid"


def test_its_record_lists_the_memory_beside_the_first_overlay() -> None:
    record = plan().record
    assert (record.becomes, record.goal, record.is_clone) == ("warm", "ready", False)
    *disks, memory = record.volumes
    assert (memory.path, memory.state) == ("/pool/base.warm1-memory.save", "wanted")
    assert disks[0].strategy == "overlay"
    assert record.may_be_unnamed(memory)
    assert record.could_have_made(memory)
    assert not record.complete
    assert replace(record, stage="ready").complete


@pytest.mark.parametrize("tag", ["tpm", "hostdev", "filesystem", "shmem", "vsock", "smartcard"])
def test_what_is_not_saved_with_the_memory_is_refused(tag: str) -> None:
    assert any(f"<{tag}>" in told for told in against(with_device(f"<{tag}/>")))


def test_a_base_that_is_elsewhere_or_has_no_agent_is_refused() -> None:
    assert any(
        "remote" in told or "over '" in told for told in against(replace(FACTS, local=False))
    )
    mute = re.sub(r"<channel.*?</channel>", "", BASE, flags=re.DOTALL)
    assert any("no channel" in told for told in plan(replace(FACTS, base_xml=mute)).conflicts)


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        (AT_PORT, True),
        (AT_PORT.replace("bus='0x01'", "bus='0x00'"), False),
        (AT_PORT.replace("function='0x0'", "function='0x1'"), False),
        ("<address type='ccw' cssid='0xfe' ssid='0x0' devno='0x0001'/>", True),
        ("", True),
    ],
)
def test_a_card_where_none_can_be_plugged_in_is_refused(address: str, fits: bool) -> None:
    buses = f"<controller type='pci' index='0' model='pcie-root'/>{ROOT_PORT}"
    root = libvirt_xml.parse(BASE)
    for devices in root.iterfind("./devices"):
        for old in (*devices.findall("controller"), *devices.findall("interface")):
            devices.remove(old)
    text = libvirt_xml.serialize(root).replace(
        "</devices>", f"{buses}<interface type='network'><source network='default'/>{address}"
        "</interface></devices>",
    )  # fmt: skip
    told = [one for one in plan(replace(FACTS, base_xml=text)).conflicts if "plugged in" in one]
    assert (told == []) == fits


def test_what_was_saved_is_not_cloned_as_if_it_were_a_base() -> None:
    root = libvirt_xml.parse(BASE)
    uuid = libvirt_xml.text(root, "uuid")
    embed(root, replace(plan().record, uuid=uuid, stage="ready"))
    told = planner.compute(replace(FACTS, base_xml=libvirt_xml.serialize(root)), QUICK).conflicts
    assert any("holds the saved memory of the base 'base'" in one for one in told)
