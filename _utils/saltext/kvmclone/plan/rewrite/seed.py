"""
Replace the base's cloud-init seed in a drive or on a disk. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.plan.rewrite.disks import NewDisk, add_disk, source_of
from saltext.kvmclone.plan.rewrite.result import Rewritten, remove


@dataclass(frozen=True)
class SeedChange:
    """
    The changes to cloud-init seeds.

    :param emptied: Targets of drives whose medium is one of the base's.
    :param words: Kernel's command line and firmware keep what they say of the base's seed.
    :param target: Target of the disk with the clone's own seed, empty for none; ``bus`` its bus,
        ``path`` its file.
    """

    emptied: frozenset[str] = frozenset()
    words: bool = True
    target: str = ""
    bus: str = ""
    path: str = ""


def rewrite_seed(root: etree._Element, change: SeedChange, out: Rewritten) -> None:
    """Remove the base's cloud-init seeds, and add the disk with the clone's own."""
    for element in root.findall("./devices/disk"):
        target = element.find("target")
        name = target.get("dev", "") if target is not None else ""
        source = element.find("source")
        if name in change.emptied and source is not None:
            out.change(f"disk {name}", source_of(domain_xml.disk_of(element)) or "yes", None)
            remove(source)
            for child in element.findall("backingStore"):
                remove(child)
            if element.get("type") in ("volume", "block"):
                element.set("type", "file")
    if change.target:
        _add(root, change, out)


def _add(root: etree._Element, change: SeedChange, out: Rewritten) -> None:
    disk = add_disk(root, NewDisk(change.target, change.path, "raw", change.bus))
    etree.SubElement(disk, "readonly")
    there = out.changes.get(f"disk {change.target}", {"old": None})  # the base's seed, left out
    out.change(f"disk {change.target}", there["old"], change.path)
