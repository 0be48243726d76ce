"""
Compare a running machine with its definition: what its next start changes.

Pure: lxml only. The guest's own reboot keeps the QEMU process, and with it the number of
processors and the memory that it was started with.
"""

from __future__ import annotations

from typing import Any

from lxml import etree

from saltext.kvmclone.model import domain_xml, libvirt_xml
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.units import exact_size
from saltext.kvmclone.plan.rewrite.sizing import topology

#: QEMU is given memory in multiples of so many bytes; the definition stays as it is.
_GRAIN, _GRAIN_OF_POWER = 2**20, 2**28

_SIZES = ("memory", "memory maximum", "hotplug memory")


def changes(live: etree._Element, stored: etree._Element) -> dict[str, dict[str, Any]]:
    """
    Return ``{key: {"old", "new"}}`` of what the next start changes; sizes are bytes.

    :param live: The machine as it runs.
    :param stored: Its definition, or the one that it is about to get.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, old, new in (
        *_processors(live, stored),
        *_memory(live, stored),
        ("topology", topology(live), topology(stored)),
    ):
        if old != new:
            found[key] = {"old": old, "new": new}
    return found


def _processors(live: etree._Element, stored: etree._Element) -> list[tuple[str, int, int]]:
    old, new = domain_xml.facts(live), domain_xml.facts(stored)
    rows = [("cpus", old.cpus_now, new.cpus_now)]
    if (old.cpus, new.cpus) != (old.cpus_now, new.cpus_now):
        rows.append(("cpus maximum", old.cpus, new.cpus))
    return rows


def _memory(live: etree._Element, stored: etree._Element) -> list[tuple[str, Any, Any]]:
    old, new = domain_xml.facts(live), domain_xml.facts(stored)
    grain = _grain(stored)
    rows: list[tuple[str, Any, Any]] = []
    resized = not _same(old.memory, new.memory, grain)
    # A guest that did not give memory back does not lose it at its next start either.
    if resized or old.memory_now < new.memory_now:
        rows.append(("memory", old.memory_now, new.memory_now))
    if resized and (old.memory, new.memory) != (old.memory_now, new.memory_now):
        rows.append(("memory maximum", old.memory, new.memory))
    slots = [root.find("maxMemory") for root in (live, stored)]
    most = [libvirt_xml.bytes_of(element) for element in slots]
    if not _same(most[0], most[1], grain):
        rows.append(("hotplug memory", most[0], most[1]))
    cells = [_cells(root) for root in (live, stored)]
    alike = len(cells[0]) == len(cells[1]) and all(
        one[:2] == other[:2] and _same(one[2], other[2], grain)
        for one, other in zip(*cells, strict=True)
    )
    if not alike:
        told = [
            [f"{name}: cpus {cpus}, {exact_size(size)}" for name, cpus, size in c] for c in cells
        ]
        rows.append(("numa cells", told[0], told[1]))
    return rows


def _same(live: int, stored: int, grain: int) -> bool:
    return 0 <= live - stored < grain


def _grain(root: etree._Element) -> int:
    """Return the bytes by which QEMU's memory can exceed what the definition says."""
    kind = root.find("./os/type")
    power = kind is not None and kind.get("arch", "").startswith("ppc64")
    return (_GRAIN_OF_POWER if power else _GRAIN) * max(1, len(root.findall("./cpu/numa/cell")))


def _cells(root: etree._Element) -> list[tuple[str, str, int]]:
    found = []
    for number, cell in enumerate(root.findall("./cpu/numa/cell")):
        size = etree.Element("memory", unit=cell.get("unit", "KiB"))
        size.text = cell.get("memory", "")
        found.append(
            (cell.get("id", str(number)), cell.get("cpus", ""), libvirt_xml.bytes_of(size))
        )
    return found


def sentence(name: str, waiting: dict[str, dict[str, Any]], commands: Commands) -> str:
    """
    Return the sentence about changes that wait for the next start, and the commands for it.

    :param waiting: The result of :func:`changes`, not empty.
    :param commands: How our commands are typed where this is read.
    """
    listed = [
        f"{key} ({_shown(key, change['old'])} now, then {_shown(key, change['new'])})"
        for key, change in waiting.items()
    ]
    said = " and ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)
    verb = "change" if len(listed) > 1 else "changes"
    return (
        f"Pending: {said} {verb} at its next boot from off; a reboot is not enough. Stop it and "
        f"start it: {commands.clone('stop', name)}   {commands.clone('start', name)}"
    )


def _shown(key: str, value: Any) -> str:
    if key in _SIZES:
        return exact_size(value)
    return ", ".join(value) if isinstance(value, list) else str(value or "none")
