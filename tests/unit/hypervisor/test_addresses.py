"""Only an address that somebody else can reach the guest at is reported."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.hypervisor import addresses, arp
from saltext.kvmclone.hypervisor.addresses import AddressFilter, SeenAddress
from saltext.kvmclone.hypervisor.arp import Neighbour
from saltext.kvmclone.model.clone import Address
from saltext.kvmclone.model.domain_xml import Domain, Interface
from saltext.kvmclone.model.facts import AgentInterface, Lease
from saltext.kvmclone.model.record import Reservation
from saltext.kvmclone.model.request import AddressPick


@pytest.mark.parametrize("address", ["192.168.122.5", "10.0.0.1", "2001:db8::1", "fd00::5"])
def test_reachable_addresses_count(address: str) -> None:
    assert addresses.usable(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "169.254.3.4", "fe80::5054:ff:fe00:1", "0.0.0.0", "ff02::1"]
)
def test_loopback_and_link_local_addresses_do_not(address: str) -> None:
    assert not addresses.usable(address)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "guest",
        "192.168.122.5/24",
        "10.0.0.1\nserver evil",
        "fd00::1%eth0",
        "fd00::1%\nserver x",
    ],
)
def test_what_a_guest_calls_an_address_and_is_none_does_not_count(said: str) -> None:
    assert not addresses.usable(said)


def lease(address: str, expires: float, mac: str = "52:54:00:00:00:01") -> Lease:
    family = "ipv6" if ":" in address else "ipv4"
    return Lease(mac, address, 24, family, expires, "01")


def test_of_several_leases_of_one_card_the_one_that_expires_last_counts() -> None:
    old, new = lease("192.168.122.5", 100), lease("192.168.122.6", 200)
    assert addresses.latest([old, new]) == [new]
    assert addresses.latest([new, old]) == [new]


def test_each_card_and_each_family_has_its_own_lease() -> None:
    rows = [
        lease("192.168.122.5", 100),
        lease("2001:db8::5", 50),
        lease("192.168.122.7", 10, "52:54:00:00:00:02"),
    ]
    assert addresses.latest(rows) == rows


# --- which one counts ---------------------------------------------------------------------------

ONE, TWO = "52:54:00:00:00:01", "52:54:00:00:00:02"
DOMAIN = Domain(
    name="web1",
    uuid="",
    disks=(),
    interfaces=(Interface("network", "default", ONE), Interface("bridge", "br0", TWO)),
    nvram=None,
    has_agent_channel=True,
    agent_connected=True,
    memory=0,
    cpus=1,
    description="",
)


def sighting(address: str, mac: str = ONE, interface: str = "eth0") -> SeenAddress:
    family = "ipv6" if ":" in address else "ipv4"
    return SeenAddress(Address(interface, mac, address, 24, family, "agent"), "")


SEEN = (
    sighting("192.168.122.5"),
    sighting("2001:db8::5"),
    sighting("10.9.0.7", TWO, "eth1"),
)


@pytest.mark.parametrize(
    ("pick", "expected"),
    [
        (AddressPick(), ["192.168.122.5", "2001:db8::5", "10.9.0.7"]),
        (AddressPick(cidr="10.9.0.0/16"), ["10.9.0.7"]),
        (AddressPick(cidr="2001:db8::/32"), ["2001:db8::5"]),
        (AddressPick(family="ipv6"), ["2001:db8::5"]),
        (AddressPick(family="ipv4"), ["192.168.122.5", "10.9.0.7"]),
        (AddressPick(interface="eth1"), ["10.9.0.7"]),  # as the guest calls it
        (AddressPick(interface="br0"), ["10.9.0.7"]),  # what it is connected to
        (AddressPick(interface="52:54:00:00:00:02"), ["10.9.0.7"]),
        (AddressPick(interface="eth0", family="ipv4"), ["192.168.122.5"]),
        (AddressPick(interface="eth1", family="ipv6"), []),
        (AddressPick(cidr="203.0.113.0/24"), []),
    ],
)
def test_pick_says_which_of_several_counts(pick: AddressPick, expected: list[str]) -> None:
    found = AddressFilter(pick).among(SEEN, DOMAIN)
    assert [one.address.address for one in found] == expected


def test_what_counts_comes_first_and_the_rest_stays() -> None:
    found = AddressFilter(AddressPick(cidr="10.9.0.0/16")).first(SEEN, DOMAIN)
    assert [one.address.address for one in found] == ["10.9.0.7", "192.168.122.5", "2001:db8::5"]


def test_of_a_clone_with_a_reservation_no_other_address_counts() -> None:
    reserved = (Reservation("default", ONE, "192.168.122.5"),)
    wanted = addresses.address_filter(AddressPick(), reserved)
    assert [one.address.address for one in wanted.among(SEEN, DOMAIN)] == ["192.168.122.5"]
    assert addresses.address_filter(AddressPick()) == AddressFilter()


# --- the agent's word, which is the guest's -----------------------------------------------------


def told_by(*interfaces: AgentInterface) -> list[Address]:
    class Handle:
        def agent_interfaces(self) -> list[AgentInterface]:
            return list(interfaces)

    handle: Any = Handle()
    return [one.address for one in addresses.look(handle, DOMAIN, "qemu-agent")]


def test_one_word_of_a_guest_that_is_no_address_does_not_hide_the_others() -> None:
    said = AgentInterface("eth0", ONE, (("nonsense", 24, "ipv4"), ("10.9.0.7", 24, "ipv4")))
    assert [one.address for one in told_by(said)] == ["10.9.0.7"]


def test_a_guest_cannot_fill_the_answers_of_its_host() -> None:
    many = tuple((f"10.9.{n // 250}.{n % 250 + 1}", 24, "ipv4") for n in range(5000))
    told = told_by(AgentInterface("eth0\n\x1b[31m" + "x" * 100_000, ONE, many))
    assert 0 < len(told) <= addresses.MOST_TOLD
    assert told[0].interface.startswith("eth0")
    assert told[0].interface.isprintable()
    assert len(told[0].interface) <= addresses.LONGEST_INTERFACE


# --- the kernel's ARP table ---------------------------------------------------------------------

ARP = """\
IP address       HW type     Flags       HW address            Mask     Device
192.168.122.5    0x1         0x2         52:54:00:AA:00:01     *        virbr0
192.168.122.6    0x1         0x0         00:00:00:00:00:00     *        virbr0
192.168.122.7    0x1         0x6         52:54:00:aa:00:02     *        br0
"""


def test_only_complete_entries_of_the_arp_table_count() -> None:
    assert arp.parse(ARP) == [
        Neighbour("52:54:00:aa:00:01", "192.168.122.5"),
        Neighbour("52:54:00:aa:00:02", "192.168.122.7"),
    ]
    assert arp.parse("") == []
