"""
Rewriting a base's definition for a clone: unique by construction.

Pure: lxml only. Everything that identifies the base is regenerated, dropped or refused;
nothing is added that was not asked for. The rewriting collects *all* reasons to refuse
instead of stopping at the first, so that an operator mends the base once.
"""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone import domain_xml, ownership
from saltext.kvmclone.domain_xml import parse, serialize, text
from saltext.kvmclone.rewrite import devices, firmware, interfaces
from saltext.kvmclone.rewrite import disks as disks_module
from saltext.kvmclone.rewrite.disks import NewDisk
from saltext.kvmclone.rewrite.outcome import Rewritten, drop, path_for, remove, set_text

__all__ = ["Identity", "NewDisk", "Rewritten", "Sizing", "path_for", "rewrite"]


@dataclass(frozen=True)
class Identity:
    """
    What the clone is from now on.

    :param name: Domain name.
    :param uuid: A fresh random uuid; libvirt accepts an existing one silently.
    :param macs: One MAC address per interface of the base, in order.
    :param genid: A fresh generation id, used only where the base has one.
    :param nvram: Path of the clone's own variable store; empty where it has none.
    """

    name: str
    uuid: str
    macs: tuple[str, ...]
    genid: str = ""
    nvram: str = ""


@dataclass(frozen=True)
class Sizing:
    """Values that the profile overrides; None keeps the base's. Memory is in bytes."""

    cpus: int | None = None
    memory: int | None = None
    description: str | None = None


def rewrite(
    xml: str, identity: Identity, disks: tuple[NewDisk, ...], sizing: Sizing = Sizing()
) -> Rewritten:
    """
    The clone's definition, made from the base's.

    :param xml: The base's *inactive, secure* XML.
    :param identity: The clone's name, uuid, MAC addresses and NVRAM path.
    :param disks: Where each cloned disk now lives; a disk that is not listed is left as is.
    :param sizing: Overrides of cpus, memory and description.
    :raises PlanRefused: The XML cannot be read at all.
    """
    root = parse(xml)
    out = Rewritten()
    base = text(root, "name")
    _identity(root, identity, sizing, out)
    firmware.firmware(root, identity.nvram, out)
    disks_module.disks(root, {disk.target: disk for disk in disks}, out)
    interfaces.interfaces(root, identity.macs, out)
    devices.character_devices(root, base, identity.name, out)
    devices.graphics(root, base, identity.name, out)
    devices.host_devices(root, out)
    devices.security(root, out)
    _sizing(root, sizing, out)
    out.xml = serialize(root)
    return out


def _identity(root: etree._Element, identity: Identity, sizing: Sizing, out: Rewritten) -> None:
    base = text(root, "name")
    old_uuid = text(root, "uuid")
    set_text(root, "name", identity.name, position=0)
    set_text(root, "uuid", identity.uuid, position=1)
    out.change("name", base, identity.name)
    out.change("uuid", old_uuid, identity.uuid)

    # libvirt refuses a definition whose SMBIOS uuid differs from the domain's; the other
    # entries below name one individual machine.
    for entry in root.findall("./sysinfo/system/entry[@name='uuid']"):
        entry.text = identity.uuid
        out.change("sysinfo uuid", old_uuid, identity.uuid)
    for section in ("system", "baseBoard", "chassis"):
        for name in ("serial", "asset"):
            for entry in root.findall(f"./sysinfo/{section}/entry[@name='{name}']"):
                out.change(f"sysinfo {section} {name}", entry.text, None)
                remove(entry)

    genid = root.find("genid")
    if genid is not None:
        out.change("genid", genid.text, identity.genid)
        genid.text = identity.genid

    title = root.find("title")
    if title is not None:
        out.change("title", title.text, None)
        remove(title)
    description = f"Cloned from {base}" if sizing.description is None else sizing.description
    out.change("description", text(root, "description") or None, description)
    set_text(root, "description", description, position=2)

    # The record of a base that is itself a clone speaks of that clone only.
    for record in root.findall(f"./metadata/{{{ownership.NAMESPACE}}}*"):
        remove(record)


def _sizing(root: etree._Element, sizing: Sizing, out: Rewritten) -> None:
    if sizing.cpus is not None:
        vcpu = root.find("vcpu")
        if vcpu is None:
            vcpu = etree.SubElement(root, "vcpu")
        if root.find("vcpus") is not None or root.find("./cpu/topology") is not None:
            out.conflicts.append(
                "'cpus' cannot be changed: the base fixes its CPU topology. Leave 'cpus' out or "
                "remove <topology>/<vcpus> from the base."
            )
        out.change("cpus", int(vcpu.text or 1), sizing.cpus)
        drop(vcpu, "current")
        vcpu.text = str(sizing.cpus)
    if sizing.memory is not None:
        if root.find("./cpu/numa") is not None:
            out.conflicts.append("'memory' cannot be changed: the base fixes its NUMA cells.")
        old = domain_xml.bytes_of(root.find("memory"))
        for tag in ("memory", "currentMemory"):
            element = root.find(tag)
            if element is not None:
                element.set("unit", "b")
                element.text = str(sizing.memory)
        out.change("memory", old, sizing.memory)
