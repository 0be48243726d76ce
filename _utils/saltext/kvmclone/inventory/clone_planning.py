"""Plan a clone from what its host says: a fork of a warmed base, or one of a base that is off."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from saltext.kvmclone.errors import KvmCloneError, NotWarmed, WarmImageUnusable
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import host_facts, warm_images
from saltext.kvmclone.model import libvirt_xml, record_xml
from saltext.kvmclone.model.facts import HostFacts
from saltext.kvmclone.model.record import INSTANT, Owner
from saltext.kvmclone.model.request import AUTO, PREFER, Request
from saltext.kvmclone.plan import fork, fork_definition, planner, warm_plan
from saltext.kvmclone.plan.clone_plan import ClonePlan
from saltext.kvmclone.plan.fork import ForkSource
from saltext.kvmclone.system import filesystems


def compute(
    host: Host,
    request: Request,
    taken: bool | None = None,
    worker: Owner = Owner(),
    starts: bool = True,
) -> ClonePlan:
    """
    Ask the host what planning needs, and compute the plan; change nothing.

    :param taken: Whether there is a domain of the clone's name, if that was just looked up.
    :param worker: The process that will make it, for the record.
    :param starts: It is started once it is made.
    :raises NotWarmed: A fork is required, and its base is not warmed.
    :raises WarmImageUnusable: A fork is required, and the saved memory is not what it was.
    """
    if request.clone_strategy != INSTANT:
        return planner.compute(host_facts.facts(host, request, taken), request, worker)
    base = host.domain(request.base_domain)
    try:
        source = _source(host, base)
    except (NotWarmed, WarmImageUnusable) as error:
        return _without_memory(host, request, taken, worker, error)
    machine = fork.quick(request, source.machine)
    warmed = host.domain(source.machine).definition()
    definition = fork_definition.with_cards(warmed, base.definition())
    facts = host_facts.facts(host, machine, taken, definition)
    why = fork.refusals(facts, request, source)
    if not starts:
        why.append(
            "A fork cannot be left off. Leave out start=False, or use 'clone_strategy: quick'."
        )
    if why and request.instant == PREFER:
        instead = host_facts.facts(host, fork.quick(request), taken)
        return _quick(instead, request, worker, why)
    plan = fork.compute(facts, request, source, worker)
    return replace(plan, conflicts=(*why, *plan.conflicts))


def _source(host: Host, base: DomainHandle) -> ForkSource:
    """
    Return the saved memory that a fork of a base goes on from.

    :raises NotWarmed: There is none, or none that can be reached from here.
    :raises WarmImageUnusable: It is not what it was.
    """
    if not host.local:
        raise NotWarmed(
            f"No fork of '{base.name}' can be made over '{host.url}'.",
            "Set 'host:' in the provider to the minion on the KVM host, or 'instant: prefer' in "
            "the profile.",
        )
    image = warm_images.usable(host, base)
    state = "shutoff" if base.was_off else base.state()
    place = filesystems.of(os.path.dirname(image.path))
    size = 0 if place.shares_blocks else os.stat(image.path).st_size
    name = image.handle.name
    return ForkSource(name, image.path, base.name, base.uuid, state, size, place.available)


def _without_memory(
    host: Host, request: Request, taken: bool | None, worker: Owner, error: KvmCloneError
) -> ClonePlan:
    """
    Return the plan where there is no saved memory that can be used.

    :param error: Why there is none.
    :return: A quick clone where one may take the fork's place; otherwise a plan whose conflicts say
        why there cannot be a saved memory.
    :raises KvmCloneError: That error, where there can be one.
    """
    facts = host_facts.facts(host, fork.quick(request), taken)
    root = libvirt_xml.parse(facts.base_xml)
    if (record := record_xml.from_definition(root)) is not None and not record.is_clone:
        return planner.compute(facts, fork.quick(request), worker)  # which says that it is no base
    why = list(warm_plan.obstacles(root, facts, request))
    if request.instant == PREFER or (request.warm == AUTO and not why):
        return _quick(facts, request, worker, why or [error.message])
    if not why:
        raise error
    plan = planner.compute(facts, fork.quick(request), worker)
    return replace(plan, request=request, conflicts=(*why, *plan.conflicts))


def _quick(facts: HostFacts, request: Request, worker: Owner, why: Sequence[str]) -> ClonePlan:
    """
    Return the plan of the quick clone that is made instead of a fork.

    :param why: Why there is no fork, in sentences.
    """
    plan = planner.compute(facts, fork.quick(request), worker)
    warnings = (f"Made as a quick clone instead of a fork. {' '.join(why)}", *plan.warnings)
    record = replace(plan.record, request=request.digest(), warnings=warnings)
    return replace(plan, warnings=warnings, record=record)
