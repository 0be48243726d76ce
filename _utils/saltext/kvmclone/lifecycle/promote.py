"""
Make a clone into a base: a full copy of it becomes the base, then the clone is destroyed.

The copy is made as every clone is, with a new uuid, new MAC addresses and its disks flattened. It
boots once without a network, is cleaned and finished (see :mod:`.finish_base`). Until that is done
the clone is not touched; from then on the base knows the uuid of the clone, so that the same
command, repeated after a crash, goes on with destroying the clone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    AlreadyExists,
    ConfigError,
    CreateInProgress,
    ForeignDomain,
    KvmCloneError,
    PlanRefused,
    absent,
)
from saltext.kvmclone.hypervisor.constants import NO_DOMAIN
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import clone_view, host_facts
from saltext.kvmclone.inventory.base_source import base_record
from saltext.kvmclone.inventory.silent_agent import SILENT
from saltext.kvmclone.lifecycle import create, finish_base
from saltext.kvmclone.lifecycle.destroy import destroy, examine
from saltext.kvmclone.lifecycle.journal import undo_stored
from saltext.kvmclone.lifecycle.record_store import clone_record
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.base_record import BaseRecord
from saltext.kvmclone.model.domain_xml import AGENT_CHANNEL
from saltext.kvmclone.model.record import BASE, DESTROYING, MADE, STAGES, Owner, Record
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan import planner

#: Seconds that the copy may take to boot until its agent answers, and again to shut down.
GUEST_TIMEOUT_S = 600.0


def promote(
    host: Host, name: str, base: str, worker: Owner, label: str = ""
) -> tuple[DomainHandle, tuple[str, ...]]:
    """
    Make a base of a clone, and destroy the clone. Can be repeated after a crash.

    :param name: Name of the clone; it is shut off.
    :param base: Name of the base.
    :param worker: The process that does it, for the record.
    :param label: What to call the host; empty for its own name.
    :return: The base, and what the operator should know.
    :raises KvmCloneError: It is refused, or failed; the message says where the clone is kept
        although the base is finished.
    """
    warnings: tuple[str, ...] = ()
    made = _finished_before(host, name, base)
    if made is None:
        handle, record = require_promotable(host, name, base, label)
        made, warnings = _make(host, handle, record, base, worker, label)
    source = host.find(name)
    if source is None:
        return made, (*warnings, f"'{name}' was destroyed already.")
    return made, (*warnings, *_destroy(host, source, made))


def _finished_before(host: Host, name: str, base: str) -> DomainHandle | None:
    """Return the base that an earlier promote of this clone has finished; None if none has."""
    handle = host.find(base)
    made = base_record(handle) if handle is not None and handle.record() is None else None
    if made is None or not made.from_uuid:
        return None
    source = host.find(name)
    same = made.source == name if source is None else made.from_uuid == source.uuid
    return handle if same else None


# --- what is refused ------------------------------------------------------------------


def require_promotable(host: Host, name: str, base: str, label: str) -> tuple[DomainHandle, Record]:
    """
    Refuse what cannot become a base; write nothing.

    :return: The clone and its record.
    :raises KvmCloneError: It is no finished clone of ours that is off and that nothing depends on;
        or it has no guest agent; or there is a machine of the base's name.
    """
    if name == base:
        raise ConfigError(
            f"The base cannot be called '{base}' like the clone that it is made from.",
            "Choose another name for the base.",
        )
    handle, record = _finished_clone(host, name)
    _require_free(host, base, label)
    _require_off(host, handle)
    _require_agent(host, handle, record)
    examine(host, handle)
    return handle, record


def _finished_clone(host: Host, name: str) -> tuple[DomainHandle, Record]:
    try:
        handle, record = clone_record(host, name)
    except ForeignDomain:
        made = base_record(host.domain(name))
        if made is None:
            raise
        raise PlanRefused(
            f"'{name}' is a base already, made from '{made.source}'.",
            f"Look at it: {host.commands.clone('tree')}",
        ) from None
    if record.failed and record.stage != DESTROYING:
        raise clone_view.kept(record, name, host.commands)
    if record.stage == DESTROYING or record.under_way or not record.complete:
        raise clone_view.in_progress(record, name, host.commands)
    if record.in_stock:
        raise PlanRefused(*clone_view.of_the_stock(record, name))
    return handle, record


def _require_free(host: Host, base: str, label: str) -> None:
    """
    Refuse the name of a machine that exists.

    :raises AlreadyExists: There is one; or what :func:`.clone_view.refuse_existing` raises of a
        clone.
    """
    if not clone_view.refuse_existing(host, base, label):
        return
    handle = host.find(base)
    made = base_record(handle) if handle is not None else None
    raise AlreadyExists(
        f"'{base}' is a base already, made from '{made.source}'."
        if made is not None
        else f"A domain named '{base}' exists already, and was not made by kvm_clone.",
        "Choose another name for the base.",
    )


def _require_off(host: Host, handle: DomainHandle) -> None:
    name, state = handle.name, handle.state()
    if not host.local:
        raise PlanRefused(
            f"'{name}' cannot be promoted over '{host.url}': the base is protected at the end, and "
            "file modes are out of reach from here.",
            "Set 'host:' in the provider to the minion on the KVM host.",
        )
    if state != "shutoff":
        raise PlanRefused(
            f"'{name}' is {state}, and its disks change while it is.",
            f"Shut it off first: {host.commands.shut_off(name, state)}",
        )
    if handle.is_saved():
        raise PlanRefused(
            f"'{name}' has a saved memory image that its disks belong to.",
            f"Discard it first: {host.commands.virsh('managedsave-remove', name)}   Or start it, "
            "and shut it down.",
        )


def _require_agent(host: Host, handle: DomainHandle, record: Record) -> None:
    """Refuse a guest that cannot be cleaned, as far as that is known before it boots."""
    why = ""
    if not domain_xml.read(handle.definition()).has_agent_channel:
        why = f"its definition has no channel for one ({AGENT_CHANNEL})"
    elif record.agent == SILENT:
        why = "the agent did not answer when it was last looked for"
    if why:
        raise PlanRefused(
            f"'{handle.name}' cannot be promoted: it is cleaned over its guest agent, and {why}.",
            "Install qemu-guest-agent in it, start it once, and shut it off: "
            + host.commands.clone("start", handle.name),
        )


def _require_untouched(host: Host, source: DomainHandle, since: float) -> None:
    """
    Refuse to go on where the clone is not what the base was made from.

    :param since: When the copying began, seconds since the epoch.
    :raises PlanRefused: It runs, or its disks were written since.
    """
    record, what = None, ""
    with absent(NO_DOMAIN):
        record = source.record()
    if record is None:
        what = "is gone, or no clone of ours any more"
    elif record.stage == DESTROYING:
        what = "is being destroyed"
    elif (state := source.state()) != "shutoff":
        what = f"is {state} now"
    elif _written(record, since):
        what = "was written since it was copied"
    if what:
        raise PlanRefused(
            f"'{source.name}' {what}, so the base is not made from what it is.",
            f"List them: {host.commands.listing()}",
        )


def _written(record: Record, since: float) -> bool:
    """Return whether a file of a clone was written after a moment, seconds since the epoch."""
    for volume in record.volumes:
        with suppress(FileNotFoundError):  # a variable store, before the first boot
            if volume.state == MADE and os.stat(volume.path).st_mtime > since:
                return True
    return False


# --- what is done ---------------------------------------------------------------------


def _make(
    host: Host, source: DomainHandle, record: Record, base: str, worker: Owner, label: str
) -> tuple[DomainHandle, tuple[str, ...]]:
    """
    Make the base; take all of it back on any failure.

    :return: The finished base, and what the operator should know.
    """
    plan = _plan(host, source, base, worker)
    try:
        made, copied = create.apply(host, plan)
    except (PlanRefused, CreateInProgress):
        # Another worker may have begun since we looked: its error says more.
        clone_view.refuse_existing(host, base, label, worker)
        raise
    try:
        names = tuple(dict.fromkeys(filter(None, (record.name, source.name))))
        copied = finish_base.boot_without_network(made, copied)
        left = finish_base.clean_and_shut_off(made, GUEST_TIMEOUT_S, names)
        _require_untouched(host, source, copied.created)
        interrupts.check()
        made_from = BaseRecord(made.uuid, source.name, "", copied.created, source.uuid)
        finish_base.finish(host, made, copied, made_from)
    except BaseException as error:
        undo_stored(host, made, error)
        raise
    return made, (*plan.warnings, *left)


def _plan(host: Host, source: DomainHandle, base: str, worker: Owner) -> planner.ClonePlan:
    """Return the plan of a full clone whose record says that it becomes a base."""
    request = Request(
        name=base,
        base_domain=source.name,
        url=host.url,
        clone_strategy="full",
        # "Cloned from …" is how clones of Salt's old driver are known.
        description=f"Promoted from {source.name}",
        # libvirt has accepted the clone's definition already, by whatever provider it was made.
        validate_xml=False,
        ip_source="qemu-agent",
    )
    plan = planner.compute(host_facts.facts(host, request), request, worker)
    record = replace(
        plan.record,
        goal=STAGES[-1],
        becomes=BASE,
        identity="kept",
        request=f"promote {source.uuid}",  # that of no create, so that none takes it over
    )
    return replace(plan, record=record)


def _destroy(host: Host, source: DomainHandle, made: DomainHandle) -> tuple[str, ...]:
    """
    Destroy the clone, now that the base is finished.

    :return: What stays of it, one sentence each.
    :raises KvmCloneError: It is not what the base was made from any more, or cannot be destroyed.
    """
    name, base, commands = source.name, made.name, host.commands
    made_from, record = base_record(made), source.record()
    then = ""
    try:
        # A destroy that was begun is only finished: there is nothing left to be used.
        if made_from is not None and (record is None or record.stage != DESTROYING):
            # Once it was used, no repetition makes the base from what it is now.
            then = f"If it is not needed: {commands.clone('destroy', name)}"
            _require_untouched(host, source, made_from.made)
        then = ""
        return destroy(host, source).sentences
    except KvmCloneError as error:
        error.message = f"'{base}' is a base now, but '{name}' stays. {error.message}"
        if not then or not isinstance(error, PlanRefused):
            then = f"{error.hint}   Then repeat: {commands.clone('promote', name, base)}"
        error.hint = then
        raise
