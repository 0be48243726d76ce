"""
Warm bases on one KVM host over libvirt.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace

from saltext.kvmclone.hosts.local_connection import ConnectedOperation, ReachableHost
from saltext.kvmclone.hosts.local_placement import admitted
from saltext.kvmclone.inventory import warm_images
from saltext.kvmclone.lifecycle import warm
from saltext.kvmclone.model.placement import HostLimits, Placed
from saltext.kvmclone.model.record import Owner
from saltext.kvmclone.model.warmed_base import UnwarmedBase, WarmedBase
from saltext.kvmclone.plan.clone_plan import ClonePlan
from saltext.kvmclone.system import processes


class LocalWarming(ReachableHost):
    """The operations of a KVM host that warm bases; see :class:`.interfaces.KvmHost`."""

    def warm(
        self, base_domain: str, worker: Owner | None = None, limits: HostLimits | None = None
    ) -> WarmedBase:
        placed = Placed(limits) if limits is not None else None
        me = worker or processes.this_process()
        with ConnectedOperation(self) as host:

            def admission(plan: ClonePlan) -> AbstractContextManager[None]:
                there = replace(plan.request, placed=placed)
                return admitted(host, replace(plan, request=there))

            image, warnings = warm.warm(host, base_domain, me, admission)
            return WarmedBase(
                name=base_domain,
                host=self.label or host.node_name(),
                generation=image.generation,
                machine=image.handle.name,
                path=image.path,
                bytes=warm_images.size_of(image.record),
                warnings=warnings,
                timings=image.record.timings,
            )

    def unwarm(self, base_domain: str) -> UnwarmedBase:
        with ConnectedOperation(self) as host:
            gone = warm.unwarm(host, base_domain)
            return UnwarmedBase(
                name=base_domain,
                host=self.label or host.node_name(),
                removed=tuple(file.path for file in gone.files),
                kept=gone.sentences(),
            )
