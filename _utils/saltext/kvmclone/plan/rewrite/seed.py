"""
Replace the base's cloud-init seed, in a drive or on the kernel's command line. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.plan.rewrite.disks import source_of
from saltext.kvmclone.plan.rewrite.result import Rewritten, remove

#: Words of a kernel's command line that name a seed, or are one.
_WORDS = re.compile(
    r"(?:^|(?<=\s))(?:ds=nocloud\S*|ci\.ds=\S*|cloud-config-url=\S*|cc:.*?(?:end_cc\b|$))\s*",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class SeedChange:
    """
    The changes to cloud-init seeds.

    :param emptied: Targets of drives whose medium is one of the base's.
    :param words: The kernel's command line keeps what it says of a seed.
    :param target: Target of the disk with the clone's own seed, empty for none; ``bus`` its bus,
        ``path`` its file.
    """

    emptied: frozenset[str] = frozenset()
    words: bool = True
    target: str = ""
    bus: str = ""
    path: str = ""


def rewrite_seed(root: etree._Element, change: SeedChange, out: Rewritten) -> None:
    """Remove the base's cloud-init seeds, and add the disk with the clone's own."""
    for element in root.findall("./devices/disk"):
        target = element.find("target")
        name = target.get("dev", "") if target is not None else ""
        source = element.find("source")
        if name in change.emptied and source is not None:
            out.change(f"disk {name}", source_of(element) or "yes", None)
            remove(source)
            for child in element.findall("backingStore"):
                remove(child)
            if element.get("type") in ("volume", "block"):
                element.set("type", "file")
    cmdline = root.find("./os/cmdline")
    if cmdline is not None and not change.words:
        old = cmdline.text or ""
        new = _WORDS.sub("", old).strip()
        if new != old.strip():
            # The words are not shown: they may be, or lead to, something secret.
            out.change("cmdline seed", "of the base", None)
            cmdline.text = new
    if change.target:
        _add(root, change, out)


def _add(root: etree._Element, change: SeedChange, out: Rewritten) -> None:
    disk = etree.Element("disk", type="file", device="disk")
    etree.SubElement(disk, "driver", name="qemu", type="raw")
    etree.SubElement(disk, "source", file=change.path)
    etree.SubElement(disk, "target", dev=change.target, bus=change.bus)
    etree.SubElement(disk, "readonly")
    devices = root.find("./devices")
    assert devices is not None, "a base has disks"
    devices.append(disk)
    there = out.changes.get(f"disk {change.target}", {"old": None})  # the base's seed, left out
    out.change(f"disk {change.target}", there["old"], change.path)
