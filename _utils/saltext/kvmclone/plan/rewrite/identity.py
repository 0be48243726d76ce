"""
Replace what identifies a domain: names, uuids, what people wrote of it. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.model import redacted_text, redaction
from saltext.kvmclone.model.libvirt_xml import text
from saltext.kvmclone.plan.rewrite.result import Rewritten, drop, remove, set_text

_IDS = ("name", "uuid", "genid")


@dataclass(frozen=True)
class Identity:
    """
    The names and addresses that identify the clone.

    :param name: Domain name.
    :param uuid: A fresh random uuid; libvirt accepts an existing one silently.
    :param macs: One MAC address per interface of the base, in order.
    :param genid: A fresh generation id, used only where the base has one.
    :param nvram: Path of the clone's own variable store; empty where it has none, or where
        libvirt is to choose one, which then starts fresh.
    """

    name: str
    uuid: str
    macs: tuple[str, ...]
    genid: str = ""
    nvram: str = ""


def rewrite_identity(
    root: etree._Element, new: Identity, description: str | None, out: Rewritten
) -> None:
    """
    Replace the base's identity in the definition by the clone's.

    :param description: The one that the profile asks for; None for ``Cloned from BASE``.
    """
    base = text(root, "name")
    old_uuid = text(root, "uuid")
    if not base:
        out.conflicts.append("The base's definition has no <name>; define it in libvirt first.")
    drop(root, "id")
    set_text(root, "name", new.name, position=0)
    set_text(root, "uuid", new.uuid, position=1)
    out.change("name", base, new.name)
    out.change("uuid", redaction.shown(root, "uuid", old_uuid) or None, new.uuid)

    # A guest with <hwuuid> shows that instead of its domain's uuid, by which we tell whether it is
    # the clone; a <title> is what people called the base.
    for tag in ("hwuuid", "title"):
        for element in root.findall(tag):
            out.change(tag, _old(element, tag), None)
            remove(element)
    genid = root.find("genid")
    if genid is not None:
        out.change("genid", _old(genid, "genid"), new.genid or None)
        genid.text = new.genid

    _description(root, base, description, out)
    for element in root.findall("./resource/fibrechannel"):
        out.change("fibrechannel appid", redacted_text.HIDDEN, None)
        remove(element)
    for element in root.findall("./resource"):
        if len(element) == 0:
            remove(element)


def _description(root: etree._Element, base: str, wanted: str | None, out: Rewritten) -> None:
    new = f"Cloned from {base}" if wanted is None else wanted
    old = text(root, "description") or None
    if old != new:
        out.change("description", old and redacted_text.HIDDEN, new)
    # Behind name, uuid and genid, where libvirt itself writes it: libvirt's schema allows other
    # orders, too, but libxml2 refuses some of them.
    ids = [root.index(found) for tag in _IDS if (found := root.find(tag)) is not None]
    try:
        set_text(root, "description", new, position=max(ids) + 1)
    except ValueError:
        out.conflicts.append(
            "'description' holds characters that XML cannot (control characters); take them out."
        )


def _old(element: etree._Element, place: str) -> str | None:
    """Return what an element says, as it may be shown; None where it says nothing."""
    return redaction.shown(element, place, (element.text or "").strip()) or None
