"""
Decide about devices that are part of the host, or unknown to this version. Pure.
"""

from __future__ import annotations

from lxml import etree

from saltext.kvmclone.model import redaction
from saltext.kvmclone.model.libvirt_xml import text
from saltext.kvmclone.plan.rewrite.result import Rewritten, remove

#: Devices that QEMU makes anew for each machine, without anything of the host.
_OF_EACH = {
    "controller", "emulator", "hub", "iommu", "memballoon", "nvram", "panic", "redirfilter",
    "sound", "video", "watchdog",
}  # fmt: skip

#: Devices that are decided about elsewhere.
_ELSEWHERE = {
    "audio", "channel", "console", "disk", "graphics", "interface", "parallel", "redirdev", "rng",
    "serial", "smartcard", "tpm",
}  # fmt: skip

_GUEST_MADE_INPUTS = ("tablet", "mouse", "keyboard")


def devices(root: etree._Element, out: Rewritten) -> None:
    """Decide about every device that is neither disk, interface, console nor screen."""
    for element in root.findall("./devices/*"):
        decide = _FATES.get(str(element.tag))
        if decide is not None:
            decide(element, out)
        elif element.tag not in _OF_EACH | _ELSEWHERE:
            out.refuse(
                element,
                f"<{element.tag}> is a device that this version does not know",
            )


def _hostdev(element: etree._Element, out: Rewritten) -> None:
    out.refuse(
        element,
        f"A {element.get('type', 'host')} device of the host (hostdev) belongs to one machine",
    )


def _shmem(element: etree._Element, out: Rewritten) -> None:
    out.refuse(
        element,
        f"The base has shared memory '{element.get('name', '')}' (<shmem>), which the clone would "
        "share with it and its other users",
    )


def _lease(element: etree._Element, out: Rewritten) -> None:
    out.refuse(
        element,
        "The base has a lock lease (<lease>), which only one machine can hold",
    )


def _filesystem(element: etree._Element, out: Rewritten) -> None:
    source = element.find("source")
    kind = element.get("type", "mount")
    folder = source.get("dir", "") if source is not None else ""
    if source is not None and source.get("socket"):
        out.refuse(
            element,
            "The base's <filesystem> is served on the socket "
            f"'{redaction.path(source.get('socket', ''))}', for one machine",
        )
    elif kind != "mount" or not folder:
        out.refuse(
            element,
            f"The base has a <filesystem> of type '{kind}'; only one of type 'mount' that is "
            "<readonly/> can be taken along",
        )
    elif element.find("readonly") is None:
        out.refuse(
            element,
            f"The base mounts '{redaction.path(folder)}' writable (<filesystem>); clone and base "
            "would share it",
            # libvirt before 11 has no read-only virtiofs.
            ""
            if element.find("./driver[@type='virtiofs']") is not None
            else "Make it <readonly/> in the base",
        )
    else:
        out.kept.add(folder)
        out.warn(
            f"Shares '{redaction.path(folder)}' read-only with its base (<filesystem>). If the "
            f"clone is not to see it: {out.way_out(element)}."
        )


def _memory(element: etree._Element, out: Rewritten) -> None:
    path = text(element, "./source/path")
    if path:
        out.refuse(
            element,
            f"The base's memory device ({element.get('model', '')}) keeps its contents in "
            f"'{redaction.path(path)}', which clone and base would share",
        )
    for uuid in element.findall("uuid"):
        told = redaction.shown(uuid, "devices/memory/uuid", (uuid.text or "").strip())
        out.change("memory device uuid", told or None, None)
        remove(uuid)


def _vsock(element: etree._Element, out: Rewritten) -> None:
    for cid in element.findall("cid"):
        if cid.get("address"):
            out.change("vsock cid", cid.get("address"), "auto")
        cid.attrib.clear()
        cid.set("auto", "yes")


def _input(element: etree._Element, out: Rewritten) -> None:
    kind = element.get("type", "")
    if kind in _GUEST_MADE_INPUTS:
        return
    source = element.find("source")
    device = (source.get("dev") or source.get("evdev") or "") if source is not None else ""
    out.refuse(
        element,
        f"The base takes the host's input device '{redaction.path(device)}' (<input type='{kind}'>)"
        ", which only one machine can hold",
    )


def _crypto(element: etree._Element, out: Rewritten) -> None:
    backend = element.find("backend")
    model = backend.get("model", "") if backend is not None else ""
    if model not in ("builtin", "lkcf"):
        out.refuse(
            element,
            f"The base's <crypto> device uses '{model}', which this version does not know",
        )


_FATES = {
    "hostdev": _hostdev,
    "shmem": _shmem,
    "lease": _lease,
    "filesystem": _filesystem,
    "memory": _memory,
    "vsock": _vsock,
    "input": _input,
    "crypto": _crypto,
}
