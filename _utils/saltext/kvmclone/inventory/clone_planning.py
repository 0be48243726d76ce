"""Plan a clone from what its host says: a fork of a warmed base, or one of a base that is off."""

from __future__ import annotations

from dataclasses import replace

from saltext.kvmclone.errors import NotWarmed, WarmImageUnusable
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import host_facts, warmed_bases
from saltext.kvmclone.model.record import INSTANT, Owner
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan import fork, fork_definition, planner
from saltext.kvmclone.plan.clone_plan import ClonePlan

#: What ``instant`` says where a quick clone may take the place of a fork.
_PREFER = "prefer"


def compute(
    host: Host, request: Request, taken: bool | None = None, worker: Owner = Owner()
) -> ClonePlan:
    """
    Ask the host what planning needs, and compute the plan; change nothing.

    :param taken: Whether there is a domain of the clone's name, if that was just looked up.
    :param worker: The process that will make it, for the record.
    :raises NotWarmed: A fork is required, and its base is not warmed.
    :raises WarmImageUnusable: A fork is required, and the saved memory is not what it was.
    """
    if request.clone_strategy != INSTANT:
        return planner.compute(host_facts.facts(host, request, taken), request, worker)
    try:
        base = host.domain(request.base_domain)
        warmed = warmed_bases.find(host, base)
        machine = fork.quick(request, warmed.name)
        definition = fork_definition.with_cards(
            host.domain(warmed.name).definition(), base.definition()
        )
        facts = host_facts.facts(host, machine, taken, definition)
    except (NotWarmed, WarmImageUnusable) as error:
        if request.instant != _PREFER:
            raise
        why = [error.message]
    else:
        why = fork.refusals(facts, request, warmed)
        if not why or request.instant != _PREFER:
            return fork.compute(facts, request, warmed, worker)
    return _quick(host, request, taken, worker, why)


def _quick(
    host: Host, request: Request, taken: bool | None, worker: Owner, why: list[str]
) -> ClonePlan:
    """
    Return the plan of the quick clone that is made instead of a fork.

    :param why: Why there is no fork, in sentences.
    """
    instead = fork.quick(request)
    plan = planner.compute(host_facts.facts(host, instead, taken), instead, worker)
    warnings = (f"Made as a quick clone ('instant: prefer'). {' '.join(why)}", *plan.warnings)
    record = replace(plan.record, request=request.digest(), warnings=warnings)
    return replace(plan, warnings=warnings, record=record)
