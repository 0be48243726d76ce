"""
Read libvirt's domain XML into facts.

Pure: lxml only. Nothing here decides; :mod:`.rewrite` changes the XML and
:mod:`.planner` decides about disks.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.model import derived_files
from saltext.kvmclone.model.libvirt_xml import bytes_of, number, shared, text

AGENT_CHANNEL = "org.qemu.guest_agent.0"


#: An argument that a definition passes to QEMU verbatim, and the paths in one.
_ARGUMENT = "{http://libvirt.org/schemas/domain/qemu/1.0}arg"
_ARGUMENT_PATH = re.compile(r"/[^,\"']+")


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
    :param serial: Serial number that the guest sees, ``wwn`` its world wide name.
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
    serial: str = ""
    wwn: str = ""

    @property
    def named(self) -> str:
        """Return ``POOL/VOLUME`` of a disk of kind ``volume``; empty for another kind."""
        return f"{self.pool}/{self.volume}" if self.volume else ""


@dataclass(frozen=True)
class Interface:
    """
    One ``<interface>`` of a definition.

    :param kind: The ``type`` attribute: ``network``, ``bridge`` …
    :param source: Name of the network or bridge; empty where the kind has neither.
    :param mac: MAC address, lower case; empty where the definition has none.
    :param teamed: One of two that the guest takes for one card (``<teaming>``).
    :param model: Model of the card; empty where the definition names none.
    :param portgroup: Portgroup of its network; empty for none.
    """

    kind: str
    source: str
    mac: str
    teamed: bool = False
    model: str = ""
    portgroup: str = ""

    def stays(self, network: str, bridge: str) -> bool:
        """
        Return whether the interface is connected to this network or bridge already.

        True also where neither is named: then it is to stay as it is.
        """
        wanted = ("network", network) if network else ("bridge", bridge)
        return not (network or bridge) or wanted == (self.kind, self.source)


@dataclass(frozen=True)
class Nvram:
    """
    The UEFI variable store of a domain.

    :param path: The file, also where libvirt chooses it; empty where that cannot be told.
    :param template: The template it is made from; empty where firmware selection decides.
    """

    path: str
    template: str


@dataclass(frozen=True)
class Domain:
    """
    The facts of one definition that are needed to plan a clone and to look up addresses.

    :param nvram: None for a domain without UEFI variables.
    :param has_agent_channel: It has the channel that a guest agent speaks through.
    :param agent_connected: An agent has opened its end; only live XML tells that.
    :param memory: Bytes that the guest can have at most; ``cpus`` likewise.
    :param console: Where its text console is: ``pty``, the path of a file, or empty for neither.
    :param screen: It has a screen, which can be photographed.
    :param memory_now: Bytes that it has, less where the rest is only promised
        (``<currentMemory>``); ``cpus_now`` likewise (``<vcpu current=…>``).
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
    console: str = ""
    screen: bool = False
    memory_now: int = 0
    cpus_now: int = 0


def read(xml: str, stores: str = derived_files.SYSTEM.stores) -> Domain:
    """
    Return the facts of a definition.

    :param xml: As ``XMLDesc`` gives it; live XML also tells whether the agent is connected.
    :param stores: Where the daemon makes a variable store that the definition does not mention.
        Since libvirt 10 the definition mentions every one.
    :raises PlanRefused: The XML cannot be read.
    """
    return _read(xml, stores)


@functools.lru_cache(maxsize=8)  # one create looks several times at the base's and its own
def _read(xml: str, stores: str) -> Domain:
    return facts(shared(xml), stores)


def facts(root: etree._Element, stores: str = derived_files.SYSTEM.stores) -> Domain:
    """Return the facts of a definition that is parsed already; see :func:`read`."""
    agent = [
        channel
        for channel in root.findall("./devices/channel")
        if any(target.get("name") == AGENT_CHANNEL for target in channel.findall("target"))
    ]
    memory = bytes_of(root.find("memory"))
    cpus = number(text(root, "vcpu"), "vcpu") or 1
    vcpu = root.find("vcpu")
    present = vcpu.get("current") if vcpu is not None else None
    return Domain(
        name=text(root, "name"),
        uuid=text(root, "uuid"),
        disks=tuple(disk_of(element) for element in root.findall("./devices/disk")),
        interfaces=tuple(interface_of(element) for element in root.findall("./devices/interface")),
        nvram=_nvram(root, stores),
        has_agent_channel=bool(agent),
        agent_connected=any(
            target.get("state") == "connected"
            for channel in agent
            for target in channel.findall("target")
        ),
        memory=memory,
        cpus=cpus,
        description=text(root, "description"),
        console=_console(root),
        screen=root.find("./devices/video") is not None,
        memory_now=bytes_of(root.find("currentMemory")) or memory,
        cpus_now=number(present, "vcpu") or cpus,
    )


def _console(root: etree._Element) -> str:
    """Return where the first console or serial line is, which is the one that libvirt opens."""
    for place in ("console", "serial"):
        for line in root.findall(f"./devices/{place}"):
            if line.get("type") == "pty":
                return "pty"
            # A socket, pipe or device has a path as well, and nobody can read back from it.
            file = line.get("type") == "file"
            return _attribute(line.find("source"), "path") if file else ""
    return ""


def disk_of(element: etree._Element) -> Disk:
    """Return the facts of one ``<disk>`` element."""
    source = element.find("source")
    driver = element.find("driver")
    target = element.find("target")
    kind = element.get("type", "file")
    named: dict[str, str] = {}
    if source is not None:
        named = {str(key): str(value) for key, value in source.attrib.items()}
    backing, backing_formats = _backing(element)
    has = {str(child.tag) for child in element}
    return Disk(
        target=target.get("dev", "") if target is not None else "",
        device=element.get("device", "disk"),
        kind=kind,
        path=named.get(_PATHS.get(kind, ""), ""),
        format=(driver.get("type") if driver is not None else None) or "raw",
        readonly="readonly" in has,
        shareable="shareable" in has,
        encrypted=element.find(".//encryption") is not None,
        transient="transient" in has,
        sliced=any(element.find(where) is not None for where in _SLICES),
        optional=named.get("startupPolicy", "mandatory") != "mandatory",
        pool=named.get("pool", "") if kind == "volume" else "",
        volume=named.get("volume", "") if kind == "volume" else "",
        protocol=named.get("protocol", "") if kind == "network" else "",
        backing=backing,
        backing_formats=backing_formats,
        data=_named_file(element.find("./source/dataStore")),
        initiator=_attribute(element.find("./source/initiator/iqn"), "name"),
        serial=text(element, "serial"),
        wwn=text(element, "wwn").lower().removeprefix("0x"),
    )


#: The attribute of ``<source>`` that holds the path, by the kind of disk.
_PATHS = {"file": "file", "block": "dev", "dir": "dir"}


#: Where a definition cuts a piece out of an image.
_SLICES = ("./source/slices", "./backingStore//slices")


def _backing(element: etree._Element) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Return the backing chain that a disk element spells out, and the formats in it."""
    store = element.find("backingStore")
    if store is None:
        return None, ()
    paths, formats = [], []
    while store is not None:
        # A source that is neither file nor device becomes "?", which is not equal to any path.
        source = store.find("source")
        paths.append("" if source is None else _named_file(store) or "?")
        formats.append(_attribute(store.find("format"), "type"))
        store = store.find("backingStore")
    return tuple(paths), tuple(formats)


def _named_file(holder: etree._Element | None) -> str:
    """Return the file or device that an element's ``<source>`` names; empty for another kind."""
    if holder is None:
        return ""
    return _attribute(holder.find("source"), _PATHS.get(holder.get("type", "file"), ""))


def _attribute(element: etree._Element | None, name: str) -> str:
    """Return an attribute; empty where the element or the attribute's name is absent."""
    return element.get(name, "") if element is not None and name else ""


def interface_of(element: etree._Element) -> Interface:
    """Return the facts of one ``<interface>`` element."""
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
        model=_attribute(element.find("model"), "type"),
        portgroup=_attribute(source, "portgroup"),
    )


def makes_a_store(root: etree._Element) -> bool:
    """Return whether libvirt makes a variable store that the definition does not mention."""
    loader = root.find("./os/loader")
    if loader is not None and loader.get("stateless") == "yes":
        return False
    readonly_pflash = root.find("./os/loader[@readonly='yes'][@type='pflash']") is not None
    firmware = root.find("./os[@firmware='efi']")
    return firmware is not None or readonly_pflash


def stores_in(root: etree._Element) -> list[str]:
    """Return the variable stores that a description names, also one of a snapshot."""
    return list(filter(None, map(store_path, root.iter("nvram"))))


def names_in(root: etree._Element) -> list[str]:
    """
    Return the names of the domain in its description, also in one of a snapshot.

    A rename of the domain does not reach its snapshots.
    """
    found = [root.findtext(f"./{tag}/name") for tag in ("domain", "inactiveDomain")]
    own = [root.findtext("./name")] if root.tag == "domain" else []
    return [*filter(None, own + found)]


def store_path(element: etree._Element) -> str:
    """Return the file that an ``<nvram>`` element names; empty where libvirt will choose it."""
    source = element.find("source")
    return (source.get("file", "") if source is not None else element.text or "").strip()


def _nvram(root: etree._Element, stores: str) -> Nvram | None:
    """Return the UEFI variable store; None where the firmware has none."""
    element = root.find("./os/nvram")
    if element is None and not makes_a_store(root):
        return None
    path = store_path(element) if element is not None else ""
    # It may lie elsewhere than in a file.
    placed = element is not None and element.find("source") is not None
    if not path and not placed:
        named = (one.get("format") for one in root.iterfind("./os/*") if one.tag in _FIRMWARE)
        path = derived_files.store(text(root, "name"), stores, next(filter(None, named), ""))
    return Nvram(path=path, template=element.get("template", "") if element is not None else "")


#: Elements that may name the format of the variable store.
_FIRMWARE = ("loader", "nvram")


def names_tpm_state(xml: str) -> bool:
    """Return whether a definition says where its TPM's state lies: libvirt would delete it."""
    return shared(xml).find("./devices/tpm/backend/source") is not None


def plain_files(root: etree._Element) -> Iterator[str]:
    """Yield the files of a description that belong to no disk: firmware, kernel, memory."""
    for element in root.iter("loader", "kernel", "initrd", "dtb", "nvram"):
        source = element.find("source")
        path = source.get("file", "") if source is not None else element.text or ""
        if path.strip().startswith("/"):
            yield path.strip()
        if element.get("template"):
            yield element.get("template", "")
    for element in root.iterfind(".//devices/memory/source/path"):
        yield (element.text or "").strip()


def argument_paths(root: etree._Element) -> Iterator[str]:
    """Yield the paths in what a description passes to QEMU verbatim, as text or as JSON."""
    for element in root.iter(_ARGUMENT):
        yield from _ARGUMENT_PATH.findall(element.get("value", ""))
