"""
Check the finished definition for what is still the base's. Pure.

The other modules of this folder have rewritten it, and this one trusts none of them. What still
names the base, or a path of the host that nobody decided about, is a reason to refuse.
"""

from __future__ import annotations

from lxml import etree

from saltext.kvmclone.model import redaction
from saltext.kvmclone.plan.rewrite import called_like, metadata
from saltext.kvmclone.plan.rewrite.base_marks import Marks, is_plain, marked, number_in, values
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

#: What a guest knows a drive by (``/dev/disk/by-id``); QEMU tells it the alias of a SCSI disk that
#: has neither serial number nor wwn. These need to be unique inside one machine only.
_OF_A_DRIVE = {
    "devices/disk/serial": "serial number", "devices/disk/wwn": "wwn",
    "devices/disk/vendor": "vendor", "devices/disk/product": "product",
    "devices/disk/alias@name": "alias", "devices/controller/serial": "serial number",
}  # fmt: skip


def paths_of(root: etree._Element) -> frozenset[str]:
    """Return every path that a definition names."""
    return frozenset(
        value.strip()
        for element in root.iter(etree.Element)
        for value in map(str, (element.text or "", *element.values()))
        if "/" in value and value.strip().startswith("/")
    )


def check(root: etree._Element, base: Marks, new_paths: frozenset[str], out: Rewritten) -> None:
    """
    Check the finished definition of a clone for what is still the base's.

    :param base: The marks of the base, from before it was rewritten.
    :param new_paths: Paths of the clone's disks, which the plan has chosen.
    """
    base = base.with_files(frozenset(out.paths)).without_numbers(root)
    metadata.rewrite_metadata(root, base, out)
    forget(root, base, out)
    remains(root, base, new_paths, out)


def forget(root: etree._Element, base: Marks, out: Rewritten) -> None:
    """Remove aliases that name the base and no other machine."""
    partners = {element.get("persistent") for element in root.iterfind("./devices/*/teaming")}
    for alias in root.findall("./devices/*/alias"):
        name = alias.get("name", "")
        above = alias.getparent()
        if above is not None and above.tag == "disk":
            continue  # a guest may know it by that
        if (number_in(name, base) or marked(name, base)) and name not in partners:
            out.change(f"alias {name}", name, None)
            remove(alias)


def remains(root: etree._Element, base: Marks, new_paths: frozenset[str], out: Rewritten) -> None:
    """
    Refuse what still names the base, and paths of the host that nobody decided about.

    :param new_paths: Paths of the clone's disks, which the plan has chosen.
    """
    decided = new_paths | set(out.paths.values()) | out.kept
    folders: dict[str, list[str]] = {}
    olden = {new: old for old, new in out.paths.items()}
    for element, place, value in values(root):
        number = _OF_A_DRIVE.get(place)
        if number is None and is_plain(value, base):
            continue
        if place.startswith(("metadata", "description")):
            continue
        if out.settled and _is_settled(element, out):
            continue
        if number is not None:
            called_like.drive(element, number, value, base, out)
            continue
        words = place.partition("@")[0].rpartition("/")[2] in _WORDS
        mark = marked(value, base)
        # A shared disk that the base has under another target, too, is refused by disk_overlaps.
        shared = value in base.paths and place.startswith("devices/disk/source")
        if mark and not shared and value not in new_paths:
            told = redaction.shown(element, place, olden.get(value, value))
            line = out.way_out(element)
            out.conflicts.append(
                f"'{told}' in <{place}> holds {mark} of the base, which the clone cannot have; "
                f"change or remove it there first{line and f', or leave it out: {line}'}."
            )
        elif (
            value.startswith("/")
            and value not in decided
            and place not in _READ_BY_ALL
            and not place.startswith(("devices/disk", "devices/interface", "os/nvram"))
            and not words
        ):
            told = redaction.shown(element, place, value)
            out.refuse(
                element,
                f"'{told}' in <{place}> is a path of the host that this version does not know",
            )
        elif mentions(value, base.name) and value not in new_paths and not words:
            called_like.place_or_name(element, place, value, base, folders, out)
    called_like.in_folders(folders, out)
    called_like.words(root, base, out)


def _is_settled(element: etree._Element, out: Rewritten) -> bool:
    return element in out.settled or any(above in out.settled for above in element.iterancestors())
