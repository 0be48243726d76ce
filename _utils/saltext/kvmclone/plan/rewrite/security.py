"""
Decide about security labels and memory encryption, which separate machines. Pure.
"""

from __future__ import annotations

from lxml import etree

from saltext.kvmclone.model import redaction
from saltext.kvmclone.plan.rewrite.result import Rewritten, remove

#: By the kind of memory encryption, elements that hold nothing of one guest.
_PLAIN_LAUNCH = {
    "s390-pv": set(),
    "sev": {"cbitpos", "reducedPhysBits", "policy"},
}  # fmt: skip


def security(root: etree._Element, out: Rewritten) -> None:
    """Decide about labels and launch security."""
    for element in root.findall("seclabel"):
        _seclabel(element, out)
    for label in root.findall("./devices//seclabel/label"):
        told = redaction.shown(label, "devices/seclabel/label", (label.text or "").strip())
        out.warn(
            f"A device keeps the fixed label '{told}' that its base's has. If that is for one "
            "machine, take it out of the base's definition."
        )
    for element in root.findall("launchSecurity"):
        _launch(element, out)


def _seclabel(element: etree._Element, out: Rewritten) -> None:
    kind = element.get("type", "dynamic")
    if kind not in ("dynamic", "none"):
        out.refuse(
            element,
            f"The base has a fixed {element.get('model', 'security')} label; the clone could "
            "open its disks",
            "Make the <seclabel> dynamic first",
        )
        return
    for name in ("label", "imagelabel"):
        for child in element.findall(name):
            told = redaction.shown(child, f"seclabel/{name}", (child.text or "").strip())
            out.change(f"seclabel {element.get('model', '')} {name}", told or None, None)
            remove(child)


def _launch(element: etree._Element, out: Rewritten) -> None:
    kind = element.get("type", "")
    for handle in element.findall("handle"):  # it belongs to the running base
        remove(handle)
    if kind not in _PLAIN_LAUNCH:
        out.refuse(
            element,
            f"The base's <launchSecurity type='{kind}'> is of a kind that clones were never tried "
            "with",
            "Remove it from the base first",
        )
        return
    sealed = [f"<{child.tag}>" for child in element if child.tag not in _PLAIN_LAUNCH[kind]]
    if not sealed:
        return
    out.refuse(
        element,
        f"The base's <launchSecurity type='{kind}'> is sealed to one machine ({', '.join(sealed)})",
        "Remove it from the base first",
    )
