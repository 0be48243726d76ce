"""
Make the definitions that a fork is planned from and restored with. Pure.

A warmed base was saved without network cards. Its fork is planned as a quick clone of that machine
with the base's cards; the definition that stands in the saved memory, and that it is restored
with, is the same without them, since they are only plugged in afterwards.
"""

from __future__ import annotations

import copy

from lxml import etree

from saltext.kvmclone.model import libvirt_xml, record_xml


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
