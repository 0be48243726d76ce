"""
Rewrite character devices: consoles, channels and others behind a file of the host. Pure.
"""

from __future__ import annotations

from lxml import etree

from saltext.kvmclone.model import redaction
from saltext.kvmclone.plan.rewrite.result import (
    BOTTOMLESS,
    IN_LIBVIRTS_FOLDER,
    LONGEST_SOCKET,
    Rewritten,
    drop,
    mentions,
    own_path,
    remove,
)

#: Devices whose element is itself the character device, and those that hold one.
TAGS = ("serial", "parallel", "console", "channel", "redirdev", "smartcard", "rng")

#: Those that a terminal can stand in for: what listens on a port of the host becomes one.
_LINES = ("serial", "parallel", "console")

#: Kinds that end inside QEMU, or that libvirt makes anew for each machine.
_OF_EACH = {"null", "vc", "stdio", "spicevmc", "spiceport", "qemu-vdagent", "dbus"}


def character_devices(root: etree._Element, out: Rewritten) -> None:
    """Decide about every character device."""
    for tag in TAGS:
        for element in root.findall(f"./devices/{tag}"):
            label = out.label(element)
            backend, kind = _backend(element, label, out)
            if backend is None:
                continue
            _decide(backend, kind, label, out)
            for log in element.findall("log"):
                own_path(log, "file", label + " log", out)
            drop(element, "tty")


def _backend(
    element: etree._Element, label: str, out: Rewritten
) -> tuple[etree._Element | None, str]:
    """Return the element that holds the ``<source>``, and its kind; None where there is none."""
    if element.tag == "rng":
        backend = element.find("backend")
        model = backend.get("model", "") if backend is not None else ""
        if model == "egd" and backend is not None:
            return backend, backend.get("type", "")
        if model not in ("random", "builtin"):
            out.refuse(element, f"{label} has the unknown source '{model}'")
        return None, ""
    if element.tag == "smartcard" and element.get("mode") != "passthrough":
        out.refuse(
            element,
            f"{label} is a card of the host (mode '{element.get('mode', '')}'), which stands for "
            "one holder",
        )
        return None, ""
    return element, element.get("type", "pty")


def _decide(backend: etree._Element, kind: str, label: str, out: Rewritten) -> None:
    sources = backend.findall("source")
    if kind == "pty":
        for source in sources:
            remove(source)
    elif kind == "file":
        for source in sources:
            own_path(source, "path", label, out)
    elif kind == "unix":
        for source in sources:
            _socket(source, label, out)
    elif kind in ("tcp", "udp") and backend.tag in _LINES and any(map(_fixed_port, sources)):
        _make_pty(backend, label, out)
    elif kind in ("tcp", "udp"):
        for source in sources:
            _port(source, label, out)
    elif kind == "dev" and all(source.get("path") in BOTTOMLESS for source in sources):
        out.kept.update(source.get("path", "") for source in sources)
    elif kind in ("dev", "pipe", "nmdm"):
        held = [
            source.get(part, "")
            for source in sources
            for part in ("path", "master", "slave")
            if source.get(part)
        ]
        out.refuse(
            backend,
            f"{label} uses '{' and '.join(map(redaction.path, held))}', which only one machine "
            "can hold",
        )
    elif kind not in _OF_EACH:
        out.refuse(backend, f"{label} is of type '{kind}', which this version does not know")


def _socket(source: etree._Element, label: str, out: Rewritten) -> None:
    path = source.get("path", "")
    in_libvirts_folder = IN_LIBVIRTS_FOLDER.search(path) is not None
    if not path:
        return
    if label.startswith("channel") and in_libvirts_folder:
        # libvirt chose this place, and chooses one for the clone by itself.
        out.change(label + " socket", redaction.path(path), None)
        remove(source)
    elif source.get("mode", "connect") == "bind":
        own_path(source, "path", label, out, longest=LONGEST_SOCKET)
    elif in_libvirts_folder or mentions(path, out.base):
        out.refuse(
            source,
            f"{label} connects to '{redaction.path(path)}', which serves one machine",
        )
    else:
        out.kept.add(path)
        _warn_of(source, redaction.path(path), label, out)


def _make_pty(line: etree._Element, label: str, out: Rewritten) -> None:
    """Give the clone a terminal of its own where the base listens on a port of the host."""
    listening = next(filter(_fixed_port, line.findall("source")))
    where = f"{line.get('type')} {_place(listening)}"
    out.change(label, where, "pty")
    out.warn(
        f"{label.capitalize()} of the base listens on a port of the host ({where}), which only one "
        "machine can. That of the clone is a pty instead."
    )
    for child in (*line.findall("source"), *line.findall("protocol")):
        remove(child)
    line.set("type", "pty")


def _fixed_port(source: etree._Element) -> bool:
    return source.get("mode", "connect") == "bind" and source.get("service", "0") != "0"


def _place(source: etree._Element) -> str:
    return f"{source.get('host', '')}:{source.get('service', '?')}"


def _port(source: etree._Element, label: str, out: Rewritten) -> None:
    if _fixed_port(source):
        out.refuse(source, f"{label} listens on the fixed port {source.get('service')}")
    elif source.get("mode", "connect") != "bind":
        _warn_of(source, _place(source), label, out)


def _warn_of(source: etree._Element, where: str, label: str, out: Rewritten) -> None:
    """Warn of the other end of a connection, which may be meant for the base alone."""
    out.warn(
        f"{label} connects to '{where}', as the base's does. If that serves one machine, leave it "
        f"out: {out.way_out(source)}."
    )
