"""
Rewrite disks: the new file of each that is cloned, and nothing left of the old one. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.model import domain_xml, libvirt_xml, redaction
from saltext.kvmclone.plan.rewrite.result import Rewritten, drop, remove

#: Children of a cloned disk that describe the old image.
_OF_THE_OLD = ("backingStore", "mirror", "auth", "encryption", "shareable")

#: How much of a serial number QEMU shows to a guest, in bytes, by the bus of the disk.
_SEEN = {"virtio": 20, "ide": 20, "sata": 20, "scsi": 36, "usb": 36}

#: The buses on which QEMU's disks have a world wide name.
_WITH_WWN = ("ide", "scsi")


@dataclass(frozen=True)
class NewDisk:
    """
    The new state of one disk that does not stay as it is.

    :param path: Its new file; empty: the clone does not have this disk.
    :param format: Format of that file.
    :param bus: Bus of a disk that the base does not have; empty for all others.
    """

    target: str
    path: str
    format: str
    bus: str = ""


@dataclass(frozen=True)
class DiskId:
    """
    The numbers by which a guest is to know a disk; empty for those of the base's disk.

    :param serial: Serial number.
    :param wwn: World wide name, 16 hexadecimal digits.
    """

    serial: str = ""
    wwn: str = ""


def rewrite_disks(
    root: etree._Element,
    new_disks: Mapping[str, NewDisk],
    ids: Mapping[str, DiskId],
    out: Rewritten,
) -> None:
    """
    Rewrite the disks that are listed; one that is not keeps its medium.

    Serial numbers, names and places on a bus stay, unless the profile wants others: a guest finds
    its file systems by them (``/dev/disk/by-id``), and they need to be unique inside it only.

    :param new_disks: By target, what becomes of disks that do not stay as they are.
    :param ids: By target, the numbers by which a guest is to know a disk.
    """
    for added in new_disks.values():
        if added.bus:
            disk = add_disk(root, added)
            out.change(f"disk {added.target}", None, added.path)
            if added.target in ids:
                _identify(disk, ids[added.target], f"disk {added.target}", out)
    for element in root.findall("./devices/disk"):
        for mirror in element.findall("mirror"):
            remove(mirror)
        facts = domain_xml.disk_of(element)
        new = new_disks.get(facts.target)
        if new is not None and new.bus:
            continue
        label = f"disk {facts.target}"
        if new is not None:
            _forget_tuning(root, facts.path, out)
        if new is not None and not new.path:
            out.change(label, source_of(facts), None)
            remove(element)
            if facts.target in ids:
                out.conflicts.append(
                    f"'disks: {facts.target}' leaves the disk out and wants to call it something. "
                    "Take 'serial' and 'wwn' out, or 'action: skip'."
                )
            continue
        if new is not None:
            _connect(element, facts, new, label, out)
        if facts.target in ids:
            _identify(element, ids[facts.target], label, out)
    _refuse_twins(root, out)


def add_disk(root: etree._Element, new: NewDisk) -> etree._Element:
    """Add a disk that the base does not have, and return its element."""
    disk = etree.Element("disk", type="file", device="disk")
    etree.SubElement(disk, "driver", name="qemu", type=new.format)
    etree.SubElement(disk, "source", file=new.path)
    etree.SubElement(disk, "target", dev=new.target, bus=new.bus)
    devices = root.find("./devices")
    assert devices is not None, "a base has disks"
    devices.append(disk)
    return disk


def _connect(
    element: etree._Element, old: domain_xml.Disk, new: NewDisk, label: str, out: Rewritten
) -> None:
    """Connect a disk to its new file, and drop what described the old one."""
    for name in _OF_THE_OLD:
        for child in element.findall(name):
            if name == "shareable":
                out.change(f"{label} {name}", "yes", None)
            remove(child)
    out.change(label, source_of(old), new.path)
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


def _identify(element: etree._Element, new: DiskId, label: str, out: Rewritten) -> None:
    """Give a disk the serial number and the wwn that the profile wants."""
    bus = bus_of(element)
    said = f"'disks: {domain_xml.disk_of(element).target}'"
    if new.serial and bus not in _SEEN:
        out.conflicts.append(
            f"{said} asks for a serial number, and a disk on bus '{bus}' has none of its own. "
            "Take 'serial' out."
        )
    elif new.serial and len(new.serial) > _SEEN[bus]:
        out.conflicts.append(
            f"{said} asks for the serial number '{new.serial}' of {len(new.serial)} characters; on "
            f"bus '{bus}' a guest sees {_SEEN[bus]}. Take a shorter one."
        )
    if new.wwn and bus not in _WITH_WWN:
        out.conflicts.append(
            f"{said} asks for a wwn, which a disk on bus '{bus}' does not have; those on "
            f"{' and '.join(_WITH_WWN)} do. Take 'wwn' out, or ask for a 'serial'."
        )
    for name, value in (("serial", new.serial), ("wwn", new.wwn)):
        if not value:
            continue
        child = element.find(name)
        if child is None:
            child = etree.SubElement(element, name)
        out.change(f"{label} {name}", child.text, value)
        child.text = value
        out.kept.add(value)


def bus_of(element: etree._Element) -> str:
    """Return the bus of a ``<disk>``, which its target's name implies where it is not written."""
    target = element.find("target")
    name = target.get("dev", "") if target is not None else ""
    guessed = {"fd": "fdc", "hd": "ide", "sd": "scsi", "vd": "virtio"}.get(name[:2], "")
    return (target.get("bus") if target is not None else None) or guessed


def _refuse_twins(root: etree._Element, out: Rewritten) -> None:
    """Refuse two disks that one guest cannot tell from each other by the number it looks for."""
    for name, word in (("serial", "serial number"), ("wwn", "wwn")):
        seen: dict[str, etree._Element] = {}
        for drive in root.iterfind(f"./devices/*/{name}/.."):
            if drive.tag not in ("disk", "controller"):
                continue
            number = _as_seen(drive, name)
            twin = seen.setdefault(number, drive)
            if not number or twin is drive:
                continue
            (label, disk), (other, its_disk) = _drive(drive), _drive(twin)
            if other == label or _is_one(disk, its_disk):
                continue
            target = label.rpartition(" ")[2] if disk is not None else other.rpartition(" ")[2]
            out.conflicts.append(
                f"The {other} and the {label} have one {word}, '{number}', so a guest that looks "
                f"for either finds any of them. Give one of them its own: "
                f"disks: {{{target}: {{{name}: …}}}}."
            )


def _as_seen(drive: etree._Element, name: str) -> str:
    """Return a serial number or wwn as far as a guest sees it."""
    number = libvirt_xml.text(drive, name)
    if name == "wwn":
        return number.lower().removeprefix("0x")
    return number[: _SEEN.get(bus_of(drive), 20)]


def _drive(drive: etree._Element) -> tuple[str, etree._Element | None]:
    """Return what messages call a drive, and its element where it is a disk."""
    if drive.tag == "disk":
        return f"disk {domain_xml.disk_of(drive).target}", drive
    return f"{drive.get('type', '')} controller {drive.get('index', '')}", None


def _is_one(disk: etree._Element | None, other: etree._Element | None) -> bool:
    """Return whether two disks are two paths to one that several machines write (multipath)."""
    if disk is None or other is None:
        return False
    one, two = domain_xml.disk_of(disk), domain_xml.disk_of(other)
    return one.shareable and two.shareable and bool(one.path) and one.path == two.path


def _forget_tuning(root: etree._Element, path: str, out: Rewritten) -> None:
    """Remove weights and limits for a device of the host that the clone does not use."""
    for device in root.findall("./blkiotune/device"):
        if path and libvirt_xml.text(device, "path") == path:
            out.change(f"blkiotune {path}", path, None)
            remove(device)
    for tune in root.findall("./blkiotune"):
        if len(tune) == 0:
            remove(tune)


def source_of(disk: domain_xml.Disk) -> str | None:
    """Return what a disk is connected to, as it may be shown; None for nothing."""
    return redaction.path(disk.path) or disk.named or disk.protocol or None


def _new_source(element: etree._Element, path: str) -> None:
    """
    Make one file the whole source: labels, reservations, cookies and slices were the old one's.
    """
    source = element.find("source")
    assert source is not None, "a plan never gives a new file to an empty drive"
    tail = source.tail
    for attribute in list(source.attrib):
        drop(source, str(attribute))
    for child in list(source):
        remove(child)
    source.text = None
    source.tail = tail
    source.set("file", path)
