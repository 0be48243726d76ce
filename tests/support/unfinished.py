"""Clones as a worker left them that came only half way."""

from __future__ import annotations

import dataclasses

from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import host_facts
from saltext.kvmclone.lifecycle import journal
from saltext.kvmclone.model.record import Owner
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan import planner


def made(host: LocalHost, request: Request, worker: Owner, goal: str = "addressed") -> str:
    """A clone as that worker left it: made, and not booted."""
    host.clone(request, worker, goal, _asked(request).digest())
    return request.name


def _asked(request: Request) -> Request:
    """The request as the pipeline of a host alone sees it."""
    deploy = dataclasses.replace(request.deploy, enabled=False)
    return dataclasses.replace(request, deploy=deploy)


def half_made(host: LocalHost, request: Request, worker: Owner) -> str:
    """A clone as that worker left it: defined, and not one disk there."""
    with Host(host.url) as opened:
        planned = planner.compute(host_facts.facts(opened, request), request, worker)
        journal.define(opened, planned.xml, planned.record, True)
    return request.name
