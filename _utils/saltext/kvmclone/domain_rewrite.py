"""
Rewriting a base's definition for a clone: unique by construction.

Pure: lxml only. Everything that identifies the base is regenerated, dropped or refused;
nothing is added that was not asked for. The rewriting collects *all* reasons to refuse
instead of stopping at the first, so that an operator mends the base once.
"""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from saltext.kvmclone import domain_xml, ownership
from saltext.kvmclone.domain_xml import parse, serialize, text


@dataclass(frozen=True)
class NewDisk:
    """What becomes of one disk: its new file and format (``path`` empty: left alone)."""

    target: str
    path: str
    format: str


@dataclass(frozen=True)
class Identity:
    """
    What the clone is from now on.

    :param name: Domain name.
    :param uuid: A fresh random uuid; libvirt accepts an existing one silently.
    :param macs: One MAC address per interface of the base, in order.
    :param genid: A fresh generation id, used only where the base has one.
    :param nvram: Path of the clone's own variable store; empty where it has none.
    """

    name: str
    uuid: str
    macs: tuple[str, ...]
    genid: str = ""
    nvram: str = ""


@dataclass(frozen=True)
class Sizing:
    """Values that the profile overrides; None keeps the base's. Memory is in bytes."""

    cpus: int | None = None
    memory: int | None = None
    description: str | None = None


@dataclass
class Rewritten:
    """The new definition, what changed in it, and every reason for doubt or refusal."""

    xml: str = ""
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)

    def change(self, key: str, old: Any, new: Any) -> None:
        """Note a change as ``{key: {old, new}}``; equal values are no change."""
        if old != new:
            self.changes[key] = {"old": old, "new": new}


def rewrite(
    xml: str, identity: Identity, disks: tuple[NewDisk, ...], sizing: Sizing = Sizing()
) -> Rewritten:
    """
    The clone's definition, made from the base's.

    :param xml: The base's *inactive, secure* XML.
    :param identity: The clone's name, uuid, MAC addresses and NVRAM path.
    :param disks: Where each cloned disk now lives; a disk that is not listed is left as is.
    :param sizing: Overrides of cpus, memory and description.
    :raises PlanRefused: The XML cannot be read at all.
    """
    root = parse(xml)
    out = Rewritten()
    base = text(root, "name")
    _identity(root, identity, sizing, out)
    _firmware(root, identity, out)
    _disks(root, {disk.target: disk for disk in disks}, out)
    _interfaces(root, identity.macs, out)
    _character_devices(root, base, identity.name, out)
    _graphics(root, base, identity.name, out)
    _host_devices(root, out)
    _security(root, out)
    _sizing(root, sizing, out)
    out.xml = serialize(root)
    return out


# --- one concern each ---------------------------------------------------------------


def _identity(root: etree._Element, identity: Identity, sizing: Sizing, out: Rewritten) -> None:
    base = text(root, "name")
    old_uuid = text(root, "uuid")
    _set_text(root, "name", identity.name, position=0)
    _set_text(root, "uuid", identity.uuid, position=1)
    out.change("name", base, identity.name)
    out.change("uuid", old_uuid, identity.uuid)

    # libvirt refuses a definition whose SMBIOS uuid differs from the domain's; the other
    # entries below name one individual machine.
    for entry in root.findall("./sysinfo/system/entry[@name='uuid']"):
        entry.text = identity.uuid
        out.change("sysinfo uuid", old_uuid, identity.uuid)
    for section in ("system", "baseBoard", "chassis"):
        for name in ("serial", "asset"):
            for entry in root.findall(f"./sysinfo/{section}/entry[@name='{name}']"):
                out.change(f"sysinfo {section} {name}", entry.text, None)
                _remove(entry)

    genid = root.find("genid")
    if genid is not None:
        out.change("genid", genid.text, identity.genid)
        genid.text = identity.genid

    title = root.find("title")
    if title is not None:
        out.change("title", title.text, None)
        _remove(title)
    description = f"Cloned from {base}" if sizing.description is None else sizing.description
    out.change("description", text(root, "description") or None, description)
    _set_text(root, "description", description, position=2)

    # The record of a base that is itself a clone speaks of that clone only.
    for record in root.findall(f"./metadata/{{{ownership.NAMESPACE}}}*"):
        _remove(record)


def _firmware(root: etree._Element, identity: Identity, out: Rewritten) -> None:
    nvram = root.find("./os/nvram")
    if nvram is not None:
        kind = nvram.get("type", "file")
        if kind != "file":
            out.conflicts.append(f"NVRAM of type '{kind}' cannot be cloned; only a file can.")
        source = nvram.find("source")
        old = ((source.get("file") if source is not None else nvram.text) or "").strip()
        if source is not None:
            source.set("file", identity.nvram)
        else:
            nvram.text = identity.nvram
        out.change("nvram", old or None, identity.nvram)
    for tpm in root.findall("./devices/tpm"):
        backend = tpm.find("backend")
        kind = backend.get("type", "") if backend is not None else ""
        if kind != "emulator":
            out.conflicts.append(f"TPM of type '{kind}' belongs to one machine; remove it first.")
            continue
        assert backend is not None
        for source in backend.findall("source"):
            _remove(source)
        out.warnings.append(
            "The emulated TPM starts empty: secrets that the base sealed in its own are not there."
        )


def _disks(root: etree._Element, disks: dict[str, NewDisk], out: Rewritten) -> None:
    for element in root.findall("./devices/disk"):
        for name in ("backingStore", "mirror"):
            for child in element.findall(name):
                _remove(child)
        new = disks.get(domain_xml.disk_of(element).target)
        if new is None:
            continue
        for name in ("serial", "wwn"):
            for child in element.findall(name):
                out.change(f"disk {new.target} {name}", child.text, None)
                _remove(child)
        source = element.find("source")
        assert source is not None, "plan.py never gives a new file to an empty drive"
        out.change(f"disk {new.target}", source.get("file"), new.path)
        source.set("file", new.path)
        for attribute in ("index", "startupPolicy"):
            _drop(source, attribute)
        driver = element.find("driver")
        if driver is None:
            driver = etree.Element("driver", name="qemu")
            element.insert(0, driver)
        out.change(f"disk {new.target} format", driver.get("type", "raw"), new.format)
        driver.set("type", new.format)


#: Interface types whose far end can serve several domains at once.
_SHARED_INTERFACES = {"network", "bridge", "user", "direct", "internal"}


def _interfaces(root: etree._Element, macs: tuple[str, ...], out: Rewritten) -> None:
    for number, element in enumerate(root.findall("./devices/interface")):
        kind = element.get("type", "")
        if kind not in _SHARED_INTERFACES:
            out.conflicts.append(
                f"Interface {number} of type '{kind}' is bound to one machine; remove it first."
            )
        old = domain_xml.interface_of(element).mac
        mac = element.find("mac")
        if mac is None:
            mac = etree.Element("mac")
            element.insert(0, mac)
        mac.attrib.clear()
        mac.set("address", macs[number])
        out.change(f"interface {number} mac", old or None, macs[number])
        for target in element.findall("target"):
            # A fixed tap name can exist once; libvirt then makes its own (vnet0 …).
            if target.get("dev"):
                out.change(f"interface {number} target", target.get("dev"), None)
                target.attrib.pop("dev")
            if not target.attrib:
                _remove(target)
        for parameters in element.findall("./virtualport/parameters"):
            for attribute in ("interfaceid", "instanceid"):
                if attribute in parameters.attrib:
                    out.change(f"interface {number} {attribute}", parameters.get(attribute), None)
                    parameters.attrib.pop(attribute)
        source = element.find("source")
        if source is not None:
            _drop(source, "portid")


def _character_devices(root: etree._Element, base: str, name: str, out: Rewritten) -> None:
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
                _own_path(log, "file", label + " log", base, name, out)
            if kind == "pty":
                _drop(element, "tty")
                for source in element.findall("source"):
                    _remove(source)


def _character_source(
    source: etree._Element, kind: str, label: str, base: str, name: str, out: Rewritten
) -> None:
    mode = source.get("mode", "bind" if kind == "unix" else "connect")
    if kind == "file":
        _own_path(source, "path", label, base, name, out)
    elif kind == "unix" and mode == "bind":
        if label.startswith("channel"):
            # libvirt puts a channel's socket into the domain's own folder by itself.
            out.change(label + " socket", source.get("path"), None)
            _remove(source)
        else:
            _own_path(source, "path", label, base, name, out)
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


def _graphics(root: etree._Element, base: str, name: str, out: Rewritten) -> None:
    for number, element in enumerate(root.findall("./devices/graphics")):
        label = f"graphics {number}"
        for attribute in ("port", "tlsPort", "websocket"):
            value = _drop(element, attribute)
            if value is not None and value != "-1":
                out.change(f"{label} {attribute}", value, "auto")
        kind = element.get("type", "")
        listens = element.findall("listen")
        on_socket = "socket" in element.attrib or any(
            listen.get("type") in ("socket", "none") for listen in listens
        )
        if "socket" in element.attrib:
            _own_path(element, "socket", label, base, name, out)
        for listen in listens:
            if "socket" in listen.attrib:
                out.change(f"{label} socket", listen.get("socket"), None)
                listen.attrib.pop("socket")
        if kind in ("vnc", "spice", "rdp") and not on_socket:
            element.set("autoport", "yes")


def _host_devices(root: etree._Element, out: Rewritten) -> None:
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


def _security(root: etree._Element, out: Rewritten) -> None:
    for element in root.findall("seclabel"):
        if element.get("type") == "static":
            out.conflicts.append(
                f"The base has a fixed {element.get('model', 'security')} label; the clone could "
                "open its disks. Make the <seclabel> dynamic first."
            )
            continue
        for name in ("label", "imagelabel"):
            for child in element.findall(name):
                _remove(child)


def _sizing(root: etree._Element, sizing: Sizing, out: Rewritten) -> None:
    if sizing.cpus is not None:
        vcpu = root.find("vcpu")
        if vcpu is None:
            vcpu = etree.SubElement(root, "vcpu")
        if root.find("vcpus") is not None or root.find("./cpu/topology") is not None:
            out.conflicts.append(
                "'cpus' cannot be changed: the base fixes its CPU topology. Leave 'cpus' out or "
                "remove <topology>/<vcpus> from the base."
            )
        out.change("cpus", int(vcpu.text or 1), sizing.cpus)
        _drop(vcpu, "current")
        vcpu.text = str(sizing.cpus)
    if sizing.memory is not None:
        if root.find("./cpu/numa") is not None:
            out.conflicts.append("'memory' cannot be changed: the base fixes its NUMA cells.")
        old = domain_xml.bytes_of(root.find("memory"))
        for tag in ("memory", "currentMemory"):
            element = root.find(tag)
            if element is not None:
                element.set("unit", "b")
                element.text = str(sizing.memory)
        out.change("memory", old, sizing.memory)


# --- helpers ------------------------------------------------------------------------


def _drop(element: etree._Element, attribute: str) -> str | None:
    """Remove an attribute, if it is there; answers with what it was."""
    value = element.get(attribute)
    if value is not None:
        del element.attrib[attribute]
    return value


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


def _set_text(root: etree._Element, tag: str, value: str, position: int) -> None:
    element = root.find(tag)
    if element is None:
        element = etree.Element(tag)
        root.insert(position, element)
    element.text = value


def _own_path(
    element: etree._Element, attribute: str, label: str, base: str, name: str, out: Rewritten
) -> None:
    """Give a path that one domain writes to a name of the clone's own."""
    old = element.get(attribute)
    if not old:
        return
    new = path_for(old, base, name)
    element.set(attribute, new)
    out.change(f"{label} {attribute}", old, new)


def path_for(path: str, base: str, name: str) -> str:
    """
    A path for the clone, made from one of the base's: the base's name in the file name is
    replaced by the clone's, and where it does not occur the clone's name is put in front.

    :param path: Absolute path of a file that belongs to the base.
    :param base: Name of the base.
    :param name: Name of the clone.
    """
    folder, file = os.path.split(path)
    whole_word = rf"(?<![A-Za-z0-9]){re.escape(base)}(?![A-Za-z0-9])"
    renamed, found = re.subn(whole_word, lambda _: name, file, count=1)
    return os.path.join(folder, renamed if found else f"{name}-{file}")
