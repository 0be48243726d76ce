"""
Ask the host everything that making a base from an image needs, and whether the name is free.

Reads only. The result is :class:`.base_plan.BaseFacts`, plain data.
"""

from __future__ import annotations

import os
from dataclasses import replace

from saltext.kvmclone.errors import AlreadyExists, HostError, PlanRefused
from saltext.kvmclone.hypervisor import network_xml, networks, pools, state_files, volumes
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import clone_view
from saltext.kvmclone.inventory.base_source import base_record
from saltext.kvmclone.model import digests, machine_types
from saltext.kvmclone.model.base_request import BaseRequest
from saltext.kvmclone.model.machine_types import MachineType
from saltext.kvmclone.model.record import DEAD, Record
from saltext.kvmclone.plan import base_plan
from saltext.kvmclone.plan.base_plan import BaseFacts
from saltext.kvmclone.system import copying, processes, seed_image

#: Every network device of this machine has a folder here.
_DEVICES = "/sys/class/net"

#: How the files of packages end, by the key that names their folder.
_PACKAGES = {"packages": (".deb", ".rpm"), "salt": (".deb", ".rpm", ".whl")}


def facts(host: Host, request: BaseRequest, remains: Record | None = None) -> BaseFacts:
    """
    Ask the host everything that making a base needs; change nothing.

    :param remains: See :func:`remains`: of what is removed first, nothing is in the way.
    """
    if not host.local:
        return BaseFacts(local=False)
    pool = pools.facts(host, request.pool, True)
    wanted = base_plan.paths(request, pool.path) if pool is not None else {}
    return BaseFacts(
        machine=machine(host, request.domain_type),
        pool=pool,
        network=_network(host, request),
        existing=tuple(
            path
            for path in wanted.values()
            if volumes.exists(host, path) and not (remains is not None and remains.owns(path))
        ),
        left_behind=state_files.left_behind(host, request.name) if remains is None else (),
        folders=tuple(
            f"{key}: {why}"
            for key, path in base_plan.folders_of(request).items()
            if (why := _wrong_folder(path, _PACKAGES[key]))
        ),
        missing=tuple(_missing()),
        memory=int(host.call(host.raw.getInfo)[1]) * 2**20,
    )


def machine(host: Host, domain_type: str) -> MachineType | None:
    """Return the machine that this host offers; None for none."""
    found = machine_types.offered(str(host.call(host.raw.getCapabilities)), domain_type)
    if found is None:
        return None
    try:
        told = host.call(
            host.raw.getDomainCapabilities, None, found.arch, found.machine, found.type, 0
        )
    except HostError:  # a driver that has none, or an emulator that cannot be started
        return found
    return replace(found, efi=machine_types.finds_efi(str(told)))


def _network(host: Host, request: BaseRequest) -> str:
    """Return what is wrong with the network or bridge; empty for nothing."""
    if request.bridge:
        there = request.bridge in os.listdir(_DEVICES)
        return "" if there else f"The host has no bridge '{request.bridge}'."
    commands = host.commands
    found = networks.facts(host, request.network)
    if found is None:
        listed = commands.virsh("net-list", "--all")
        return f"There is no network '{request.network}'. List them: {listed}"
    if not found.active:
        start = commands.virsh("net-start", request.network)
        return f"The network '{request.network}' is not started. Start it: {start}"
    if request.portgroup:
        # Of one that is not there libvirt says nothing, and takes none.
        raw = networks.find(host, request.network)
        xml = str(host.call(raw.XMLDesc, 0)) if raw is not None else "<network/>"
        groups = network_xml.switch(xml).portgroups
        if request.portgroup not in groups:
            return (
                f"The network '{request.network}' has no portgroup '{request.portgroup}'; it has "
                f"{', '.join(groups) or 'none'}."
            )
    return ""


def _wrong_folder(path: str, endings: tuple[str, ...]) -> str:
    """Return why a folder of packages cannot serve; empty if it can."""
    try:
        names = os.listdir(path)
    except OSError as error:
        return f"'{path}' on the KVM host cannot be read ({error.strerror})"
    if not any(name.endswith(endings) for name in names):
        return f"the folder '{path}' has no file that ends with {' or '.join(endings)}"
    return ""


def _missing() -> list[str]:
    found = [] if copying.can_convert() else ["qemu-img (apt install qemu-utils)"]
    return found if seed_image.program() else [*found, f"xorriso. {seed_image.INSTALL}"]


def remains(host: Host, request: BaseRequest) -> Record | None:
    """Return the record of what a dead worker left, which making the base would remove first."""
    handle = host.find(request.name)
    record = handle.record() if handle is not None else None
    if record is None or not record.becomes or record.base:
        return None
    return record if processes.owner_state(record.worker) == DEAD else None


def refuse_existing(host: Host, request: BaseRequest) -> None:
    """
    Refuse a name that a domain has.

    :raises AlreadyExists: That very base is there.
    :raises CreateInProgress: A base is being made of an image under that name, or somebody died at
        it; what such a one left may be removed.
    :raises PlanRefused: Another machine has the name.
    :raises ForeignDomain: It is that of a saved memory.
    """
    handle = host.find(request.name)
    if handle is None:
        return
    record, made = handle.record(), base_record(handle)
    clone_view.require_no_saved_memory(record, request.name, host.commands)
    if record is not None and record.becomes and not record.base:
        raise clone_view.in_progress(record, request.name, host.commands)
    if record is not None or made is None:
        raise PlanRefused(
            f"There is a machine '{request.name}' already, and no base that was made from an "
            "image.",
            f"Choose another name, or look at it: {host.commands.virsh('dominfo', request.name)}",
        )
    wanted = request.digest
    same = digests.algorithm_of(wanted) == digests.algorithm_of(made.digest)
    if made.source == request.source and (not wanted or (same and wanted == made.digest)):
        raise AlreadyExists(
            f"The base '{request.name}' exists already, made from '{made.source}' ({made.digest}).",
            f"Choose another name for one more. Which clones it has: {host.commands.clone('tree')}",
        )
    if made.source == request.source and made.digest and not same:
        raise PlanRefused(
            f"The base '{request.name}' exists already, made from '{made.source}' ({made.digest}); "
            f"whether that has {wanted} cannot be told, since the two digests cannot be compared.",
            f"Is that image meant? Then ask for sha256={made.digest.rpartition(':')[2]}   "
            "Otherwise choose another name.",
        )
    raise PlanRefused(
        f"The base '{request.name}' exists already, made from '{made.source}' ({made.digest}), and "
        f"'{request.source}' {f'({wanted}) ' if wanted else ''}is asked for.",
        "A base is never changed: clones may stand on it. Choose another name.",
    )
