"""
Make the definition of a base that was copied from another host. Pure.

It stays as it is, but for what identifies the machine there (uuid, addresses, other tools'
records) and for the paths of its files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.model import domain_xml, libvirt_xml
from saltext.kvmclone.model.libvirt_xml import text
from saltext.kvmclone.plan.interfaces import random_mac
from saltext.kvmclone.plan.rewrite.base_marks import marks_of
from saltext.kvmclone.plan.rewrite.interfaces import NewInterface, interfaces
from saltext.kvmclone.plan.rewrite.metadata import rewrite_metadata
from saltext.kvmclone.plan.rewrite.result import Rewritten, remove, set_text


@dataclass(frozen=True)
class Place:
    """
    Where a copied base is to be.

    :param uuid: Its new uuid, ``genid`` its new generation id where it has one.
    :param disks: Path of each disk, by its target.
    :param nvram: Path of its variable store; it need not be there.
    """

    uuid: str
    genid: str
    disks: Mapping[str, str]
    nvram: str


def media(definition: str) -> list[str]:
    """Return the media in the drives of a machine, which are not copied."""
    disks = domain_xml.read(definition).disks
    return [disk.path for disk in disks if disk.path and disk.device in ("cdrom", "floppy")]


def definition(original: str, place: Place, there: Collection[str]) -> str:
    """
    Return the definition of the copy.

    :param original: The definition at the source.
    :param there: The media of its drives that are on the target, too; others are taken out.
    """
    root = libvirt_xml.parse(original)
    old = text(root, "uuid")
    gone = frozenset(place.disks)
    marks = marks_of(root, domain_xml.facts(root), gone)
    set_text(root, "uuid", place.uuid, position=1)
    for genid in root.findall("genid"):
        genid.text = place.genid
    for entry in root.findall("./sysinfo//entry"):
        if (entry.text or "").strip().lower() == old.lower():
            entry.text = place.uuid
    for path in (
        "./hwuuid",
        "./title",
        "./resource",
        "./devices/emulator",
        "./devices/tpm/backend/source",
    ):
        for element in root.findall(path):
            remove(element)
    rewritten = Rewritten()  # what a clone's plan would say of it is of no use here
    rewrite_metadata(root, marks, rewritten)
    cards = tuple(NewInterface(random_mac()) for _ in root.findall("./devices/interface"))
    interfaces(root, cards, rewritten)
    for disk in root.findall("./devices/disk"):
        _place_disk(disk, place, there)
    for nvram in root.findall("./os/nvram"):
        _place_store(nvram, place.nvram)
    return libvirt_xml.serialize(root)


def _place_disk(disk: etree._Element, place: Place, there: Collection[str]) -> None:
    facts = domain_xml.disk_of(disk)
    for store in disk.findall("backingStore"):
        remove(store)
    source = disk.find("source")
    if facts.target in place.disks:
        disk.set("type", "file")
        if source is None:
            source = etree.SubElement(disk, "source")
        for child in list(source):
            source.remove(child)
        source.attrib.clear()
        source.set("file", place.disks[facts.target])
    elif source is not None and not (facts.path and facts.path in there):
        disk.set("type", "file")
        remove(source)


def _place_store(nvram: etree._Element, path: str) -> None:
    for source in nvram.findall("source"):
        nvram.remove(source)
    nvram.attrib.pop("type", "")
    nvram.text = path
