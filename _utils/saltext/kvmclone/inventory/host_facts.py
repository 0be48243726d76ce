"""
Ask the host everything that planning a clone needs.

Reads only. The result is :class:`.facts.HostFacts`, plain data.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from saltext.kvmclone.errors import absent
from saltext.kvmclone.hypervisor import network_xml, networks, pools, state_files, volumes
from saltext.kvmclone.hypervisor.constants import (
    CONFIG_UNSUPPORTED,
    INVALID_ARG,
    NO_NETWORK,
    NO_SUPPORT,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import file_usage_scan, seed_search
from saltext.kvmclone.model import domain_xml, libvirt_xml
from saltext.kvmclone.model.cloud_seed import OWN
from saltext.kvmclone.model.derived_files import Machines
from saltext.kvmclone.model.domain_xml import Disk, Domain
from saltext.kvmclone.model.facts import HostFacts, PoolFacts, SourceFacts, SwitchFacts
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan import disk_wishes, new_disks, seed_disk
from saltext.kvmclone.plan.rewrite import without
from saltext.kvmclone.plan.rewrite.result import written_paths
from saltext.kvmclone.system import filesystems, images, seed_image

#: Every network device of this machine has a folder here.
_DEVICES = "/sys/class/net"


def facts(
    host: Host, request: Request, taken: bool | None = None, definition: str = ""
) -> HostFacts:
    """
    Ask the host everything that planning one clone needs; change nothing.

    :param taken: Whether there is a domain of the clone's name, if that was just looked up.
    :param definition: The base's, where the clone is to be made from another than its own.
    """
    if taken is None:
        taken = host.find(request.name) is not None
    base = host.domain(request.base_domain)
    definition = definition or base.definition()
    domain = domain_xml.read(without(definition, request.leave_out), host.folders.stores)
    disks = _disks(host, domain, request)
    networks_named = _networks(host, request, domain)
    seeds, unread = seed_search.find(host, domain, disks.sources)
    if request.seed == OWN:
        target, _bus = seed_disk.place(definition, seeds, request)
        volume = seed_disk.volume_name(request, target)
        places = {os.path.join(pool.path, volume) for pool in disks.pools.values()}
        disks.existing |= {path for path in places if volumes.exists(host, path)}
    return HostFacts(
        base_xml=definition,
        base_state="shutoff" if base.was_off else base.state(),
        base_saved=base.is_saved(),
        base_snapshots=_snapshots(host, base, disks.sources),
        local=host.local,
        commands=host.commands,
        taken=taken,
        left_behind=() if taken else state_files.left_behind(host, request.name),
        stores=host.folders.stores,
        sources=disks.sources,
        pools=disks.pools,
        existing=frozenset(disks.existing),
        users=_users(host, disks.existing),
        standing=_standing(host, definition) if host.local else frozenset(),
        missing=frozenset(disks.missing),
        seeds=seeds,
        unread=unread,
        writes_seeds=request.seed != OWN or bool(seed_image.program()),
        networks={name: active for name, (active, _switch) in networks_named.items()},
        switches={name: switch for name, (_active, switch) in networks_named.items()},
        bridges=_bridges(request) if host.local else {},
        macs=_macs(host, request),
        nvram_size=_nvram_size(host, domain),
        most_cpus=_most_cpus(host, definition) if request.cpus else 0,
        host_memory=int(host.call(host.raw.getInfo)[1]) * 2**20 if request.memory else 0,
        dhcp=networks.survey(host, request, domain.interfaces),
    )


@dataclass
class _Disks:
    """
    What the base's disks consist of, and where the clone's volumes would go.

    :param sources: Of each disk that is cloned, by target.
    :param pools: Those for the clone's volumes, by name.
    :param existing: Paths of these volumes at which a file stands already.
    :param missing: Paths of disks that are not cloned, and are not there.
    """

    sources: dict[str, SourceFacts] = field(default_factory=dict)
    pools: dict[str, PoolFacts] = field(default_factory=dict)
    existing: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)


def _disks(host: Host, domain: Domain, request: Request) -> _Disks:
    """Return what the base's disks consist of, and where the clone's volumes would go."""
    found = _Disks()
    cloned = [disk for disk in domain.disks if disk_wishes.may_be_cloned(disk, request)]
    copies = any(disk_wishes.strategy_of(disk, request) == "full" for disk in cloned)
    added = new_disks.targets(domain.disks, request)
    # An overlay takes no room. A remote host would look at every volume of the pool for the rest.
    fresh = copies or (host.local and (bool(added) or request.seed == OWN))
    for disk in domain.disks:
        if disk in cloned:
            _look_at(host, disk, request, fresh, found)
        elif host.local and disk.path.startswith("/") and not os.path.exists(disk.path):
            found.missing.add(disk.path)
    named = (disk_wishes.pool_of(disk, request, found.sources[disk.target]) for disk in cloned)
    first = next(filter(None, named), "")
    for target in added:
        name = request.disks[target].pool or request.pool or first
        if name and name not in found.pools and (pool := pools.facts(host, name, host.local)):
            found.pools[name] = pool
        _note_existing(host, name, new_disks.volume_name(request, target), found)
    return found


def _look_at(host: Host, disk: Disk, request: Request, fresh: bool, found: _Disks) -> None:
    """Add a disk that is cloned, and the pool for its volume, to what was found."""
    source, holder = _source(host, disk, request)
    found.sources[disk.target] = source
    name = disk_wishes.pool_of(disk, request, source)
    if name and name not in found.pools:
        at_hand = holder is not None and name == source.pool
        pool = pools.facts_of(host, holder, fresh) if at_hand else pools.facts(host, name, fresh)
        if pool is not None:
            found.pools[name] = pool
    _note_existing(host, name, disk_wishes.volume_name(disk, request), found)


def _note_existing(host: Host, name: str, volume: str, found: _Disks) -> None:
    """Note a file that stands already where a volume would go."""
    if name in found.pools and found.pools[name].active:
        path = os.path.join(found.pools[name].path, volume)
        if volumes.exists(host, path):
            found.existing.add(path)


def _users(host: Host, paths: set[str]) -> dict[str, str]:
    """Return why files must stay, for those that must; asks nothing if there are no files."""
    if not paths:
        return {}
    usage = file_usage_scan.scan(host)
    claims = {one.key: one.domain for one in usage.claims}
    standing = usage.overlays_on(paths)
    told: dict[str, str] = {}
    for path in paths:
        user = next(iter(usage.users(path)), claims.get(usage.file_id(path), ""))
        if user:
            told[path] = f"belongs to '{user}'"
        elif path in standing:
            told[path] = f"is the backing file of '{standing[path][0]}'"
        elif host.local and (who := images.holder(path)):
            told[path] = f"is open in {who}"
    return told


def _standing(host: Host, definition: str) -> frozenset[str]:
    """
    Return the files in the folders of the base's logs and sockets, present and expected.

    Expected are the files that libvirt makes for the machines of this host.
    """
    written = written_paths(libvirt_xml.shared(definition))
    found: set[str] = set()
    for folder in {os.path.dirname(path) for path in written}:
        with suppress(OSError):  # not made yet, or not readable to us
            found.update(os.path.join(folder, file) for file in os.listdir(folder))
    known = host.folders
    if any(path.startswith((f"{known.state}/", f"{known.logs}/")) for path in written):
        machines = Machines()
        host.each_domain(lambda handle: machines.add(handle.uuid, [handle.name], ()))
        found.update(path for _uuid, _name, path in machines.derive(known))
    return frozenset(found)


def _source(host: Host, disk: Disk, request: Request) -> tuple[SourceFacts, Any | None]:
    """Return what one disk of the base consists of, and libvirt's object of its pool."""
    path, problem = pools.path_of(host, disk)
    if disk.kind == "volume" and not path:
        return SourceFacts(
            asleep=disk.pool if problem == "asleep" else "",
            unknown_pool=disk.pool if problem == "unknown" else "",
        ), None
    holder = pools.holder(host, path)
    found, data, fault = images.chain(path, disk.format, partial(pools.look, host), host.commands)
    top = found[0]
    filesystem, copies_on_write = "", True
    if host.local and top.kind == "file" and disk_wishes.strategy_of(disk, request) == "full":
        filesystem = filesystems.of(os.path.dirname(top.real)).id
        copies_on_write = filesystems.copies_on_write(top.real)
    source = SourceFacts(
        images=found,
        data=data,
        fault=fault,
        pool=str(holder.name()) if holder is not None else "",
        asleep="" if holder is not None else pools.asleep(host, path),
        filesystem=filesystem,
        copies_on_write=copies_on_write,
    )
    return source, holder


def _snapshots(host: Host, base: DomainHandle, sources: Mapping[str, SourceFacts]) -> int:
    images = [image for source in sources.values() for image in source.images]
    if len(images) == len(sources) and not any(image.header.snapshots for image in images):
        return 0  # the common case costs no call
    return int(host.call(base.raw.snapshotNum, 0))


def _networks(host: Host, request: Request, domain: Domain) -> dict[str, tuple[bool, SwitchFacts]]:
    """Return whether each network that the request names is active, and what it supports."""
    names = []
    for number, wish in enumerate(request.networks):
        has = domain.interfaces[number] if number < len(domain.interfaces) else None
        of_the_base = has.source if has and has.kind == "network" and wish.portgroup else ""
        names.append(wish.network or of_the_base)
    found: dict[str, tuple[bool, SwitchFacts]] = {}
    for name in dict.fromkeys(filter(None, names)):
        network = networks.find(host, name)
        with absent(NO_NETWORK):  # it may be removed at this moment
            if network is not None:
                active = bool(host.call(network.isActive))
                found[name] = active, network_xml.switch(host.call(network.XMLDesc, 0))
    return found


def _bridges(request: Request) -> dict[str, str]:
    devices = os.listdir(_DEVICES)
    found: dict[str, str] = {}
    for name in {wish.bridge for wish in request.networks if wish.bridge}:
        if name not in devices:
            found[name] = "missing"
        else:
            is_bridge = os.path.isdir(os.path.join(_DEVICES, name, "bridge"))
            found[name] = "bridge" if is_bridge else "other"
    return found


def _macs(host: Host, request: Request) -> dict[str, str]:
    if not any(wish.mac for wish in request.networks):
        return {}

    def look(handle: DomainHandle) -> list[Domain]:
        # A card that was plugged into a running machine may be missing in its definition.
        return [domain_xml.read(xml) for xml in (handle.live(), handle.definition())]

    domains = [domain for both in host.each_domain(look) for domain in both]
    own = _own_macs() if host.local else {}
    return own | {
        card.mac: domain.name for domain in domains for card in domain.interfaces if card.mac
    }


def _own_macs() -> dict[str, str]:
    """Return the MAC addresses of the host's own cards and bridges, with a name for each."""
    found = {}
    for device in os.listdir(_DEVICES):
        path = os.path.join(_DEVICES, device, "address")
        with suppress(OSError), open(path, encoding="ascii") as told:
            found[told.read().strip()] = f"the host's {device}"
    found.pop("00:00:00:00:00:00", None)  # the loopback's
    return found


def _most_cpus(host: Host, definition: str) -> int:
    """Return the most CPUs that libvirt allows the base's machine type; 0 if it does not say."""
    root = libvirt_xml.shared(definition)
    kind = root.find("./os/type")
    words = [
        libvirt_xml.text(root, "./devices/emulator"),
        kind.get("arch") if kind is not None else None,
        kind.get("machine") if kind is not None else None,
        root.get("type"),
    ]
    told = "<domainCapabilities/>"  # for a driver or machine type that libvirt does not describe
    with absent(NO_SUPPORT), absent(INVALID_ARG), absent(CONFIG_UNSUPPORTED):
        told = host.call(host.raw.getDomainCapabilities, *[w or None for w in words], 0)
    most = libvirt_xml.element(told).find("./vcpu")
    return int(most.get("max", 0)) if most is not None else 0


def _nvram_size(host: Host, domain: Domain) -> int:
    if not (host.local and domain.nvram and domain.nvram.path):
        return 0
    try:
        return os.path.getsize(domain.nvram.path)
    except OSError:  # the base never booted
        return 0
