"""
What makes a domain itself: reading libvirt's domain XML into facts.

Pure: lxml only. Nothing here decides; :mod:`.rewrite` changes the XML and
:mod:`.plan` decides about disks. The parser resolves no entities and loads nothing
from outside, since a definition may come from a hostile hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.errors import PlanRefused

AGENT_CHANNEL = "org.qemu.guest_agent.0"

#: Stands in a shown plan where the definition holds a secret.
HIDDEN = "<hidden>"


@dataclass(frozen=True)
class Disk:
    """
    One ``<disk>`` of a definition.

    :param target: Device name in the guest (``vda``).
    :param device: ``disk``, ``cdrom``, ``floppy`` or ``lun``.
    :param kind: The ``type`` attribute: ``file``, ``block``, ``volume``, ``network`` …
    :param path: Source path; empty for a drive without a medium or another kind.
    :param format: ``<driver type>``; ``raw`` where the definition names none, as libvirt
        takes it.
    :param readonly: The guest cannot write it.
    :param shareable: Marked as meant for several guests at once.
    :param encrypted: Has an ``<encryption>`` element.
    """

    target: str
    device: str
    kind: str
    path: str
    format: str
    readonly: bool
    shareable: bool
    encrypted: bool


@dataclass(frozen=True)
class Interface:
    """
    One ``<interface>`` of a definition.

    :param kind: The ``type`` attribute: ``network``, ``bridge`` …
    :param source: Name of the network or bridge; empty where the kind has neither.
    :param mac: MAC address, lower case; empty where the definition has none.
    """

    kind: str
    source: str
    mac: str


@dataclass(frozen=True)
class Nvram:
    """
    The UEFI variable store of a domain.

    :param path: The file; empty where libvirt will choose it.
    :param template: The template it is made from; empty where firmware selection decides.
    """

    path: str
    template: str


@dataclass(frozen=True)
class Domain:
    """The facts of one definition that planning and looking up addresses need."""

    name: str
    uuid: str
    disks: tuple[Disk, ...]
    interfaces: tuple[Interface, ...]
    nvram: Nvram | None
    has_agent_channel: bool
    agent_connected: bool
    memory: int
    cpus: int
    description: str


_MEMORY_UNITS = {
    "b": 1, "bytes": 1,
    "kb": 1000, "k": 1024, "kib": 1024,
    "mb": 1000**2, "m": 1024**2, "mib": 1024**2,
    "gb": 1000**3, "g": 1024**3, "gib": 1024**3,
    "tb": 1000**4, "t": 1024**4, "tib": 1024**4,
}  # fmt: skip


def parse(xml: str) -> etree._Element:
    """
    Parse a domain definition, safely.

    :param xml: The definition.
    :raises PlanRefused: The text is no well-formed domain definition, or tries to define
        entities.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, remove_blank_text=False, huge_tree=False
    )
    try:
        root = etree.fromstring(xml.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise PlanRefused(f"The domain definition is not well-formed XML: {error}.") from error
    if root.tag != "domain":
        raise PlanRefused(f"Expected a <domain> definition and found <{root.tag}>.")
    if root.getroottree().docinfo.internalDTD is not None:
        raise PlanRefused("The domain definition carries a DTD; definitions never need one.")
    return root


def serialize(root: etree._Element) -> str:
    """The XML text of a definition."""
    return etree.tostring(root, encoding="unicode")


def text(root: etree._Element, path: str) -> str:
    """Text of the first element at ``path``, stripped; empty where there is none."""
    found = root.find(path)
    return (found.text or "").strip() if found is not None else ""


def bytes_of(element: etree._Element | None) -> int:
    """Bytes that a libvirt size element (``<memory unit='KiB'>``) means; 0 without one."""
    if element is None or not (element.text or "").strip():
        return 0
    unit = _MEMORY_UNITS.get((element.get("unit") or "KiB").lower(), 1024)
    return int((element.text or "0").strip()) * unit


def read(xml: str) -> Domain:
    """
    The facts of a definition.

    :param xml: As ``XMLDesc`` gives it; live XML also tells whether the agent is connected.
    :raises PlanRefused: The XML cannot be read.
    """
    return facts(parse(xml))


def facts(root: etree._Element) -> Domain:
    """The facts of an already parsed definition; see :func:`read`."""
    agent = [
        channel
        for channel in root.findall("./devices/channel")
        if any(target.get("name") == AGENT_CHANNEL for target in channel.findall("target"))
    ]
    return Domain(
        name=text(root, "name"),
        uuid=text(root, "uuid"),
        disks=tuple(disk_of(element) for element in root.findall("./devices/disk")),
        interfaces=tuple(interface_of(element) for element in root.findall("./devices/interface")),
        nvram=_nvram(root),
        has_agent_channel=bool(agent),
        agent_connected=any(
            target.get("state") == "connected"
            for channel in agent
            for target in channel.findall("target")
        ),
        memory=bytes_of(root.find("memory")),
        cpus=int(text(root, "vcpu") or 1),
        description=text(root, "description"),
    )


def disk_of(element: etree._Element) -> Disk:
    """The facts of one ``<disk>`` element."""
    source = element.find("source")
    driver = element.find("driver")
    target = element.find("target")
    kind = element.get("type", "file")
    attribute = {"file": "file", "block": "dev", "dir": "dir"}.get(kind, "")
    return Disk(
        target=target.get("dev", "") if target is not None else "",
        device=element.get("device", "disk"),
        kind=kind,
        path=(source.get(attribute, "") if attribute else "") if source is not None else "",
        format=(driver.get("type") if driver is not None else None) or "raw",
        readonly=element.find("readonly") is not None,
        shareable=element.find("shareable") is not None,
        encrypted=element.find(".//encryption") is not None,
    )


def interface_of(element: etree._Element) -> Interface:
    """The facts of one ``<interface>`` element."""
    source = element.find("source")
    mac = element.find("mac")
    name = ""
    if source is not None:
        name = source.get("network") or source.get("bridge") or source.get("dev") or ""
    return Interface(
        kind=element.get("type", ""),
        source=name,
        mac=(mac.get("address", "") if mac is not None else "").lower(),
    )


def _nvram(root: etree._Element) -> Nvram | None:
    """
    The variable store, where the firmware has one. With ``firmware='efi'`` libvirt makes
    one even where the definition does not mention it.
    """
    element = root.find("./os/nvram")
    if element is None:
        os_element = root.find("./os")
        automatic = os_element is not None and os_element.get("firmware") == "efi"
        return Nvram(path="", template="") if automatic else None
    source = element.find("source")
    path = (source.get("file", "") if source is not None else element.text) or ""
    return Nvram(path=path.strip(), template=element.get("template", ""))


def redact(xml: str) -> str:
    """
    The same XML without the passwords that a secure ``XMLDesc`` contains, for showing.

    :param xml: A domain definition.
    """
    root = parse(xml)
    for element in root.iter(etree.Element):
        for attribute in ("passwd", "password"):
            if attribute in element.attrib:
                element.set(attribute, HIDDEN)
    return serialize(root)
