"""
Check the finished definition for what is still the base's. Pure.

The other modules of this folder have rewritten it, and this one trusts none of them. What still
names the base, or a path of the host that nobody decided about, is a reason to refuse.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from lxml import etree

from saltext.kvmclone.model import domain_xml, libvirt_xml, redaction
from saltext.kvmclone.plan.rewrite.result import Rewritten, mentions, remove

#: Places whose path every machine may read, or that the guest sees and the host does not.
_READ_BY_ALL = {
    "blkiotune/device/path", "devices/emulator", "devices/filesystem/binary@path",
    "devices/filesystem/target@dir", "devices/graphics/gl@rendernode", "devices/graphics@xauth",
    "devices/rng/backend", "devices/video/model/acceleration@rendernode", "os/acpi/table",
    "os/dtb", "os/initrd", "os/kernel", "os/loader", "os/nvram@template", "os/shim",
    "resource/partition", "sysinfo/entry@file",
}  # fmt: skip

#: Words for people and programs, which are not paths of the host.
_WORDS = {"cmdline", "description", "entry", "initarg", "initenv", "name", "bootloader_args"}

#: Places whose text the guest reads, and that may hold the base's name as a word.
_SPOKEN_TO_THE_GUEST = ("./os/cmdline", "./sysinfo//entry")

#: Names of things of the host that are not paths and may have been made for one machine.
_NAMES_OF_THE_HOST = ("devices/interface/filterref@filter", "devices/interface/source@bridge")

#: Words of a kernel's command line: a fixed address (dracut, the kernel itself), a name, an id.
_OF_ONE_GUEST = re.compile(
    r"ip=(?:[0-9]+\.[0-9.]+|\[[0-9a-f:]+\]):|systemd\.(?:machine_id|hostname)=|hostname=",
    re.IGNORECASE,
)

#: Folders of every host: where a base is named like one, that name in a path means nothing.
_COMMON_FOLDERS = {
    "boot", "data", "domains", "home", "images", "iso", "isos", "lib", "libvirt", "log", "mnt",
    "nvram", "opt", "pool", "qemu", "root", "run", "srv", "tmp", "usr", "var", "vm", "vms",
}  # fmt: skip

#: Attributes with more uuids of the base: those by which a switch knows its ports.
_PORTS = ("interfaceid", "instanceid", "portid")

#: Where the serial numbers of a machine stand. Those of drives stay, unless the clone does not have
#: the drive or gets another number; those of the board do not.
_NUMBERS = (
    "./devices/disk/serial", "./devices/disk/wwn", "./devices/controller/serial",
    "./sysinfo//entry[@name='serial']", "./sysinfo//entry[@name='asset']",
)  # fmt: skip

#: What a guest knows a drive by (``/dev/disk/by-id``); QEMU tells it the alias of a SCSI disk that
#: has neither serial number nor wwn. These need to be unique inside one machine only.
_OF_A_DRIVE = {
    "devices/disk/serial": "serial number", "devices/disk/wwn": "wwn",
    "devices/disk/vendor": "vendor", "devices/disk/product": "product",
    "devices/disk/alias@name": "alias", "devices/controller/serial": "serial number",
}  # fmt: skip

#: Characters of a serial number; a shorter one is found anywhere by chance.
_SHORTEST_NUMBER = 6

#: Characters that a virtio drive tells its guest, and ``/dev/disk/by-id`` holds.
_SEEN_OF_A_NUMBER = 20

#: Twelve hexadecimal digits in pairs, however a MAC address is written; they may overlap.
_MAC = re.compile(r"(?=((?:[0-9a-f]{2}[:.-]?){5}[0-9a-f]{2}))", re.IGNORECASE)

#: Characters of a MAC address without separators; a uuid is longer.
_SHORTEST_MAC = 12

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


def marks_of(root: etree._Element, gone: frozenset[str]) -> Marks:
    """
    Return the marks of a base, taken before it is rewritten.

    :param gone: Targets of the disks that the clone has otherwise, or not at all.
    """
    facts = domain_xml.facts(root)
    spelled = [root.findtext(tag) or "" for tag in ("uuid", "genid", "hwuuid")]
    for element in root.iterfind("./devices/interface//*"):
        spelled += [element.get(attribute, "") for attribute in _PORTS]
    uuids = dict.fromkeys(map(_bare, spelled))
    return Marks(
        name=facts.name,
        uuids=tuple(uuid for uuid in uuids if re.fullmatch(r"(?!0{32})[0-9a-f]{32}", uuid)),
        macs=frozenset(_bare(card.mac) for card in facts.interfaces if card.mac),
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
            if len(number) >= _SHORTEST_NUMBER and not same_disk:
                yield number


def paths_of(root: etree._Element) -> frozenset[str]:
    """Return every path that a definition names."""
    return frozenset(
        value
        for element in root.iter(etree.Element)
        for value in map(str.strip, (element.text or "", *map(str, element.attrib.values())))
        if value.startswith("/")
    )


def forget(root: etree._Element, base: Marks, out: Rewritten) -> None:
    """Remove aliases, and metadata of other tools, that name the base and no other machine."""
    partners = {element.get("persistent") for element in root.iterfind("./devices/*/teaming")}
    for alias in root.findall("./devices/*/alias"):
        name = alias.get("name", "")
        above = alias.getparent()
        if above is not None and above.tag == "disk":
            continue  # a guest may know it by that
        if (_number_in(name, base) or _marked(name, base)) and name not in partners:
            out.change(f"alias {name}", name, None)
            remove(alias)
    for element in root.findall("./metadata/*"):
        if any(
            _marked(value, base) or value == base.name or _number_in(value, base)
            for _, _, value in _values(element)
        ):
            out.warn(
                f"Metadata of '{redaction.namespace(element)}' names the base itself and is "
                "left out."
            )
            remove(element)
        elif any(mentions(value, base.name) for _, _, value in _values(element)):
            out.warn(
                f"Metadata of '{redaction.namespace(element)}' mentions '{base.name}', and is kept."
            )


def remains(root: etree._Element, base: Marks, new_paths: frozenset[str], out: Rewritten) -> None:
    """
    Refuse what still names the base, and paths of the host that nobody decided about.

    :param new_paths: Paths of the clone's disks, which the plan has chosen.
    """
    decided = new_paths | set(out.paths.values()) | out.kept
    olden = {new: old for old, new in out.paths.items()}
    for element, place, value in _values(root):
        if place.startswith(("metadata", "description")):
            continue
        if out.settled and _is_settled(element, out):
            continue
        if place in _OF_A_DRIVE:
            _drive_called_like(element, _OF_A_DRIVE[place], value, base, out)
            continue
        mark = _marked(value, base)
        # A shared disk that the base has under another target, too, is refused by disk_overlaps.
        shared = value in base.paths and place.startswith("devices/disk/source")
        if mark and not shared and value not in new_paths:
            disk = _disk_above(element)
            told = redaction.shown(element, place, olden.get(value, value))
            out.conflicts.append(
                f"'{told}' in <{place}> holds {mark} of the base, which the clone cannot have; "
                "change or remove it there first"
                + (f", or leave it out: disks: {{{disk.target}: {{action: skip}}}}" if disk else "")
                + "."
            )
        elif (
            value.startswith("/")
            and value not in decided
            and place not in _READ_BY_ALL
            and not place.startswith(("devices/disk", "devices/interface", "os/nvram"))
            and place.partition("@")[0].rpartition("/")[2] not in _WORDS
        ):
            told = redaction.shown(element, place, value)
            out.conflicts.append(
                f"'{told}' in <{place}> is a path of the host that this version does not know; "
                "remove it from the base first."
            )
        elif mentions(value, base.name) and value not in new_paths:
            _called_like(element, place, value, base, out)
    _fixed_words(libvirt_xml.text(root, "./os/cmdline"), base, out)
    _told_to_the_guest(root, base, out)


def _told_to_the_guest(root: etree._Element, base: Marks, out: Rewritten) -> None:
    """Warn of what still tells the guest that it is the base."""
    for path in _SPOKEN_TO_THE_GUEST:
        for element in root.findall(path):
            if mentions(element.text or "", base.name):
                out.warn(f"<{element.tag}> still says '{base.name}' to the guest.")
            if _number_in(element.text or "", base):
                out.warn(
                    f"<{element.tag}> tells the guest of a serial number of the base that the "
                    "clone does not have."
                )


def _drive_called_like(
    element: etree._Element, word: str, value: str, base: Marks, out: Rewritten
) -> None:
    """Warn of a drive that tells the clone's guest who the base is."""
    part = _bare(value)[:_SEEN_OF_A_NUMBER]
    of_uuid = len(part) >= _SHORTEST_NUMBER and any(uuid.startswith(part) for uuid in base.uuids)
    names = of_uuid or _marked(value, base) or mentions(value, base.name)
    if not names or value in out.kept:
        return
    disk = _disk_above(element)
    if disk and disk.shareable:
        return
    where = f"disk {disk.target}" if disk else "a controller"
    cure = (
        f": disks: {{{disk.target}: {{{element.tag}: …}}}}"
        if disk and element.tag in ("serial", "wwn")
        else " in the base"
    )
    out.warn(
        f"The {word} '{value}' of {where} names the base. The clone keeps it, since its guest may "
        f"look for the disk by it; if it does not, change it{cure}."
    )


def _fixed_words(cmdline: str, base: Marks, out: Rewritten) -> None:
    """Warn of words on the kernel's command line that only one machine can have."""
    for word in cmdline.split():
        found = _OF_ONE_GUEST.match(word)
        if found and not mentions(word, base.name):
            out.warn(
                f"<cmdline> tells the guest '{found[0]}…', as the base's does: only one machine "
                "can have that. Change it in the base."
            )


def _called_like(
    element: etree._Element, place: str, value: str, base: Marks, out: Rewritten
) -> None:
    """Warn of a file, folder or filter that is named like the base and may be the base's alone."""
    if any(f"'{value}'" in warning for warning in out.warnings):
        return
    folder, _, file = value.rpartition("/")
    told = redaction.shown(element, place, value)
    if value in out.paths.values() or place in ("os/nvram", "os/nvram/source@file"):
        if base.name not in _COMMON_FOLDERS and mentions(folder, base.name):
            out.warn(
                f"'{told}' of the clone is in a folder named after the base; it must "
                "not go with it."
            )
    elif value.startswith("/") and not value.startswith(("/usr/", "/dev/")):
        if base.name in _COMMON_FOLDERS and not mentions(file, base.name):
            return
        disk = _disk_above(element)
        if disk and not (disk.readonly or disk.shareable or disk.device == "cdrom"):
            return  # it is reported as refused
        out.warn(
            f"'{told}' in <{place}> is named like the base, and the clone uses it, too."
            + (
                " If it was made for the base (a cloud-init seed, say), the clone takes itself for "
                f"the base: leave it out with disks: {{{disk.target}: {{action: skip}}}}."
                if disk
                else ""
            )
        )
    elif place in _NAMES_OF_THE_HOST:
        out.warn(f"'{told}' in <{place}> is named like the base, and the clone uses it, too.")


def _disk_above(element: etree._Element) -> domain_xml.Disk | None:
    """Return the disk that an element is a part of; None where it is part of none."""
    for above in (element, *element.iterancestors()):
        if above.tag == "disk":
            return domain_xml.disk_of(above)
    return None


def _number_in(text: str, base: Marks) -> str:
    """Return the base's serial number that a text holds, as far as a guest sees it of a drive."""
    return next((one for one in base.numbers if one[:_SEEN_OF_A_NUMBER] in text), "")


def _is_settled(element: etree._Element, out: Rewritten) -> bool:
    return element in out.settled or any(above in out.settled for above in element.iterancestors())


def _marked(value: str, base: Marks) -> str:
    """Say in words which mark of the base a value holds; empty for none."""
    # Most values of a definition are too short to hold one.
    if len(value) >= _SHORTEST_MAC:
        bare = _bare(value)
        if any(uuid in bare for uuid in base.uuids):
            return "a uuid"
        if base.macs and any(_bare(found[1]) in base.macs for found in _MAC.finditer(value)):
            return "a MAC address"
    if "/" in value:
        if _named_in(value, base.paths):
            return "a disk"
        if _named_in(value, base.files):
            return "a file"
    return ""


def _named_in(value: str, paths: frozenset[str]) -> bool:
    """Return whether a text is one of the paths, or holds one as a word."""
    return value in paths or any(word.rstrip(".:)]}") in paths for word in _PATHS.findall(value))


def _bare(text: str) -> str:
    return re.sub("[:.-]", "", text.strip().lower())


def _values(root: etree._Element) -> Iterator[tuple[etree._Element, str, str]]:
    """Yield every text and attribute: its element, its place (``devices/disk@type``), its value."""
    todo = deque([(root, "")])
    while todo:
        element, place = todo.popleft()
        if (element.text or "").strip():
            yield element, place, (element.text or "").strip()
        for attribute, value in element.attrib.items():
            yield element, f"{place}@{attribute!s}", str(value).strip()
        prefix = f"{place}/" if place else ""
        todo.extend(
            (child, f"{prefix}{child.tag}") for child in element.iterchildren(etree.Element)
        )
