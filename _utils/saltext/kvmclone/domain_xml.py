"""
What makes a domain itself: reading libvirt's domain XML into facts.

Pure: lxml only. Nothing here decides; :mod:`.rewrite` changes the XML and
:mod:`.plan` decides about disks.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.markup import bytes_of, number, parse, text

AGENT_CHANNEL = "org.qemu.guest_agent.0"

#: Where libvirt makes a store that the definition does not mention; from version 10 on the
#: definition mentions every one.
AUTOMATIC_NVRAM = "/var/lib/libvirt/qemu/nvram/{}_VARS.fd"


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
    :param transient: What the guest writes is gone when it stops.
    :param sliced: The guest sees only a piece of the image, or of one that it stands on.
    :param optional: The machine starts without the medium too (``startupPolicy``).
    :param pool: Pool that a disk of kind ``volume`` names, ``volume`` its volume.
    :param protocol: Protocol of a disk of kind ``network``.
    :param backing: Paths that the definition itself says the image stands on, the last one
        empty where it says that this is all; None where it leaves that to the image.
    :param backing_formats: The format of each of these; empty where it names none.
    :param data: Data file that the definition names for the image (``<dataStore>``).
    :param initiator: Name under which it logs in to an iSCSI target.
    """

    target: str
    device: str
    kind: str
    path: str
    format: str
    readonly: bool
    shareable: bool
    encrypted: bool
    transient: bool = False
    sliced: bool = False
    optional: bool = False
    pool: str = ""
    volume: str = ""
    protocol: str = ""
    backing: tuple[str, ...] | None = None
    backing_formats: tuple[str, ...] = ()
    data: str = ""
    initiator: str = ""

    @property
    def named(self) -> str:
        """Pool and volume of a disk of kind ``volume``; empty for another."""
        return f"{self.pool}/{self.volume}" if self.volume else ""


@dataclass(frozen=True)
class Interface:
    """
    One ``<interface>`` of a definition.

    :param kind: The ``type`` attribute: ``network``, ``bridge`` …
    :param source: Name of the network or bridge; empty where the kind has neither.
    :param mac: MAC address, lower case; empty where the definition has none.
    :param teamed: One of two that the guest takes for one card (``<teaming>``).
    """

    kind: str
    source: str
    mac: str
    teamed: bool = False


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
    """
    The facts of one definition that planning and looking up addresses need.

    :param nvram: None for a domain without UEFI variables.
    :param has_agent_channel: It has the channel that a guest agent speaks through.
    :param agent_connected: An agent has opened its end; told by live XML alone.
    :param memory: Bytes that the guest can have at most; ``cpus`` likewise.
    """

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


@functools.lru_cache(maxsize=8)  # one create looks several times at the base's and its own
def read(xml: str) -> Domain:
    """
    Return the facts of a definition.

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
        cpus=number(text(root, "vcpu"), "vcpu") or 1,
        description=text(root, "description"),
    )


def disk_of(element: etree._Element) -> Disk:
    """The facts of one ``<disk>`` element."""
    source = element.find("source")
    driver = element.find("driver")
    target = element.find("target")
    kind = element.get("type", "file")
    named: dict[str, str] = {}
    if source is not None:
        named = {str(key): str(value) for key, value in source.attrib.items()}
    backing, backing_formats = _backing(element)
    return Disk(
        target=target.get("dev", "") if target is not None else "",
        device=element.get("device", "disk"),
        kind=kind,
        path=named.get(_PATHS.get(kind, ""), ""),
        format=(driver.get("type") if driver is not None else None) or "raw",
        readonly=element.find("readonly") is not None,
        shareable=element.find("shareable") is not None,
        encrypted=element.find(".//encryption") is not None,
        transient=element.find("transient") is not None,
        sliced=any(element.find(where) is not None for where in _SLICES),
        optional=named.get("startupPolicy", "mandatory") != "mandatory",
        pool=named.get("pool", "") if kind == "volume" else "",
        volume=named.get("volume", "") if kind == "volume" else "",
        protocol=named.get("protocol", "") if kind == "network" else "",
        backing=backing,
        backing_formats=backing_formats,
        data=_named_file(element.find("./source/dataStore")),
        initiator=_attribute(element.find("./source/initiator/iqn"), "name"),
    )


#: The attribute of ``<source>`` that holds the path, by the kind of disk.
_PATHS = {"file": "file", "block": "dev", "dir": "dir"}


#: Where a definition cuts a piece out of an image.
_SLICES = ("./source/slices", "./backingStore//slices")


def _backing(element: etree._Element) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The chain that a disk element spells out, and the formats in it."""
    store = element.find("backingStore")
    if store is None:
        return None, ()
    paths, formats = [], []
    while store is not None:
        # What is no file or device has no path here, and is equal to none.
        source = store.find("source")
        paths.append("" if source is None else _named_file(store) or "?")
        formats.append(_attribute(store.find("format"), "type"))
        store = store.find("backingStore")
    return tuple(paths), tuple(formats)


def _named_file(holder: etree._Element | None) -> str:
    """The file or device that the ``<source>`` in an element names; empty for another kind."""
    if holder is None:
        return ""
    return _attribute(holder.find("source"), _PATHS.get(holder.get("type", "file"), ""))


def _attribute(element: etree._Element | None, name: str) -> str:
    """An attribute of an element that may not be there; lxml has no empty attribute name."""
    return element.get(name, "") if element is not None and name else ""


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
        teamed=element.find("teaming") is not None,
    )


def makes_a_store(root: etree._Element) -> bool:
    """Whether libvirt makes a variable store that the definition does not mention."""
    loader = root.find("./os/loader")
    if loader is not None and loader.get("stateless") == "yes":
        return False
    readonly_pflash = root.find("./os/loader[@readonly='yes'][@type='pflash']") is not None
    firmware = root.find("./os[@firmware='efi']")
    return firmware is not None or readonly_pflash


def store_path(element: etree._Element) -> str:
    """The file that an ``<nvram>`` element names; empty where libvirt will choose it."""
    source = element.find("source")
    return (source.get("file", "") if source is not None else element.text or "").strip()


def _nvram(root: etree._Element) -> Nvram | None:
    """The variable store, where the firmware has one."""
    element = root.find("./os/nvram")
    if element is None:
        return (
            Nvram(AUTOMATIC_NVRAM.format(text(root, "name")), "") if makes_a_store(root) else None
        )
    return Nvram(path=store_path(element), template=element.get("template", ""))
