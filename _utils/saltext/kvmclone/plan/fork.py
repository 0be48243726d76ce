"""
Plan a fork: a clone that goes on from the saved memory of a warmed base. Pure.

Its disks are overlays on those of the warmed machine, so that it is planned as a quick clone of
that; whatever would make it another machine than the one that was saved is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from saltext.kvmclone.model import domain_xml, units
from saltext.kvmclone.model.facts import HostFacts
from saltext.kvmclone.model.record import INSTANT, MEMORY, WANTED, Owner, Volume
from saltext.kvmclone.model.request import DiskChanges, Request
from saltext.kvmclone.plan import planner
from saltext.kvmclone.plan.clone_plan import ClonePlan


@dataclass(frozen=True)
class ForkSource:
    """
    What a fork goes on from.

    :param machine: Name of the warmed machine; ``image`` the file with its memory.
    :param base: Name of the base that it was made from, ``base_uuid`` its uuid.
    :param base_state: libvirt's state of that base.
    :param size: Bytes that a copy of the file needs, which each fork has while it is restored.
    :param available: Bytes that are free where the file is.
    """

    machine: str
    image: str
    base: str
    base_uuid: str
    base_state: str = "shutoff"
    size: int = 0
    available: int = 0


def quick(request: Request, base_domain: str = "") -> Request:
    """
    Return the request for the quick clone that stands behind a fork, or in its place.

    :param base_domain: What is cloned; empty for what the request names.
    """
    return replace(request, clone_strategy="quick", base_domain=base_domain or request.base_domain)


def compute(
    facts: HostFacts, request: Request, source: ForkSource, worker: Owner = Owner()
) -> ClonePlan:
    """
    Compute the plan for one fork.

    :param facts: The host's facts about the warmed machine with the cards of its base.
    :param request: The fork as it is asked for.
    :param worker: The process that will make it, for the record.
    """
    description = request.description
    if description is None:
        description = f"Cloned from {source.base}"
    asked = replace(quick(request, source.machine), description=description)
    plan = planner.compute(facts, asked, worker)
    disks = tuple(
        replace(disk, reason=f"a fork goes on from the disk of '{source.machine}'")
        if disk.action == "overlay"
        else disk
        for disk in plan.disks
    )
    folder = os.path.dirname(source.image)
    memory = os.path.join(folder, f"{request.name}-{MEMORY}.save")
    record = replace(
        plan.record,
        base=source.base,
        base_uuid=source.base_uuid,
        strategy=INSTANT,
        request=request.digest(),
        warmed=source.machine,
        volumes=(*plan.record.volumes, Volume(MEMORY, memory, "raw", INSTANT, WANTED)),
    )
    return replace(
        plan,
        request=request,
        base=source.base,
        warmed=source.machine,
        record=record,
        disks=disks,
    )


def refusals(facts: HostFacts, request: Request, source: ForkSource) -> list[str]:
    """Return every reason against a fork that is none against a quick clone, one sentence each."""
    found = [
        f"A fork of '{source.base}' is the machine that was saved, so {what} cannot be changed in "
        "it. Leave that out, or use 'clone_strategy: quick'."
        for what in _changed(request)
    ]
    cards = len(domain_xml.read(facts.base_xml).interfaces)
    if len(request.networks) > cards:
        found.append(
            f"A fork of '{source.base}' can have as many network cards as the base, {cards}, and "
            f"'networks' names {len(request.networks)}. Name fewer, or use 'clone_strategy: quick'."
        )
    if source.size > source.available:
        found.append(
            f"The copy of the saved memory that a fork is restored from needs "
            f"{units.size(source.size)} in {os.path.dirname(source.image)}, where "
            f"{units.size(source.available)} are free. Make room, or use 'clone_strategy: quick'."
        )
    if source.base_state != "shutoff":
        found.append(planner.base_is_on(source.base, source.base_state, facts.commands))
    return found


def _changed(request: Request) -> list[str]:
    """Return the keys that ask for another machine than the one that was saved."""
    disks = [
        target for target, wish in request.disks.items() if wish != DiskChanges(pool=wish.pool)
    ]
    asked = {
        "'cpus'": request.cpus is not None,
        "'memory'": request.memory is not None,
        f"'disks' ({', '.join(disks)})": bool(disks),
        "'leave_out'": bool(request.leave_out),
        "'seed'": request.seed != "none",
        "'protect'": request.protect,
        "'reset_identity'": not request.reset_identity,
    }
    return [key for key, wanted in asked.items() if wanted]
