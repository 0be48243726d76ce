"""Definitions that somebody changed by hand, as ``virsh edit`` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import libvirt

from lab.lab import connection


def rewrite(name: str, change: Callable[[ElementTree.Element], object]) -> None:
    """Change a definition by hand, as ``virsh edit`` does."""
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    with connection() as conn:
        root = ElementTree.fromstring(conn.lookupByName(name).XMLDesc(flags))
        change(root)
        conn.defineXML(ElementTree.tostring(root, encoding="unicode"))


def respell(name: str, path: Path | str, target: str = "vda") -> None:
    """Let the definition call a disk by another path."""

    def change(root: ElementTree.Element) -> None:
        source = root.find(f"./devices/disk/target[@dev='{target}']/../source")
        assert source is not None
        source.set("file", str(path))

    rewrite(name, change)
