"""Devices that belong to one machine: consoles, graphics, pieces of the host. Pure."""

from __future__ import annotations

from lxml import etree

from saltext.kvmclone.domain_xml import text
from saltext.kvmclone.rewrite.outcome import Rewritten, drop, own_path, remove


def character_devices(root: etree._Element, base: str, name: str, out: Rewritten) -> None:
    counters: dict[str, int] = {}
    for tag in ("serial", "parallel", "console", "channel", "redirdev", "smartcard", "rng"):
        for element in root.findall(f"./devices/{tag}"):
            number = counters.setdefault(tag, 0)
            counters[tag] += 1
            label = f"{tag} {number}"
            backend = element.find("backend") if tag == "rng" else element
            if backend is None:
                continue
            kind = backend.get("type", "") if tag != "rng" else backend.get("type", "unix")
            for source in backend.findall("source"):
                _character_source(source, kind, label, base, name, out)
            # The first console repeats the first serial line: same path, same new path.
            for log in element.findall("log"):
                own_path(log, "file", label + " log", base, name, out)
            if kind == "pty":
                drop(element, "tty")
                for source in element.findall("source"):
                    remove(source)


def _character_source(
    source: etree._Element, kind: str, label: str, base: str, name: str, out: Rewritten
) -> None:
    mode = source.get("mode", "bind" if kind == "unix" else "connect")
    if kind == "file":
        own_path(source, "path", label, base, name, out)
    elif kind == "unix" and mode == "bind":
        if label.startswith("channel"):
            # libvirt puts a channel's socket into the domain's own folder by itself.
            out.change(label + " socket", source.get("path"), None)
            remove(source)
        else:
            own_path(source, "path", label, base, name, out)
    elif kind == "pipe" or (kind == "dev" and not source.get("path", "").endswith("/null")):
        out.conflicts.append(
            f"{label} uses '{source.get('path', '')}', which only one machine can hold; "
            "remove it from the base first."
        )
    elif kind in ("tcp", "udp") and mode == "bind":
        out.conflicts.append(
            f"{label} listens on the fixed port {source.get('service', '?')}; "
            "remove it from the base first."
        )


def graphics(root: etree._Element, base: str, name: str, out: Rewritten) -> None:
    for number, element in enumerate(root.findall("./devices/graphics")):
        label = f"graphics {number}"
        for attribute in ("port", "tlsPort", "websocket"):
            value = drop(element, attribute)
            if value is not None and value != "-1":
                out.change(f"{label} {attribute}", value, "auto")
        kind = element.get("type", "")
        listens = element.findall("listen")
        on_socket = "socket" in element.attrib or any(
            listen.get("type") in ("socket", "none") for listen in listens
        )
        if "socket" in element.attrib:
            own_path(element, "socket", label, base, name, out)
        for listen in listens:
            if "socket" in listen.attrib:
                out.change(f"{label} socket", listen.get("socket"), None)
                listen.attrib.pop("socket")
        if kind in ("vnc", "spice", "rdp") and not on_socket:
            element.set("autoport", "yes")


def host_devices(root: etree._Element, out: Rewritten) -> None:
    for element in root.findall("./devices/hostdev"):
        out.conflicts.append(
            f"A {element.get('type', 'host')} device of the host (hostdev) belongs to one "
            "machine; remove it from the base first."
        )
    for tag, word in (("shmem", "shared memory"), ("lease", "a lock lease")):
        for _ in root.findall(f"./devices/{tag}"):
            out.conflicts.append(f"The base has {word} (<{tag}>), shared with its other users.")
    for element in root.findall("./devices/filesystem"):
        source = element.find("source")
        where = (source.get("dir") if source is not None else "") or element.get("type", "")
        if element.find("readonly") is None:
            out.conflicts.append(
                f"The base mounts '{where}' writable (<filesystem>); clone and base would share "
                "it. Make it <readonly/> or remove it first."
            )
        else:
            out.warnings.append(f"Shares '{where}' read-only with its base (<filesystem>).")
    for element in root.findall("./devices/memory"):
        path = text(element, "./source/path")
        if path:
            out.conflicts.append(f"The base's memory device uses the file '{path}'.")
    for cid in root.findall("./devices/vsock/cid"):
        if cid.get("address"):
            out.change("vsock cid", cid.get("address"), "auto")
        cid.attrib.clear()
        cid.set("auto", "yes")


def security(root: etree._Element, out: Rewritten) -> None:
    for element in root.findall("seclabel"):
        if element.get("type") == "static":
            out.conflicts.append(
                f"The base has a fixed {element.get('model', 'security')} label; the clone could "
                "open its disks. Make the <seclabel> dynamic first."
            )
            continue
        for name in ("label", "imagelabel"):
            for child in element.findall(name):
                remove(child)
