"""Choosing a fixed address: a free one, or every reason against the one that was asked for."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.hypervisor import network_xml
from saltext.kvmclone.model.domain_xml import Interface
from saltext.kvmclone.model.facts import HostEntry, Lease, NetworkFacts, Subnet
from saltext.kvmclone.model.record import Reservation
from saltext.kvmclone.model.request import AddressPick, Request
from saltext.kvmclone.plan import reservation
from saltext.kvmclone.plan.reservation import Choice

MAC = "52:54:00:00:00:01"
OTHER = "52:54:00:00:00:02"
SUBNET = Subnet(0, "192.168.122.1/24", True, (("192.168.122.100", "192.168.122.109"),))
NET = NetworkFacts("default", forward="nat", subnets=(SUBNET,))
CARD = Interface("network", "default", MAC)
REQUEST = Request(name="web1", base_domain="base", ip_source="reserve")


def leased(address: str, mac: str = OTHER) -> Lease:
    return Lease(mac, address, 24, "ipv4", 100.0, "")


def decide(request: Request = REQUEST, facts: NetworkFacts = NET, *cards: Interface) -> Choice:
    return reservation.decide(cards or (CARD,), {facts.name: facts}, request)


def against(address: str, facts: NetworkFacts = NET) -> str:
    choice = decide(replace(REQUEST, address=address), facts)
    assert bool(choice.conflicts) != bool(choice.reservations)
    return " ".join(choice.conflicts)


# --- the address that was asked for -------------------------------------------------------------


@pytest.mark.parametrize("address", ["192.168.122.2", "192.168.122.105", "192.168.122.254"])
def test_any_address_of_the_subnet_may_be_asked_for(address: str) -> None:
    choice = decide(replace(REQUEST, address=address))
    assert choice == Choice((Reservation("default", MAC, address, "web1"),))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.168.122.0", "is the network address of 192.168.122.0/24"),
        ("192.168.122.255", "is the broadcast address of 192.168.122.0/24"),
        ("192.168.122.1", "is the host's own on network 'default'"),
        ("10.0.0.5", "is outside network 'default' (192.168.122.0/24)"),
        ("fd00::5", "Only IPv4 addresses are reserved"),
    ],
)
def test_an_address_that_no_guest_can_have_is_refused(address: str, reason: str) -> None:
    assert reason in against(address)


def test_an_address_that_somebody_has_is_refused_and_every_holder_is_named() -> None:
    facts = replace(
        NET,
        live=(HostEntry(OTHER, "192.168.122.50", "printer"),),
        stored=(HostEntry("52:54:00:00:00:03", "192.168.122.50"),),
        leases=(leased("192.168.122.50"),),
    )
    said = against("192.168.122.50", facts)
    assert f"reserved for 'printer' ({OTHER})" in said
    assert "reserved for 52:54:00:00:00:03" in said
    assert f"leased it to {OTHER}" in said


def test_what_the_clones_own_card_has_is_no_reason() -> None:
    facts = replace(
        NET,
        live=(HostEntry(MAC, "192.168.122.50", "web1"),),
        leases=(leased("192.168.122.50", MAC),),
    )
    assert against("192.168.122.50", facts) == ""


def test_an_address_of_a_block_without_dhcp_is_refused() -> None:
    silent = Subnet(1, "10.9.0.1/24")
    said = against("10.9.0.7", replace(NET, subnets=(SUBNET, silent)))
    assert "libvirt hands out no addresses of 10.9.0.0/24" in said


def test_an_address_without_reserve_is_refused() -> None:
    said = decide(replace(REQUEST, ip_source="auto", address="192.168.122.50")).conflicts
    assert "only with 'ip_source: reserve'" in said[0]
    assert decide(replace(REQUEST, ip_source="auto")) == Choice()


def test_an_address_that_pick_leaves_out_is_refused() -> None:
    request = replace(
        REQUEST, address="192.168.122.50", pick=AddressPick(cidr="192.168.122.128/25")
    )
    assert "is not what 'pick' asks for" in decide(request).conflicts[0]


# --- the network --------------------------------------------------------------------------------


def test_a_network_that_cannot_reserve_says_every_reason() -> None:
    facts = NetworkFacts("default", active=False, forward="bridge")
    said = " ".join(decide(REQUEST, facts).conflicts)
    assert "net-start default" in said
    assert "hands out no IPv4 addresses in network 'default' (forward mode 'bridge')" in said
    assert "'ip_source: qemu-agent'" in said


@pytest.mark.parametrize("kind", ["bridge", "direct", "user"])
def test_an_interface_that_is_on_no_network_is_refused_with_the_way_out(kind: str) -> None:
    (said,) = decide(REQUEST, NET, Interface(kind, "br0", MAC)).conflicts
    assert f"is on {kind} 'br0'" in said
    assert "'ip_source: qemu-agent'" in said


def test_on_the_bridge_of_a_network_the_address_is_reserved_in_that_network() -> None:
    bridged = replace(NET, bridge="virbr7")
    card = Interface("bridge", "virbr7", MAC)
    (made,) = decide(replace(REQUEST, address="192.168.122.50"), bridged, card).reservations
    assert made == Reservation("default", MAC, "192.168.122.50", "web1")
    silent = replace(bridged, subnets=(Subnet(0, "192.168.122.1/24"),))
    assert "is on bridge 'virbr7'" in decide(REQUEST, silent, card).conflicts[0]


def test_a_network_that_is_not_there_and_no_interface_at_all_are_refused() -> None:
    assert (
        "There is no network 'gone'"
        in decide(REQUEST, NET, Interface("network", "gone", MAC)).conflicts[0]
    )
    assert "no network interface" in reservation.decide((), {}, REQUEST).conflicts[0]


def test_ipv6_is_refused() -> None:
    assert "Only IPv4" in decide(replace(REQUEST, pick=AddressPick(family="ipv6"))).conflicts[0]


# --- which interface ----------------------------------------------------------------------------

SECOND = NetworkFacts("lan", subnets=(Subnet(0, "10.1.0.1/16", True, (("10.1.5.1", "10.1.5.9"),)),))
CARDS = (CARD, Interface("network", "lan", OTHER))


@pytest.mark.parametrize(
    ("keys", "network"),
    [
        ({}, "default"),
        ({"pick": AddressPick(interface="lan")}, "lan"),
        ({"pick": AddressPick(interface=OTHER)}, "lan"),
        ({"pick": AddressPick(cidr="10.1.0.0/16")}, "lan"),
        ({"address": "10.1.200.7"}, "lan"),
        ({"address": "192.168.122.7"}, "default"),
    ],
)
def test_the_interface_is_the_first_or_the_one_that_is_meant(
    keys: dict[str, object], network: str
) -> None:
    request = replace(REQUEST, **keys)  # type: ignore[arg-type]
    choice = reservation.decide(CARDS, {"default": NET, "lan": SECOND}, request)
    assert choice.conflicts == ()
    (made,) = choice.reservations
    assert made.network == network
    assert made.mac == {"default": MAC, "lan": OTHER}[network]


def test_an_interface_that_is_not_there_is_refused() -> None:
    request = replace(REQUEST, pick=AddressPick(interface="eth0"))
    said = reservation.decide(CARDS, {"default": NET, "lan": SECOND}, request).conflicts
    assert "names none of the clone's networks ('default', 'lan')" in said[0]


# --- a free one ---------------------------------------------------------------------------------


@given(
    name=st.from_regex(r"[a-z][a-z0-9]{0,12}", fullmatch=True),
    taken=st.sets(st.integers(100, 109)),
    held=st.sets(st.integers(100, 109)),
)
def test_a_free_address_is_found_exactly_where_there_is_one(
    name: str, taken: set[int], held: set[int]
) -> None:
    facts = replace(
        NET,
        live=tuple(HostEntry(OTHER, f"192.168.122.{last}") for last in taken),
        leases=tuple(leased(f"192.168.122.{last}") for last in held),
    )
    found = reservation.free(facts, name)
    room = {f"192.168.122.{last}" for last in set(range(100, 110)) - taken - held}
    assert (found in room) if room else found == ""
    assert reservation.free(facts, name, avoid=room) == ""


def test_clones_of_different_names_begin_at_different_addresses() -> None:
    wide = replace(NET, subnets=(replace(SUBNET, ranges=(("192.168.122.2", "192.168.122.254"),)),))
    found = {reservation.free(wide, f"web{number}") for number in range(20)}
    assert len(found) > 15


def test_a_huge_range_is_no_walk_and_its_edges_are_left_out() -> None:
    subnet = Subnet(0, "10.0.0.1/8", True, (("10.0.0.0", "10.255.255.255"),))
    facts = NetworkFacts("wide", subnets=(subnet,))
    assert ipaddress.ip_address(reservation.free(facts, "web1")) in ipaddress.ip_network(
        "10.0.0.0/8"
    )
    narrow = NetworkFacts(
        "narrow", subnets=(Subnet(0, "10.0.0.1/30", True, (("10.0.0.0", "10.0.0.3"),)),)
    )
    assert reservation.free(narrow, "web1") == "10.0.0.2"
    assert reservation.free(narrow, "web1", avoid=("10.0.0.2",)) == ""


def test_pick_narrows_the_range() -> None:
    pick = AddressPick(cidr="192.168.122.108/31")
    assert reservation.free(NET, "web1", pick) in ("192.168.122.108", "192.168.122.109")
    assert reservation.free(NET, "web1", AddressPick(cidr="192.168.122.0/26")) == ""
    said = decide(replace(REQUEST, pick=AddressPick(cidr="192.168.122.0/26"))).conflicts[0]
    assert "has no free address within 192.168.122.0/26" in said


@pytest.mark.parametrize("name", ["web1", "WEB1"])
def test_a_name_that_the_network_knows_already_is_left_out(name: str) -> None:
    facts = replace(NET, live=(HostEntry(OTHER, "192.168.122.50", name),))
    assert decide(REQUEST, facts).reservations[0].name == ""


def test_a_name_that_is_no_host_name_is_left_out() -> None:
    assert decide(replace(REQUEST, name="4web")).reservations[0].name == ""


# --- libvirt's XML ------------------------------------------------------------------------------

XML = """
<network>
  <name>lan</name>
  <forward mode='nat'/>
  <ip family='ipv6' address='fd00::1' prefix='64'><dhcp>
    <host id='0:3:0:1' name='six' ip='fd00::7'/></dhcp></ip>
  <ip address='192.168.9.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.9.2' end='192.168.9.99'/>
      <host mac='52:54:00:AA:00:01' name='one' ip='192.168.9.5'/>
    </dhcp>
  </ip>
  <ip address='10.3.0.1'/>
</network>
"""


def test_the_blocks_of_a_network_are_read_in_every_notation() -> None:
    facts = network_xml.read("lan", XML, XML)
    assert facts.forward == "nat"
    assert [subnet.gateway for subnet in facts.subnets] == [
        "fd00::1/64",
        "192.168.9.1/24",
        "10.3.0.1/8",
    ]
    assert [subnet.dhcp for subnet in facts.subnets] == [True, True, False]
    assert facts.subnets[1].ranges == (("192.168.9.2", "192.168.9.99"),)
    assert HostEntry("52:54:00:aa:00:01", "192.168.9.5", "one") in facts.live
    assert facts.live == facts.stored
    assert reservation.block_of(facts, "192.168.9.7") == 1


def test_a_network_that_is_off_or_transient_has_one_side_only() -> None:
    off = network_xml.read("lan", XML, XML, active=False)
    assert (off.live, bool(off.stored)) == ((), True)
    assert network_xml.read("lan", XML, "").stored is None


def test_an_entry_is_written_as_libvirt_reads_it() -> None:
    assert network_xml.host_xml(HostEntry(MAC, "10.0.0.5", "a&b")) == (
        f'<host mac="{MAC}" name="a&amp;b" ip="10.0.0.5"/>'
    )
    assert network_xml.host_xml(HostEntry(MAC, "10.0.0.5")) == f'<host mac="{MAC}" ip="10.0.0.5"/>'


def test_a_hostile_network_cannot_read_our_files() -> None:
    hostile = (
        "<!DOCTYPE network [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"
        "<network><ip address='10.0.0.1' prefix='8'>&x;</ip></network>"
    )
    assert "root:" not in repr(network_xml.read("lan", hostile, ""))
