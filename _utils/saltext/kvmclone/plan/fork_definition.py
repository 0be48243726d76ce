"""
The definitions that a fork goes through. Pure.

A warmed base was saved without network cards. Its fork is planned as a quick clone of that machine
with the base's cards; the definition that stands in the saved memory, and that it is restored
with, is the same without them, since they are only plugged in afterwards.
"""

from __future__ import annotations

import copy

from lxml import etree

from saltext.kvmclone.model import domain_xml, libvirt_xml, record_xml

#: Models of PCI controllers that take no card while the machine runs.
_FIXED = ("pcie-root", "pcie-to-pci-bridge")


def with_cards(warmed: str, base: str) -> str:
    """
    Return what a fork is planned from: the warmed machine with the cards of its base.

    :param warmed: Definition of the warmed machine; its record of us is left out.
    :param base: Definition of its base.
    """
    root = libvirt_xml.parse(warmed)
    for metadata in root.iterfind("./metadata"):
        for mine in metadata.findall(f"{{{record_xml.NAMESPACE}}}clone"):
            metadata.remove(mine)
    devices = root.find("./devices")
    assert devices is not None, "libvirt writes one into every definition"
    for card in libvirt_xml.shared(base).iterfind("./devices/interface"):
        devices.append(copy.deepcopy(card))
    return libvirt_xml.serialize(root)


def without_cards(definition: str) -> str:
    """Return the definition that a fork is restored with, from its own."""
    root = libvirt_xml.parse(definition)
    for devices in root.iterfind("./devices"):
        for card in devices.findall("interface"):
            devices.remove(card)
    return libvirt_xml.serialize(root)


def cards(definition: str, unplugged: bool = False) -> tuple[str, ...]:
    """
    Return the cards of a definition, each as XML.

    :param unplugged: With their links down.
    """
    found = []
    for card in libvirt_xml.parse(definition).iterfind("./devices/interface"):
        if unplugged:
            link = card.find("link")
            if link is None:
                link = etree.SubElement(card, "link")
            link.set("state", "down")
        found.append(etree.tostring(card, encoding="unicode", with_tail=False))
    return tuple(found)


def obstacles(definition: str) -> list[str]:
    """
    Return why a machine cannot go on from another's memory, one clause each.

    :param definition: What the fork is planned from.
    """
    root = libvirt_xml.shared(definition)
    found = []
    if not domain_xml.read(definition).has_agent_channel:
        found.append(
            f"it has no channel for a guest agent ({domain_xml.AGENT_CHANNEL}), over which a fork "
            "is given its own identity"
        )
    if root.find("./devices/tpm") is not None:
        found.append("it has a TPM, whose state belongs to one machine")
    if root.find("./devices/hostdev") is not None:
        found.append("it has a device of the host, which cannot be saved")
    if fixed := _fixed_cards(root):
        found.append(
            f"its network card {', '.join(fixed)} is at a place where none can be plugged in while "
            "it runs"
        )
    return found


def _fixed_cards(root: etree._Element) -> list[str]:
    """Return the MAC addresses of the cards at controllers that take none at run time."""
    controllers = {
        one.get("index", ""): one for one in root.iterfind("./devices/controller[@type='pci']")
    }
    found = []
    for card in root.iterfind("./devices/interface"):
        address = card.find("./address[@type='pci']")
        bus = str(int(address.get("bus", "0"), 0)) if address is not None else ""
        controller = controllers.get(bus)
        if controller is None:
            continue
        fixed = controller.get("model") in _FIXED
        if fixed or controller.find("./target[@hotplug='off']") is not None:
            found.append(domain_xml.interface_of(card).mac)
    return found
