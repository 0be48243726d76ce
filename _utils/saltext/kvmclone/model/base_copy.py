"""
Define what travels between two hosts, by way of the master, while one copies a base.

Pure. The files themselves go from host to host by ssh; no key and no definition is in here. What
the source must take back afterwards stands in the ``<metadata>`` of its base.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.record_xml import written

#: Namespace of the copies under way, in the metadata of the base that is copied.
NAMESPACE = "urn:saltext:kvmclone:copies:1"
PREFIX = "kvmclone-copies"

#: The names under which a source offers what is no disk.
DEFINITION, NVRAM = "definition", "nvram"

#: An id: it is part of paths on both hosts, so nothing else is taken for one.
_ID = re.compile("[0-9a-f]{16}")

#: What an offer may say: it becomes part of paths, and of the words of commands, at the target.
_FILE, _USER = re.compile("[a-z0-9]+"), re.compile("[A-Za-z_][A-Za-z0-9_.-]*")
_HOST_KEY = re.compile("[a-z0-9@.-]+ [A-Za-z0-9+/]+=*")

#: The formats of disks that are copied.
_FORMATS = ("qcow2", "raw")

#: Longest name of a base, in characters: with what is added to it, it is the name of a file.
_LONGEST_BASE = 200


@dataclass(frozen=True)
class OfferedFile:
    """
    A file of a base that another host may fetch.

    :param name: The disk's target (``vda``), or :data:`NVRAM`.
    :param format: Of the image.
    :param size: Bytes that the guest sees; ``digest`` is the SHA-256 of that.
    :param length: Length of the file, bytes; ``allocation`` what it occupies.
    :param pool: Storage pool that it is in; empty for none.
    :param folder: Its folder.
    """

    name: str
    format: str
    size: int
    digest: str
    length: int
    allocation: int
    pool: str
    folder: str


@dataclass(frozen=True)
class Relay:
    """
    The ssh server that a target goes through to one that it does not reach: the master's.

    :param user: Whom to log in as; ``port`` where, ``addresses`` at.
    :param host_keys: Its host keys, ``TYPE BASE64``.
    """

    user: str
    port: int
    addresses: tuple[str, ...]
    host_keys: tuple[str, ...]


@dataclass(frozen=True)
class BaseOffer:
    """
    A base that a host offers to another.

    :param copy: The id of this copy.
    :param base: Its name.
    :param digest: Digest of its content, see :mod:`.base_content`.
    :param files: What is fetched, besides the definition.
    :param needs: Digests of files that the target must have already, by path: a kernel.
    :param user: Whom to log in as; ``port`` where, ``addresses`` at.
    :param host_keys: The source's ssh host keys, as lines of ``known_hosts`` without the name.
    :param relay: What leads there; None where the target reaches the source itself.
    """

    copy: str
    base: str
    digest: str
    files: tuple[OfferedFile, ...]
    needs: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    port: int = 22
    addresses: tuple[str, ...] = ()
    host_keys: tuple[str, ...] = ()
    relay: Relay | None = None


@dataclass(frozen=True)
class CopyKey:
    """
    The key that a target made for one copy.

    :param public: Its public half, ``TYPE BASE64``.
    :param addresses: Those from which the target may come.
    """

    public: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Offered:
    """
    A copy under way, as the metadata of its base at the source has it.

    :param copy: Its id.
    :param keys: The file that the key was let into; empty as long as it was not.
    :param staged: Files that were made for this copy alone.
    """

    copy: str
    keys: str = ""
    staged: tuple[str, ...] = ()


def is_id(text: str) -> bool:
    """Return whether a text is the id of a copy."""
    return _ID.fullmatch(text) is not None


def faults(offer: BaseOffer) -> Iterator[str]:
    """
    Yield what is wrong with an offer, which is another host's word and must not lead astray here.

    Any name that libvirt takes is one of a base; what a clone may be called is narrower.
    """
    if not is_id(offer.copy):
        yield f"{offer.copy[:60]!r} is not the id of a copy"
    base = offer.base
    if not base or "/" in base or not base.isprintable() or len(base) > _LONGEST_BASE:
        yield f"{base[:60]!r} is no name of a base"
    names = [file.name for file in offer.files]
    for file in offer.files:
        if not _FILE.fullmatch(file.name) or file.name == DEFINITION or names.count(file.name) > 1:
            yield f"{file.name[:60]!r} is no name of a disk, or of several"
        if file.format not in (("",) if file.name == NVRAM else _FORMATS):
            yield f"{file.format[:60]!r} is no format of a disk that is copied"
    for server in (offer, offer.relay):
        if server is not None:
            yield from _faults_of_server(server)


def _faults_of_server(server: BaseOffer | Relay) -> Iterator[str]:
    """Yield what is wrong with what is said of an ssh server."""
    if not _USER.fullmatch(server.user) or not 0 < server.port < 2**16:
        yield "nobody logs in as that user, or at that port"
    if not all(map(_is_address, server.addresses)):
        yield "one of its addresses is none"
    if not all(map(_HOST_KEY.fullmatch, server.host_keys)):
        yield "one of its host keys is none"


def _is_address(text: str) -> bool:
    try:
        one = ipaddress.ip_address(text)
    except ValueError:
        return False
    # A master that leads there would open its own services.
    own = one.is_loopback or one.is_unspecified or one.is_multicast
    plain = text == str(one) and getattr(one, "ipv4_mapped", None) is None
    return plain and not own and "%" not in text  # Python takes anything behind it


def to_xml(uuid: str, copies: tuple[Offered, ...]) -> str:
    """
    Return the copies under way as ``setMetadata`` takes them.

    :param uuid: Uuid of the base.
    """
    root = etree.Element("copies", uuid=uuid)
    for one in copies:
        child = etree.SubElement(root, "copy", id=one.copy, keys=written(one.keys))
        for path in one.staged:
            etree.SubElement(child, "file", path=written(path))
    return etree.tostring(root, encoding="unicode")


def from_xml(xml: str, uuid: str) -> tuple[Offered, ...]:
    """
    Return the copies under way in the text that ``metadata()`` returned.

    :param uuid: Uuid of the domain it was read from; what names another does not count.
    """
    root = libvirt_xml.element(xml)
    if root.get("uuid") != uuid:
        return ()
    return tuple(
        Offered(
            child.get("id", ""),
            child.get("keys", ""),
            tuple(file.get("path", "") for file in child),
        )
        for child in root
        if is_id(child.get("id", ""))
    )
