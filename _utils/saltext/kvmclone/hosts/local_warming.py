"""
Warm bases on one KVM host over libvirt.
"""

from __future__ import annotations

from saltext.kvmclone.hosts.local_connection import ConnectedOperation, ReachableHost
from saltext.kvmclone.inventory import warm_images
from saltext.kvmclone.lifecycle import warm
from saltext.kvmclone.model.record import Owner
from saltext.kvmclone.model.warmed_base import UnwarmedBase, WarmedBase
from saltext.kvmclone.system import processes


class LocalWarming(ReachableHost):
    """The operations of a KVM host that warm bases; see :class:`.interfaces.KvmHost`."""

    def warm(self, base_domain: str, worker: Owner | None = None) -> WarmedBase:
        with ConnectedOperation(self) as host:
            image, warnings = warm.warm(host, base_domain, worker or processes.this_process())
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
