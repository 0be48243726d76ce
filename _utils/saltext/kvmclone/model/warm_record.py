"""
Record what the memory of a warmed base was saved with, and from.

Pure. It stands in the ``<metadata>`` of the domain whose memory was saved, besides the record that
lists its files, and is written last. A saved memory is of use only where QEMU, the machine and the
files below it are what they were, to the byte: so whatever differs is told here, by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lxml import etree

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.base_content import FileState
from saltext.kvmclone.model.record_xml import written

NAMESPACE = "urn:saltext:kvmclone:warm:1"
PREFIX = "kvmclone-warm"

_NAME = re.compile(r"(?P<base>.+)\.warm(?P<generation>[1-9][0-9]*)", re.DOTALL)


def name_of(base: str, generation: int) -> str:
    """Return the name of the domain whose memory is saved for a base."""
    return f"{base}.warm{generation}"


def generation_of(name: str) -> int:
    """Return the generation in such a name; 0 in any other."""
    found = _NAME.fullmatch(name)
    return int(found["generation"]) if found else 0


@dataclass(frozen=True)
class Circumstances:
    """
    What a saved memory depends on besides its files.

    :param qemu: Version of QEMU, ``libvirt`` that of the daemon's libvirt.
    :param emulator: The program of QEMU that the base names.
    :param machine: Machine type of the base.
    :param cpu: SHA-256 of what the base's definition says of its CPU; ``host_cpu`` of what libvirt
        says of the host's.
    :param definition: SHA-256 of the normal form of the base's whole definition.
    """

    qemu: str = ""
    libvirt: str = ""
    emulator: str = ""
    machine: str = ""
    cpu: str = ""
    host_cpu: str = ""
    definition: str = ""

    def against(self, now: Circumstances) -> str:
        """Return what is different by now, as a clause; empty if nothing is."""
        named = {
            "qemu": "QEMU",
            "libvirt": "libvirt",
            "emulator": "the QEMU of the base",
            "machine": "the machine type of the base",
        }
        for field, word in named.items():
            then, there = getattr(self, field), getattr(now, field)
            if then != there:
                return f"{word} is {there} now, and was {then}"
        told = {
            "host_cpu": "the host has another CPU",
            "cpu": "the CPU in the definition of the base was changed",
            "definition": "the definition of the base was changed",
        }
        changed = (
            text for field, text in told.items() if getattr(self, field) != getattr(now, field)
        )
        return next(changed, "")


@dataclass(frozen=True)
class WarmRecord:
    """
    What a memory was saved with.

    :param uuid: Uuid of the domain that this record belongs to.
    :param made: When it was saved, seconds since the epoch.
    :param head: SHA-256 of the saved image up to QEMU's stream.
    :param circumstances: What else it depends on.
    :param files: The saved image, the disks and the variable store, as they were left.
    """

    uuid: str
    made: float
    head: str
    circumstances: Circumstances
    files: tuple[FileState, ...]

    def changed(self, now: Iterable[FileState]) -> str:
        """
        Return the path of a file that is not what it was; empty if all are.

        :param now: The files that are there, as they are.
        """
        there = set(now)
        return next((file.path for file in self.files if file not in there), "")


def to_xml(record: WarmRecord) -> str:
    """Return the record as ``setMetadata`` takes it: libvirt adds the namespace itself."""
    root = etree.Element("warm", uuid=record.uuid, made=repr(record.made), head=record.head)
    parts: list[tuple[str, Any]] = [("circumstances", record.circumstances)]
    parts += [("file", file) for file in record.files]
    for tag, part in parts:
        child = etree.SubElement(root, tag)
        for name, value in vars(part).items():
            child.set(name, written(str(value)))
    return etree.tostring(root, encoding="unicode")


def from_xml(xml: str, uuid: str) -> WarmRecord | None:
    """
    Return the record in the text that ``metadata()`` returned, if it counts.

    :param xml: The metadata element's text.
    :param uuid: Uuid of the domain it was read from.
    :return: None where it names another domain's uuid, or cannot be read.
    """
    root = libvirt_xml.element(xml)
    children = [
        (etree.QName(child).localname, {str(k): str(v) for k, v in child.items()}) for child in root
    ]
    try:
        record = WarmRecord(
            uuid=root.get("uuid", ""),
            made=float(root.get("made", "")),
            head=root.get("head", ""),
            circumstances=next(
                Circumstances(**found) for tag, found in children if tag == "circumstances"
            ),
            files=tuple(
                FileState(
                    found["path"], int(found["size"]), int(found["modified"]), int(found["inode"])
                )
                for tag, found in children
                if tag == "file"
            ),
        )
    except (LookupError, StopIteration, TypeError, ValueError):
        return None
    return record if record.uuid and record.uuid == uuid else None
