"""
Hold the result of rewriting a definition, and help all parts of it. Pure.
"""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from saltext.kvmclone.model import domain_xml, redaction

#: Bytes that a file name, and the path of a unix socket, can have on Linux.
LONGEST_FILE_NAME = 255
LONGEST_SOCKET = 107

#: A socket in a folder that libvirt makes for each machine (``…/domain-1-base/x``).
IN_LIBVIRTS_FOLDER = re.compile(r"/(?:domain-[^/]+|channel/(?:target/)?[^/]+)/[^/]+$")

_UUID = re.compile("[0-9a-f]{32}", re.IGNORECASE)

#: Devices that any number of machines can write.
BOTTOMLESS = ("/dev/null", "/dev/zero", "/dev/full")


@dataclass
class Rewritten:
    """
    The new definition, what changed in it, and every reason for doubt or refusal.

    :param base: Name of the base, ``name`` the clone's: what paths of the clone's own are
        made from, and ``base_uuid``, since oVirt calls files after that.
    :param paths: The clone's own path for each path of the base that a machine writes.
    :param taken: Every path that the base's definition names, and files that stand where the
        clone's would; none is given to the clone.
    :param kept: Paths that stay as they are, by a decision.
    :param settled: Elements that were refused: nothing more is said about them.
    :param devices: What messages call each device that the base has, and ``leave_out`` does.
    """

    xml: str = ""
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    base: str = ""
    name: str = ""
    base_uuid: str = ""
    paths: dict[str, str] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    kept: set[str] = field(default_factory=set)
    settled: set[etree._Element] = field(default_factory=set)
    devices: dict[etree._Element, str] = field(default_factory=dict)

    def change(self, key: str, old: Any, new: Any) -> None:
        """Note a change as ``{key: {old, new}}``; equal values are not a change."""
        if old != new:
            self.changes[key] = {"old": old, "new": new}

    def refuse(
        self, element: etree._Element, reason: str, advice: str = "", command: str = ""
    ) -> None:
        """
        Refuse an element that cannot be in a clone; the same reason is given once.

        :param reason: A sentence without its full stop. How to leave the device out of the clone
            is added where that is possible.
        :param advice: What else can be done, as an order.
        :param command: What to type for that, with the words before it; it ends the message, so
            that it can be pasted.
        """
        self.settled.add(element)
        ways = [advice] if advice else []
        if line := self.way_out(element):
            ways.append(f"{'leave' if advice else 'Leave'} it out of the clone: {line}")
        sentence = ". ".join([reason, ", or ".join(ways)] if ways else [reason]) + "."
        sentence += f" {command}" if command else ""
        if sentence not in self.conflicts:
            self.conflicts.append(sentence)

    def way_out(self, element: etree._Element) -> str:
        """Return the line for the profile that leaves a device out; empty where there is none."""
        for part in (element, *element.iterancestors()):
            if part.tag == "disk":
                return skipped(part)
            if part in self.devices and part.tag not in ("controller", "emulator"):
                return f"leave_out: [{self.devices[part]}]"
        return ""

    def label(self, element: etree._Element) -> str:
        """Return what messages call a device: ``serial 0``."""
        return re.sub(r"(?=[0-9]+$)", " ", self.devices.get(element, str(element.tag)), count=1)

    def warn(self, sentence: str) -> None:
        """Note a warning; the same one is given once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def own(self, path: str) -> str:
        """
        Return the clone's path for one of the base's.

        It is the same for the same path, another for another, and never one that the base itself
        uses or that exists already: a log that is named like the clone is not the clone's.
        """
        if path not in self.paths:
            wanted = path_for(path, self.base, self.name, self.base_uuid)
            stem, extension = os.path.splitext(wanted)
            number = 1
            while wanted in self.taken or wanted in self.paths.values():
                number += 1
                wanted = f"{stem}-{number}{extension}"
            self.paths[path] = wanted
        return self.paths[path]


def written_paths(root: etree._Element) -> frozenset[str]:
    """
    Return every path of a definition that one machine writes, or listens on, apart from its disks.

    These are the paths that :func:`own_path` gives the clone a name of its own for.
    """
    return frozenset(
        path
        for device in root.iterfind("./devices/*")
        if device.tag != "disk"
        for element in device.iter(etree.Element)
        for attribute in ("file", "logFile", "path", "socket")
        if (path := element.get(attribute, "")).startswith("/")
    )


def skipped(disk: etree._Element) -> str:
    """Return the line for the profile that leaves a disk out of the clone."""
    return f"disks: {{{domain_xml.disk_of(disk).target}: {{action: skip}}}}"


def drop(element: etree._Element, attribute: str) -> str | None:
    """Remove an attribute, if it is there, and return what it was."""
    value = element.get(attribute)
    if value is not None:
        del element.attrib[attribute]
    return value


def remove(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


def set_text(root: etree._Element, tag: str, value: str, position: int) -> None:
    element = root.find(tag)
    if element is None:
        element = etree.Element(tag)
        root.insert(position, element)
    element.text = value


def own_path(
    element: etree._Element,
    attribute: str,
    label: str,
    out: Rewritten,
    longest: int = 0,
) -> None:
    """
    Give a path that one machine writes, or listens on, a name of the clone's own.

    :param longest: Bytes that the whole path may have; 0 where only the file name counts.
    """
    old = element.get(attribute)
    if not old:
        return
    real = os.path.normpath(old)
    if real in BOTTOMLESS:
        out.kept.add(old)
        return
    if real.startswith(("/dev/", "/proc/", "/sys/")) and not real.startswith("/dev/shm/"):
        out.refuse(
            element,
            f"{label} uses '{redaction.path(old)}', which only one machine can hold",
        )
        return
    new = out.own(old)
    element.set(attribute, new)
    out.change(f"{label} {attribute}", redaction.path(old), redaction.path(new))
    length = len((new if longest else os.path.basename(new)).encode())
    longest = longest or LONGEST_FILE_NAME
    if length > longest:
        out.refuse(
            element,
            f"{label} would use '{redaction.path(new)}': {length} bytes where {longest} are "
            "possible",
            "Choose a shorter name for the clone",
        )


def mentions(value: str, base: str) -> bool:
    """Return whether a text holds the base's name as a word of its own."""
    return bool(base) and base in value and _word(base).search(value) is not None


def replace_word(text: str, base: str, name: str) -> str:
    """Return a text with the clone's name for the base's, where that is a word of its own."""
    return _word(base).sub(lambda _: name, text) if mentions(text, base) else text


def _word(base: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(base)}(?![A-Za-z0-9])")


def path_for(path: str, base: str, name: str, base_uuid: str = "") -> str:
    """
    Return a path for the clone, made from one of the base's.

    The base's name or uuid in the file name is replaced by the clone's name, and where neither
    occurs that is put in front. The path stays in the same folder and is never the base's own.

    :param path: Absolute path of a file that belongs to the base.
    :param base: Name of the base.
    :param name: Name of the clone.
    :param base_uuid: Uuid of the base; empty for none.
    """
    folder, file = os.path.split(path)
    ours = name.replace("/", "-")
    digits = base_uuid.replace("-", "")
    if _UUID.fullmatch(digits):
        spelled = "-?".join(digits)
        called = re.sub(spelled, lambda _: ours, file, flags=re.IGNORECASE)
        if called not in (file, ".", ".."):
            return os.path.join(folder, called)
    renamed = replace_word(file, base, ours)
    if renamed in (file, ".", ".."):
        renamed = f"{ours}-{file}"
    return os.path.join(folder, renamed)
