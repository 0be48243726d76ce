"""A fork is a quick clone of the warmed machine with its base's cards, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from lxml import etree

from saltext.kvmclone.model import domain_xml, record_xml
from saltext.kvmclone.model.record import MEMORY, WANTED, Record
from saltext.kvmclone.model.request import DiskChanges, InterfaceChanges, Request
from saltext.kvmclone.plan import fork, fork_definition
from tests.support.plans import BASE, FACTS

AGENT = (
    "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices>"
)
WITH_AGENT = BASE if domain_xml.read(BASE).has_agent_channel else BASE.replace("</devices>", AGENT)
WARMED = fork.ForkSource("base.warm1", "/pool/base.warm1-memory.save", "base", "b" * 36)
INSTANT = Request(name="web1", base_domain="base", clone_strategy="instant")


def warmed_xml() -> str:
    """The definition of the warmed machine: another name, a record, and no cards."""
    root = etree.fromstring(WITH_AGENT)
    root.find("name").text = "base.warm1"  # type: ignore[union-attr]
    uuid = root.findtext("uuid") or ""
    record_xml.embed(root, Record(uuid, "base", "b" * 36, "quick", becomes="warm"))
    return fork_definition.without_cards(etree.tostring(root, encoding="unicode"))


def facts(**changes: Any) -> Any:
    definition = fork_definition.with_cards(warmed_xml(), BASE)
    return replace(FACTS, base_xml=definition, **changes)


def test_it_stands_on_the_warmed_machine_and_is_on_record_as_a_clone_of_its_base() -> None:
    made = fork.compute(facts(), INSTANT, WARMED)
    assert made.conflicts == ()
    assert (made.base, made.warmed, made.record.base) == ("base", "base.warm1", "base")
    assert (made.record.strategy, made.record.warmed) == ("instant", "base.warm1")
    assert made.record.request == INSTANT.digest()
    assert made.as_dict()["strategy"] == "instant"
    assert {disk.action for disk in made.disks} <= {"overlay", "share"}


def test_the_memory_that_it_is_restored_from_is_on_record_before_it_is_made() -> None:
    made = fork.compute(facts(), INSTANT, WARMED)
    memory = made.record.volumes[-1]
    assert (memory.target, memory.state, memory.path) == (
        MEMORY, WANTED, "/pool/web1-memory.save",
    )  # fmt: skip
    assert made.record.could_have_made(memory) and made.record.may_be_unnamed(memory)


def test_it_has_the_cards_of_its_base_at_their_places_with_addresses_of_its_own() -> None:
    made = fork.compute(facts(), INSTANT, WARMED)
    ours, base = (domain_xml.read(xml).interfaces for xml in (made.xml, BASE))
    assert len(ours) == len(base) > 0
    assert {card.mac for card in ours}.isdisjoint({card.mac for card in base})
    assert "base.warm1" not in made.xml.replace("Cloned from base", "")


def test_it_is_restored_without_cards_and_they_are_plugged_in_with_their_links_down() -> None:
    made = fork.compute(facts(), INSTANT, WARMED)
    restored = domain_xml.read(fork_definition.without_cards(made.xml))
    assert (restored.name, restored.uuid, restored.interfaces) == ("web1", made.record.uuid, ())
    down = fork_definition.cards(made.xml, unplugged=True)
    assert all('<link state="down"/>' in card for card in down)
    assert len(down) == len(fork_definition.cards(made.xml))


@pytest.mark.parametrize(
    ("key", "asked"),
    [
        ("'cpus'", {"cpus": 2}),
        ("'memory'", {"memory": 2**30}),
        ("'disks' (vda)", {"disks": {"vda": DiskChanges(size=2**40)}}),
        ("'leave_out'", {"leave_out": ("sound",)}),
        ("'seed'", {"seed": "keep"}),
        ("'protect'", {"protect": True}),
        ("'reset_identity'", {"reset_identity": False}),
    ],
)
def test_what_would_make_another_machine_of_it_is_refused(key: str, asked: dict[str, Any]) -> None:
    (why,) = fork.refusals(facts(), replace(INSTANT, **asked), WARMED)
    assert key in why and "quick" in why


def test_another_pool_and_another_network_do_not_make_another_machine_of_it() -> None:
    asked = replace(INSTANT, disks={"vda": DiskChanges(pool="fast")})
    assert fork.refusals(facts(), asked, WARMED) == []


def test_a_base_that_runs_is_refused() -> None:
    running = replace(WARMED, base_state="running")
    (why,) = fork.refusals(facts(), INSTANT, running)
    assert "is running" in why and "shutdown" in why


def test_more_network_cards_than_the_base_has_are_refused() -> None:
    cards = len(domain_xml.read(BASE).interfaces)
    asked = replace(INSTANT, networks=(InterfaceChanges(),) * (cards + 1))
    (why,) = fork.refusals(facts(), asked, WARMED)
    assert f"as many network cards as the base, {cards}, and 'networks' names {cards + 1}" in why
    fewer = replace(INSTANT, networks=(InterfaceChanges(),) * cards)
    assert fork.refusals(facts(), fewer, WARMED) == []


def test_a_copy_of_the_memory_for_which_there_is_no_room_is_refused() -> None:
    (why,) = fork.refusals(facts(), INSTANT, replace(WARMED, size=2**30, available=2**20))
    assert "needs 1 GiB in /pool, where 1 MiB are free" in why
    assert fork.refusals(facts(), INSTANT, replace(WARMED, size=2**20, available=2**20)) == []
