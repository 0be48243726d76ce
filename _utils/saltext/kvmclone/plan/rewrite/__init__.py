"""
Rewrite a base's definition for a clone, unique by construction.

Pure: lxml only. Everything that identifies the base is regenerated, dropped or refused;
nothing is added that was not asked for. The rewriting collects *all* reasons to refuse
instead of stopping at the first, so that an operator mends the base once.
"""

from __future__ import annotations

from collections.abc import Mapping

from saltext.kvmclone.model import domain_xml, libvirt_xml
from saltext.kvmclone.model.libvirt_xml import parse, serialize
from saltext.kvmclone.plan.rewrite import (
    base_marks,
    consoles,
    devices,
    firmware,
    graphics,
    guest_words,
    interfaces,
    leak_check,
    leave_out,
    security,
    supported,
)
from saltext.kvmclone.plan.rewrite.disks import DiskId, NewDisk, rewrite_disks
from saltext.kvmclone.plan.rewrite.identity import Identity, rewrite_identity
from saltext.kvmclone.plan.rewrite.interfaces import NewInterface
from saltext.kvmclone.plan.rewrite.leave_out import without
from saltext.kvmclone.plan.rewrite.result import Rewritten, path_for
from saltext.kvmclone.plan.rewrite.seed import SeedChange
from saltext.kvmclone.plan.rewrite.sizing import Sizing, rewrite_sizing

__all__ = [
    "DiskId",
    "Identity",
    "NewDisk",
    "NewInterface",
    "Rewritten",
    "SeedChange",
    "Sizing",
    "path_for",
    "rewrite",
    "without",
]


def rewrite(
    xml: str,
    identity: Identity,
    disks: tuple[NewDisk, ...],
    sizing: Sizing = Sizing(),
    cards: tuple[NewInterface, ...] = (),
    standing: frozenset[str] = frozenset(),
    ids: Mapping[str, DiskId] = {},
    seed: SeedChange = SeedChange(),
    left_out: tuple[str, ...] = (),
) -> Rewritten:
    """
    Return the clone's definition, made from the base's, with all changes and conflicts.

    :param xml: The base's *inactive, secure* XML.
    :param identity: The clone's name, uuid, MAC addresses and NVRAM path.
    :param disks: The new file of each cloned disk; a disk that is not listed is left as is.
    :param sizing: Overrides of cpus, memory and description.
    :param cards: The network interfaces; empty: the base's, with the identity's addresses.
    :param standing: Files of the host; none is given to the clone to write.
    :param ids: By target, the serial number or wwn of a disk where it is not to be the base's.
    :param seed: The changes to cloud-init seeds.
    :param left_out: Devices that the clone goes without.
    :raises PlanRefused: The XML cannot be read at all.
    """
    root = parse(xml)
    marks = base_marks.marks_of(root, domain_xml.read(xml), {disk.target for disk in disks})
    out = Rewritten(
        base=marks.name,
        name=identity.name,
        base_uuid=libvirt_xml.text(root, "uuid"),
        taken=leak_check.paths_of(root) | standing,
    )
    leave_out.leave_out(root, left_out, out)
    supported.scope(root, out)
    rewrite_identity(root, identity, sizing.description, out)
    firmware.firmware(root, identity.nvram, out)
    rewrite_disks(root, {disk.target: disk for disk in disks}, ids, out)
    guest_words.rewrite_words(root, identity, seed, out)
    cards = cards or tuple(NewInterface(mac) for mac in identity.macs)
    interfaces.interfaces(root, cards, out)
    consoles.character_devices(root, out)
    graphics.graphics(root, out)
    graphics.audio(root, out)
    devices.devices(root, out)
    security.security(root, out)
    rewrite_sizing(root, sizing, out)
    leak_check.check(root, marks, frozenset(disk.path for disk in disks) | {seed.path}, out)
    out.xml = serialize(root)
    return out
