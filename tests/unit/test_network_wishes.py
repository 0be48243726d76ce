"""What a profile may wish for the interfaces, and what no network can be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext.kvmclone import cards, domain_xml, plan
from saltext.kvmclone.request import NetworkWish, Request
from tests.unit.planning import (
    BASE,
    FACTS,
    QUICK,
    conflict,
)


def networking(*wishes: NetworkWish) -> Request:
    return replace(QUICK, networks=wishes)


NET_FACTS = replace(
    FACTS,
    networks={"lan": True, "old": False},
    bridges={"br0": "bridge", "eth0": "other", "br9": "missing"},
    macs={"52:54:00:00:00:09": "other-machine"},
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
    cards = domain_xml.read(plan.compute(facts, QUICK).xml).interfaces
    assert cards[0].mac == cards[1].mac != "52:54:00:77:77:77"
    assert len({card.mac for card in cards}) == len(cards) - 1


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
