"""
Plan the disk that brings a clone its own cloud-init seed. Pure.

It is a disk and not a cdrom: cloud-init looks for seeds early, and a drive's medium may not be
there yet. It is on the bus of the base's first disk, whose driver the guest surely has.
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.cloud_seed import KEEP, NONE, OUT, OWN, SIZE, TOLD, Seed
from saltext.kvmclone.model.domain_xml import Domain
from saltext.kvmclone.model.facts import RAW, HostFacts
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan import disks
from saltext.kvmclone.plan.disk_sources import PlanIssues, label
from saltext.kvmclone.plan.disk_wishes import wish_for
from saltext.kvmclone.plan.disks import PlannedDisk
from saltext.kvmclone.plan.rewrite import guest_words

_PREFIXES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd", "xen": "xvd"}


def recorded(facts: HostFacts, request: Request) -> str:
    """Return what a record says of the clone's cloud-init seed."""
    if request.seed != NONE:
        return request.seed
    if guest_words.names_a_source(libvirt_xml.shared(facts.base_xml)):
        return TOLD
    return OUT if facts.seeds else NONE


def place(definition: str, seeds: Mapping[str, Seed], request: Request) -> tuple[str, str]:
    """
    Return target and bus of the disk for the clone's own seed.

    :param definition: The base's.
    :param seeds: Those on the base's disks, by target; these disks are left out, which frees the
        targets.
    :return: An empty target where none is free.
    """
    buses, taken = [], set(request.disks)
    for element in libvirt_xml.shared(definition).findall("./devices/disk"):
        target = element.find("target")
        name = target.get("dev", "") if target is not None else ""
        bus = target.get("bus", "") if target is not None else ""
        drive = element.get("device") in ("cdrom", "floppy")
        if drive or name not in seeds:
            taken.add(name)
        if not drive:
            buses.append(bus or next((b for b, p in _PREFIXES.items() if name.startswith(p)), ""))
    bus = next((bus for bus in buses if bus in _PREFIXES), "virtio")
    letters = (f"{_PREFIXES[bus]}{letter}" for letter in string.ascii_lowercase)
    return next((name for name in letters if name not in taken), ""), bus


def volume_name(request: Request, target: str) -> str:
    """Return the name of the volume for the clone's own seed."""
    return f"{request.name}-{target}.{RAW}"


def decide(
    planned: tuple[PlannedDisk, ...], facts: HostFacts, request: Request, notes: PlanIssues
) -> PlannedDisk | None:
    """
    Return the disk for the clone's own seed; None, with the reason noted, where it has no place.
    """
    target, bus = place(facts.base_xml, facts.seeds, request)
    name = request.pool or next((disk.pool for disk in planned if disk.pool), "")
    pool = facts.pools.get(name)
    if not facts.writes_seeds:
        notes.conflicts.append(
            "A cloud-init seed of its own is asked for ('seed'), and no program that writes ISO "
            "9660 is installed. Install one: apt install xorriso   or: dnf install xorriso"
        )
    if not target or pool is None or not pool.active:
        notes.conflicts.append(
            "There is no place for the clone's own cloud-init seed ('seed'): "
            + ("no disk name is free." if not target else "name a storage pool with 'pool:'.")
        )
        return None
    volume = volume_name(request, target)
    destination = os.path.join(pool.path, volume)
    if destination in facts.existing:
        notes.conflicts.append(
            f"The volume '{destination}' exists already and is not ours to overwrite. Choose "
            "another name for the clone, or another pool."
        )
    return PlannedDisk(
        target=target,
        action="copy",
        reason="cloud-init's seed of the clone's own, as the profile has it",
        source="",
        destination=destination,
        format=RAW,
        bytes=SIZE,
        pool=pool.name,
        volume=volume,
        capacity=SIZE,
        source_capacity=SIZE,
        source_pool=pool.name,
        method=disks.SEED,
        bus=bus,
    )


def note(base: Domain, facts: HostFacts, request: Request, notes: PlanIssues) -> None:
    """Warn of what the base's cloud-init seeds, kept or left out, mean for the clone."""
    for target in sorted(facts.unread if request.seed != KEEP else ()):
        disk = next(disk for disk in base.disks if disk.target == target)
        if wish_for(disk, request).action != "skip":
            notes.warnings.append(
                f"{label(disk)} cannot be looked at from here. If it is a cloud-init "
                f"seed, the clone goes by it: leave it out with "
                f"disks: {{{target}: {{action: skip}}}}."
            )
    if request.seed == KEEP and facts.seeds:
        which = ", ".join(f"{target} ({seed.named})" for target, seed in facts.seeds.items())
        notes.warnings.append(
            f"The clone keeps the base's cloud-init seed on {which}: what that says is done in the "
            "clone, too, all of it again at the boot after its identity was reset (users, "
            "passwords, runcmd, power_state, a fixed address). To go without: seed: none."
        )
    elif facts.seeds and request.seed != OWN:
        why = "" if base.has_agent_channel else "without a guest agent"
        why = why if request.reset_identity else "with 'reset_identity: false'"
        # Told of a source, cloud-init takes the clone for a new machine, and sees to its card.
        if why and recorded(facts, request) != TOLD:
            notes.warnings.append(
                f"The base's cloud-init seed is left out, and {why} nothing tells the clone's "
                "network about its new card: where cloud-init bound it to the base's, the clone "
                "gets no address, or the base's fixed one. Give it a seed of its own then (seed: "
                "{user_data: …})."
            )
