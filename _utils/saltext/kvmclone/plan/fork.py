"""
Plan a fork: a clone that goes on from the saved memory of a warmed base. Pure.

Its disks are overlays on those of the warmed machine, so that it is planned as a quick clone of
that; whatever would make it another machine than the one that was saved is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from saltext.kvmclone.model.facts import HostFacts
from saltext.kvmclone.model.record import INSTANT, MEMORY, WANTED, Owner, Volume
from saltext.kvmclone.model.request import DiskChanges, Request
from saltext.kvmclone.plan import fork_definition, planner
from saltext.kvmclone.plan.clone_plan import ClonePlan


@dataclass(frozen=True)
class WarmedBase:
    """
    A warmed base, as a fork of it needs it.

    :param name: Name of the warmed machine; ``image`` the file with its memory.
    :param base: Name of the base that it was made from, ``base_uuid`` its uuid.
    :param base_state: libvirt's state of that base.
    """

    name: str
    image: str
    base: str
    base_uuid: str
    base_state: str = "shutoff"


def quick(request: Request, base_domain: str = "") -> Request:
    """
    Return the request for the quick clone that stands behind a fork, or in its place.

    :param base_domain: What is cloned; empty for what the request names.
    """
    return replace(request, clone_strategy="quick", base_domain=base_domain or request.base_domain)


def compute(
    facts: HostFacts, request: Request, warmed: WarmedBase, worker: Owner = Owner()
) -> ClonePlan:
    """
    Compute the plan for one fork.

    :param facts: The host's facts about the warmed machine with the cards of its base.
    :param request: The fork as it is asked for.
    :param worker: The process that will make it, for the record.
    """
    description = request.description
    if description is None:
        description = f"Cloned from {warmed.base}"
    asked = replace(quick(request, warmed.name), description=description)
    plan = planner.compute(facts, asked, worker)
    disks = tuple(
        replace(disk, reason=f"a fork goes on from the disk of '{warmed.name}'")
        if disk.action == "overlay"
        else disk
        for disk in plan.disks
    )
    folder = os.path.dirname(warmed.image)
    memory = os.path.join(folder, f"{request.name}-{MEMORY}.save")
    record = replace(
        plan.record,
        base=warmed.base,
        base_uuid=warmed.base_uuid,
        strategy=INSTANT,
        request=request.digest(),
        warmed=warmed.name,
        volumes=(*plan.record.volumes, Volume(MEMORY, memory, "raw", INSTANT, WANTED)),
    )
    return replace(
        plan,
        request=request,
        base=warmed.base,
        warmed=warmed.name,
        record=record,
        disks=disks,
        conflicts=tuple(dict.fromkeys((*refusals(facts, request, warmed), *plan.conflicts))),
    )


def refusals(facts: HostFacts, request: Request, warmed: WarmedBase) -> list[str]:
    """Return every reason against a fork that is none against a quick clone, one sentence each."""
    found = [
        f"A fork of '{warmed.base}' is the machine that was saved, so {what} cannot be changed in "
        "it. Leave that out, or use 'clone_strategy: quick'."
        for what in _changed(request)
    ]
    found += [
        f"No fork can be made of '{warmed.base}': {why}."
        for why in fork_definition.obstacles(facts.base_xml)
    ]
    if not facts.local:
        found.append(
            "A fork is restored from a file that is written on the KVM host itself, which cannot "
            "be done over a remote libvirt connection. Set 'host:' in the provider to its minion."
        )
    if warmed.base_state != "shutoff":
        found.append(planner.base_is_on(warmed.base, warmed.base_state, facts.commands))
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
