"""
Asking the host everything that planning a clone needs, and whether a base changed since.

Reads only. What it finds is :class:`.facts.HostFacts`, plain data.
"""

from __future__ import annotations

import os

from saltext.kvmclone import domain_xml, plan, volumes
from saltext.kvmclone.facts import HostFacts, PoolFacts, VolumeFacts
from saltext.kvmclone.host import Host
from saltext.kvmclone.ownership import Record
from saltext.kvmclone.request import Request


def facts(host: Host, request: Request) -> HostFacts:
    """Ask the host everything that planning one clone needs; changes nothing."""
    base = host.domain(request.base_domain)
    definition = base.definition()
    domain = domain_xml.read(definition)
    found: dict[str, VolumeFacts] = {}
    pools: dict[str, PoolFacts] = {}
    occupied: set[str] = set()
    for disk in domain.disks:
        if not plan.is_cloned(disk):
            continue
        volume = volumes.find(host, disk.path)
        if volume is None:
            continue
        found[disk.path] = volume
        name = request.pool or volume.pool
        if name not in pools:
            known = volumes.pool(host, name)
            if known is None:
                continue
            pools[name] = known
        wanted = plan.volume_name(request.name, disk, request.clone_strategy)
        path = os.path.join(pools[name].path, wanted)
        if pools[name].active and volumes.exists(host, path):
            occupied.add(path)
    nvram = plan.nvram_path(domain, request.name)
    if nvram and host.local and os.path.exists(nvram):
        occupied.add(nvram)
    return HostFacts(
        base_xml=definition,
        base_state=base.state(),
        base_saved=base.is_saved(),
        local=host.local,
        taken=host.find(request.name) is not None,
        volumes=found,
        pools=pools,
        existing=frozenset(occupied),
    )


def drifted(host: Host, record: Record) -> bool:
    """Whether a disk of the base changed since the clone was made from it."""
    for disk in record.base_disks:
        now = volumes.find(host, disk.path)
        if now is None or now.modified != disk.modified:
            return True
    return False
