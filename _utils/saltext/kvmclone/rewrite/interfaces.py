"""Network interfaces: new MAC addresses, nothing that can exist only once. Pure."""

from __future__ import annotations

from lxml import etree

from saltext.kvmclone import domain_xml
from saltext.kvmclone.rewrite.outcome import Rewritten, drop, remove

#: Interface types whose far end can serve several domains at once.
SHAREABLE = {"network", "bridge", "user", "direct", "internal"}


def interfaces(root: etree._Element, macs: tuple[str, ...], out: Rewritten) -> None:
    for number, element in enumerate(root.findall("./devices/interface")):
        kind = element.get("type", "")
        if kind not in SHAREABLE:
            out.conflicts.append(
                f"Interface {number} of type '{kind}' is bound to one machine; remove it first."
            )
        old = domain_xml.interface_of(element).mac
        mac = element.find("mac")
        if mac is None:
            mac = etree.Element("mac")
            element.insert(0, mac)
        mac.attrib.clear()
        mac.set("address", macs[number])
        out.change(f"interface {number} mac", old or None, macs[number])
        for target in element.findall("target"):
            # A fixed tap name can exist once; libvirt then makes its own (vnet0 …).
            if target.get("dev"):
                out.change(f"interface {number} target", target.get("dev"), None)
                target.attrib.pop("dev")
            if not target.attrib:
                remove(target)
        for parameters in element.findall("./virtualport/parameters"):
            for attribute in ("interfaceid", "instanceid"):
                if attribute in parameters.attrib:
                    out.change(f"interface {number} {attribute}", parameters.get(attribute), None)
                    parameters.attrib.pop(attribute)
        source = element.find("source")
        if source is not None:
            drop(source, "portid")
