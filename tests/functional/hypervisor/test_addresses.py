"""Promises about who knows an address, and which of several is reported: on every network."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from xml.etree import ElementTree

import pytest

from lab.bridge import Bridge
from lab.common import wait_until
from lab.lab import Lab, connection
from saltext.kvmclone.errors import AddressTimeout
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.request import AddressPick, InterfaceChanges, Wait
from tests.support.networks import Network, network
from tests.support.world import World, quick

pytestmark = pytest.mark.guest


#: A card on a bridge, by its name.
BRIDGED = "<interface type='bridge'><source bridge='{}'/><model type='virtio'/></interface>"


@pytest.fixture
def bridge(world: World) -> Iterator[Bridge]:
    with Bridge() as made:
        yield made
        world.tidy()  # nothing may hang on it


@pytest.fixture
def net(lab: Lab, world: World) -> Iterator[Network]:
    with network(lab.name, ipv6=True) as made:
        yield made
        world.tidy()


def macs_of(world: World, name: str) -> list[str]:
    return [mac.attrib["address"] for mac in world.xml(name).findall("./devices/interface/mac")]


def created(host: LocalHost, name: str, base: str, **keys: Any) -> Clone:
    outcome = provision.create(host, quick(name, base, **keys))
    assert outcome.error is None, outcome.error
    assert outcome.clone is not None
    return outcome.clone


def connect(world: World, base: str, interface: str) -> None:
    """Put a base on another network, by hand."""
    xml = world.xml(base)
    devices = xml.find("devices")
    assert devices is not None
    for old in devices.findall("interface"):
        devices.remove(old)
    devices.append(ElementTree.fromstring(interface))
    with connection() as conn:
        conn.defineXML(ElementTree.tostring(xml, encoding="unicode"))


def in_guest(world: World, name: str, script: str) -> None:
    """Run a shell script in a guest, over its agent, to its end."""
    started = world.lab.agent(
        name, "guest-exec", path="/bin/sh", arg=["-c", script], **{"capture-output": True}
    )

    def ended() -> Any:
        status = world.lab.agent(name, "guest-exec-status", pid=started["pid"])
        return status if status and status["exited"] else None

    status = wait_until(ended, "the guest's command", 30)
    said = base64.b64decode(status.get("err-data", "")).decode()
    assert status["exitcode"] == 0, said


# --- a plain bridge with somebody else's DHCP server -------------------------------------------


def test_two_clones_with_one_machine_id_that_boot_at_once_on_a_plain_bridge_get_two_addresses(
    world: World, host: LocalHost, bridge: Bridge
) -> None:
    """
    Nothing can be reserved there; so both get an identity before their address counts.

    One is there by its base's definition, the other by its profile.
    """
    base = world.lab.debian_base(world.name("debian"))
    connect(world, base, bridge.interface_xml)
    wishes: dict[str, dict[str, Any]] = {
        world.name("one"): {"ip_source": "qemu-agent"},
        world.name("two"): {"networks": (InterfaceChanges(bridge=bridge.name),)},
    }
    names = list(wishes)
    with ThreadPoolExecutor() as pool:
        clones = list(pool.map(lambda name: created(host, name, base, **wishes[name]), names))
    assert len({clone.address for clone in clones}) == 2
    assert len(clones[0].addresses) == 1
    handed = bridge.leases()
    for name, clone in zip(names, clones, strict=True):
        (mac,) = macs_of(world, name)
        assert handed[mac] == clone.address
        first = clone.addresses[0]
        assert (first.source, first.mac, first.prefix) == ("agent", mac, 24)
        assert first.interface == "eth0"
        in_guest(world, name, f"ip -4 addr show dev eth0 | grep -F ' {clone.address}/'")

    # What sits on a device of the guest's own making, as a container bridge does, is none of
    # its addresses, and neither is a link-local one. (Its kernel has no bridges; lo will do.)
    in_guest(
        world,
        names[0],
        "ip address add 172.17.0.1/16 dev lo && ip address add 169.254.7.7/16 dev eth0",
    )
    assert [one.address for one in host.show(names[0]).addresses] == [clones[0].address]


def test_without_an_agent_the_arp_table_tells_who_talked_with_the_host(
    world: World, host: LocalHost, bridge: Bridge
) -> None:
    base = world.base(interfaces=0, devices=bridge.interface_xml)
    names = {source: world.name(source) for source in ("arp", "auto")}
    for source, name in names.items():
        host.clone(quick(name, base, ip_source=source))
        host.boot(name)
        (mac,) = macs_of(world, name)
        handed = bridge.wait_for_lease(mac)
        request = quick(name, base, ip_source=source, wait=Wait(timeout=2))
        # It got its address, but never spoke with this machine.
        with pytest.raises(AddressTimeout) as info:
            host.wait_for_address(request)
        assert f"the host's ARP table does not know {mac}" in info.value.message
        assert "'ip_source: qemu-agent'" in info.value.hint

        talk = threading.Timer(1.0, bridge.talk_to, [handed])
        talk.start()
        clone = host.wait_for_address(quick(name, base, ip_source=source, wait=Wait(timeout=20)))
        talk.join()
        assert clone.address == handed
        (address,) = clone.addresses
        assert (address.source, address.mac, address.family) == ("arp", mac, "ipv4")


def test_an_agent_that_nobody_asks_on_a_plain_bridge_is_named_at_the_end(
    world: World, host: LocalHost, bridge: Bridge
) -> None:
    for agent, said in ((True, "use 'ip_source: qemu-agent'"), (False, "and its channel (org.")):
        base = world.base(
            f"agent{agent:d}", interfaces=0, devices=bridge.interface_xml, agent=agent
        )
        request = quick(world.name(f"of{agent:d}"), base, ip_source="arp", wait=Wait(timeout=2))
        outcome = provision.create(host, request)
        assert isinstance(outcome.error, AddressTimeout)
        assert said in outcome.error.hint


# --- libvirt's own network ---------------------------------------------------------------------


def test_arp_tells_the_address_on_libvirts_network(world: World, host: LocalHost) -> None:
    name = world.name()
    clone = created(host, name, world.base(), ip_source="arp")
    assert clone.addresses[0].source == "arp"
    assert clone.address == wait_until(lambda: world.lab.lease(name), "the lease", 10)


def test_auto_on_libvirts_network_takes_the_lease_and_says_so(
    world: World, host: LocalHost
) -> None:
    clone = created(host, world.name(), world.base())
    assert {one.source for one in clone.addresses} == {"lease"}


@pytest.mark.parametrize("source", ["ip-learning", "reserve", "auto"])
def test_a_card_on_the_bridge_of_libvirts_network_has_the_networks_leases(
    world: World, host: LocalHost, net: Network, source: str
) -> None:
    base = world.base(interfaces=0, devices=BRIDGED.format(net.bridge))
    name = world.name()
    assert host.plan(quick(name, base, ip_source=source))["conflicts"] == []
    clone = created(host, name, base, ip_source=source)
    (address,) = clone.addresses
    (mac,) = macs_of(world, name)
    assert clone.address.startswith(f"{net.first}.")
    assert (address.mac, address.interface) == (mac, net.bridge)
    assert source == "reserve" or address.source == "lease"
    assert host.address_of(name, 5) == clone.address
    assert net.entries() == ({(mac, clone.address)} if source == "reserve" else set())
    host.destroy(name)
    assert net.entries() == set()


def test_on_the_bridge_of_a_network_the_lease_that_does_not_come_is_told_of_that_network(
    world: World, host: LocalHost, net: Network
) -> None:
    base = world.base(
        interfaces=0, devices=BRIDGED.format(net.bridge), options="tiny.nodhcp", agent=True
    )
    request = quick(world.name(), base, ip_source="ip-learning", wait=Wait(timeout=2))
    outcome = provision.create(host, request)
    assert isinstance(outcome.error, AddressTimeout)
    assert f"in network '{net.name}'" in outcome.error.message
    assert "libvirt hands out no leases" not in outcome.error.hint


# --- which of several --------------------------------------------------------------------------


def test_pick_chooses_among_several_interfaces(world: World, host: LocalHost, net: Network) -> None:
    base = world.base(devices=net.interface_xml)
    picks = {
        "cidr": AddressPick(cidr=net.cidr),
        "network": AddressPick(interface=net.name),
        "both": AddressPick(cidr=net.cidr, interface=net.name, family="ipv4"),
    }
    for word, pick in picks.items():
        name = world.name(word)
        clone = created(host, name, base, pick=pick)
        assert clone.address.startswith(f"{net.first}.")
        assert clone.addresses[0].address == clone.address
        assert clone.addresses[0].mac == macs_of(world, name)[1]
        shown = host.show(name)
        assert (shown.address, len(shown.addresses)) == (clone.address, 2)
        assert host.address_of(name, 5) == clone.address
        host.destroy(name)


def test_without_pick_the_first_interface_counts(
    world: World, host: LocalHost, net: Network
) -> None:
    base = world.base(devices=net.interface_xml)
    name = world.name()
    host.clone(quick(name, base))
    host.boot(name)
    wait_until(lambda: len(host.show(name).addresses) == 2, "both addresses", 60)
    clone = host.wait_for_address(quick(name, base))
    assert clone.addresses[0].mac == macs_of(world, name)[0]
    assert clone.address == clone.addresses[0].address


def test_what_was_seen_and_not_picked_is_told(world: World, host: LocalHost) -> None:
    pick = AddressPick(cidr="203.0.113.0/24")
    request = quick(world.name(), world.base(), pick=pick, wait=Wait(timeout=2))
    host.clone(request)
    host.boot(request.name)
    wait_until(lambda: host.show(request.name).addresses, "an address", 60)
    with pytest.raises(AddressTimeout) as caught:
        host.wait_for_address(request)
    assert f"{world.lab.subnet[0].exploded.rpartition('.')[0]}." in caught.value.message
    assert "(lease, " in caught.value.message
    assert "which 'pick' leaves out" in caught.value.message
    assert "kvm_clone.addresses" in caught.value.hint


def test_the_agent_tells_both_families_and_pick_chooses(
    world: World, host: LocalHost, net: Network
) -> None:
    base = world.lab.debian_base(world.name("debian"))
    name = world.name()
    wish = (InterfaceChanges(network=net.name),)
    clone = created(
        host, name, base, networks=wish, pick=AddressPick(family="ipv6", interface="eth0")
    )
    assert clone.address.startswith(net.prefix6)
    assert clone.addresses[0].source == "agent"
    wait_until(
        lambda: {one.family for one in host.show(name).addresses} == {"ipv4", "ipv6"},
        "both families",
        60,
    )
    four = host.wait_for_address(
        quick(name, base, pick=AddressPick(family="ipv4"), reset_identity=False)
    )
    assert four.address.startswith(f"{net.first}.")
