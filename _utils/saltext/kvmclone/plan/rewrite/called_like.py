"""
Warn of what the clone has and is called like its base: files, drives, words to the guest. Pure.

Each warning says what to do. Where a base is called like a distribution or anything else that is
found everywhere, its name proves nothing, and nothing is said.
"""

from __future__ import annotations

import os.path
import re

from lxml import etree

from saltext.kvmclone.model import domain_xml, libvirt_xml, redaction
from saltext.kvmclone.plan.rewrite.base_marks import (
    SEEN_OF_A_NUMBER,
    SHORTEST_NUMBER,
    Marks,
    bare,
    marked,
    number_in,
)
from saltext.kvmclone.plan.rewrite.common_names import is_common
from saltext.kvmclone.plan.rewrite.result import Rewritten, mentions, replace_word

#: Names of things of the host that are not paths and may have been made for one machine.
_NAMES_OF_THE_HOST = {
    "devices/interface/filterref@filter": "name another in the base's definition",
    "devices/interface/source@bridge": "name another: networks: [{bridge: …}]",
}

#: Words of a kernel's command line: a fixed address (dracut, the kernel itself), a name, an id.
_OF_ONE_GUEST = re.compile(
    r"ip=(?:[0-9]+\.[0-9.]+|\[[0-9a-f:]+\]):|systemd\.(?:machine_id|hostname)=|hostname=",
    re.IGNORECASE,
)

#: Words of a kernel's command line that find a disk: a volume group is often named after the
#: machine that it was made on, and the clone has it under that name.
_OF_A_DISK = re.compile(
    r"(?:root|resume|rootflags|cryptdevice|BOOT_IMAGE|initrd|boot|ostree|rd\.(?:lvm|luks|md|dm)"
    r"[\w.]*|systemd\.[\w.]*device[\w.]*)=|(?:[\w.]+=)?(?:/dev/|(?:PART)?(?:LABEL|UUID)=)"
)

#: What people call a medium that configures one machine, beside the name of that machine.
_SEED_WORDS = {
    "answer", "answers", "autounattend", "ci", "cidata", "cloud", "cloudinit", "conf", "config",
    "configdrive", "context", "data", "drive", "ign", "ignition", "init", "kickstart", "ks", "meta",
    "metadata", "nocloud", "oemdrv", "preseed", "seed", "setup", "unattend", "user", "userdata",
    "vendor",
}  # fmt: skip

_MEDIUM = (
    "'{told}' in <{place}> is named like the base, and the clone uses it, too. If it was made for "
    "the base (a cloud-init seed, say), the clone takes itself for the base: leave it out with "
    "disks: {{{target}: {{action: skip}}}}."
)


def drive(element: etree._Element, word: str, value: str, base: Marks, out: Rewritten) -> None:
    """Warn of a drive that tells the clone's guest who the base is."""
    part = bare(value)[:SEEN_OF_A_NUMBER]
    of_uuid = len(part) >= SHORTEST_NUMBER and any(uuid.startswith(part) for uuid in base.uuids)
    named = mentions(value, base.name) and not is_common(base.name)
    if not (of_uuid or named or marked(value, base)) or value in out.kept:
        return
    disk = disk_above(element)
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


def place_or_name(
    element: etree._Element,
    place: str,
    value: str,
    base: Marks,
    folders: dict[str, list[str]],
    out: Rewritten,
) -> None:
    """
    Warn of a file, bridge or filter that is named like the base, and may be its own.

    :param folders: Takes files that are in a folder of the base's; see :func:`in_folders`.
    """
    if is_common(base.name) and not _is_medium(element):
        return
    if any(f"'{value}'" in warning for warning in out.warnings):
        return
    told = redaction.shown(element, place, value)
    folder, _, file = value.rpartition("/") if told == value else (told, "", told)
    if value in out.paths.values() or place in ("os/nvram", "os/nvram/source@file"):
        _in_its_folder(folder, file, base, folders)
    elif value.startswith("/") and not value.startswith(("/usr/", "/dev/")):
        disk = disk_above(element)
        if disk and not (disk.readonly or disk.shareable or disk.device == "cdrom"):
            return  # it is reported as refused
        if not mentions(file, base.name):
            _in_its_folder(folder, file, base, folders)
        elif disk is None:
            out.warn(
                f"'{told}' in <{place}> is named like the base, and the clone uses it, too. Keep "
                "it as long as the clone is there; if it is for one machine, name another in the "
                "base's definition."
            )
        elif _is_for_one(file, base.name):
            out.warn(_MEDIUM.format(told=told, place=place, target=disk.target))
    elif place in _NAMES_OF_THE_HOST:
        out.warn(
            f"'{told}' in <{place}> is named like the base, and the clone uses it, too. If it is "
            f"for one machine, {_NAMES_OF_THE_HOST[place]}."
        )


def _is_medium(element: etree._Element) -> bool:
    return disk_above(element) is not None


def _is_for_one(file: str, name: str) -> bool:
    """Return whether a medium's name is a machine's, but for words such as ``seed``."""
    stem, extension = os.path.splitext(file)
    rest = re.findall("[A-Za-z0-9]+", replace_word(stem if extension else file, name, " "))
    words = [word.lower() for word in rest if not word.isdigit()]
    return all(word in _SEED_WORDS for word in words) and (bool(words) or not is_common(name))


def _in_its_folder(folder: str, file: str, base: Marks, folders: dict[str, list[str]]) -> None:
    if not is_common(base.name) and mentions(folder, base.name):
        folders.setdefault(folder, []).append(file)


def in_folders(folders: dict[str, list[str]], out: Rewritten) -> None:
    """Warn once for each folder of the base's that the clone has files in."""
    for folder, files in folders.items():
        out.warn(
            f"'{folder}' is named after the base, and the clone has files there, too "
            f"({', '.join(dict.fromkeys(files))}): keep it as long as the clone is there."
        )


def words(root: etree._Element, base: Marks, out: Rewritten) -> None:
    """Warn of what still tells the guest that it is the base."""
    cmdline = libvirt_xml.text(root, "./os/cmdline")
    spoken = cmdline.split()
    for word in spoken:
        found = _OF_ONE_GUEST.match(word)
        if found and not (mentions(word, base.name) or mentions(word, out.name)):
            out.warn(
                f"<cmdline> tells the guest '{found[0]}…', as the base's does: only one machine "
                "can have that. Change it in the base."
            )
    said = " ".join(word for word in spoken if not _OF_A_DISK.match(word))
    _said("<cmdline>", said, cmdline, base, out)
    for section in root.findall("./sysinfo/*"):
        for entry in (section, *section.findall("entry")):
            name = redaction.shown(entry, "sysinfo/entry@name", entry.get("name", ""))
            above = "" if section is entry else f"{section.tag} "
            text = (entry.text or "").strip()
            _said(f"<sysinfo> {above}{name}".rstrip(), text, text, base, out)


def _said(where: str, said: str, whole: str, base: Marks, out: Rewritten) -> None:
    """
    Warn of one text that the guest reads.

    :param said: The text without names of disks, ``whole`` with them.
    """
    if mentions(said, base.name) and not is_common(base.name):
        out.warn(
            f"{where} still says '{base.name}' to the guest. If the guest goes by it (a name, the "
            "address of its configuration), change it in the base's definition."
        )
    if number_in(whole, base):
        out.warn(
            f"{where} tells the guest of a serial number of the base that the clone does not have. "
            "If the guest goes by it, change it in the base's definition."
        )


def disk_above(element: etree._Element) -> domain_xml.Disk | None:
    """Return the disk that an element is a part of; None where it is part of none."""
    for above in (element, *element.iterancestors()):
        if above.tag == "disk":
            return domain_xml.disk_of(above)
    return None
