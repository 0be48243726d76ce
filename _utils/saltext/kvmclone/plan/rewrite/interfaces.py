"""
Rewrite network interfaces: new MAC addresses, nothing that can exist only once. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.model import domain_xml, redacted_text, redaction
from saltext.kvmclone.plan.rewrite.result import Rewritten, drop, own_path, remove

#: Interface types whose far end can serve several domains at once.
SHAREABLE = {"network", "bridge", "user", "direct", "internal", "mcast", "ethernet", "null"}

#: Elements that describe the old far end of an interface that is connected anew. What restricts
#: the guest (filters, VLAN tags, isolation, bandwidth) is not among them.
_FAR_END = (
    "virtualport", "target", "backend", "portForward", "ip", "route", "script", "downscript",
    "guest", "teaming", "mtu",
)  # fmt: skip

#: Elements that belong to the card that the guest sees, and may not suit another model.
_OF_THE_MODEL = ("driver", "address", "rom")

#: Parameters of a network filter that name one machine's address.
_ADDRESSES = {"IP", "IPV6", "MAC"}

#: Parameters of a network filter that describe the network, and not one machine.
_OF_THE_NETWORK = {
    "CTRL_IP_LEARNING", "DHCPSERVER", "DHCPSERVERV6", "GATEWAY_MAC", "PROJMASK", "PROJMASK6",
    "PROJNET", "PROJNET6", "RASERVER",
}  # fmt: skip

#: Neutron's "hybrid plug": a bridge between one tap device and the switch.
_BRIDGE_OF_ONE_PORT = re.compile("qbr[0-9a-f]{8}-[0-9a-f]{2}")


@dataclass(frozen=True)
class NewInterface:
    """
    One interface of the clone.

    :param mac: Its MAC address.
    :param network: Network that it is connected to instead of the base's, or empty.
    :param bridge: Bridge likewise; with neither it stays connected as it is.
    :param model: Model of the card; empty for the base's, or virtio where it has none.
    :param portgroup: Portgroup of its network; empty for none, None for the one that it has there.
    :param cannot: Elements that it cannot have where it is connected anew.
    """

    mac: str
    network: str = ""
    bridge: str = ""
    model: str = ""
    portgroup: str | None = None
    cannot: frozenset[str] = frozenset()


def interfaces(root: etree._Element, cards: tuple[NewInterface, ...], out: Rewritten) -> None:
    """
    Give every interface its MAC address and remove from it what only the base may have.

    :param cards: One per interface of the base in order, then those to add.
    """
    elements = root.findall("./devices/interface")
    had = [domain_xml.interface_of(element).mac for element in elements]
    macs = {mac: card.mac for mac, card in zip(had, cards, strict=False) if mac}
    for number, card in enumerate(cards):
        label = f"interface {number}"
        element = elements[number] if number < len(elements) else _added(root, label, out)
        if not domain_xml.interface_of(element).stays(card.network, card.bridge):
            _connect(element, card, label, out)
        elif number < len(elements):
            _keep(element, label, out)
        _choose_portgroup(element, card.portgroup, label, out)
        _choose_model(element, card, label, out)
        _filter(element, macs, label, out)
        _address(element, card.mac, label, out)
    _leave_broken_teams(root, out)


def _leave_broken_teams(root: etree._Element, out: Rewritten) -> None:
    """Remove the ``<teaming>`` of a card whose partner is gone, with which QEMU would not start."""
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


def _connect(element: etree._Element, card: NewInterface, label: str, out: Rewritten) -> None:
    """Connect an interface to another network or bridge; what the guest sees of it stays."""
    facts = domain_xml.interface_of(element)
    old = f"{facts.kind} {facts.source}".strip() or None
    new = f"network {card.network}" if card.network else f"bridge {card.bridge}"
    out.change(label, old, new)
    out.change(f"{label} portgroup", facts.portgroup or None, card.portgroup or None)
    for child in element.findall("source"):
        remove(child)
    for tag in _FAR_END:
        _leave_out(element, tag, label, out)
    for tag in sorted(card.cannot):
        for child in element.findall(tag):
            out.warn(
                f"{label.capitalize()} of the clone goes without its <{tag}> "
                f"({_told(child, _place(tag))}), which {new} cannot give it. "
                "If it needs that, connect it to a network that can."
            )
        _leave_out(element, tag, label, out)
    for floor in element.findall("./bandwidth/inbound[@floor]"):  # promised by the old network
        out.change(f"{label} bandwidth floor", drop(floor, "floor"), None)
        if not floor.get("average"):  # libvirt has no limit without one
            remove(floor)
    for attribute in ("managed", "trustGuestRxFilters"):
        out.change(f"{label} {attribute}", drop(element, attribute), None)
    kind = "network" if card.network else "bridge"
    element.set("type", kind)
    source = etree.Element("source", {kind: card.network or card.bridge})
    if card.portgroup:
        source.set("portgroup", card.portgroup)
    mac = element.find("mac")
    element.insert(0 if mac is None else element.index(mac) + 1, source)
    if element.find("model") is None and not card.model:
        _choose_model(element, NewInterface("", model="virtio"), label, out)


def _leave_out(element: etree._Element, tag: str, label: str, out: Rewritten) -> None:
    """Remove every child of that name from an interface, and note the change."""
    children = element.findall(tag)
    if children:
        told = [_told(child, _place(tag)) for child in children]
        out.change(f"{label} {tag}", "; ".join(told) or "yes", None)
    for child in children:
        remove(child)


def _place(tag: str) -> str:
    """Return where a child of an interface stands in the definition."""
    return f"devices/interface/{tag}"


def _told(element: etree._Element, place: str) -> str:
    """Return what an element says, as it may be shown, in one line; a lone value alone."""
    values = {
        str(name): redaction.shown(element, f"{place}@{name!s}", str(value))
        for name, value in element.attrib.items()
    }
    said = [f"{name}={value}" for name, value in values.items()]
    said += [redaction.shown(element, place, (element.text or "").strip())]
    said += [
        f"{child.tag!s} {_told(child, f'{place}/{child.tag!s}')}".strip()
        for child in element.iterchildren("*")
    ]
    said = [word for word in said if word]
    if len(said) == 1 and values:
        return next(iter(values.values()))
    return ", ".join(said)


def _choose_portgroup(
    element: etree._Element, wanted: str | None, label: str, out: Rewritten
) -> None:
    source = element.find("source")
    if wanted is None or source is None:
        return
    out.change(f"{label} portgroup", source.get("portgroup"), wanted or None)
    drop(source, "portgroup")
    if wanted:
        source.set("portgroup", wanted)


def _choose_model(element: etree._Element, card: NewInterface, label: str, out: Rewritten) -> None:
    model = element.find("model")
    had = model.get("type") if model is not None else None
    if not card.model or card.model == had:
        return
    out.change(f"{label} model", had, card.model)
    if model is None:
        model = etree.Element("model")
        source = element.find("source")
        element.insert(0 if source is None else element.index(source) + 1, model)
    model.set("type", card.model)
    # The driver's options and the place on the bus may not suit another card.
    for tag in _OF_THE_MODEL:
        _leave_out(element, tag, label, out)


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
    for backend in element.findall("backend"):
        own_path(backend, "logFile", f"{label} backend", out)
        for attribute in ("hostname", "fqdn"):  # the name that passt gives the guest
            old = drop(backend, attribute) and redacted_text.HIDDEN
            out.change(f"{label} {attribute}", old, None)
    source = element.find("source")
    if source is not None:
        drop(source, "portid")


def _filter(element: etree._Element, macs: Mapping[str, str], label: str, out: Rewritten) -> None:
    """
    Adapt a network filter to the clone's addresses.

    With the base's it would let through nothing of the clone, or let it pass for its base.

    :param macs: The clone's MAC address for each one of the base's.
    """
    pinned: dict[str, list[str]] = {}
    for parameter in element.findall("./filterref/parameter"):
        name, value = parameter.get("name", ""), parameter.get("value", "")
        if name.upper() in _ADDRESSES:
            told = redaction.shown(parameter, "filterref/parameter@value", value)
            pinned.setdefault(name, []).append(told)
            remove(parameter)
        elif value.lower() in macs:
            out.change(f"{label} filter {name}", value, macs[value.lower()])
            parameter.set("value", macs[value.lower()])
        elif name not in _OF_THE_NETWORK and _is_address(value):
            out.warn(
                f"The filter of {label} keeps {name}='{value}', as the base has it. If that is for "
                "one machine, take it out of the base's definition."
            )
    for name, values in pinned.items():
        out.change(f"{label} filter {name}", ", ".join(values), None)
    if not {name.upper() for name in pinned} - {"MAC"}:
        return
    learned = "the first that it uses"
    for parameter in element.findall("./filterref/parameter[@name='CTRL_IP_LEARNING']"):
        if parameter.get("value", "").lower() == "none":
            # With neither an address nor a way to learn one, the machine would not start.
            out.change(f"{label} filter CTRL_IP_LEARNING", parameter.get("value"), "dhcp")
            parameter.set("value", "dhcp")
        if parameter.get("value", "").lower() == "dhcp":
            learned = "that of its DHCP lease"
    out.warn(
        f"The filter of {label} allows the base one address; it allows the clone {learned}. If it "
        "is to use others, name them in the base's <filterref>."
    )


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
    before = "{}, " * int(label.rpartition(" ")[2])
    instead = f"Connect the clone elsewhere: networks: [{before}{{network: default}}]"
    if kind not in SHAREABLE:
        out.refuse(element, f"{place} is bound to one machine", instead)
    if kind == "direct" and source is not None and source.get("mode") == "passthrough":
        out.refuse(
            element,
            f"{place} in mode passthrough takes '{source.get('dev', '')}' for one machine",
            instead,
        )
    if element.find("./virtualport[@type='midonet']") is not None:
        out.refuse(element, f"{place} is a port of MidoNet, which is bound to one card", instead)
    bridge = source.get("bridge", "") if source is not None else ""
    if _BRIDGE_OF_ONE_PORT.fullmatch(bridge):
        out.refuse(
            element,
            f"{place} is connected to '{bridge}', which OpenStack makes for one port of one "
            "machine",
            instead,
        )
    for forward in element.findall("portForward"):
        ports = ", ".join(span.get("start", "?") for span in forward.findall("range")) or "all"
        out.refuse(
            element,
            f"{place} forwards fixed ports of the host ({ports}), which only one machine can hold",
            instead,
        )
    if kind == "ethernet":
        if target is not None and target.get("managed") == "no":
            out.refuse(
                element,
                f"{place} uses the ready-made device '{target.get('dev', '')}', which one machine "
                "can hold",
                instead,
            )
        if source is not None and source.find("ip") is not None:
            out.refuse(element, f"{place} has a fixed address on the host's side", instead)
