"""
Leave out what other tools recorded of the base in ``<metadata>``. Pure.

A tool acts on such a record: it deletes the machines of a plan, trusts a host key, shows an
address. None of that is true of the clone. What only describes the software in the guest stays, by
a list of what is known to; each entry of it was read where the tool writes it.
"""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from saltext.kvmclone.model import base_record, redacted_text, redaction
from saltext.kvmclone.model.record import BASE_NAMESPACE
from saltext.kvmclone.model.record_xml import NAMESPACE
from saltext.kvmclone.plan.rewrite.base_marks import Marks, marked, values
from saltext.kvmclone.plan.rewrite.result import Rewritten, remove

#: Cockpit's notes on what was installed. The one with ``has_install_phase`` true has a button that
#: installs it again, over the clone's disks; that of a cloud image holds passwords.
_COCKPIT: Mapping[str, tuple[str, ...]] = {
    "data": (), "has_install_phase": ("false",), "install_source": (), "install_source_type": (),
    "os_variant": (),
}  # fmt: skip

#: Unraid's notes on the form that the machine was made with: an icon, a system. ``webui`` is an
#: address of the base.
_UNRAID: Mapping[str, tuple[str, ...]] = {
    "vmtemplate": (), "@icon": (), "@iconold": (), "@name": (), "@os": (), "@storage": (),
    "@webui": ("",),
}  # fmt: skip

#: By namespace, the elements and attributes that describe software, with their only values where
#: another would mean more. A record with anything else in it is left out.
#: GNOME Boxes is not among them: it takes a machine with its record for its own, and alters it.
_DESCRIPTIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "http://libosinfo.org/xmlns/libvirt/domain/1.0": {"libosinfo": (), "os": (), "@id": ()},
    "https://github.com/cockpit-project/cockpit-machines": _COCKPIT,
    "https://github.com/cockpit-project/cockpit/tree/master/pkg/machines": _COCKPIT,
    "http://unraid": _UNRAID,
    "unraid": _UNRAID,
}


def rewrite_metadata(root: etree._Element, base: Marks, out: Rewritten) -> None:
    """Leave out our own record of the base, and those of other tools but for descriptions."""
    for element in root.findall("./metadata/*"):
        name = etree.QName(element)
        # The record of a base that is itself a clone, or of what it was made from, and its
        # protection are about the base only.
        if name.namespace in (NAMESPACE, BASE_NAMESPACE, base_record.NAMESPACE):
            remove(element)
        elif not _describes_software(element, base):
            _note(element, out)
            remove(element)


def _describes_software(element: etree._Element, base: Marks) -> bool:
    uri = etree.QName(element).namespace or ""
    known = _DESCRIPTIONS.get(uri)
    if known is None:
        return False
    for inner, place, value in values(element):
        attribute = place.rpartition("@")[2] if "@" in place else ""
        word = f"@{attribute}" if attribute else etree.QName(inner).localname
        only = known.get(word)
        if only is None or (only and value not in only) or marked(value, base):
            return False
    return all(
        etree.QName(inner).namespace == uri and etree.QName(inner).localname in known
        for inner in element.iter(etree.Element)
    )


def _note(element: etree._Element, out: Rewritten) -> None:
    name = etree.QName(element).localname
    key = f"metadata {element.prefix}:{name}" if element.prefix else f"metadata {name}"
    number = 1
    while key in out.changes:
        number += 1
        key = f"{key.partition(' (')[0]} ({number})"
    uri = redaction.namespace(element)
    told = f" ({uri})" if uri and uri != redacted_text.HIDDEN else ""
    out.change(key, f"another tool's record{told}", None)
