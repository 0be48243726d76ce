"""
Read libvirt's descriptions of storage volumes.
"""

from __future__ import annotations

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.facts import RAW, Header, ImageFacts


def image(volume: str, path: str) -> ImageFacts:
    """Return the facts of an image at ``path`` that libvirt's XML of its volume gives."""
    root = libvirt_xml.element(volume)
    kind = {"file": "file", "block": "block", "dir": "folder"}.get(root.get("type", ""), "special")
    capacity = int(root.findtext("./capacity") or 0)  # libvirt always writes bytes
    form = root.find("./target/format")
    below = root.find("./backingStore/format")
    return ImageFacts(
        path=path,
        kind=kind,
        real=path,
        header=Header(
            format=form.get("type", "") if form is not None else RAW,
            capacity=capacity,
            backing=(root.findtext("./backingStore/path") or "").strip(),
            backing_format=below.get("type", "") if below is not None else "",
            plain=False,
        ),
        size=int(root.findtext("./physical") or capacity),
        allocation=int(root.findtext("./allocation") or 0),
        modified=float(root.findtext("./target/timestamps/mtime") or 0.0) if kind == "file" else 0,
        readable=False,
    )
