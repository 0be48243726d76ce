"""
Make bases on one KVM host over libvirt.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from saltext.kvmclone.hosts.local_connection import ConnectedOperation, ReachableHost
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_facts
from saltext.kvmclone.inventory.base_protection import protection
from saltext.kvmclone.inventory.base_source import base_record
from saltext.kvmclone.lifecycle import base_from, promote
from saltext.kvmclone.model import domain_xml, redaction
from saltext.kvmclone.model.base_request import BaseRequest, Origin
from saltext.kvmclone.model.made_base import BaseDisk, MadeBase
from saltext.kvmclone.model.names import check
from saltext.kvmclone.model.record import Owner, Record
from saltext.kvmclone.plan import base_plan
from saltext.kvmclone.plan.base_definition import DISK
from saltext.kvmclone.plan.base_plan import BasePlan
from saltext.kvmclone.system import processes


class LocalBases(ReachableHost):
    """The operations of a KVM host that make bases; see :class:`.interfaces.KvmHost`."""

    def base_from(
        self, request: BaseRequest, origin: Origin, worker: Owner | None = None
    ) -> MadeBase:
        with ConnectedOperation(self) as host:
            plan = _planned(host, request, origin, worker or processes.this_process())
            made, record, warnings = base_from.make(host, plan, origin)
            label = self.label or host.node_name()
            return _described(plan, record, label, made.digest, warnings, record.timings)

    def expected_base(self, request: BaseRequest, origin: Origin) -> MadeBase:
        """
        Return what :meth:`base_from` would make; make nothing, and download nothing.

        What a dead worker left does not count: it would be removed first.

        :raises AlreadyExists: That very base is there.
        :raises PlanRefused: It would be refused.
        """
        with ConnectedOperation(self) as host:
            remains = base_facts.remains(host, request)
            plan = _planned(host, request, origin, processes.this_process(), remains)
            label = self.label or host.node_name()
            return _described(plan, plan.record, label, request.digest, (), {})

    def promote(self, name: str, base: str, worker: Owner | None = None) -> dict[str, Any]:
        with ConnectedOperation(self) as host:
            me = worker or processes.this_process()
            made, warnings = promote.promote(host, name, check(base), me, self.label)
            return {**self._promoted(host, made), "promoted": name, "warnings": list(warnings)}

    def _promoted(self, host: Host, made: DomainHandle) -> dict[str, Any]:
        """Return what there is to tell of a base that was just made; see docs/answers.md."""
        record = base_record(made)
        return {
            "name": made.name,
            "host": self.label or host.node_name(),
            "source": record.source if record is not None else "",
            "protected": protection(host, made) is not None,
            "disks": [
                {"target": disk.target, "path": redaction.path(disk.path), "format": disk.format}
                for disk in domain_xml.read(made.definition()).disks
                if disk.device in ("disk", "lun")
            ],
        }


def _planned(
    host: Host,
    request: BaseRequest,
    origin: Origin,
    worker: Owner,
    remains: Record | None = None,
) -> BasePlan:
    if remains is None:
        base_facts.refuse_existing(host, request)
    facts = base_facts.facts(host, request, remains)
    return base_plan.compute(request, facts, str(uuid4()), origin.is_url, worker, host.commands)


def _described(
    plan: BasePlan,
    record: Record,
    label: str,
    digest: str,
    warnings: tuple[str, ...],
    timings: dict[str, float],
) -> MadeBase:
    disks = tuple(
        BaseDisk(volume.target, volume.path, volume.format, volume.capacity)
        for volume in record.volumes
        if volume.target == DISK
    )
    if more := plan.request.further_cards:
        left = f"A base has one network card; {more} more of its profile are only for clones."
        warnings = (*warnings, left)
    return MadeBase(
        name=plan.request.name,
        host=label,
        source=plan.request.source,
        digest=digest,
        disks=disks,
        warnings=warnings,
        timings=timings,
    )
