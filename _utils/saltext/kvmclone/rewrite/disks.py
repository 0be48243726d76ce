"""Disks: the new file of each one that is cloned, and nothing left of the old one. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone import domain_xml, markup, redaction
from saltext.kvmclone.rewrite.outcome import Rewritten, drop, remove

#: Children of a cloned disk that spoke of the old image.
_OF_THE_OLD = ("backingStore", "mirror", "auth", "encryption", "shareable")

#: Children that name one individual drive.
_NUMBERS = ("serial", "wwn")


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
    """
    Rewrite the disks that are listed. A disk that is not keeps its medium, in a drive of its own.
    """
    for element in root.findall("./devices/disk"):
        for mirror in element.findall("mirror"):
            remove(mirror)
        facts = domain_xml.disk_of(element)
        new = new_disks.get(facts.target)
        label = f"disk {facts.target}"
        if new is None:
            if not facts.shareable:  # that one is the same disk to several machines
                _forget_numbers(element, label, out)
            continue
        _forget_tuning(root, facts.path, out)
        if new.path:
            _connect(element, new, label, out)
        else:
            out.change(label, _source_of(element), None)
            remove(element)


def _connect(element: etree._Element, new: NewDisk, label: str, out: Rewritten) -> None:
    """Connect a disk to its new file, and drop what spoke of the old one."""
    old = _source_of(element)
    _forget_numbers(element, label, out)
    for name in _OF_THE_OLD:
        for child in element.findall(name):
            if name == "shareable":
                out.change(f"{label} {name}", "yes", None)
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


def _forget_numbers(element: etree._Element, label: str, out: Rewritten) -> None:
    for name in _NUMBERS:
        for child in element.findall(name):
            out.change(f"{label} {name}", child.text or "yes", None)
            remove(child)


def _forget_tuning(root: etree._Element, path: str, out: Rewritten) -> None:
    """Weights and limits for a device of the host that the clone does not use."""
    for device in root.findall("./blkiotune/device"):
        if path and markup.text(device, "path") == path:
            out.change(f"blkiotune {path}", path, None)
            remove(device)
    for tune in root.findall("./blkiotune"):
        if len(tune) == 0:
            remove(tune)


def _source_of(element: etree._Element) -> str | None:
    disk = domain_xml.disk_of(element)
    return redaction.path(disk.path) or disk.named or disk.protocol or None


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
