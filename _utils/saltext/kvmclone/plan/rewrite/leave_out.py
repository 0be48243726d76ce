"""
Leave devices of the base out of the clone, as the profile says. Pure.

A device is called as libvirt calls its element, with its number among its kind: ``serial0`` is the
first serial line of the base. What libvirt or QEMU would not do without one goes with it.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator

from lxml import etree

from saltext.kvmclone.model import domain_xml, libvirt_xml, redaction
from saltext.kvmclone.plan.rewrite import supported
from saltext.kvmclone.plan.rewrite.result import Rewritten, remove, skipped

#: Devices of libvirt: the name of one that a base does not have is no mistake in a profile that
#: serves others, too. Those that no clone can be without have the reason.
_KINDS = {
    "audio", "channel", "console", "crypto", "filesystem", "graphics", "hostdev", "hub", "input",
    "interface", "iommu", "lease", "memballoon", "memory", "nvram", "panic", "parallel", "pstore",
    "qemu:capabilities", "qemu:commandline", "qemu:deprecation", "qemu:override", "redirdev",
    "redirfilter", "rng", "serial", "shmem", "smartcard", "sound", "tpm", "video", "vsock",
    "watchdog",
}  # fmt: skip
_NEEDED = {
    "controller": "other devices are plugged into controllers, and libvirt puts back what is "
    "missing; one that nothing uses does no harm",
    "emulator": "it is the program that runs the clone",
}

#: What of a ``<source>`` says where a device leads.
_WHERE = (
    "dir", "file", "path", "dev", "evdev", "socket", "network", "bridge", "host", "service",
)  # fmt: skip

#: Types of what ends in a SPICE screen.
_OVER_SPICE = ("spice", "spicevmc", "spiceport")


def named(root: etree._Element) -> dict[str, etree._Element]:
    """Return every device of a definition by its name, and what it hands to QEMU unchecked."""
    found: dict[str, etree._Element] = {}
    times: Counter[str] = Counter()
    for element in root.iterfind("./devices/*"):
        tag = str(element.tag)
        found[f"{tag}{times[tag]}"] = element
        times[tag] += 1
    for element in root:
        name = etree.QName(element)
        if name.namespace:
            prefix = "qemu" if name.namespace == supported.QEMU else element.prefix or "other"
            found[f"{prefix}:{name.localname}"] = element
    return found


def without(xml: str, wanted: tuple[str, ...]) -> str:
    """Return a base's definition without the devices that its clone will not have."""
    if not wanted:
        return xml
    root = libvirt_xml.parse(xml)
    leave_out(root, wanted, Rewritten())
    return libvirt_xml.serialize(root)


def leave_out(root: etree._Element, wanted: tuple[str, ...], out: Rewritten) -> None:
    """
    Remove the devices that the profile leaves out, and what cannot be without them.

    From then on messages call all of them by the number that they have in the base. libvirt
    repeats the first serial line as the first console: one device, one name.

    :param wanted: Names of devices (``serial0``), or of kinds of them (``serial``).
    """
    found = named(root)
    out.devices = {element: name for name, element in found.items()}
    if console := _twin(found, "serial0"):
        out.devices[found[console]] = "serial0"
    going: dict[str, etree._Element] = {}
    absent: list[str] = []
    for name in dict.fromkeys(wanted):
        meant = {one: found[one] for one in found if name in (one, _kind(one))}
        if reason := _refused(name, meant, found):
            out.conflicts.append(reason)
        elif not meant:
            absent.append(name)
        going |= {} if _kind(name) in _NEEDED else _possible(meant)
    if absent:
        out.warn(
            f"'leave_out' names {', '.join(absent)}, of which the base has none. It has: "
            f"{_listed(found)}."
        )
    for name in list(going):
        twin = _twin(found, name)
        going |= {twin: found[twin]} if twin else {}
    going |= {name: found[name] for name in _over_spice(found, going)}
    if reason := _half(found, going):
        out.conflicts.append(reason)
        return
    for name, element in sorted(going.items()):
        out.change(name, _told(name, element), None)
        _remove(root, element)


def left_out(root: etree._Element, wanted: tuple[str, ...]) -> list[str]:
    """Return the devices that a definition has although a profile leaves all of their kind out."""
    kinds = {name for name in wanted if _kind(name) == name}
    meant = {name: element for name, element in named(root).items() if _kind(name) in kinds}
    return sorted(name for name in _possible(meant) if not _is_none(meant[name]))


def _kind(name: str) -> str:
    return name.rstrip("0123456789")


def _refused(name: str, meant: dict[str, etree._Element], found: dict[str, etree._Element]) -> str:
    """Say why something cannot be left out; empty where it can, or where there is none."""
    if name in _NEEDED or (meant and _kind(name) in _NEEDED):
        return f"'leave_out' names {name}, and {_NEEDED[_kind(name)]}. Take it out."
    disks = {domain_xml.disk_of(one).target: one for one in found.values() if one.tag == "disk"}
    if name in disks or _kind(name) == "disk":
        which = disks.get(name, next(iter(meant.values()), None))
        line = skipped(which) if which is not None else "disks: {vdb: {action: skip}}"
        return f"'leave_out' names {name}, and a disk is left out by another key: {line}."
    if meant and not _possible(meant):
        return (
            f"'leave_out' names {name}, which libvirt gives every machine of this kind (a PS/2 "
            "mouse and keyboard, the watchdog of a q35). Take it out."
        )
    if meant or name in _KINDS:
        return ""
    near = difflib.get_close_matches(name, {*_KINDS, *found, *map(_kind, found)}, n=1)
    guess = f" Did you mean {near[0]}?" if near else ""
    return (
        f"'leave_out' names '{name}', which the base does not have.{guess} "
        f"It has: {_listed(found)}."
    )


def _listed(found: dict[str, etree._Element]) -> str:
    """Return the names of what can be left out, for a message."""
    names = [name for name in _possible(found) if _kind(name) not in {*_NEEDED, "disk"}]
    return ", ".join(names) or "nothing that can be left out"


def _possible(meant: dict[str, etree._Element]) -> dict[str, etree._Element]:
    """Return these devices without disks, and those that libvirt gives every such machine."""
    return {
        name: element
        for name, element in meant.items()
        if element.tag != "disk"
        and (element.tag, element.get("bus")) != ("input", "ps2")
        and (element.tag, element.get("model")) != ("watchdog", "itco")
    }


def _twin(found: dict[str, etree._Element], name: str) -> str:
    """Return the other name of the first serial line, or of the console that is the same."""
    console = found.get("console0")
    if console is None or "serial0" not in found:
        return ""
    target = console.find("target")
    if target is not None and target.get("type", "serial") != "serial":
        return ""
    return {"serial0": "console0", "console0": "serial0"}.get(name, "")


def _over_spice(
    found: dict[str, etree._Element], going: dict[str, etree._Element]
) -> Iterator[str]:
    """Yield what ends in a SPICE screen, where the last of these goes: QEMU would not start."""
    screens = [
        one for one in found if found[one].tag == "graphics" and _type(found[one]) == "spice"
    ]
    if screens and all(one in going for one in screens):
        yield from (one for one in found if _type(found[one]) in _OVER_SPICE)


def _type(element: etree._Element) -> str:
    return element.get("type", "")


def _half(found: dict[str, etree._Element], going: dict[str, etree._Element]) -> str:
    """Say that a graphics card or a screen is left out without the other; empty if none is."""
    cards = [name for name in found if _kind(name) == "video"]
    screens = [name for name in found if _kind(name) == "graphics"]
    left = [name for name in screens if name not in going]
    both = f"Leave out both: leave_out: [{', '.join(screens + cards)}]."
    if cards and left and all(name in going for name in cards):
        return (
            f"'leave_out' names the only graphics card ({', '.join(cards)}), and libvirt gives one "
            f"to every machine with a screen. {both}"
        )
    drawing = [one for one in screens if _draws(found[one])]
    drawn = [
        one for one in cards if found[one].find("./model/acceleration[@accel3d='yes']") is not None
    ]
    if drawing and all(one in going for one in drawing) and any(one not in going for one in drawn):
        return (
            f"'leave_out' names {', '.join(drawing)}, with whose OpenGL {', '.join(drawn)} draws. "
            f"{both}"
        )
    return ""


def _draws(screen: etree._Element) -> bool:
    return _type(screen) == "egl-headless" or screen.find("./gl[@enable='yes']") is not None


def _remove(root: etree._Element, element: etree._Element) -> None:
    if element.tag == "memballoon":
        # Without the element libvirt adds one.
        for child in list(element):
            remove(child)
        element.attrib.clear()
        element.set("model", "none")
        return
    if element.tag == "memory":
        _take_off(root, libvirt_xml.bytes_of(element.find("./target/size")))
    if element.tag == "audio":
        for user in root.findall("./devices/*/audio"):
            if user.get("id") == element.get("id"):
                remove(user)
    remove(element)


def _take_off(root: etree._Element, size: int) -> None:
    """Take the size of a memory device off the memory of the machine, which counts it."""
    total = root.find("memory")
    if total is not None:
        new = libvirt_xml.bytes_of(total) - size
        total.set("unit", "b")
        total.text = str(max(new, 0))


def _is_none(element: etree._Element) -> bool:
    return element.tag == "memballoon" and element.get("model") == "none"


def _told(name: str, element: etree._Element) -> str:
    """Return what a device is and where it leads, as it may be shown, in one line."""
    if ":" in name:
        return supported.counted(element) or "yes"
    place = f"devices/{element.tag}"
    said = _values(element, place, ("type", "model", "mode"))[:1]
    for source in element.findall("source"):
        said += _values(source, f"{place}/source", _WHERE)
        for child in source.iterchildren("*"):
            keys = tuple(map(str, child.attrib))
            said.append(":".join(_values(child, f"{place}/source/{child.tag!s}", keys)))
    return " ".join(word for word in said if word) or "yes"


def _values(element: etree._Element, place: str, keys: tuple[str, ...]) -> list[str]:
    """Return the attributes of these names that an element has, as they may be shown."""
    values = ((key, element.get(key)) for key in keys)
    return [redaction.shown(element, f"{place}@{key}", value) for key, value in values if value]
