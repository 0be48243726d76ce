"""
Make bases on one KVM host over libvirt.
"""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.hosts.local_connection import ConnectedOperation, ReachableHost
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory.base_protection import protection
from saltext.kvmclone.inventory.base_source import base_record
from saltext.kvmclone.lifecycle import promote
from saltext.kvmclone.model import domain_xml, redaction
from saltext.kvmclone.model.names import check
from saltext.kvmclone.system import processes


class LocalBases(ReachableHost):
    """The operations of a KVM host that make bases; see :class:`.interfaces.KvmHost`."""

    def promote(self, name: str, base: str) -> dict[str, Any]:
        with ConnectedOperation(self) as host:
            worker = processes.this_process()
            made, warnings = promote.promote(host, name, check(base), worker, self.label)
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
