"""
Write a clone's record into a domain's ``<metadata>``, and read it there.

A record counts only in the domain whose uuid it names, since other tools copy foreign metadata
into their copies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lxml import etree

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.plain import hints
from saltext.kvmclone.model.record import (
    MAKING,
    STAGES,
    BaseDisk,
    FrozenDisk,
    Minion,
    Owner,
    Record,
    Reservation,
    Snapshot,
    Volume,
)
from saltext.kvmclone.model.request import AddressPick
from saltext.kvmclone.model.spares import Claim

NAMESPACE = "urn:saltext:kvmclone:1"
PREFIX = "kvmclone"

#: Number of the form of a record. One with a higher number is left alone: this version would read
#: over what it does not know of, and lose it with the next stage.
SCHEMA = 3

#: The form that has a field first. A record is written in the earliest form that has all that it
#: uses, so that a host which is not upgraded yet still reads it.
_SINCE = {"becomes": 2, "warmed": 3, "under_way": 2, "snapshots": 2, "spare": 3}

#: The fields that are attributes of the element itself.
_SCALARS: dict[str, type] = {
    name: kind
    for name, kind in hints(Record).items()
    if kind in (str, float) and name not in ("base", "base_uuid")
}

#: Lists of texts, with one element for each text.
_LISTS = {"tag": "tags", "warning": "warnings", "host_key": "host_keys"}


class LaterRecord(ValueError):
    """A record that a later version of kvm_clone wrote."""


def to_xml(record: Record) -> str:
    """Return the record as ``setMetadata`` takes it: libvirt adds the namespace itself."""
    return etree.tostring(_element(record), encoding="unicode")


def embed(definition: etree._Element, record: Record) -> None:
    """Put the record into a domain definition, replacing one that is there."""
    metadata = definition.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(definition, "metadata")
    for old in metadata.findall(f"{{{NAMESPACE}}}clone"):
        metadata.remove(old)
    root = _element(record, {PREFIX: NAMESPACE})
    for element in root.iter():
        element.tag = f"{{{NAMESPACE}}}{element.tag}"
    metadata.append(root)


def from_definition(definition: etree._Element) -> Record | None:
    """
    Return the record in a domain definition, if it has one that counts.

    :param definition: The parsed ``<domain>``.
    :return: None where there is no record, or where it names another domain's uuid.
    :raises LaterRecord: A later version wrote it.
    :raises ValueError: It cannot be read.
    """
    element = definition.find(f"./metadata/{{{NAMESPACE}}}clone")
    if element is None:
        return None
    uuid = (definition.findtext("uuid") or "").strip()
    record = _from_element(element)
    return record if record.uuid == uuid else None


def from_xml(xml: str, uuid: str) -> Record | None:
    """
    Return the record in the text that ``metadata()`` returned, if it counts.

    :param xml: The metadata element's text.
    :param uuid: Uuid of the domain it was read from.
    :return: None where the record names another domain's uuid.
    :raises LaterRecord: A later version wrote it.
    :raises ValueError: It cannot be read.
    """
    record = _from_element(libvirt_xml.element(xml))
    return record if record.uuid == uuid else None


def _element(record: Record, prefixes: dict[str, str] | None = None) -> etree._Element:
    forms = [form for name, form in _SINCE.items() if getattr(record, name)]
    forms += [2 for volume in record.volumes if volume.label]
    # Earlier versions take it for a base that was never finished, which their gc removes.
    forms += [3] * (not record.is_clone)
    root = etree.Element("clone", nsmap=prefixes, schema=str(max(forms, default=1)))
    for name in _SCALARS:
        value = getattr(record, name)
        if value:
            root.set(name, written(str(value)))
    base = etree.SubElement(root, "base", name=written(record.base), uuid=record.base_uuid)
    for disk in record.base_disks:
        _child(base, "disk", disk)
    _child(root, "worker", record.worker)
    if record.minion.id:
        _child(root, "minion", record.minion)
    if record.claim.at:
        _child(root, "claim", record.claim)
    for volume in record.volumes:
        _child(root, "volume", volume)
    for reservation in record.reservations:
        _child(root, "reservation", reservation)
    for snapshot in record.snapshots:
        element = _child(root, "snapshot", snapshot)
        for frozen in snapshot.disks:
            _child(element, "disk", frozen)
    if record.pick != AddressPick():
        _child(root, "pick", record.pick)
    for stage, seconds in record.timings.items():
        etree.SubElement(root, "timing", stage=stage, seconds=f"{seconds:.3f}")
    for tag, name in _LISTS.items():
        for value in getattr(record, name):
            etree.SubElement(root, tag).text = written(value)
    return root


#: Characters that XML has no way to write.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def written(text: str) -> str:
    """
    Return a text as XML can hold it, with U+FFFD for every character that XML cannot.

    The output of a guest or its script may hold anything, and a record that cannot be written would
    be lost.
    """
    return text if text.isprintable() else _UNWRITABLE.sub("\ufffd", text)


def _child(parent: etree._Element, tag: str, value: Any) -> etree._Element:
    """Add an element with the fields of a dataclass that are no tuples, and return it."""
    element = etree.SubElement(parent, tag)
    for name, said in vars(value).items():
        if not isinstance(said, tuple):
            element.set(name, written(str(said)))
    return element


def _local(element: etree._Element) -> str:
    return etree.QName(element).localname


def _read(cls: Any, element: etree._Element, unsaid: Mapping[str, Any] = {}) -> Any:
    """Return a dataclass with the attributes of an element, and ``unsaid`` where it has none."""
    kinds = hints(cls)
    said = {k: kinds[str(k)](v) for k, v in element.attrib.items() if k in kinds}
    return cls(**{**unsaid, **said})


def _snapshot(element: etree._Element) -> Snapshot:
    found: Snapshot = _read(Snapshot, element)
    return replace(found, disks=tuple(_read(FrozenDisk, disk) for disk in element))


def _from_element(root: etree._Element) -> Record:
    if int(root.get("schema", 1)) > SCHEMA:
        raise LaterRecord(f"a later version of kvm_clone wrote it (form {root.get('schema')})")
    values: dict[str, Any] = {
        name: convert(root.get(name, convert())) for name, convert in _SCALARS.items()
    }
    children: dict[str, list[etree._Element]] = {}
    for child in root:
        children.setdefault(_local(child), []).append(child)
    for tag, name in _LISTS.items():
        values[name] = tuple(child.text or "" for child in children.get(tag, []))
    # Records of version 0.1 name no goal: take the stage that they reached.
    reached = values["stage"] if values["stage"] in STAGES[1:] else "cloned"
    values["goal"] = values["goal"] or reached
    # Nor do they hold a state of their volumes: these may have been begun.
    unsaid = {"state": MAKING} if values["stage"] == "planned" else {}
    base = children.get("base", [etree.Element("base")])[0]
    return Record(
        base=base.get("name", ""),
        base_uuid=base.get("uuid", ""),
        base_disks=tuple(_read(BaseDisk, disk) for disk in base),
        worker=_read(Owner, children["worker"][0]) if "worker" in children else Owner(),
        minion=_read(Minion, children["minion"][0]) if "minion" in children else Minion(),
        claim=_read(Claim, children["claim"][0]) if "claim" in children else Claim(),
        volumes=tuple(_read(Volume, one, unsaid) for one in children.get("volume", [])),
        reservations=tuple(_read(Reservation, one) for one in children.get("reservation", [])),
        snapshots=tuple(map(_snapshot, children.get("snapshot", []))),
        pick=_read(AddressPick, children["pick"][0]) if "pick" in children else AddressPick(),
        timings={
            timing.get("stage", ""): float(timing.get("seconds", 0))
            for timing in children.get("timing", [])
        },
        **values,
    )
