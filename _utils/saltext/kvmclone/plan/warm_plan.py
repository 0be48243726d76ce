"""
Plan the machine whose memory is saved for forks of a base. Pure.

It is a quick clone of the base without a network card, so that no address of it is ever in the
memory that is saved. The place of the card stays free: a fork is given its own there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

from lxml import etree

from saltext.kvmclone.model import domain_xml, libvirt_xml
from saltext.kvmclone.model.domain_xml import AGENT_CHANNEL
from saltext.kvmclone.model.facts import HostFacts
from saltext.kvmclone.model.record import MEMORY, STAGES, WANTED, WARM, Owner, Volume
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan import planner
from saltext.kvmclone.plan.clone_plan import ClonePlan
from saltext.kvmclone.plan.disk_wishes import LONGEST_NAME

#: Devices whose state is not, or not only, in the memory that QEMU saves.
_NOT_SAVED = ("tpm", "hostdev", "filesystem", "shmem", "vsock", "smartcard")

#: Controllers whose devices can be plugged in while the machine runs.
_HOTPLUG = (
    "pci-root", "pci-bridge", "pcie-root-port", "pcie-switch-downstream-port", "pcie-to-pci-bridge",
)  # fmt: skip


def request_for(base: str, name: str, url: str) -> Request:
    """Return the request for that machine."""
    return Request(
        name=name,
        base_domain=base,
        url=url,
        clone_strategy="quick",
        # "Cloned from …" is how clones of Salt's old driver are known.
        description=f"Warmed from {base}",
        # libvirt has accepted the base's definition already, by whatever provider it was made.
        validate_xml=False,
        ip_source="qemu-agent",
    )


def compute(facts: HostFacts, request: Request, worker: Owner) -> ClonePlan:
    """
    Return the plan of that machine; its record lists the file of the saved memory, too.

    :param request: As :func:`request_for` gives it.
    :param worker: The process that does it, for the record.
    :raises PlanRefused: The base's definition cannot even be read.
    """
    planned = planner.compute(facts, request, worker)
    root = libvirt_xml.parse(planned.xml)
    conflicts = [*planned.conflicts, *obstacles(root, facts, request)]
    for devices in root.iterfind("./devices"):
        for card in devices.findall("interface"):
            devices.remove(card)
    _give_generation_id(root)
    path = _memory_path(planned)
    if not path:
        conflicts.append(f"The base '{request.base_domain}' has no disk that its forks could have.")
    elif len(os.fsencode(os.path.basename(path))) > LONGEST_NAME:
        conflicts.append(f"The name of the base, '{request.base_domain}', is too long for that.")
    record = replace(
        planned.record,
        goal=STAGES[-1],
        becomes=WARM,
        identity="kept",
        request=f"warm {planned.record.base_uuid}",  # that of no create, so that none takes it over
        volumes=(*planned.record.volumes, Volume(MEMORY, path, "raw", "save", WANTED)),
        reservations=(),
    )
    return replace(
        planned,
        xml=libvirt_xml.serialize(root),
        record=record,
        conflicts=tuple(dict.fromkeys(conflicts)),
    )


def _memory_path(planned: ClonePlan) -> str:
    """Return the path of the saved memory, in the folder of the first overlay; empty for none."""
    overlays = [disk.destination for disk in planned.disks if disk.action == "overlay"]
    folder = os.path.dirname(overlays[0]) if overlays else ""
    return os.path.join(folder, f"{planned.request.name}-{MEMORY}.save") if folder else ""


def _give_generation_id(root: etree._Element) -> None:
    """Give the machine a generation id, by which a guest's kernel notices that it was restored."""
    genid = root.find("genid")
    if genid is None:
        genid = etree.Element("genid")
        uuid = root.find("uuid")
        root.insert(0 if uuid is None else root.index(uuid) + 1, genid)
    genid.text = str(uuid4())


def obstacles(root: etree._Element, facts: HostFacts, request: Request) -> Iterator[str]:
    """Yield what stands against saving its memory, besides what stands against a clone."""
    base = request.base_domain
    if not facts.local:
        yield (
            f"'{base}' cannot be warmed over '{request.url}': what stands before a saved memory is "
            "written anew for each fork, on the host's own file system. Set 'host:' in the "
            "provider to the minion on the KVM host."
        )
    if not domain_xml.facts(root, facts.stores).has_agent_channel:
        yield (
            f"'{base}' has no channel for a guest agent ({AGENT_CHANNEL}), over which it is made "
            "ready, and each fork is given an identity of its own."
        )
    for tag in _NOT_SAVED:
        if root.find(f"./devices/{tag}") is not None:
            yield f"'{base}' has a device, <{tag}>, whose state is not saved with the memory."
    if root.find("./launchSecurity") is not None:
        yield f"The memory of '{base}' is encrypted (<launchSecurity>), and cannot be saved."
    buses = {
        controller.get("index", ""): controller.get("model", "")
        for controller in root.iterfind("./devices/controller[@type='pci']")
    }
    for card in root.iterfind("./devices/interface"):
        if place := _fixed_place(card, buses):
            yield (
                f"The network card of '{base}' is at {place}, where none can be plugged in while "
                "the machine runs. Remove the <address> of its <interface> in the definition, and "
                "libvirt gives it another place."
            )


def _fixed_place(card: etree._Element, buses: dict[str, str]) -> str:
    """
    Return the place of a card if none can be plugged in there; empty if one can.

    :param buses: Models of the PCI controllers, by their index.
    """
    address = card.find("address")
    if address is None or address.get("type") != "pci":
        return ""
    bus, slot, function = (address.get(name, "0x0") for name in ("bus", "slot", "function"))
    model = buses.get(str(int(bus, 0)), "pci-root")
    if model in _HOTPLUG and int(function, 0) == 0:
        return ""
    return f"the PCI address {bus}:{slot}.{function} ({model})"
