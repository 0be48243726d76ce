"""What a profile may wish for the interfaces, and what no network can be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext.kvmclone.hypervisor import network_xml
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.facts import SwitchFacts
from saltext.kvmclone.model.request import InterfaceChanges, Request
from saltext.kvmclone.plan import interfaces, planner
from tests.support.plans import (
    BASE,
    FACTS,
    QUICK,
    conflict,
)


def networking(*wishes: InterfaceChanges) -> Request:
    return replace(QUICK, networks=wishes)


NET_FACTS = replace(
    FACTS,
    networks={"lan": True, "old": False},
    bridges={"br0": "bridge", "eth0": "other", "br9": "missing"},
    macs={"52:54:00:00:00:09": "other-machine"},
    switches={"lan": SwitchFacts(portgroups=("red",))},
)


def test_two_cards_that_the_guest_takes_for_one_get_one_address() -> None:
    def card(teaming: str) -> str:
        return (
            "<interface type='network'><mac address='52:54:00:77:77:77'/><source network='lan'/>"
            f"<model type='virtio'/>{teaming}</interface>"
        )

    team = (
        card("<teaming type='persistent'/><alias name='ua-standby'/>")
        + card("<teaming type='transient' persistent='ua-standby'/>")
        + card("")
    )
    facts = replace(FACTS, base_xml=BASE.replace("<interface ", team + "<interface ", 1))
    cards = domain_xml.read(planner.compute(facts, QUICK).xml).interfaces
    assert cards[0].mac == cards[1].mac != "52:54:00:77:77:77"
    assert len({card.mac for card in cards}) == len(cards) - 1


def test_networks_replace_in_order_and_add_the_rest() -> None:
    made = planner.compute(
        NET_FACTS,
        networking(
            InterfaceChanges(network="lan"),
            InterfaceChanges(bridge="br0", model="e1000e"),
            InterfaceChanges(network="lan", mac="52:54:00:00:00:01"),
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
        (InterfaceChanges(network="lan", bridge="br0"), "both"),
        (InterfaceChanges(network="none"), "net-list --all"),
        (InterfaceChanges(network="old"), "net-start old"),
        (InterfaceChanges(bridge="br9"), "no bridge 'br9'"),
        (InterfaceChanges(bridge="../br0"), "no bridge"),
        (InterfaceChanges(bridge="eth0"), "not a Linux bridge"),
        (InterfaceChanges(network="lan", model="rocket"), "no network card 'rocket'"),
        (InterfaceChanges(network="lan", mac="53:54:00:00:00:01"), "multicast"),
        (InterfaceChanges(network="lan", mac="00:00:00:00:00:00"), "not a usable MAC"),
        (InterfaceChanges(network="lan", mac="52:54:00:00:00:09"), "'other-machine' already"),
        (InterfaceChanges(mac="52:54:00:00:00:09"), "'other-machine' already"),
        (InterfaceChanges(mac="53:54:00:00:00:01"), "multicast"),
        (InterfaceChanges(model="rocket"), "no network card 'rocket'"),
        (InterfaceChanges(network="lan", portgroup="blue"), "It has: red."),
        (InterfaceChanges(portgroup="red", bridge="br0"), "on no network of libvirt's"),
    ],
)
def test_a_network_that_cannot_be_is_refused(wish: InterfaceChanges, word: str) -> None:
    made = planner.compute(NET_FACTS, networking(wish))
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
    monkeypatch.setattr(interfaces, "random_mac", lambda: next(drawn))
    wishes = (
        InterfaceChanges(network="lan"),
        InterfaceChanges(network="lan"),
        InterfaceChanges(network="lan", mac="52:54:00:00:00:01"),
    )
    made = planner.compute(NET_FACTS, networking(*wishes))
    assert made.conflicts == ()
    assert made.generated[2:] == ("52:54:00:00:00:02", "52:54:00:00:00:03")


def test_one_mac_address_twice_is_refused() -> None:
    wish = InterfaceChanges(network="lan", mac="52:54:00:00:00:01")
    assert "twice" in conflict(NET_FACTS, networking(wish, wish))


def test_a_bridge_that_cannot_be_seen_is_a_warning() -> None:
    facts = replace(NET_FACTS, bridges={})
    made = planner.compute(facts, networking(InterfaceChanges(bridge="br0")))
    assert made.conflicts == ()
    assert "cannot be seen from here" in "".join(made.warnings)


# --- only what is named --------------------------------------------------------------------------


def of_interfaces(made: planner.ClonePlan) -> set[str]:
    return {key for key in made.changes if key.startswith("interface")}


#: What changes of the base's two interfaces without any wish.
UNASKED = of_interfaces(planner.compute(FACTS, QUICK))


@pytest.mark.parametrize(
    ("wish", "changed"),
    [
        (InterfaceChanges(), set()),
        (InterfaceChanges(mac="52:54:00:00:00:01"), set()),
        (InterfaceChanges(network="default"), set()),
        (InterfaceChanges(network="default", model="virtio"), set()),
        (InterfaceChanges(model="e1000e"), {"interface 0 model"}),
        (InterfaceChanges(portgroup="red"), {"interface 0 portgroup"}),
    ],
)
def test_an_entry_changes_only_what_it_names(wish: InterfaceChanges, changed: set[str]) -> None:
    facts = replace(
        NET_FACTS,
        networks={"default": True},
        switches={"default": SwitchFacts(portgroups=("red",))},
    )
    made = planner.compute(facts, networking(wish))
    assert made.conflicts == ()
    assert of_interfaces(made) == UNASKED | changed
    (first, second) = domain_xml.read(made.xml).interfaces
    assert (first.kind, first.source, first.portgroup) == (
        "network",
        "default",
        wish.portgroup or "",
    )
    assert first.mac == (wish.mac or first.mac) != "52:54:00:aa:bb:cc"
    assert (second.kind, second.source) == ("bridge", "ovsbr0")


def test_the_bridge_that_an_interface_is_on_may_be_one_of_open_vswitch() -> None:
    facts = replace(NET_FACTS, bridges={"ovsbr0": "other"})
    made = planner.compute(facts, networking(InterfaceChanges(), InterfaceChanges(bridge="ovsbr0")))
    assert made.conflicts == ()
    assert "openvswitch" in made.xml
    assert "not a Linux bridge" in conflict(facts, networking(InterfaceChanges(bridge="ovsbr0")))


def test_an_interface_more_must_be_connected_to_something() -> None:
    wish = InterfaceChanges(mac="52:54:00:00:00:01")
    said = conflict(NET_FACTS, networking(InterfaceChanges(), InterfaceChanges(), wish))
    assert "item 3" in said
    assert "must name a network or a bridge" in said


def test_a_portgroup_without_a_network_is_refused() -> None:
    said = conflict(NET_FACTS, networking(InterfaceChanges(), InterfaceChanges(portgroup="red")))
    assert "on no network of libvirt's" in said


def test_both_cards_of_a_team_get_the_address_that_one_is_given() -> None:
    team = "".join(
        "<interface type='network'><mac address='52:54:00:77:77:77'/><source network='lan'/>"
        f"<model type='virtio'/>{teaming}</interface>"
        for teaming in (
            "<teaming type='persistent'/><alias name='ua-standby'/>",
            "<teaming type='transient' persistent='ua-standby'/>",
        )
    )
    facts = replace(NET_FACTS, base_xml=BASE.replace("<interface ", team + "<interface ", 1))
    wishes = networking(InterfaceChanges(), InterfaceChanges(mac="52:54:00:00:00:01"))
    first, second = domain_xml.read(planner.compute(facts, wishes).xml).interfaces[:2]
    assert first.mac == second.mac == "52:54:00:00:00:01"


TAGGED = BASE.replace(
    "<interface type='network'>",
    "<interface type='network'><vlan><tag id='42'/></vlan><filterref filter='clean-traffic'/>"
    "<bandwidth><outbound average='1000'/></bandwidth>",
    1,
)


@pytest.mark.parametrize(
    ("switch", "lost"),
    [
        (SwitchFacts(), {"vlan"}),
        (SwitchFacts(tags=True), set()),
        (SwitchFacts(tags=True, filters=False), {"filterref"}),
        (SwitchFacts(tags=True, filters=False, bandwidth=False), {"filterref", "bandwidth"}),
    ],
)
def test_what_keeps_a_guest_in_its_place_goes_with_it_where_that_can_be(
    switch: SwitchFacts, lost: set[str]
) -> None:
    facts = replace(NET_FACTS, base_xml=TAGGED, switches={"lan": switch})
    made = planner.compute(facts, networking(InterfaceChanges(network="lan")))
    assert made.conflicts == ()
    for tag in ("vlan", "filterref", "bandwidth"):
        assert (f"<{tag}" in made.xml) is (tag not in lost)
        assert (f"interface 0 {tag}" in made.changes) is (tag in lost)
        assert any(f"<{tag}>" in warning for warning in made.warnings) is (tag in lost)


@pytest.mark.parametrize(
    ("network", "switch"),
    [
        ("<ip address='10.0.0.1'/>", SwitchFacts()),
        (
            "<forward mode='nat'/><portgroup name='a'/><portgroup name='b'/>",
            SwitchFacts(("a", "b")),
        ),
        ("<forward mode='bridge'/><bridge name='br0'/>", SwitchFacts()),
        (
            "<forward mode='bridge'/><bridge name='ovs'/><virtualport type='openvswitch'/>",
            SwitchFacts(tags=True),
        ),
        (
            "<forward mode='bridge'/><bridge name='ovs'/><portgroup name='a'>"
            "<virtualport type='openvswitch'/></portgroup>",
            SwitchFacts(("a",), tags=True),
        ),
        ("<forward mode='bridge'><interface dev='eth0'/></forward>", SwitchFacts(filters=False)),
        ("<forward mode='passthrough'/>", SwitchFacts(tags=True, filters=False)),
        (
            "<forward mode='hostdev'/>",
            SwitchFacts(tags=True, filters=False, bandwidth=False),
        ),
    ],
)
def test_what_a_network_can_give_a_card_is_read_from_it(network: str, switch: SwitchFacts) -> None:
    assert network_xml.switch(f"<network><name>lan</name>{network}</network>") == switch
