"""
Know what a base is recognised by: its name, uuids, addresses, numbers and files. Pure.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace

from lxml import etree

from saltext.kvmclone.model.domain_xml import Domain
from saltext.kvmclone.plan.rewrite.guest_words import names_one_machine

#: Attributes with more uuids of the base: those by which a switch knows its ports.
_PORTS = ("interfaceid", "instanceid", "portid")

#: Where the serial numbers of a machine stand. Those of drives stay, unless the clone does not have
#: the drive or gets another number; those of the board do not.
_NUMBERS = (
    "./devices/disk/serial", "./devices/disk/wwn", "./devices/controller/serial",
    "./sysinfo//entry[@name='serial']", "./sysinfo//entry[@name='asset']",
)  # fmt: skip

#: Characters of a serial number; a shorter one is found anywhere by chance.
SHORTEST_NUMBER = 6

#: Characters that a virtio drive tells its guest, and ``/dev/disk/by-id`` holds.
SEEN_OF_A_NUMBER = 20

#: Twelve hexadecimal digits in pairs, however a MAC address is written; they may overlap.
_MAC = re.compile(r"(?=((?:[0-9a-f]{2}[:.-]?){5}[0-9a-f]{2}))", re.IGNORECASE)

#: Characters of a uuid and of a MAC address without separators.
_SHORTEST_UUID = 32
_SHORTEST_MAC = 12

#: What separates the parts of a uuid or an address.
_SEPARATORS = re.compile("[:.-]")

#: Paths inside a text.
_PATHS = re.compile(r"/[^\s'\"<>,;=]*")


@dataclass(frozen=True)
class Marks:
    """
    The marks by which a base is recognised.

    :param uuids: Without hyphens, in lower case; ``macs`` without colons likewise.
    :param paths: Disks that the clone does not have.
    :param numbers: Serial numbers of the board and of drives, long enough to be found again.
    :param files: Other paths that it writes, or listens on, and the clone does not have.
    """

    name: str
    uuids: tuple[str, ...]
    macs: frozenset[str]
    paths: frozenset[str]
    numbers: tuple[str, ...]
    files: frozenset[str] = frozenset()

    def with_files(self, more: frozenset[str]) -> Marks:
        """Return these marks with more paths that the base writes, and the clone does not."""
        return replace(self, files=self.files | more)

    def without_numbers(self, root: etree._Element) -> Marks:
        """
        Return these marks without the serial numbers that a clone keeps.

        :param root: The clone's definition.
        """
        kept = set(_numbers(root))
        return replace(self, numbers=tuple(one for one in self.numbers if one not in kept))


def marks_of(root: etree._Element, facts: Domain, gone: Set[str]) -> Marks:
    """
    Return the marks of a base, taken before it is rewritten.

    :param facts: Those of the same definition.
    :param gone: Targets of the disks that the clone has otherwise, or not at all.
    """
    spelled = [root.findtext(tag) or "" for tag in ("uuid", "genid", "hwuuid")]
    for element in root.iterfind("./devices/interface//*"):
        spelled += [element.get(attribute, "") for attribute in _PORTS]
    uuids = dict.fromkeys(map(bare, spelled))
    return Marks(
        name=facts.name,
        uuids=tuple(uuid for uuid in uuids if re.fullmatch(r"(?!0{32})[0-9a-f]{32}", uuid)),
        macs=frozenset(bare(card.mac) for card in facts.interfaces if card.mac),
        paths=frozenset(disk.path for disk in facts.disks if disk.path and disk.target in gone),
        numbers=tuple(dict.fromkeys(_numbers(root))),
        files=frozenset([facts.nvram.path] if facts.nvram and facts.nvram.path else []),
    )


def _numbers(root: etree._Element) -> Iterator[str]:
    for place in _NUMBERS:
        for element in root.findall(place):
            drive = element.getparent()
            number = (element.text or "").strip()
            same_disk = drive is not None and drive.find("shareable") is not None
            if len(number) < SHORTEST_NUMBER or same_disk:
                continue
            if element.tag != "entry" or names_one_machine(number):
                yield number


def number_in(text: str, base: Marks) -> str:
    """Return the base's serial number that a text holds, as far as a guest sees it of a drive."""
    return next((one for one in base.numbers if one[:SEEN_OF_A_NUMBER] in text), "")


def is_plain(value: str, base: Marks) -> bool:
    """Return True for a value that can hold no mark, path or name of the base: most of them."""
    return len(value) < _SHORTEST_MAC and "/" not in value and base.name not in value


def marked(value: str, base: Marks) -> str:
    """Say in words which mark of the base a value holds; empty for none."""
    if len(value) >= _SHORTEST_UUID:
        plain = bare(value)
        if any(uuid in plain for uuid in base.uuids):
            return "a uuid"
    addresses = _MAC.finditer(value) if base.macs and len(value) >= _SHORTEST_MAC else ()
    if any(bare(found[1]) in base.macs for found in addresses):
        return "a MAC address"
    if "/" in value:
        words = {value, *(word.rstrip(".:)]}") for word in _PATHS.findall(value))}
        if words & base.paths:
            return "a disk"
        if words & base.files:
            return "a file"
    return ""


def bare(text: str) -> str:
    """Return a uuid or an address without what separates its parts, in lower case."""
    return _SEPARATORS.sub("", text.strip().lower())


def values(root: etree._Element) -> Iterator[tuple[etree._Element, str, str]]:
    """Yield every text and attribute: its element, its place (``devices/disk@type``), its value."""
    todo = deque([(root, "")])
    while todo:
        element, place = todo.popleft()
        if text := (element.text or "").strip():
            yield element, place, text
        for attribute, value in element.items():
            yield element, f"{place}@{attribute!s}", str(value).strip()
        if len(element):
            prefix = f"{place}/" if place else ""
            todo.extend(
                (child, f"{prefix}{child.tag}") for child in element.iterchildren(etree.Element)
            )
