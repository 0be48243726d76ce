"""
Put together CLONE, the answer about one clone, from its record and from libvirt.

Also the errors about a clone that exists already. Reads only, and asks libvirt only for what is
not known yet.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import asdict, replace
from typing import Any

from saltext.kvmclone.display import screen
from saltext.kvmclone.errors import (
    AlreadyExists,
    CreateInProgress,
    ForeignDomain,
    KeptAfterFailure,
    absent,
)
from saltext.kvmclone.hypervisor import addresses, pools
from saltext.kvmclone.hypervisor.constants import NO_DOMAIN
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_changes, pending_changes, silent_agent
from saltext.kvmclone.inventory.file_usage import FileId, file_id
from saltext.kvmclone.model import domain_xml, libvirt_xml, redaction
from saltext.kvmclone.model.clone import Address, Clone, CloneDisk
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import ALIVE, DESTROYING, ELSEWHERE, Owner, Record, Work
from saltext.kvmclone.system import processes


def describe_new(host: Host, handle: DomainHandle, record: Record, label: str) -> Clone:
    """Return a clone that was just made and is off, without asking for its state or addresses."""
    return _clone(host, handle, record, label, "shutoff", (), _own_disks(record))


def describe(
    host: Host, handle: DomainHandle, record: Record, label: str, commands: Commands | None = None
) -> Clone:
    """
    Return a clone as it is now, with warnings about its base, its next start and its expiry.

    :param label: What to call the host; empty for its own name.
    :param commands: How commands are typed where this is read; without them no pending changes are
        reported.
    """
    clone = describe_running(host, handle, record, label)
    warnings = list(clone.warnings)
    waiting = at_next_start(handle, clone.state) if commands is not None else {}
    if waiting and commands is not None:
        warnings.append(pending_changes.sentence(handle.name, waiting, commands))
    shared = [(disk.target, disk.path) for disk in clone.disks if disk.strategy == "share"]
    committed = base_changes.committed(host, record, shared)
    changes = list(base_changes.changes(host, record, committed))
    warnings += changes
    if record.failed:
        warnings.append(f"The create failed and was kept: {record.failed}")
    if record.expires:
        warnings.append(_expiry(record.expires))
    if record.name and record.name != handle.name:
        warnings.append(
            f"It was made as '{record.name}'; its files, its minion and its guest keep that name."
        )
    clone = replace(clone, drift=bool(changes), warnings=tuple(warnings))
    return screen.note(handle.name, clone)


def at_next_start(handle: DomainHandle, state: str = "") -> dict[str, dict[str, Any]]:
    """
    Return what the next start of a machine changes; see :func:`.pending_changes.changes`.

    :param state: libvirt's state, if it is known.
    """
    if (state or handle.state()) == "shutoff":
        return {}
    return pending_changes.changes(
        libvirt_xml.parse(handle.live()), libvirt_xml.parse(handle.definition())
    )


def pending(handle: DomainHandle, commands: Commands) -> dict[str, Any]:
    """Return what the next start of a clone changes, and a sentence that says so."""
    waiting = at_next_start(handle)
    note = pending_changes.sentence(handle.name, waiting, commands) if waiting else ""
    return {"changes": waiting, "note": note}


def kept(record: Record, name: str, commands: Commands) -> KeptAfterFailure:
    """Return the error for an earlier create that failed and whose clone was kept."""
    return KeptAfterFailure(
        f"An earlier create of '{name}' failed and was kept at stage '{record.stage}': "
        f"{record.failed}",
        f"Go on with it: {commands.resume(name, record.profile)}   Or remove it: "
        f"{commands.clone('destroy', name)}",
    )


def of_the_stock(record: Record, name: str) -> tuple[str, str]:
    """Return why a spare in stock stays as it was made, and what to do instead."""
    return (
        f"'{name}' is a spare in stock of the profile '{record.profile}': it stays as it was made "
        "until somebody claims it.",
        f"Claim one: {Commands().clone('claim', record.profile)}",
    )


def already_exists(clone: Clone, commands: Commands) -> AlreadyExists:
    """Return the error for a clone that exists; it carries that clone."""
    return AlreadyExists(
        f"'{clone.name}' exists already, made from '{clone.base}', at stage '{clone.stage}'.",
        f"Choose another name, or remove it first: {commands.clone('destroy', clone.name)}",
        clone=clone.as_dict(),
    )


def in_progress(record: Record, name: str, commands: Commands) -> CreateInProgress:
    """Return the error that says who is at work on a clone, and what to do if nobody is."""
    worker = record.worker
    doing = "destroyed" if record.stage == DESTROYING else "made"
    if record.under_way and record.stage != DESTROYING:
        doing = f"changed ({record.under_way})"
    life = processes.owner_state(worker)
    if life == ELSEWHERE:
        message = (
            f"'{name}' is being {doing} by process {worker.pid} on '{worker.host}', or was when "
            "that stopped; that cannot be determined from here."
        )
        hint = (
            f"Repeat the command on '{worker.host}'. If nothing runs there any more: "
            + commands.clone("gc", name, "apply=True", "force=True")
        )
    elif life == ALIVE:
        message = f"'{name}' is being {doing} by process {worker.pid} (stage '{record.stage}')."
        hint = f"Wait for it: {commands.clone('show', name)}   Or end it: "
        hint += commands.beside("kill", str(worker.pid))
    else:
        end = processes.owner_end(worker)
        message = f"'{name}' was being {doing} when {end} (stage '{record.stage}')."
        hint = f"Remove what it left: {commands.clone('gc', name, 'apply=True')}"
    work = Work(worker, life, record.stage, record.goal, record.request)
    return CreateInProgress(message, hint, asdict(work))


def no_clone(record: Record, name: str, commands: Commands) -> ForeignDomain:
    """Return the error that says that a machine only holds the saved memory of a base."""
    return ForeignDomain(
        f"'{name}' is no clone, but holds the saved memory of the base '{record.base}'.",
        f"To remove that: {commands.clone('unwarm', record.base)}",
    )


def require_no_saved_memory(record: Record | None, name: str, commands: Commands) -> None:
    """
    Refuse a name that belongs to a warmed base, for a machine that is to be made or looked at.

    :param record: That of the machine which has the name, if it has one.
    :raises ForeignDomain: It is, or is about to be, the saved memory of a base.
    """
    if record is not None and not record.is_clone:
        error = no_clone(record, name, commands)
        raise ForeignDomain(error.message, f"Choose another name.   {error.hint}")


def refuse_existing(host: Host, name: str, label: str, me: Owner | None = None) -> bool:
    """
    Refuse a name that a clone of ours has.

    :param label: What to call the host; empty for its own name.
    :param me: The worker whose own leftovers are no obstacle.
    :return: Whether there is a domain of that name all the same: a foreign one, or the worker's own
        leftovers.
    :raises AlreadyExists: A clone of that name is there and complete; carries it.
    :raises KeptAfterFailure: Its create failed, and it was kept.
    :raises CreateInProgress: Somebody is at work on it, or died at it.
    :raises ForeignDomain: It holds the saved memory of a base.
    """
    with absent(NO_DOMAIN):  # it may be removed at any moment
        handle = host.find(name)
        record = handle.record() if handle else None
        if handle is None or record is None:
            # The plan refuses a foreign one, together with whatever else is wrong.
            return handle is not None
        if me is not None and record.worker.token == me.token:
            return True
        require_no_saved_memory(record, name, host.commands)
        if record.failed and record.stage != DESTROYING:
            raise kept(record, name, host.commands)
        if record.stage == DESTROYING or not record.complete:
            raise in_progress(record, name, host.commands)
        raise already_exists(describe(host, handle, record, label), host.commands)
    return False


def _expiry(when: float) -> str:
    told = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(when))
    return f"Its ttl {'ended' if when <= time.time() else 'ends'} at {told}."


def describe_running(
    host: Host,
    handle: DomainHandle,
    record: Record,
    label: str,
    state: str = "",
    known: tuple[Address, ...] | None = None,
) -> Clone:
    """
    Return a clone as it is now, without a look at its base.

    :param label: What to call the host; empty for its own name.
    :param state: libvirt's state, if it is known.
    :param known: Its addresses, if they are known.
    """
    state = state or handle.state()
    live = handle.live()
    domain = domain_xml.read(live)
    if record.warnings:  # those of an earlier version may quote secrets of the definition
        hidden = redaction.hidden_values(live)
        warnings = tuple(redaction.without_whole(said, hidden) for said in record.warnings)
        record = replace(record, warnings=warnings)
    used = [(disk, pools.path_of(host, disk)[0]) for disk in domain.disks]
    owned = {file_id(volume.path, host.local) for volume in record.volumes}
    disks = _own_disks(record, {file_id(path, host.local) for _disk, path in used}, host.local)
    shared = tuple(
        CloneDisk(disk.target, redaction.path(path), disk.format, "share")
        for disk, path in used
        if file_id(path, host.local) not in owned
    )
    if known is None:
        known = ()
        if state == "running":
            seen = addresses.look(
                handle,
                domain,
                record.ip_source,
                addresses.address_filter(record.pick, record.reservations),
            )
            known = tuple(sighting.address for sighting in seen)
    clone = _clone(host, handle, record, label, state, known, disks + shared)
    silence = silent_agent.warnings(handle, record, domain, state)
    return replace(clone, warnings=(*clone.warnings, *silence))


def foreign(host: Host, handle: DomainHandle, label: str) -> Clone:
    """Return a domain that is not one of ours, in the shape of a clone."""
    domain = domain_xml.read(handle.definition())
    return Clone(
        name=handle.name,
        uuid=handle.uuid,
        host=label or host.node_name(),
        base="",
        profile="",
        strategy="",
        state=handle.state(),
        stage="",
        disks=tuple(
            CloneDisk(d.target, redaction.path(d.path), d.format, "share") for d in domain.disks
        ),
    )


def _own_disks(
    record: Record, used: Collection[FileId] = (), local: bool = True
) -> tuple[CloneDisk, ...]:
    """
    Return the disks that were made for a clone; of one with snapshots only the file that is used.

    :param used: The files that the clone uses now.
    """
    several = {volume.target for volume in record.volumes if volume.label}
    return tuple(
        CloneDisk(volume.target, volume.path, volume.format, volume.strategy)
        for volume in record.volumes
        if volume.target != "nvram"
        and (volume.target not in several or file_id(volume.path, local) in used)
    )


def _clone(
    host: Host,
    handle: DomainHandle,
    record: Record,
    label: str,
    state: str,
    known: tuple[Address, ...],
    disks: tuple[CloneDisk, ...],
) -> Clone:
    address = record.address
    if known and address not in {item.address for item in known}:
        address = known[0].address
    return Clone(
        name=handle.name,
        uuid=record.uuid,
        host=label or host.node_name(),
        base=record.base,
        profile=record.profile,
        strategy=record.strategy,
        state=state,
        stage=record.stage,
        address=address,
        addresses=known,
        disks=disks,
        minion=record.minion,
        warnings=record.warnings,
        timings=record.timings,
        created=record.created,
        expires=record.expires,
        tags=record.tags,
        failed=record.failed,
        spare=record.spare,
        claim=record.claim,
    )
