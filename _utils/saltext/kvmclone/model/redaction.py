"""
Redact domain definitions: a value is hidden unless its place is known to be harmless.

Pure: lxml only. What is called a password is easily found, and what is not is as secret: the
metadata of other tools, arguments for QEMU, words for the guest's firmware or kernel. So the
places whose values may be shown are listed here; any other, also one that libvirt does not have
yet, keeps its structure and shows :data:`HIDDEN`. Messages quote a definition by the same rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from lxml import etree

from saltext.kvmclone.model.libvirt_xml import parse, serialize
from saltext.kvmclone.model.redacted_text import HIDDEN, SHORTEST

#: Metadata of libosinfo: the operating system, by its public address.
_LIBOSINFO = "{http://libosinfo.org/xmlns/libvirt/domain/1.0}"
_OS = re.compile(r"https?://[a-z0-9.-]+/[A-Za-z0-9._/-]*")

_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"

#: Options of QEMU that are shown, so that an argument can be found; their values may be secret.
OPTIONS = {
    "-acpitable", "-append", "-audiodev", "-bios", "-blockdev", "-chardev", "-cpu", "-device",
    "-display", "-drive", "-dtb", "-fsdev", "-fw_cfg", "-global", "-initrd", "-kernel", "-machine",
    "-mem-path", "-mon", "-monitor", "-net", "-netdev", "-nic", "-numa", "-object", "-plugin",
    "-qmp", "-readconfig", "-rtc", "-sandbox", "-serial", "-set", "-smbios", "-spice", "-tpmdev",
    "-trace", "-usbdevice", "-virtfs", "-vnc",
}  # fmt: skip

#: The address of a namespace without a user name, a query or anything else that may be secret.
_NAMESPACE = re.compile(r"(?:urn:|https?://)[A-Za-z0-9._~:/#-]{1,200}")

#: Values as libvirt writes numbers, sets of them, sizes, bus addresses, dates, uuids.
_NUMBER = re.compile(r"[-+]?(?:0x)?[0-9a-fA-F]*[0-9][0-9a-fA-F]*(?:[.:,^-]+[0-9a-fA-FT]+)*")
_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9_*+[:][A-Za-z0-9_.:,/+*\[\] -]{0,127}")

#: Attributes whose values libvirt takes from a list of its own, or that count something.
_WORDS = {
    "accel2d", "accel3d", "access", "accessmode", "action", "allow", "append", "arch",
    "associativity", "ats", "auto", "autodeflate", "autoport", "average", "bandwidth", "bar",
    "basis", "behavior", "bits", "burst", "bytes", "cache", "caching_mode", "cellid", "check",
    "classID", "clusters", "cmd_per_lun", "compression", "connected", "connectionid",
    "copy_on_read", "copypaste", "cores", "count", "csum", "current", "cyls", "default",
    "defaultMode", "detect_zeroes", "device", "dies", "discard", "discard_no_unref", "dmode",
    "driver", "dspPolicy", "dumpCore", "ecn", "eim", "enable", "enabled", "end", "engine", "eoi",
    "error_policy", "event_idx", "exactName", "exclude", "exclusive", "fallback", "family",
    "firmware", "fixedSettings", "flock", "floor", "fmode", "format", "freePageReporting",
    "fullscreen", "grab", "grabToggle", "gso", "guestReset", "heads", "hotplug", "hotpluggable",
    "index", "initiator", "intremap", "io", "ioeventfd", "iommu", "iothread", "iotlb", "isolated",
    "job", "kernelHashes", "keymap", "labelskip", "level", "limit", "logical_block_size",
    "macTableManager", "machine", "managed", "match", "max", "maxEventChannels", "maxGrantFrames",
    "max_sectors", "memAccess", "mem_reserve", "memory", "metadata_cache", "metric", "migratable",
    "missing", "mixingEngine", "mode", "model", "mrg_rxbuf", "multiUser", "multidevs",
    "multifunction", "nativeMode", "offset", "order", "p2p", "packed", "page_per_vq", "peak",
    "period", "persistent_state", "physical_block_size", "placement", "policy", "port", "ports",
    "posix", "powerControl", "prefix", "present", "primary", "priority", "proto", "protocol",
    "queue", "queue_size", "queues", "ram", "ramfb", "rawio", "readonly", "ready", "rebootTimeout",
    "relabel", "removable", "repeat", "replaceUser", "rerror_policy", "resizing", "retries", "role",
    "rotation_rate", "rss", "rss_hash_report", "rx_queue_size", "scheduler", "seconds", "secs",
    "secure", "sgio", "shareBacking", "sharePolicy", "size", "slew", "slots", "snapshot", "sockets",
    "start", "startupPolicy", "state", "stateless", "thread_pool_max", "thread_pool_min", "threads",
    "threshold", "tickpolicy", "timeout", "timezone", "tls", "tlsPort", "to", "track", "trans",
    "transport", "tray", "trunk", "trustGuestRxFilters", "tryMMap", "tryPoll", "tso4", "tso6",
    "tx_queue_size", "txmode", "type", "ufo", "unique_id", "unit", "units", "unknown", "useserial",
    "vcpu", "vectors", "verify", "vgaconf", "vgamem", "vram", "vram64", "websocket",
    "writeFiltering", "wrpolicy", "x", "xattr", "y",
}  # fmt: skip

#: Attributes that hold a number, a set of numbers, an address on a bus or in a network, a date.
_NUMBERS = {
    "actual", "address", "adjustment", "aw_bits", "base", "bufferCount", "bufferLength", "bus",
    "busNr", "channels", "chassis", "chassisNr", "cid", "class", "controller", "cpus", "cpuset",
    "cssid", "devno", "domain", "fid", "frequency", "function", "gateway", "granularity", "id",
    "instanceid", "interfaceid", "iobase", "iothreads", "irq", "latency", "listen", "managerid",
    "netmask", "nodeset", "parent_fabric_wwn", "parent_wwnn", "parent_wwpn", "passwdValidTo",
    "peer", "portid", "product", "reg", "slot", "ssid", "startport", "switchid", "target", "typeid",
    "typeidversion", "uid", "uuid", "value", "vcpus", "vendor", "version", "voices", "wwnn", "wwpn",
}  # fmt: skip

#: Attributes that hold the path of a file, folder, socket or device of the host.
_PATHS = {
    "dev", "dir", "evdev", "file", "logFile", "master", "path", "rendernode", "slave", "socket",
    "tap", "template", "vhost",
}  # fmt: skip

#: Attributes that hold the name of something of the host, or of a device.
_NAMES = {
    "bridge", "bus", "dev", "filter", "network", "persistent", "pool", "portgroup", "target",
    "volume",
}  # fmt: skip

#: Places of attributes that hold a name there, and something else elsewhere.
_NAMES_AT = {
    "alias@name", "channel/target@name", "console/target@name", "driver@name", "entry@name",
    "event@name", "feature@name", "filesystem/target@dir", "filterref/parameter@name",
    "graphics@listen", "host@name", "listen@address", "model@name", "serial/target@name",
    "shmem@name",
    "source/adapter@name", "source@host", "source@service", "source@tlsHostname", "timer@name",
}  # fmt: skip

#: Elements whose text is a number or one of libvirt's words.
_WORD_TEXTS = {
    "alignsize", "block", "cbitpos", "current", "currentMemory", "emulator_period",
    "emulator_quota", "global_period", "global_quota", "handle", "hard_limit", "iothread_period",
    "iothread_quota", "iothreads", "label", "maxMemory", "max_size", "maxpagesize", "memory",
    "min_guarantee", "model", "node", "nodemask", "on_crash", "on_lockfailure", "on_poweroff",
    "on_reboot", "pagesize", "pcihole64", "period", "policy", "product", "quota", "read_bytes_sec",
    "read_bytes_sec_max", "read_bytes_sec_max_length", "read_iops_sec", "read_iops_sec_max",
    "read_iops_sec_max_length", "reducedPhysBits", "requested", "serial", "shares", "size",
    "size_iops_sec", "sndbuf", "soft_limit", "space_hard_limit", "space_soft_limit",
    "swap_hard_limit", "tb-cache", "total_bytes_sec", "total_bytes_sec_max",
    "total_bytes_sec_max_length", "total_iops_sec", "total_iops_sec_max",
    "total_iops_sec_max_length", "tseg", "type", "vcpu", "vendor", "weight", "write_bytes_sec",
    "write_bytes_sec_max", "write_bytes_sec_max_length", "write_iops_sec", "write_iops_sec_max",
    "write_iops_sec_max_length", "wwn",
}  # fmt: skip

#: Elements whose text is the path of a file or device of the host.
_PATH_TEXTS = {
    "backend", "dtb", "emulator", "init", "initrd", "kernel", "loader", "nvram", "partition",
    "path", "shim", "table",
}  # fmt: skip

_UUID_TEXTS = {"genid", "hwuuid", "uuid"}


def redact(xml: str, description: str = "") -> str:
    """
    Return a domain definition as it may be shown; it stays well-formed.

    :param xml: A domain definition.
    :param description: The one description that may be shown: the one that we gave it.
    """
    root = parse(xml)
    for element in root.findall("./metadata/*"):
        if not str(element.tag).startswith(_LIBOSINFO):
            _collapse(element)
    for element, place, value in list(_values(root)):
        if place == "description" and value == description.strip():
            continue
        visible = shown(element, place, value)
        attribute = place.partition("@")[2]
        if visible == value:
            continue
        if attribute:
            element.set(attribute, visible)
        else:
            element.text = visible
    for element in root.iter(etree.Element):  # text between elements means nothing to libvirt
        if (element.tail or "").strip():
            element.tail = HIDDEN
    etree.cleanup_namespaces(root)
    return serialize(root)


def shown(element: etree._Element, place: str, value: str) -> str:
    """
    Return one value of a definition as it may be shown, for a message.

    :param element: The element that holds it.
    :param place: Where it stands, from below the root on: ``devices/disk/source@file``.
    """
    where, _, attribute = place.partition("@")
    if place == "name" or not value:
        return value
    if "{" in place or where.startswith("metadata"):
        return value if _is_public(element, attribute, value) else HIDDEN
    known = (
        _known_attribute(place, attribute, value)
        if attribute
        else _known_text(element, where.rpartition("/")[2], value)
    )
    return value if known else HIDDEN


def hidden_values(xml: str) -> tuple[str, ...]:
    """
    Return what :func:`redact` hides and libvirt or QEMU may quote in an error.

    The domain's own name and uuid are no secrets, also where the guest is told of them.
    """
    root = parse(xml)
    known = [re.escape(one) for tag in ("name", "uuid") if (one := root.findtext(tag))]
    own = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(known)})(?![A-Za-z0-9])" if known else r"(?!)")
    return tuple(
        dict.fromkeys(
            part
            for element, place, value in _values(root)
            if not place.startswith(_FOR_PEOPLE) and shown(element, place, value) != value
            for part in own.split(value)
            if part
        )
    )


#: Places that neither libvirt nor QEMU quotes in an error.
_FOR_PEOPLE = ("metadata", "description", "title")


def without(text: str, hidden: tuple[str, ...]) -> str:
    """
    Return a text with :data:`HIDDEN` for every one of these values and for each piece of one.

    QEMU takes a value apart at its commas, and quotes what it does not understand.
    """
    pieces = {piece for value in hidden for piece in _SEPARATORS.split(value)}
    return without_whole(without_whole(text, hidden), tuple(pieces))


def without_whole(text: str, hidden: tuple[str, ...]) -> str:
    """Return a text with :data:`HIDDEN` for every one of these values as a whole."""
    for piece in sorted(hidden, key=len, reverse=True):
        for written in dict.fromkeys((piece.replace(",", ",,"), piece)):
            if len(written) >= SHORTEST:
                text = text.replace(written, HIDDEN)
    return text


_SEPARATORS = re.compile(r"[\s,;=]+")


def path(value: str) -> str:
    """
    Return the path of an image or device as it may be shown.

    :return: The path of a file, or only the protocol, since the rest of such a name
        (``https://user:…``, ``json:{…}``) may hold a password.
    """
    if not value or value.startswith("/"):
        return value
    scheme = re.match(r"[a-z][a-z0-9+.-]{1,20}:", value)
    return (scheme[0] if scheme else "") + HIDDEN


def namespace(element: etree._Element) -> str:
    """Return the namespace of an element as it may be shown."""
    uri = etree.QName(element).namespace or ""
    return uri if not uri or _NAMESPACE.fullmatch(uri) else HIDDEN


def given_description(text: str, base: str) -> str:
    """Return a description as it may be shown: only the one that every clone is given."""
    return text if text in ("", f"Cloned from {base}") else HIDDEN


def _collapse(element: etree._Element) -> None:
    """Remove the contents and attributes of a metadata element, leaving only its name."""
    full = bool(len(element) or element.attrib or (element.text or "").strip())
    uri, local = etree.QName(element).namespace, etree.QName(element).localname
    if uri and namespace(element) == HIDDEN:
        uri = "urn:hidden"
    if uri:
        plain = etree.Element(f"{{{uri}}}{local}", nsmap={element.prefix: uri})
    else:
        plain = etree.Element(local)
    plain.text, plain.tail = (HIDDEN if full else None), element.tail
    parent = element.getparent()
    assert parent is not None, "it stands in the metadata"
    parent.replace(element, plain)


def _is_public(element: etree._Element, attribute: str, value: str) -> bool:
    """Return whether a value of another namespace is known: QEMU's words, libosinfo's addresses."""
    tag = str(element.tag)
    if tag.startswith(_LIBOSINFO):
        return value == HIDDEN or (attribute == "id" and _OS.fullmatch(value) is not None)
    if tag in (f"{_QEMU}add", f"{_QEMU}del"):
        return attribute == "capability" and _WORD.fullmatch(value) is not None
    if tag == f"{_QEMU}arg":
        return value in OPTIONS
    if tag == f"{_QEMU}property":
        return attribute == "type" and _WORD.fullmatch(value) is not None
    return value == HIDDEN


def _known_attribute(place: str, attribute: str, value: str) -> bool:
    kinds: tuple[tuple[bool, Callable[[str], object]], ...] = (
        (attribute in _WORDS, _WORD.fullmatch),
        (attribute in _NUMBERS, _NUMBER.fullmatch),
        (attribute in _NUMBERS or attribute == "secret", _UUID.fullmatch),
        (attribute in _PATHS, _is_path),
        (attribute in _NAMES, _NAME.fullmatch),
        (any(f"/{place}".endswith(f"/{name}") for name in _NAMES_AT), _NAME.fullmatch),
    )
    return any(listed and matches(value) for listed, matches in kinds)


def _known_text(element: etree._Element, tag: str, value: str) -> bool:
    if tag == "entry":  # libvirt wants the machine's own uuid there
        return element.get("name") == "uuid" and _UUID.fullmatch(value) is not None
    if tag in _UUID_TEXTS:
        return _UUID.fullmatch(value) is not None
    if tag in _PATH_TEXTS:
        return _is_path(value)
    return tag in _WORD_TEXTS and _NAME.fullmatch(value) is not None


def _is_path(value: str) -> bool:
    return value.startswith("/")


def _values(root: etree._Element) -> Iterator[tuple[etree._Element, str, str]]:
    """Yield every text and attribute with its element and place; see :func:`shown`."""

    def walk(element: etree._Element, place: str) -> Iterator[tuple[etree._Element, str, str]]:
        if text := (element.text or "").strip():
            yield element, place, text
        for name, value in element.attrib.items():
            yield element, f"{place}@{name!s}", str(value)
        for child in element.iterchildren(etree.Element):
            yield from walk(child, f"{place}/{child.tag}" if place else str(child.tag))

    yield from walk(root, "")
