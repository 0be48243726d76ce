"""
Check whether the copies of a clone fit where they go.

Pure. Growth that comes later is not counted: an overlay, and the part of a disk that its
base never wrote, take no space yet.
"""

from __future__ import annotations

from saltext.kvmclone.model.facts import HostFacts
from saltext.kvmclone.plan.disk_sources import PlanIssues
from saltext.kvmclone.plan.disks import PlannedDisk


def check(planned: tuple[PlannedDisk, ...], facts: HostFacts, notes: PlanIssues) -> None:
    """
    Compare what the copies need with what is free, file system by file system.

    :param notes: Gets reasons to refuse.
    """
    needed: dict[str, int] = {}
    names: dict[str, list[str]] = {}
    for disk in planned:
        if not disk.bytes:
            continue
        pool = facts.pools[disk.pool]
        place = pool.filesystem or pool.name
        needed[place] = needed.get(place, 0) + disk.bytes
        if pool.name not in names.setdefault(place, []):
            names[place].append(pool.name)
    for place, wanted in needed.items():
        available = min(facts.pools[name].available for name in names[place])
        if wanted > available:
            pools = ", ".join(f"'{name}'" for name in names[place])
            one = len(names[place]) == 1
            notes.conflicts.append(
                f"Storage pool{'' if one else 's'} {pools} {'has' if one else 'have'} "
                f"{available / 2**20:.0f} MiB free and the copies need {wanted / 2**20:.0f} MiB. "
                "Make room, or use 'clone_strategy: quick'."
            )
