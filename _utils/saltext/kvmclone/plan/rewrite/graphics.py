"""
Rewrite screens and sound: no port, socket or file of the base's. Pure.
"""

from __future__ import annotations

from lxml import etree

from saltext.kvmclone.model import redacted_text, redaction
from saltext.kvmclone.plan.rewrite.result import (
    IN_LIBVIRTS_FOLDER,
    LONGEST_SOCKET,
    Rewritten,
    drop,
    mentions,
    own_path,
)

_KINDS = ("vnc", "spice", "rdp", "sdl", "dbus", "egl-headless", "desktop")

#: Sound that ends inside QEMU or in the guest's own display connection.
_SILENT = ("none", "spice", "dbus")

#: Sound that the host plays, which several machines may do.
_HEARD = ("alsa", "coreaudio", "jack", "oss", "pulseaudio", "sdl", "pipewire", "sndio")


def graphics(root: etree._Element, out: Rewritten) -> None:
    """Decide about every ``<graphics>``."""
    for element in root.findall("./devices/graphics"):
        label = out.label(element)
        kind = element.get("type", "")
        if kind not in _KINDS:
            out.refuse(element, f"{label} is of type '{kind}', which this version does not know")
        if element.get("passwd"):
            out.warn(
                f"{label} keeps the console password of the base. If the clone is to have none, "
                "take it out of the base's definition."
            )
        _ports(element, label, out)
        for holder in (element, *element.findall("listen")):
            _socket(holder, label, out)
        address = drop(element, "address") if kind == "dbus" else None
        if address is not None:
            out.change(f"{label} address", redacted_text.HIDDEN, None)
            out.warn(
                f"{label} is served on a bus that the base names; the clone's comes on a bus of "
                "its own. Have what shows it connect there."
            )


def _ports(element: etree._Element, label: str, out: Rewritten) -> None:
    fixed = element.get("autoport") == "no"
    for attribute in ("port", "tlsPort", "websocket"):
        value = drop(element, attribute)
        if value is None:
            continue
        if attribute == "websocket":  # absent means none, -1 means one that is free
            element.set(attribute, "-1")
        if value == "-1":  # libvirt's older word for autoport
            fixed = fixed or (attribute != "websocket" and "autoport" not in element.attrib)
        else:
            out.change(f"{label} {attribute}", value, "auto")
            fixed = True
    on_socket = "socket" in element.attrib or any(
        listen.get("type") in ("socket", "none") for listen in element.findall("listen")
    )
    if fixed and not on_socket:
        element.set("autoport", "yes")


def _socket(element: etree._Element, label: str, out: Rewritten) -> None:
    path = element.get("socket", "")
    if IN_LIBVIRTS_FOLDER.search(path):  # libvirt chooses one for the clone by itself
        out.change(f"{label} socket", redaction.path(path), None)
        drop(element, "socket")
    else:
        own_path(element, "socket", label, out, longest=LONGEST_SOCKET)


def audio(root: etree._Element, out: Rewritten) -> None:
    """Decide about every ``<audio>``."""
    for element in root.findall("./devices/audio"):
        label = out.label(element)
        kind = element.get("type", "")
        if kind == "file":
            own_path(element, "path", label, out)
        elif kind in _HEARD:
            out.warn(
                f"{label} plays on the host ({kind}), as the base's does. For a silent clone: "
                f"{out.way_out(element)}."
            )
            # The place of the sound server, where the definition names it.
            out.kept.update(element.get(where, "") for where in ("serverName", "runtimeDir"))
            for stream in (*element.findall("input"), *element.findall("output")):
                if stream.get("dev"):
                    out.kept.add(stream.get("dev", ""))
                if mentions(stream.get("streamName", ""), out.base):
                    out.change(
                        f"{label} streamName",
                        drop(stream, "streamName") and redacted_text.HIDDEN,
                        None,
                    )
                client = drop(stream, "clientName")  # unique on its sound server
                if client is not None:
                    drop(stream, "exactName")
                    out.change(f"{label} clientName", redacted_text.HIDDEN, None)
        elif kind not in _SILENT:
            out.refuse(element, f"{label} is of type '{kind}', which this version does not know")
