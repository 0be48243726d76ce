"""
Bring a base's definition into a form that is equal on every host.

Pure. Left out is what tells one machine from its copies (names, uuids, addresses), where its host
keeps files, and what the host chose by itself. What a guest can see of its hardware stays.
"""

from __future__ import annotations

import hashlib

from lxml import etree

from saltext.kvmclone.model import libvirt_xml

#: Parts of a definition that are left out whole.
_LEFT_OUT = (
    "./name", "./uuid", "./genid", "./hwuuid", "./title", "./description", "./metadata",
    "./resource", "./seclabel", "./devices/emulator", ".//alias", ".//backingStore",
    ".//mirror", "./sysinfo//entry[@name='uuid']", "./devices/disk/source",
    "./devices/interface/mac", "./devices/interface/target",
    "./devices/interface/virtualport/parameters",
    "./devices/*/log", "./devices/*/seclabel", "./devices/tpm/backend/source",
)  # fmt: skip

#: Elements whose text is a path of the host.
_PATHS = ("./os/loader", "./os/nvram", "./os/kernel", "./os/initrd", "./os/dtb")

#: Attributes that a host chooses, or that hold paths and secrets, by element.
_ATTRIBUTES = {
    ".": ("id",),
    "./os/loader": ("format",),  # newer versions of libvirt write what older ones imply
    "./os/nvram": ("template", "type", "format", "templateFormat"),
    "./devices/disk": ("type",),
    "./devices/*/source": ("path", "tty"),
    "./devices/graphics": ("port", "websocket", "tlsPort", "socket", "passwd", "passwdValidTo"),
    "./devices/graphics/listen": ("socket",),
    "./devices/console": ("tty",),
}

#: Elements that say nothing once they are empty.
_EMPTY = (
    "./devices/*/source",
    "./devices/interface/virtualport",
    "./os/nvram/source",
    "./sysinfo/system",
)


def normal(xml: str) -> bytes:
    """
    Return the normal form of a definition.

    :param xml: As ``XMLDesc`` gives it of the inactive domain.
    :raises PlanRefused: The XML cannot be read.
    """
    root = libvirt_xml.parse(xml)
    uuid = (root.findtext("uuid") or "").strip()
    for place in _LEFT_OUT:
        for element in root.findall(place):
            _remove(element)
    for entry in root.findall("./sysinfo//entry"):
        if uuid and (entry.text or "").strip().lower() == uuid.lower():
            _remove(entry)
    for place in _PATHS:
        for element in root.findall(place):
            element.text = None
            for child in element.findall("source"):
                _remove(child)
    for place, names in _ATTRIBUTES.items():
        for element in root.findall(place):
            for name in names:
                element.attrib.pop(name, "")
    for place in _EMPTY:
        for element in root.findall(place):
            if not len(element) and not element.attrib:
                _remove(element)
    _in_order(root)
    for element in root.iter(etree.Element):
        element.text = (element.text or "").strip() or None
        element.tail = None
    return bytes(etree.tostring(root, method="c14n"))


def digest(xml: str) -> str:
    """Return the SHA-256 of the normal form of a definition; see :func:`normal`."""
    return hashlib.sha256(normal(xml)).hexdigest()


def _in_order(root: etree._Element) -> None:
    """
    Sort the controllers: libvirt lists those that it adds itself in another order once it restarts.
    """
    found = root.findall("./devices/controller")
    devices = root.find("./devices")
    if devices is None or not found:
        return
    place = devices.index(found[0])
    for one in found:
        _remove(one)
    for one in sorted(found, key=_place_of, reverse=True):
        devices.insert(place, one)


def _place_of(controller: etree._Element) -> tuple[str, int]:
    """Return what libvirt knows a controller by."""
    index = controller.get("index", "")
    return controller.get("type", ""), int(index) if index.isdigit() else -1


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)  # with its tail, which is white space
