"""
Say what a host can offer a clone: what it has, what it promised, what speaks against it.

Reads only. What the clone would take, and every reason against it, comes from the plan that the
host would make.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from dataclasses import replace

from saltext.kvmclone.errors import NotWarmed, PlanRefused, WarmImageUnusable
from saltext.kvmclone.hypervisor import pools
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_content, clone_planning, host_facts, promises
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.placement import HostOffer, Need, Placement
from saltext.kvmclone.model.record import DEAD, Record
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan import fork, planner
from saltext.kvmclone.plan.clone_plan import ClonePlan
from saltext.kvmclone.system import processes

log = logging.getLogger(__name__)


def look(host: Host, request: Request, names: Iterable[str]) -> HostOffer:
    """
    Return what the host can offer a clone, whatever it is called.

    :param names: Names of clones, of which those are wanted that some domain has.
    """
    offer = promises.look(host, names)
    base = host.find(request.base_domain)
    record = base.record() if base is not None else None
    if base is None or (record is not None and record.becomes):
        return replace(offer, has_base=False, conflicts=_unfinished(record))
    content = base_content.known(host, base)
    offer = replace(offer, digest=content.digest if content is not None else "")
    if request.placement.push:
        offer = replace(offer, base_disks=_base_disks(host, base))
    # Under a name that nobody has: one offer serves for all clones of a batch.
    anyone = replace(request, name=f"placement-{secrets.token_hex(8)}", placement=Placement())
    try:
        plan = of_base = clone_planning.compute(host, anyone, taken=False)
        if plan.warmed:  # its disks are not the base's, with which others are compared
            quick = fork.quick(anyone)
            of_base = planner.compute(host_facts.facts(host, quick, taken=False), quick)
    except (PlanRefused, NotWarmed, WarmImageUnusable) as error:
        return replace(offer, conflicts=(error.message,))
    return replace(offer, need=need_of(plan), base=_base_of(of_base), conflicts=plan.conflicts)


def _unfinished(record: Record | None) -> tuple[str, ...]:
    """Return the reason against a base that is being made; none where nobody is at it any more."""
    if record is not None and not record.is_clone:
        return (f"'{record.name}' holds the saved memory of the base '{record.base}'.",)
    if record is None or processes.owner_state(record.worker) == DEAD:
        return ()
    return ("The base is being made there at this moment.",)


def _base_disks(host: Host, base: DomainHandle) -> dict[str, int]:
    """Return the bytes that a base's disks occupy, by the pool that a copy of them goes into."""
    found: dict[str, int] = {}
    try:
        for disk in base_content.disks(host, base, base.definition()):
            raw = pools.holder(host, disk.path)
            pool = str(raw.name()) if raw is not None else ""
            found[pool] = found.get(pool, 0) + disk.allocation
    except PlanRefused as error:
        log.info("what a copy of '%s' takes is not known: %s", base.name, error)
        return {}
    return {pool: taken for pool, taken in found.items() if pool}


def need_of(plan: ClonePlan) -> Need:
    """Return what a clone takes of its host."""
    made = domain_xml.read(plan.xml)
    need = Need(made.memory, made.cpus)
    for disk in plan.disks:
        if disk.destination:
            whole = max(disk.capacity, disk.bytes)
            need.copies[disk.pool] = need.copies.get(disk.pool, 0) + disk.bytes
            need.growth[disk.pool] = need.growth.get(disk.pool, 0) + whole
    return need


def _base_of(plan: ClonePlan) -> str:
    """Return what of a base's disks can be compared without reading them."""
    return ", ".join(
        f"{disk.target} {disk.source_format} of {disk.source_capacity} bytes"
        for disk in plan.disks
        if disk.destination and not disk.bus and disk.source_format
    )
