"""A libvirt network of a test's own, beside the lab's."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from xml.etree import ElementTree

import libvirt

from lab.common import SCRATCH_ROOT
from lab.lab import connection

_OURS = re.compile(r"(kvmclone-[0-9a-f]{4})-n[0-9a-f]{4}")


@dataclass(frozen=True)
class Network:
    """
    A NAT network.

    :param first: First three numbers of its addresses; the host has ``.1``.
    :param prefix6: What its IPv6 addresses begin with, where it has some.
    """

    name: str
    first: str
    prefix6: str = ""

    @property
    def cidr(self) -> str:
        return f"{self.first}.0/24"

    def address(self, last: int) -> str:
        return f"{self.first}.{last}"

    @property
    def bridge(self) -> str:
        """The bridge that libvirt made for it."""
        return f"vkn{self.name[-4:]}"

    @property
    def interface_xml(self) -> str:
        """An interface of a domain on it, to be put among its devices."""
        return (
            f"<interface type='network'><source network='{self.name}'/>"
            "<model type='virtio'/></interface>"
        )

    def entries(self, stored: bool = False) -> set[tuple[str, str]]:
        """MAC and address of every host entry, as it runs or as its next start will have it."""
        flags = libvirt.VIR_NETWORK_XML_INACTIVE if stored else 0
        with connection() as conn:
            root = ElementTree.fromstring(conn.networkLookupByName(self.name).XMLDesc(flags))
        return {
            (host.attrib["mac"].lower(), host.attrib["ip"])
            for host in root.findall("./ip/dhcp/host")
        }

    def update(self, command: int, mac: str, address: str, flags: int, name: str = "") -> None:
        """Change a host entry by hand."""
        named = f" name='{name}'" if name else ""
        with connection() as conn:
            conn.networkLookupByName(self.name).update(
                command,
                libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST,
                -1,
                f"<host mac='{mac}'{named} ip='{address}'/>",
                flags,
            )

    def stop(self) -> None:
        with connection() as conn:
            conn.networkLookupByName(self.name).destroy()


@contextmanager
def network(
    lab: str, first: int = 100, last: int = 199, ipv6: bool = False, dhcp: bool = True
) -> Iterator[Network]:
    """
    A network, gone again afterwards.

    :param lab: Name of the lab that it belongs to.
    :param first: Begin of the range that it hands out.
    """
    _clean()
    token, third = secrets.token_hex(2), secrets.randbelow(250)
    prefix6 = f"fd00:{int(token, 16):x}:"  # as an address is written, without zeros in front
    made = Network(f"{lab}-n{token}", f"10.232.{third}", prefix6 if ipv6 else "")
    pool = f"<dhcp><range start='{made.address(first)}' end='{made.address(last)}'/></dhcp>"
    six = f"<ip family='ipv6' address='{prefix6}:1' prefix='64'/>" if ipv6 else ""
    with connection() as conn:
        defined = conn.networkDefineXML(
            "<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>"
            f"<name>{made.name}</name><forward mode='nat'/>"
            f"<bridge name='vkn{token}' stp='off' delay='0'/>"
            f"{six}<ip address='{made.address(1)}' prefix='24'>{pool if dhcp else ''}</ip>"
            "<dnsmasq:options><dnsmasq:option value='no-resolv'/>"
            "<dnsmasq:option value='no-ping'/></dnsmasq:options></network>"
        )
        defined.create()
    try:
        yield made
    finally:
        _remove(made.name)


def _clean() -> None:
    """What crashed tests left."""
    with connection() as conn:
        names = [net.name() for net in conn.listAllNetworks()]
    for name in names:
        ours = _OURS.fullmatch(name)
        if ours and not (SCRATCH_ROOT / ours[1]).exists():
            _remove(name)


def _remove(name: str) -> None:
    with connection() as conn, suppress(libvirt.libvirtError):
        net = conn.networkLookupByName(name)
        with suppress(libvirt.libvirtError):
            net.destroy()
        net.undefine()
