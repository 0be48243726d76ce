"""
Know a base by its content, on whatever host and under whatever files it is.

Pure. The digest covers what the guest sees on the disks, their sizes and formats, the variable
store, the files that it boots from directly, and the definition without what belongs to one host
(see :mod:`.normal_definition`). It stands in the base's own ``<metadata>`` together with the state
of the files that it was made of, and is void as soon as one of these changes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lxml import etree

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.plain import from_plain
from saltext.kvmclone.model.record_xml import written

#: Namespace of the digest in a base's metadata.
NAMESPACE = "urn:saltext:kvmclone:content:1"
PREFIX = "kvmclone-content"


@dataclass(frozen=True)
class FileState:
    """
    What tells that a file has not changed since it was read.

    :param size: Its length, bytes; ``modified`` nanoseconds since the epoch.
    """

    path: str
    size: int
    modified: int
    inode: int


@dataclass(frozen=True)
class DiskContent:
    """
    What a guest sees on one disk.

    :param size: Bytes that the guest sees.
    :param digest: SHA-256 of what is on it.
    """

    target: str
    format: str
    size: int
    digest: str


@dataclass(frozen=True)
class Content:
    """
    The digest of a base's content, as its metadata has it.

    :param uuid: Uuid of the base; a digest that was copied into another domain is void.
    :param digest: SHA-256 over all of it, hexadecimal.
    :param definition: The same of the normal form of its definition on this host.
    :param files: The files that it was made of: images with their chains, variable store, kernel.
    :param disks: What is on each disk.
    :param others: Digests of the other files that it starts from, by what they are (``nvram``,
        ``kernel`` …).
    """

    uuid: str
    digest: str
    definition: str
    files: tuple[FileState, ...]
    disks: tuple[DiskContent, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BaseState:
    """
    A machine of a host that may be a base.

    :param name: Its name.
    :param digest: That of its content; empty where it was never hashed, or has changed since.
    :param bytes: What its files occupy.
    :param copying: It is being made, or that was interrupted.
    :param marked: Something of ours is recorded with it: it was hashed, or is protected.
    """

    name: str
    digest: str = ""
    bytes: int = 0
    copying: bool = False
    marked: bool = False


@dataclass(frozen=True)
class RemovedBase:
    """
    What the removal of a base deletes, or would delete.

    :param files: Paths of the files.
    :param kept: What stays, a sentence each.
    """

    files: tuple[str, ...]
    kept: tuple[str, ...] = ()


def digest_of(definition: str, disks: Iterable[DiskContent], files: Mapping[str, str] = {}) -> str:
    """
    Return the digest of a base.

    :param definition: Digest of the normal form of its definition.
    :param files: Digests of the other files that it starts from, by what they are (``nvram``,
        ``kernel`` …).
    """
    whole = {
        "definition": definition,
        "disks": sorted([disk.target, disk.format, disk.size, disk.digest] for disk in disks),
        "files": dict(files),
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def to_xml(content: Content) -> str:
    """Return the digest as ``setMetadata`` takes it."""
    root = etree.Element(
        "content", uuid=content.uuid, digest=content.digest, definition=content.definition
    )
    for file in content.files:
        _child(root, "file", file)
    for disk in content.disks:
        _child(root, "disk", disk)
    for what, digest in content.others.items():
        etree.SubElement(root, "other", what=what, digest=digest)
    return etree.tostring(root, encoding="unicode")


def _child(root: etree._Element, tag: str, item: FileState | DiskContent) -> None:
    values = {name: written(str(value)) for name, value in dataclasses.asdict(item).items()}
    etree.SubElement(root, tag, values)


def from_xml(xml: str, uuid: str) -> Content | None:
    """
    Return the digest in the text that ``metadata()`` returned.

    :param uuid: Uuid of the domain it was read from.
    :return: None where it names another domain, or cannot be read: it can be made again.
    """
    try:
        root = libvirt_xml.element(xml)
        found = Content(
            root.get("uuid", ""),
            root.get("digest", ""),
            root.get("definition", ""),
            tuple(from_plain(FileState, _numbers(child)) for child in _all(root, "file")),
            tuple(from_plain(DiskContent, _numbers(child)) for child in _all(root, "disk")),
            {child.get("what", ""): child.get("digest", "") for child in _all(root, "other")},
        )
    except (etree.XMLSyntaxError, LookupError, ValueError):
        return None
    return found if found.uuid == uuid and found.digest else None


def _all(root: etree._Element, tag: str) -> list[etree._Element]:
    return [child for child in root if etree.QName(child).localname == tag]


def _numbers(element: etree._Element) -> dict[str, str | int]:
    """Return the attributes of an element, those that are numbers as such."""
    numbers = ("size", "modified", "inode")
    given = {str(key): str(value) for key, value in element.attrib.items()}
    return {key: int(value) if key in numbers else value for key, value in given.items()}
