"""What cannot know a clone's address is refused before anybody waits, with the line to write."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext.kvmclone.hypervisor import network_xml
from saltext.kvmclone.model.domain_xml import AGENT_CHANNEL, Domain, Interface
from saltext.kvmclone.model.facts import HostEntry, NetworkFacts
from saltext.kvmclone.model.request import AddressPick, Request
from saltext.kvmclone.plan import address_sources

ONE, TWO = "52:54:00:00:00:01", "52:54:00:00:00:02"
CLONE = Domain(
    name="web1",
    uuid="",
    disks=(),
    interfaces=(Interface("network", "lan", ONE),),
    nvram=None,
    has_agent_channel=True,
    agent_connected=False,
    memory=0,
    cpus=1,
    description="",
)
REQUEST = Request(name="web1", base_domain="base", ip_source="ip-learning")

DHCP = "<ip address='10.1.0.1' prefix='24'><dhcp>{}</dhcp></ip>"
RANGE = "<range start='10.1.0.100' end='10.1.0.199'/>"


def network(body: str, name: str = "lan") -> NetworkFacts:
    """A network as libvirt describes it."""
    xml = f"<network><name>{name}</name>{body}</network>"
    return network_xml.read(name, xml, xml)


SERVED = network(f"<forward mode='nat'/><bridge name='virbr7'/>{DHCP.format(RANGE)}")


def said(*networks: NetworkFacts, clone: Domain = CLONE, request: Request = REQUEST) -> str:
    return " ".join(address_sources.against(clone, {one.name: one for one in networks}, request))


def on(*cards: Interface, agent: bool = True) -> Domain:
    return replace(CLONE, interfaces=cards, has_agent_channel=agent)


@pytest.mark.parametrize(
    "body",
    [
        f"<forward mode='nat'/><bridge name='virbr7'/>{DHCP.format(RANGE)}",
        f"<forward mode='route'/><bridge name='virbr7'/>{DHCP.format(RANGE)}",
        f"<forward mode='open'/><bridge name='virbr7'/>{DHCP.format(RANGE)}",
        f"<bridge name='virbr7'/>{DHCP.format(RANGE)}",
    ],
)
def test_where_libvirt_hands_out_addresses_nothing_is_refused(body: str) -> None:
    assert said(network(body)) == ""


@pytest.mark.parametrize(
    ("body", "named"),
    [
        *(
            (f"<forward mode='{mode}'><interface dev='eth0'/></forward>", f"forward mode '{mode}'")
            for mode in ("bridge", "private", "vepa", "passthrough", "hostdev")
        ),
        ("<forward mode='bridge'/><bridge name='br0'/>", "forward mode 'bridge'"),
        ("<forward mode='open'/><bridge name='v'/><ip address='10.1.0.1'/>", "forward mode 'open'"),
        ("<bridge name='v'/><ip address='10.1.0.1'/>", "it has no <dhcp>"),
        ("<bridge name='v'/>", "it has no <dhcp>"),
    ],
)
def test_a_network_that_hands_out_no_addresses_is_refused_with_the_line_to_write(
    body: str, named: str
) -> None:
    told = said(network(body))
    assert f"network 'lan' hands out none ({named})" in told
    assert told.endswith("Write 'ip_source: qemu-agent' instead.")


def test_other_sources_are_not_refused_there() -> None:
    silent = network("<forward mode='bridge'/><bridge name='br0'/>")
    for source in ("auto", "qemu-agent", "arp", "reserve"):  # 'reserve' has reasons of its own
        assert said(silent, request=replace(REQUEST, ip_source=source)) == ""


@pytest.mark.parametrize(
    ("clone", "body", "line"),
    [
        (on(Interface("network", "lan", ONE), agent=False), "<bridge name='br0'/>", "arp"),
        (on(Interface("bridge", "br0", ONE), agent=False), "<bridge name='br0'/>", "arp"),
        (
            on(Interface("network", "lan", ONE), agent=False),
            "<forward mode='private'><interface dev='eth0'/></forward>",
            "",
        ),
        (on(Interface("direct", "eth0", ONE), agent=False), "<bridge name='br0'/>", ""),
    ],
)
def test_without_an_agents_channel_the_line_is_one_that_can_work(
    clone: Domain, body: str, line: str
) -> None:
    """The host's ARP table learns what is on a bridge, and nothing of macvtap."""
    forward = "" if "forward" in body else "<forward mode='bridge'/>"
    told = said(network(forward + body), clone=clone)
    assert ("Write 'ip_source: arp' instead" in told) == bool(line)
    assert f"({AGENT_CHANNEL}) into the base, and write 'ip_source: qemu-agent'." in told


@pytest.mark.parametrize(
    ("kind", "source", "named"),
    [("bridge", "br0", "bridge 'br0'"), ("direct", "eth0", "direct 'eth0'"), ("user", "", "user")],
)
def test_an_interface_on_no_network_of_libvirts_has_no_leases(
    kind: str, source: str, named: str
) -> None:
    told = said(SERVED, clone=on(Interface(kind, source, ONE)))
    assert f"its interface is on {named}, which is no network of libvirt's" in told


def test_a_card_on_the_bridge_of_a_network_with_dhcp_has_leases_whatever_it_is_called() -> None:
    assert said(SERVED, clone=on(Interface("bridge", "virbr7", ONE))) == ""
    assert "bridge 'virbr7'" in said(
        network("<bridge name='virbr7'/>"), clone=on(Interface("bridge", "virbr7", ONE))
    )


def test_one_card_with_leases_is_enough_unless_another_one_is_picked() -> None:
    both = on(Interface("bridge", "br0", ONE), Interface("network", "lan", TWO))
    assert said(SERVED, clone=both) == ""
    nowhere = on(Interface("user", "", ONE), Interface("network", "lan", TWO))
    assert said(SERVED, clone=nowhere) == ""
    for picked in ("br0", ONE):
        request = replace(REQUEST, pick=AddressPick(interface=picked))
        assert "bridge 'br0'" in said(SERVED, clone=both, request=request)


@pytest.mark.parametrize(
    "pick",
    [AddressPick(family="ipv6"), AddressPick(cidr="192.168.0.0/16"), AddressPick("fd00::/8")],
)
def test_a_network_that_hands_out_only_what_pick_leaves_out_is_refused(pick: AddressPick) -> None:
    assert "none that 'pick' asks for" in said(SERVED, request=replace(REQUEST, pick=pick))
    for fits in (AddressPick(family="ipv4"), AddressPick(cidr="10.1.0.128/25")):
        assert said(SERVED, request=replace(REQUEST, pick=fits)) == ""


def test_a_network_that_gives_only_what_it_reserves_says_how_to_reserve() -> None:
    listed = f"<host mac='{TWO}' ip='10.1.0.9'/>"
    closed = network(f"<bridge name='virbr7'/>{DHCP.format(listed)}")
    told = said(closed)
    assert "hands out only what it reserves" in told
    assert told.endswith("Write 'ip_source: reserve' instead, with an 'address:' of the network.")
    mine = replace(closed, live=(HostEntry(ONE, "10.1.0.8"),))
    assert said(mine) == "", "its card has an entry already"


def test_what_is_not_known_is_not_refused() -> None:
    assert said() == ""


def test_a_clone_without_a_card_is_told_to_get_one() -> None:
    assert "'networks: [{network: default}]'" in said(SERVED, clone=on())


def test_an_agent_without_a_channel_is_not_waited_for() -> None:
    request = replace(REQUEST, ip_source="qemu-agent")
    told = said(SERVED, clone=on(Interface("network", "lan", ONE), agent=False), request=request)
    assert "Write 'ip_source: auto' instead" in told
    assert AGENT_CHANNEL in told
    assert said(SERVED, request=request) == ""
