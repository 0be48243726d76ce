"""
Set the processors and memory that the profile asks for, where the base allows it. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from lxml import etree

from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.plan.rewrite.result import Rewritten, drop, remove


@dataclass(frozen=True)
class Sizing:
    """Values that the profile overrides; None keeps the base's. Memory is in bytes."""

    cpus: int | None = None
    memory: int | None = None
    description: str | None = None


def rewrite_sizing(root: etree._Element, wanted: Sizing, out: Rewritten) -> None:
    """Set processors and memory as asked for, or say why that is impossible."""
    if wanted.cpus is not None:
        _cpus(root, wanted.cpus, out)
    if wanted.memory is not None:
        _memory(root, wanted.memory, out)


def _cpus(root: etree._Element, wanted: int, out: Rewritten) -> None:
    vcpu = root.find("vcpu")
    if vcpu is None:
        vcpu = etree.SubElement(root, "vcpu")
    most = libvirt_xml.number(vcpu.text, "vcpu") or 1
    present = libvirt_xml.number(vcpu.get("current"), "vcpu") or most
    drop(vcpu, "current")
    vcpu.text = str(wanted)
    out.change("cpus", present, wanted)
    if most != present:
        out.change("cpus maximum", most, wanted)
    if wanted == most:
        return
    for path, words in (
        ("vcpus", "which processors are plugged in (<vcpus>)"),
        ("./cpu/numa/cell[@cpus]", "which processors are in its NUMA cells (<numa>)"),
        ("./cputune/cachetune", "cache for each processor (<cachetune>)"),
        ("./cputune/memorytune", "memory bandwidth for each processor (<memorytune>)"),
        ("./cputune/energytune", "which processors' energy is watched (<energytune>)"),
    ):
        if root.find(path) is not None:
            out.conflicts.append(
                f"'cpus' cannot be changed: the definition fixes {words}. Write cpus: {most}, as "
                "it has, or remove that there first."
            )
    had = topology(root)
    _adapt_topology(root, wanted)
    out.change("topology", had, topology(root))
    _pins(root, wanted, out)


def _adapt_topology(root: etree._Element, wanted: int) -> None:
    """
    Adapt the topology, which libvirt wants to make exactly as many processors.

    What is in a socket stays where sockets of that kind make the number.
    """
    element = root.find("./cpu/topology")
    if element is None:
        return
    parts = {
        str(name): libvirt_xml.number(str(value), "topology")
        for name, value in element.attrib.items()
    }
    in_one = prod(value for name, value in parts.items() if name != "sockets")
    if in_one and wanted % in_one == 0:
        element.set("sockets", str(wanted // in_one))
        return
    for name in parts:
        element.set(name, str(wanted if name == "sockets" else 1))


def topology(root: etree._Element) -> str:
    """Return the topology in words, without the parts of which there is one; empty without one."""
    element = root.find("./cpu/topology")
    if element is None:
        return ""
    parts = {str(key): str(value) for key, value in element.attrib.items() if value != "1"}
    return " ".join(f"{parts[key]} {key}" for key in sorted(parts)) or "1 of each"


def _pins(root: etree._Element, wanted: int, out: Rewritten) -> None:
    """Remove the tuning of processors that the clone does not have."""
    for pin in root.findall("./cputune/vcpupin"):
        if libvirt_xml.number(pin.get("vcpu"), "vcpupin") >= wanted:
            out.change(f"vcpupin {pin.get('vcpu')}", pin.get("cpuset"), None)
            remove(pin)
    for sched in root.findall("./cputune/vcpusched"):
        old = sched.get("vcpus", "")
        kept = sorted(cpu for cpu in _cpuset(old) if cpu < wanted)
        if not old or len(kept) == len(_cpuset(old)):
            continue
        new = ",".join(str(cpu) for cpu in kept)
        out.change(f"vcpusched {old}", old, new or None)
        if kept:
            sched.set("vcpus", new)
        else:
            remove(sched)


#: More processors than libvirt gives to one machine; a set beyond that is a mistake.
_MOST_CPUS = 16384


def _cpuset(text: str) -> set[int]:
    """
    Return the numbers that ``0-3,^2,5`` means.

    :raises PlanRefused: It is not such a list, or a number in it is too large.
    """
    wanted: set[int] = set()
    for part in filter(None, text.replace(" ", "").split(",")):
        first, _, last = part.lstrip("^").partition("-")
        low = libvirt_xml.number(first, "vcpusched")
        high = libvirt_xml.number(last or first, "vcpusched")
        if high > _MOST_CPUS:
            raise PlanRefused(
                f"<vcpusched> refers to processor {high}.", "Fix the base: virsh edit"
            )
        numbers = set(range(low, high + 1))
        wanted = wanted - numbers if part.startswith("^") else wanted | numbers
    return wanted


def _memory(root: etree._Element, wanted: int, out: Rewritten) -> None:
    memory = root.find("memory")
    if memory is None:
        memory = etree.SubElement(root, "memory")
    most = libvirt_xml.bytes_of(memory)
    present = libvirt_xml.bytes_of(root.find("currentMemory")) or most
    for element in (memory, root.find("currentMemory")):
        if element is not None:
            element.set("unit", "b")
            element.text = str(wanted)
    # libvirt counts in KiB: less than one of them is not a change.
    if kibibytes(present) != kibibytes(wanted):
        out.change("memory", present, wanted)
    if most != present and kibibytes(most) != kibibytes(wanted):
        out.change("memory maximum", most, wanted)
    if kibibytes(most) == kibibytes(wanted):
        return
    if wanted < LEAST_MEMORY:
        out.conflicts.append(
            f"'memory' of {wanted} bytes is less than any machine can start with. Ask for more."
        )
    advice = "Leave 'memory' out or remove it from the base."
    for path, words in (
        ("./cpu/numa/cell", "its NUMA cells (<numa>)"),
        ("./devices/memory", "memory devices (<memory model=…>)"),
    ):
        if root.find(path) is not None:
            out.conflicts.append(f"'memory' cannot be changed: the base fixes {words}. {advice}")
    for path in ("maxMemory", "./memtune/hard_limit"):
        limit = libvirt_xml.bytes_of(root.find(path))
        if 0 < limit < wanted:
            out.conflicts.append(
                f"'memory' of {wanted} bytes is more than the {limit} that the base allows "
                f"(<{path.rpartition('/')[2]}>). Ask for less or raise that in the base."
            )
    for page in root.findall("./memoryBacking/hugepages/page"):
        unit = _page_size(page)
        if unit and wanted % unit:
            out.conflicts.append(
                f"'memory' of {wanted} bytes is not a multiple of the base's huge pages "
                f"({unit} bytes). Ask for one that is."
            )


def kibibytes(size: int) -> int:
    """Return a number of bytes in KiB, rounded up, as libvirt counts."""
    return -(-size // 1024)


#: Bytes; less than that does not even hold the firmware.
LEAST_MEMORY = 2**20


def _page_size(page: etree._Element) -> int:
    size = etree.Element("page", unit=page.get("unit", "KiB"))
    size.text = page.get("size", "0")
    return libvirt_xml.bytes_of(size)
