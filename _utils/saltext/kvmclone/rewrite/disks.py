"""Disks: the new file of each one that is cloned. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone import domain_xml
from saltext.kvmclone.rewrite.outcome import Rewritten, drop, remove


@dataclass(frozen=True)
class NewDisk:
    """What becomes of one disk: its new file and format (``path`` empty: left alone)."""

    target: str
    path: str
    format: str


def disks(root: etree._Element, new_disks: dict[str, NewDisk], out: Rewritten) -> None:
    for element in root.findall("./devices/disk"):
        for name in ("backingStore", "mirror"):
            for child in element.findall(name):
                remove(child)
        new = new_disks.get(domain_xml.disk_of(element).target)
        if new is None:
            continue
        for name in ("serial", "wwn"):
            for child in element.findall(name):
                out.change(f"disk {new.target} {name}", child.text, None)
                remove(child)
        source = element.find("source")
        assert source is not None, "plan.py never gives a new file to an empty drive"
        out.change(f"disk {new.target}", source.get("file"), new.path)
        source.set("file", new.path)
        for attribute in ("index", "startupPolicy"):
            drop(source, attribute)
        driver = element.find("driver")
        if driver is None:
            driver = etree.Element("driver", name="qemu")
            element.insert(0, driver)
        out.change(f"disk {new.target} format", driver.get("type", "raw"), new.format)
        driver.set("type", new.format)
