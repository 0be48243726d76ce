"""
Add up what a host has promised: to the clones that are defined, and to the guests that run.

Reads only. A clone counts whether it runs or not, since it may be started at any time; any other
machine counts while it runs. What a volume may still grow by is known of clones' volumes, from
their records; what other machines write shows in the free space.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from saltext.kvmclone.errors import DamagedRecord, HostError, absent
from saltext.kvmclone.hypervisor import pools
from saltext.kvmclone.hypervisor.constants import NO_SUPPORT
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model import snapshots
from saltext.kvmclone.model.facts import PoolFacts
from saltext.kvmclone.model.placement import HostOffer, Need, PoolRoom
from saltext.kvmclone.model.record import MADE, Record


@dataclass
class _Promises:
    """What was found so far, domain by domain."""

    memory: int = 0
    cpus: int = 0
    names: set[str] = field(default_factory=set)
    records: list[Record] = field(default_factory=list)

    def add(self, handle: DomainHandle) -> None:
        """Count a domain."""
        self.names.add(handle.name)
        try:
            record, counts = handle.record(), not handle.was_off
        except DamagedRecord:  # it is some clone, so it counts
            record, counts = None, True
        if record is not None and record.is_clone:
            self.records.append(record)
            counts = True
        elif record is not None:  # a saved memory is started once: until it is saved
            counts = counts or not record.complete
        if counts:
            told = handle.connection.call(handle.raw.info)
            self.memory += int(told[1]) * 1024
            self.cpus += int(told[3])


def look(host: Host, names: Iterable[str] = ()) -> HostOffer:
    """
    Return what the host has and what it has promised, without any base.

    :param names: Names of domains, of which those that exist are wanted.
    """
    found = _Promises()
    host.each_domain(found.add)
    about = host.call(host.raw.getInfo)
    growth: Counter[str] = Counter()
    there = _pools(host)
    folders = {pool.path.rstrip("/"): name for name, pool in there.items() if pool.is_folder}
    for record in found.records:
        for folder, count in _growth(record, host.local).items():
            growth[folders.get(folder, "")] += count
    return HostOffer(
        memory=int(about[1]) * 2**20,
        cpus=int(about[2]),
        promised=Need(found.memory, found.cpus),
        pools={
            name: PoolRoom(pool.capacity, pool.available, growth[name], pool.filesystem)
            for name, pool in there.items()
        },
        clones=len(found.records),
        spares=sum(record.in_stock for record in found.records),
        tags=dict(Counter(tag for record in found.records for tag in record.tags)),
        there=tuple(sorted(found.names & set(names))),
    )


def _pools(host: Host) -> Mapping[str, PoolFacts]:
    """Return the facts of every storage pool that is active, by name."""
    found = {}
    with absent(NO_SUPPORT):
        for raw in host.call(host.raw.listAllStoragePools, 0):
            try:
                if host.call(raw.isActive):
                    found[str(raw.name())] = pools.facts_of(host, raw, fresh=host.local)
            except HostError:  # it was removed in the meantime
                continue
    return found


def _growth(record: Record, local: bool) -> Counter[str]:
    """
    Return how many bytes a clone's volumes may still grow by, by the folder that they are in.

    Nothing writes the files of a snapshot any more; those of one that is being taken may be.

    :param local: Their files are this machine's, so that their present size can be seen.
    """
    found: Counter[str] = Counter()
    action, label = snapshots.doing(record)
    frozen = snapshots.frozen(record, label if action == snapshots.TAKE else "")
    for volume in record.volumes:
        if volume.path in frozen:
            continue
        taken = 0
        if local and volume.state == MADE:
            try:
                taken = os.stat(volume.path).st_blocks * 512
            except OSError:
                pass
        found[os.path.dirname(volume.path)] += max(0, volume.capacity - taken)
    return found
