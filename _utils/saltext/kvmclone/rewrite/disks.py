"""Disks: the new file of each one that is cloned, and nothing left of the old one. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone import domain_xml
from saltext.kvmclone.rewrite.outcome import Rewritten, drop, remove

#: Children of a cloned disk that spoke of the old image, or name one individual drive.
_OF_THE_OLD = ("backingStore", "mirror", "auth", "encryption", "shareable", "serial", "wwn")


@dataclass(frozen=True)
class NewDisk:
    """
    What becomes of one disk that does not stay as it is.

    :param path: Its new file; empty: the clone does not have this disk.
    :param format: Format of that file.
    """

    target: str
    path: str
    format: str


def disks(root: etree._Element, new_disks: dict[str, NewDisk], out: Rewritten) -> None:
    """Rewrite the disks that are listed; a disk that is not stays exactly as it is."""
    for element in root.findall("./devices/disk"):
        for mirror in element.findall("mirror"):
            remove(mirror)
        new = new_disks.get(domain_xml.disk_of(element).target)
        if new is None:
            continue
        label = f"disk {new.target}"
        old = _source_of(element)
        if not new.path:
            out.change(label, old, None)
            remove(element)
            continue
        for name in _OF_THE_OLD:
            for child in element.findall(name):
                if name in ("serial", "wwn", "shareable"):
                    out.change(f"{label} {name}", child.text or "yes", None)
                remove(child)
        out.change(label, old, new.path)
        out.change(f"{label} type", element.get("type", "file"), "file")
        element.set("type", "file")
        for attribute in ("rawio", "sgio"):  # of a device of the host; a file has none
            drop(element, attribute)
        _new_source(element, new.path)
        driver = element.find("driver")
        if driver is None:
            driver = etree.Element("driver", name="qemu")
            element.insert(0, driver)
        out.change(f"{label} format", driver.get("type", "raw"), new.format)
        driver.set("type", new.format)


def _source_of(element: etree._Element) -> str | None:
    disk = domain_xml.disk_of(element)
    return disk.path or (f"{disk.pool}/{disk.volume}" if disk.volume else disk.protocol) or None


def _new_source(element: etree._Element, path: str) -> None:
    """One file and nothing else: labels, reservations, cookies and slices were the old one's."""
    source = element.find("source")
    assert source is not None, "plan.py never gives a new file to an empty drive"
    tail = source.tail
    for attribute in list(source.attrib):
        drop(source, str(attribute))
    for child in list(source):
        remove(child)
    source.text = None
    source.tail = tail
    source.set("file", path)
