"""Network interfaces: new MAC addresses, nothing that can exist only once. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone import domain_xml, redaction
from saltext.kvmclone.rewrite.outcome import Rewritten, drop, own_path, remove

#: Interface types whose far end can serve several domains at once.
SHAREABLE = {"network", "bridge", "user", "direct", "internal", "mcast", "ethernet", "null"}

#: Of an interface that is connected anew, everything that spoke of the old far end.
_FAR_END = (
    "source", "virtualport", "vlan", "target", "filterref", "backend", "portForward", "ip",
    "route", "script", "downscript", "guest", "port", "teaming", "bandwidth", "mtu",
)  # fmt: skip

#: Parameters of a network filter that name one machine's address.
_ADDRESSES = {"IP", "IPV6", "MAC"}

#: Those that speak of the network, and not of the machine.
_OF_THE_NETWORK = {
    "CTRL_IP_LEARNING", "DHCPSERVER", "DHCPSERVERV6", "GATEWAY_MAC", "PROJMASK", "PROJMASK6",
    "PROJNET", "PROJNET6", "RASERVER",
}  # fmt: skip

#: Neutron's "hybrid plug": a bridge between one tap device and the switch.
_BRIDGE_OF_ONE_PORT = re.compile("qbr[0-9a-f]{8}-[0-9a-f]{2}")


@dataclass(frozen=True)
class NewCard:
    """
    One interface of the clone.

    :param mac: Its MAC address.
    :param network: Network that it is connected to instead of the base's, or empty.
    :param bridge: Bridge likewise; with neither it stays connected as it is.
    :param model: Model of the card; empty for the base's, or virtio where it has none.
    """

    mac: str
    network: str = ""
    bridge: str = ""
    model: str = ""

    @property
    def replaces(self) -> bool:
        return bool(self.network or self.bridge)


def interfaces(root: etree._Element, cards: tuple[NewCard, ...], out: Rewritten) -> None:
    """
    Give every interface its MAC address and take from it what only the base may have.

    :param cards: One per interface of the base in order, then those to add.
    """
    elements = root.findall("./devices/interface")
    for number, card in enumerate(cards):
        label = f"interface {number}"
        element = elements[number] if number < len(elements) else _added(root, label, out)
        if card.replaces:
            _connect(element, card, label, out)
        else:
            _keep(element, label, out)
        _address(element, card.mac, label, out)
    _leave_broken_teams(root, out)


def _leave_broken_teams(root: etree._Element, out: Rewritten) -> None:
    """QEMU starts no machine with a card whose partner is connected elsewhere now."""
    elements = root.findall("./devices/interface")
    partners = {
        alias.get("name")
        for element in elements
        if element.find("./teaming[@type='persistent']") is not None
        for alias in element.findall("alias")
    }
    for number, element in enumerate(elements):
        for teaming in element.findall("./teaming[@type='transient']"):
            if teaming.get("persistent") not in partners:
                out.change(f"interface {number} teaming", teaming.get("persistent"), None)
                remove(teaming)


def _added(root: etree._Element, label: str, out: Rewritten) -> etree._Element:
    devices = root.find("devices")
    if devices is None:
        devices = etree.SubElement(root, "devices")
    element = etree.Element("interface")
    others = devices.findall("interface")
    devices.insert(devices.index(others[-1]) + 1 if others else len(devices), element)
    out.change(label, None, "added")
    return element


def _address(element: etree._Element, new: str, label: str, out: Rewritten) -> None:
    old = domain_xml.interface_of(element).mac
    mac = element.find("mac")
    if mac is None:
        mac = etree.Element("mac")
        element.insert(0, mac)
    mac.attrib.clear()
    mac.set("address", new)
    out.change(f"{label} mac", old or None, new)


def _connect(element: etree._Element, card: NewCard, label: str, out: Rewritten) -> None:
    """Connect an interface to another network or bridge; what the guest sees of it stays."""
    facts = domain_xml.interface_of(element)
    old = f"{facts.kind} {facts.source}".strip() or None
    new = f"network {card.network}" if card.network else f"bridge {card.bridge}"
    out.change(label, old, new)
    for tag in _FAR_END:
        for child in element.findall(tag):
            remove(child)
    for attribute in ("managed", "trustGuestRxFilters"):
        drop(element, attribute)
    kind = "network" if card.network else "bridge"
    element.set("type", kind)
    source = etree.Element("source", {kind: card.network or card.bridge})
    mac = element.find("mac")
    element.insert(0 if mac is None else element.index(mac) + 1, source)
    model = element.find("model")
    had = model.get("type") if model is not None else None
    wanted = card.model or had or "virtio"
    if wanted == had:
        return
    out.change(f"{label} model", had, wanted)
    if model is None:
        model = etree.Element("model")
        element.insert(element.index(source) + 1, model)
    model.set("type", wanted)
    # Another card: its driver's options and its place on the bus may not suit it.
    for tag in ("driver", "address", "rom"):
        for child in element.findall(tag):
            remove(child)


def _keep(element: etree._Element, label: str, out: Rewritten) -> None:
    kind = element.get("type", "")
    _refuse(element, kind, label, out)
    for target in element.findall("target"):
        # A fixed tap name can exist once; libvirt then makes its own (vnet0 …).
        if target.get("dev"):
            out.change(f"{label} target", target.get("dev"), None)
            target.attrib.pop("dev")
        if not target.attrib:
            remove(target)
    for parameters in element.findall("./virtualport/parameters"):
        for attribute in ("interfaceid", "instanceid"):
            if attribute in parameters.attrib:
                place = f"virtualport/parameters@{attribute}"
                told = redaction.shown(parameters, place, parameters.get(attribute, ""))
                out.change(f"{label} {attribute}", told, None)
                parameters.attrib.pop(attribute)
    for parameter in element.findall("./filterref/parameter"):
        name, value = parameter.get("name", ""), parameter.get("value", "")
        if name.upper() in _ADDRESSES:
            told = redaction.shown(parameter, "filterref/parameter@value", value)
            out.change(f"{label} filter {name}", told, None)
            remove(parameter)
        elif name not in _OF_THE_NETWORK and _is_address(value):
            out.warn(f"The filter of {label} keeps {name}='{value}', as the base has it.")
    for backend in element.findall("backend"):
        own_path(backend, "logFile", f"{label} backend", out)
        for attribute in ("hostname", "fqdn"):  # what passt tells the guest to be called
            old = drop(backend, attribute) and redaction.HIDDEN
            out.change(f"{label} {attribute}", old, None)
    source = element.find("source")
    if source is not None:
        drop(source, "portid")


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        return False
    return True


def _refuse(element: etree._Element, kind: str, label: str, out: Rewritten) -> None:
    """Say why an interface cannot be taken along, if it cannot."""
    place = f"Interface {label.rpartition(' ')[2]} of type '{kind}'"
    source = element.find("source")
    target = element.find("target")
    instead = "remove it first, or connect the clone elsewhere with 'networks'."
    if kind not in SHAREABLE:
        out.refuse(element, f"{place} is bound to one machine; {instead}")
    if kind == "direct" and source is not None and source.get("mode") == "passthrough":
        out.refuse(
            element,
            f"{place} in mode passthrough takes '{source.get('dev', '')}' for one machine; "
            f"{instead}",
        )
    if element.find("./virtualport[@type='midonet']") is not None:
        out.refuse(element, f"{place} is a port of MidoNet, which is bound to one card; {instead}")
    bridge = source.get("bridge", "") if source is not None else ""
    if _BRIDGE_OF_ONE_PORT.fullmatch(bridge):
        out.refuse(
            element,
            f"{place} is connected to '{bridge}', which OpenStack makes for one port of one "
            f"machine; {instead}",
        )
    for forward in element.findall("portForward"):
        ports = ", ".join(span.get("start", "?") for span in forward.findall("range")) or "all"
        out.refuse(
            element,
            f"{place} forwards fixed ports of the host ({ports}), which one machine can hold; "
            f"{instead}",
        )
    if kind == "ethernet":
        if target is not None and target.get("managed") == "no":
            out.refuse(
                element,
                f"{place} uses the ready-made device '{target.get('dev', '')}', which one machine "
                f"can hold; {instead}",
            )
        if source is not None and source.find("ip") is not None:
            out.refuse(element, f"{place} has a fixed address on the host's side; {instead}")
