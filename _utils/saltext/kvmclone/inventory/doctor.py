"""
Find what is wrong on a host, worst first, each with the next command to type.

Reads only. A healthy host gives an empty list.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import (
    base_changes,
    base_findings,
    clone_disks,
    host_findings,
    overlays,
    shared_stores,
    spare_findings,
    surroundings,
    warm_findings,
)
from saltext.kvmclone.inventory.examination import Examination, Machine
from saltext.kvmclone.inventory.findings import Finding, in_order, in_words
from saltext.kvmclone.inventory.legacy_clones import candidates
from saltext.kvmclone.model import snapshots
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import ALIVE, DESTROYING, ELSEWHERE, Record, Volume
from saltext.kvmclone.model.record_xml import NAMESPACE, LaterRecord
from saltext.kvmclone.system import processes

_REMEDY = "Bring the base's files back from a backup, or save the clone's data and make it anew."


def examine(host: Host, commands: Commands | None = None) -> list[Finding]:
    """
    Return all findings about the clones on a host and what they need, worst first.

    :param commands: How the commands of the hints are typed; by default as on the master.
    """
    return in_order(list(_Examination(host, commands or Commands(host.url)).findings()))


class _Examination(Examination):
    """The findings of one examination."""

    def findings(self) -> Iterator[Finding]:
        asleep = dict(self._disks_in_sleeping_pools())
        for pool, names in asleep.items():
            yield Finding(
                "pool-inactive",
                pool,
                f"The storage pool '{pool}' is not running and holds disks of "
                f"{in_words(sorted(names))}.",
                self.commands.virsh("pool-start", pool),
            )
        sleepers = {name for names in asleep.values() for name in names}
        for machine, record in self.ours:
            yield from self._work(machine, record)
        for machine, record in self.clones:
            yield from self._committed(machine, record)
            yield from self._files(machine, record, machine.name in sleepers)
            yield from self._snapshots(machine, record)
            yield from self._drift(machine, record)
        yield from spare_findings.find(self)
        yield from self._damaged()
        yield from base_findings.written(self)
        yield from base_findings.shared(self)
        yield from self._copies()
        stores = {m.name: m.domain.nvram.path for m in self.machines if m.domain.nvram}
        clones = [machine.name for machine, _record in self.clones]
        yield from shared_stores.find(self.usage, stores, clones, self.commands)
        records = [record for _machine, record in self.ours]
        yield from overlays.strays(self.host, self.usage, records, self.commands)
        yield from overlays.stale(self.host, self.usage, records, self.commands)
        yield from self._duplicate_macs()
        yield from base_findings.protected_without_base(self)
        yield from warm_findings.find(self)
        yield from host_findings.find(surroundings.look(self), self.commands)
        for candidate in candidates(self.host, self.usage):
            yield Finding(
                "adoptable",
                candidate.name,
                f"'{candidate.name}' was cloned from '{candidate.base}' by an old salt-cloud and "
                "is not ours yet.",
                self.commands.on_host("adopt", candidate.name),
            )
        for clause in self.usage.unchecked:
            yield Finding(
                "not-checked",
                "",
                f"Not everything could be looked at: {clause}.",
                self.commands.virsh("pool-list", "--all"),
            )

    # --- one clone ----------------------------------------------------------------------

    def _work(self, machine: Machine, record: Record) -> Iterator[Finding]:
        """Yield the creates and destroys that were not finished."""
        name = machine.name
        life = processes.owner_state(record.worker)
        unsure = f"; it may still go on, on '{record.worker.host}'"
        unsure = unsure if life == ELSEWHERE else ""
        # It cannot be told from here, so the operator must say that nobody is at work any more.
        sure = self.commands.clone("gc", name, "apply=True", "force=True") if unsure else ""
        if record.stage == DESTROYING:
            if life != ALIVE:
                yield Finding(
                    "unfinished",
                    name,
                    f"The destroy of '{name}' is unfinished{unsure}.",
                    sure or self.commands.clone("destroy", name),
                )
        elif record.under_way and record.complete:
            if life != ALIVE:
                yield Finding(
                    "unfinished",
                    name,
                    f"'{record.under_way}' of '{name}' is unfinished{unsure}; its data is whole.",
                    sure or self.commands.clone("gc", name, "apply=True"),
                )
        elif record.failed:
            yield Finding(
                "failed",
                name,
                f"The create of '{name}' failed at stage '{record.stage}' and it was kept: "
                f"{record.failed} Go on with it (resume), or give it up.",
                self.commands.clone("destroy", name),
            )
        elif not record.complete and life != ALIVE:
            yield Finding(
                "unfinished",
                name,
                f"The create of '{name}' is unfinished: it is at stage '{record.stage}' on its "
                f"way to '{record.goal}'{unsure}.",
                self.commands.clone("gc", name, "force=True")
                if unsure
                else self.commands.clone("gc", name),
            )

    def _files(self, machine: Machine, record: Record, asleep: bool) -> Iterator[Finding]:
        """Yield disks that are missing, and recorded files that the clone no longer uses."""
        if record.stage in ("planned", DESTROYING):
            return  # some of its files are not made yet, or deleted already
        name = machine.name
        uses = [use for use in self.usage.uses if use.uuid == machine.uuid]
        used = {use.key for use in uses}
        used |= {self.usage.file_id(one) for use in uses for one in self.usage.chain(use.path)}
        used |= {self.usage.file_id(one.own) for one in self.committed[machine.uuid]}
        mounts = {volume.path: volume.mount for volume in record.volumes}
        for path in [] if asleep else self._missing(machine, record):
            why = self.usage.away(path, mounts.get(path, ""))
            yield Finding(
                "disk-missing",
                name,
                f"'{name}' cannot start: its disk '{path}' is out of reach, as {why}."
                if why
                else f"'{name}' has no '{path}' any more and cannot start. Bring the file back "
                "from a backup, or give the clone up.",
                self._look_at(path)
                if why
                else self.commands.clone("destroy", name)
                if record.owns(path)
                else self.commands.forced(name),  # somebody else's overlay
            )
        tops = clone_disks.tops_of(self.host, machine.domain, record)
        idle = snapshots.unneeded(record, tops)
        for volume in record.volumes:
            held = record.may_be_unnamed(volume) and volume not in idle
            if held or self.usage.file_id(volume.path) in used:
                continue
            if volume in idle and volumes.exists(self.host, volume.path):
                yield Finding(
                    "volume-unused",
                    name,
                    f"'{volume.path}' is left of a snapshot of '{name}', since it was in use; the "
                    "next command about a snapshot of it deletes it, and so does a destroy.",
                    self.commands.clone("snapshots", name),
                )
            elif volumes.exists(self.host, volume.path):
                yield Finding(
                    "volume-unused",
                    name,
                    f"'{volume.path}' was made for '{name}', which does not use it any more; a "
                    "destroy will leave it. Attach it again, or delete it.",
                    self._reattach(machine, volume),
                )

    def _snapshots(self, machine: Machine, record: Record) -> Iterator[Finding]:
        """Yield the snapshots that cannot be rolled back to, since a file of them is lost."""
        if record.stage == DESTROYING:
            return
        mounts = {volume.path: volume.mount for volume in record.volumes}
        for one in snapshots.finished(record):
            paths = [*(disk.path for disk in one.disks), *filter(None, [one.nvram])]
            lost = [path for path in paths if not volumes.exists(self.host, path)]
            if lost and not any(self.usage.away(path, mounts.get(path, "")) for path in lost):
                yield Finding(
                    "snapshot-incomplete",
                    machine.name,
                    f"The snapshot '{one.label}' of '{machine.name}' lacks {in_words(lost)}; "
                    "without that there is no way back to it.",
                    self.commands.clone("snapshots", machine.name),
                )

    def _look_at(self, path: str) -> str:
        if self.host.local:
            return self.commands.there("ls", "-ld", os.path.dirname(path))
        return self.commands.virsh("pool-list", "--all")

    def _reattach(self, machine: Machine, volume: Volume) -> str:
        name = machine.name
        if volume.target in ("nvram", *(disk.target for disk in machine.domain.disks)):
            return self.commands.terminal("edit", name)  # another file is in its place
        # Without its format libvirt would take it for raw.
        return self.commands.virsh(
            "attach-disk", name, volume.path, volume.target, "--driver", "qemu", "--subdriver",
            volume.format, "--config",
        )  # fmt: skip

    def _missing(self, machine: Machine, record: Record) -> list[str]:
        paths = [path for _target, path in self.disks(machine)]
        if self.host.local:
            bases = {disk.path for disk in record.base_disks}  # _drift reports those
            chains = [[path, *self.usage.chain(path)] for path in paths if path]
            every = dict.fromkeys(one for chain in chains for one in chain if one not in bases)
            return [path for path in every if not os.path.exists(path)]
        used = {self.usage.file_id(path) for path in paths}
        return [
            volume.path
            for volume in record.volumes
            if self.usage.file_id(volume.path) in used
            and volumes.find(self.host, volume.path) is None
        ]

    def _committed(self, machine: Machine, record: Record) -> Iterator[Finding]:
        """Yield the disks of a clone that were committed into its base."""
        for found in self.committed[machine.uuid]:
            yield overlays.committed(
                self.host, self.usage, machine.name, machine.state, record, found, self.commands
            )

    def _drift(self, machine: Machine, record: Record) -> Iterator[Finding]:
        if record.stage == DESTROYING:
            return
        base = self.base_of(record)
        written = {one.path for one in self.committed[machine.uuid]}  # a finding of its own
        others = tuple(disk for disk in record.base_disks if disk.path not in written)
        record = replace(record, base_disks=others)
        changes = base_changes.file_changes(self.host, record, base is not None)
        if base is None or base.state == "shutoff":  # a running base is a finding of its own
            changes += base_changes.being_written(self.host, record)
        if not changes:
            return
        quick = base_changes.stands(self.host, record)
        yield Finding(
            "base-changed" if quick else "base-differs",
            machine.name,
            "   ".join((*changes, *[_REMEDY] * quick)),
            self.commands.clone("show", machine.name),
        )

    # --- the host -----------------------------------------------------------------------

    def _disks_in_sleeping_pools(self) -> Iterator[tuple[str, set[str]]]:
        for pool in self.usage.pools:
            if pool.active or not pool.path:
                continue
            names = {
                machine.name
                for machine, _record in self.clones
                for disk in machine.domain.disks
                if disk.pool == pool.name or os.path.dirname(disk.path) == pool.path
            }
            if names:
                yield pool.name, names

    def _damaged(self) -> Iterator[Finding]:
        for machine in self.machines:
            if machine.damaged:
                later = isinstance(machine.damaged, LaterRecord)
                look = self.commands.virsh("metadata", machine.name, NAMESPACE)
                yield Finding(
                    "record-damaged",
                    machine.name,
                    f"The record of '{machine.name}' cannot be read: {machine.damaged}. Until that "
                    "is fixed, the machine is left alone, and so are its files.",
                    self.commands.sync() if later else look,
                )

    def _copies(self) -> Iterator[Finding]:
        for machine in self.machines:
            element = machine.root.find(f"./metadata/{{{NAMESPACE}}}clone")
            if element is None or machine.record is not None or machine.damaged:
                continue
            original = self.by_uuid.get(element.get("uuid", ""))
            whose = f"'{original.name}'" if original is not None else "a clone that is gone"
            yield Finding(
                "copied-record",
                machine.name,
                f"'{machine.name}' is a copy of {whose}, made by another tool; it is not ours and "
                "is left alone. Its definition can be removed by hand; its files stay.",
                self.commands.virsh("undefine", machine.name, "--keep-nvram"),
            )

    def _duplicate_macs(self) -> Iterator[Finding]:
        users: dict[str, set[str]] = {}
        for machine in self.machines:
            for interface in machine.domain.interfaces:
                if interface.mac:
                    users.setdefault(interface.mac, set()).add(machine.name)
        for mac, names in users.items():
            if len(names) > 1:
                last = max(names)
                yield Finding(
                    "duplicate-mac",
                    last,
                    f"{in_words(sorted(names))} have one MAC address, {mac}; their network will "
                    f"mix them up. Remove the <mac> line of '{last}', and libvirt makes a new one.",
                    self.commands.terminal("edit", last),
                )
