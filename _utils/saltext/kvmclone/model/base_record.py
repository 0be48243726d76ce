"""
Define the record of a base that we made, in the base's own ``<metadata>``.

Pure. It tells what the base was made from, and lists no files: nothing is ever deleted because of
it. It counts only in the domain whose uuid it names, since other tools copy foreign metadata into
their copies; a clone of the base is made without it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.record_xml import written

NAMESPACE = "urn:saltext:kvmclone:source:1"
PREFIX = "kvmclone-source"
_TAG = "base"


@dataclass(frozen=True)
class BaseRecord:
    """
    What a base was made from.

    :param uuid: Uuid of the base that this record belongs to.
    :param source: URL or path of the image, without a login or a query, or the name of the clone.
    :param digest: Digest of that image (``sha256:…``); empty where there is none.
    :param made: When its making began, seconds since the epoch; what happened to the source later
        is not in it.
    :param from_uuid: Uuid of the clone that was promoted; empty for an image.
    """

    uuid: str
    source: str
    digest: str = ""
    made: float = 0.0
    from_uuid: str = ""


def embed(definition: etree._Element, record: BaseRecord) -> None:
    """Put the record into a domain definition, replacing one that is there."""
    metadata = definition.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(definition, "metadata")
    for old in metadata.findall(f"{{{NAMESPACE}}}{_TAG}"):
        metadata.remove(old)
    metadata.append(_element(record))


def from_definition(definition: etree._Element) -> BaseRecord | None:
    """
    Return the record in a domain definition, if it has one that counts.

    :param definition: The parsed ``<domain>``.
    :return: None where there is none, where it names another domain's uuid, or cannot be read.
    """
    element = definition.find(f"./metadata/{{{NAMESPACE}}}{_TAG}")
    return _read(element, libvirt_xml.text(definition, "uuid")) if element is not None else None


def from_xml(xml: str, uuid: str) -> BaseRecord | None:
    """
    Return the record in the text that ``metadata()`` returned, if it counts.

    :param xml: The metadata element's text.
    :param uuid: Uuid of the domain it was read from.
    :return: None where it names another domain's uuid, or cannot be read.
    """
    return _read(libvirt_xml.element(xml), uuid)


def _element(record: BaseRecord) -> etree._Element:
    element = etree.Element(f"{{{NAMESPACE}}}{_TAG}", nsmap={PREFIX: NAMESPACE})
    for name in BaseRecord.__dataclass_fields__:
        if value := getattr(record, name):
            element.set(name, written(str(value)))
    return element


def _read(element: etree._Element, uuid: str) -> BaseRecord | None:
    try:
        made = float(element.get("made", 0))
    except ValueError:
        return None
    record = BaseRecord(
        uuid=element.get("uuid", ""),
        source=element.get("source", ""),
        digest=element.get("digest", ""),
        made=made,
        from_uuid=element.get("from_uuid", ""),
    )
    return record if record.uuid and record.uuid == uuid else None
