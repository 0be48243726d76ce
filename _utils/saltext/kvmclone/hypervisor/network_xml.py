"""
Read libvirt's network XML into facts, and write its host entries. Pure: lxml only.
"""

from __future__ import annotations

import ipaddress
from xml.sax.saxutils import quoteattr

from lxml import etree

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.facts import HostEntry, Lease, NetworkFacts, Subnet, SwitchFacts


def read(
    name: str, live: str, stored: str, leases: tuple[Lease, ...] = (), active: bool = True
) -> NetworkFacts:
    """
    Return the facts of one network.

    :param live: Its XML as it runs; for a network that does not run, the same as ``stored``.
    :param stored: Its XML as the next start will use it; empty for a transient network.
    :param leases: The network's DHCP leases.
    :param active: Whether the network runs.
    """
    root = libvirt_xml.element(live)
    forward, bridge = root.find("forward"), root.find("bridge")
    return NetworkFacts(
        name=name,
        active=active,
        forward="" if forward is None else forward.get("mode", "nat"),
        subnets=tuple(_subnet(number, ip) for number, ip in enumerate(root.findall("ip"))),
        live=_entries(root) if active else (),
        stored=_entries(libvirt_xml.element(stored)) if stored else None,
        leases=leases,
        bridge="" if bridge is None else bridge.get("name", ""),
    )


def switch(xml: str) -> SwitchFacts:
    """
    Return what a network supports for the interfaces on it: port groups, VLAN tags, filters.

    libvirt passes VLAN tags on to Open vSwitch and to functions of a card (SR-IOV), and can filter
    what goes through a tap device.
    """
    root = libvirt_xml.element(xml)
    forward = root.find("forward")
    mode = "" if forward is None else forward.get("mode", "nat")
    on_a_bridge = mode in ("", "nat", "route", "open") or (
        mode == "bridge" and root.find("bridge") is not None
    )
    by_ovs = any(port.get("type") == "openvswitch" for port in root.iter("virtualport"))
    return SwitchFacts(
        portgroups=tuple(group.get("name", "") for group in root.findall("portgroup")),
        tags=(on_a_bridge and by_ovs) or mode in ("hostdev", "passthrough"),
        filters=on_a_bridge,
        bandwidth=mode != "hostdev",
    )


def host_xml(entry: HostEntry) -> str:
    """Return the XML of a host entry, as an update of the network takes it."""
    name = f" name={quoteattr(entry.name)}" if entry.name else ""
    return f"<host mac={quoteattr(entry.mac)}{name} ip={quoteattr(entry.address)}/>"


def _subnet(number: int, ip: etree._Element) -> Subnet:
    address = ip.get("address", "")
    # Without either, libvirt uses the prefix of the address's historical class (A, B or C).
    prefix = ip.get("prefix") or ip.get("netmask") or _classful(address)
    return Subnet(
        index=number,
        gateway=str(ipaddress.ip_interface(f"{address}/{prefix}")),
        dhcp=any(ip.find(f"dhcp/{tag}") is not None for tag in ("range", "host")),
        ranges=tuple(
            (one.get("start", ""), one.get("end", "")) for one in ip.findall("dhcp/range")
        ),
    )


def _classful(address: str) -> str:
    if ":" in address:
        return "64"
    first = int(address.split(".", 1)[0])
    return "8" if first < 128 else "16" if first < 192 else "24"


def _entries(root: etree._Element) -> tuple[HostEntry, ...]:
    return tuple(
        HostEntry(host.get("mac", "").lower(), host.get("ip", ""), host.get("name", ""))
        for host in root.findall("ip/dhcp/host")
    )
