"""
Do each operation on the snapshots of one KVM host over one new connection to libvirt.
"""

from __future__ import annotations

from dataclasses import replace

from saltext.kvmclone.hosts.local_connection import ConnectedOperation, ReachableHost
from saltext.kvmclone.inventory import clone_snapshots, clone_view
from saltext.kvmclone.lifecycle import snapshot_delete, snapshot_rollback, snapshot_take
from saltext.kvmclone.lifecycle.record_store import clone_record
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.clone_snapshot import CloneSnapshot


class LocalSnapshots(ReachableHost):
    """
    The snapshots of a KVM host that this process reaches over libvirt.

    See :class:`.local_connection.ReachableHost`.
    """

    def snapshot(self, name: str, label: str = "") -> CloneSnapshot:
        with ConnectedOperation(self, name) as host:
            handle, record = clone_record(host, name)
            _record, taken, told = snapshot_take.take(host, handle, record, label)
            where = self.label or host.node_name()
            return clone_snapshots.view(host, name, where, taken, True, told)

    def rollback(self, name: str, label: str) -> Clone:
        with ConnectedOperation(self, name) as host:
            handle, record = clone_record(host, name)
            record, told = snapshot_rollback.roll_back(host, handle, record, label)
            clone = clone_view.describe(host, handle, record, self.label, host.commands)
            return replace(clone, warnings=(*clone.warnings, *told))

    def snapshots(self, name: str) -> list[CloneSnapshot]:
        return self.looked(
            lambda host: clone_snapshots.describe(host, *clone_record(host, name), self.label)
        )

    def delete_snapshot(self, name: str, label: str) -> CloneSnapshot:
        with ConnectedOperation(self, name) as host:
            handle, record = clone_record(host, name)
            before = clone_snapshots.describe(host, handle, record, self.label)
            _record, _gone, told = snapshot_delete.delete(host, handle, record, label)
            deleted = next(one for one in before if one.label == label)
            return replace(deleted, warnings=(*deleted.warnings, *told))
