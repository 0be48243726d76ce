"""
Refuse what this version does not know, instead of guessing. Pure.
"""

from __future__ import annotations

from collections import Counter

from lxml import etree

from saltext.kvmclone.model import redaction
from saltext.kvmclone.plan.rewrite.result import Rewritten

#: Kinds of domain that clones are tested with (``test`` is libvirt's own test driver).
_KINDS = ("kvm", "qemu", "test")

#: Words for elements that are passed to QEMU verbatim.
_KINDS_OF_WORDS = {"arg": "argument", "env": "variable", "property": "setting"}

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_TEST = "http://libvirt.org/schemas/domain/test/1.0"

#: Parts of a definition that either hold nothing of one machine or are decided about here.
_KNOWN = {
    "blkiotune", "bootloader", "bootloader_args", "clock", "cpu", "cputune", "currentMemory",
    "defaultiothread", "description", "devices", "features", "genid", "hwuuid", "idmap",
    "iothreadids", "iothreads", "keywrap", "launchSecurity", "maxMemory", "memory",
    "memoryBacking", "memtune", "metadata", "name", "numatune", "on_crash", "on_lockfailure",
    "on_poweroff", "on_reboot", "os", "perf", "pm", "resource", "seclabel", "sysinfo",
    "throttlegroups", "title", "uuid", "vcpu", "vcpus",
}  # fmt: skip


def scope(root: etree._Element, out: Rewritten) -> None:
    """Refuse parts of a definition that this version does not know."""
    kind = root.get("type", "")
    if kind not in _KINDS:
        out.conflicts.append(
            f"The base is a domain of type '{kind}'; this version clones {', '.join(_KINDS[:2])}."
        )
    for element in root:
        name = etree.QName(element)
        if name.namespace == QEMU:
            _raw(element, name.localname, out)
        elif name.namespace:
            if name.namespace != _TEST:
                out.refuse(
                    element,
                    f"<{name.localname}> of '{redaction.namespace(element)}' is beyond what can be "
                    "checked",
                )
        elif element.tag not in _KNOWN:
            out.refuse(
                element,
                f"<{element.tag}> is a part that this version does not know",
                "Remove it from the base first",
            )


def _raw(element: etree._Element, name: str, out: Rewritten) -> None:
    """Refuse what is passed to QEMU verbatim, since it can hold a file, a socket or a port."""
    if name in ("capabilities", "deprecation"):
        return
    if name == "override" and all(
        child.get("type") != "string" for child in element.iter(f"{{{QEMU}}}property")
    ):
        return  # numbers and switches
    if said := counted(element):
        out.refuse(
            element,
            f"The base hands {said} to QEMU unchecked (<qemu:{name}>), which may be its own alone",
        )


def counted(element: etree._Element) -> str:
    """
    Say how many arguments, variables and properties QEMU is handed, and which known options.

    :return: Empty for none.
    """
    said = [
        child
        for child in element.iter(etree.Element)
        if child.get("value") is not None or child.get("name") is not None
    ]
    kinds = Counter(_KINDS_OF_WORDS.get(etree.QName(child).localname, "value") for child in said)
    options = dict.fromkeys(child.get("value", "") for child in said)
    known = ", ".join(option for option in options if option in redaction.OPTIONS)
    counted = [f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in kinds.items()]
    return ", ".join(counted) + (f" (among them {known})" if known else "")
