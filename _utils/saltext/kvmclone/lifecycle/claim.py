"""
Take a spare out of the stock, so that nobody else can have it.

The record decides: it is read and written under the lock under which a destroy marks it, too, so of
several claims on one spare, or a claim and a destroy, only one succeeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from saltext.kvmclone.errors import ForeignDomain, NoSpare, NotFound
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle.record_store import clone_record
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import STAGES, Record
from saltext.kvmclone.model.spares import Claim
from saltext.kvmclone.system import processes


def claim(
    host: Host, name: str, uuid: str, who: Claim, expires: float, tags: Sequence[str]
) -> tuple[DomainHandle, Record]:
    """
    Record who has a spare from now on.

    :param uuid: The spare's.
    :param expires: When its ``ttl`` ends, seconds since the epoch.
    :param tags: Words recorded with it besides its own.
    :return: The spare and its record as it stands now.
    :raises NoSpare: It is not in stock; nothing was written.
    """
    with processes.name_lock(name):
        try:
            handle, record = clone_record(host, name)
        except (NotFound, ForeignDomain) as error:
            raise _no_spare(name, "it is not there any more", host.commands) from error
        if why := _why_not(handle, record, uuid):
            raise _no_spare(name, why, host.commands)
        all_tags = tuple(dict.fromkeys((*record.tags, *tags)))
        record = replace(record, claim=who, expires=expires, tags=all_tags)
        handle.save_record(record)
    return handle, record


def _why_not(handle: DomainHandle, record: Record, uuid: str) -> str:
    """Say why a clone cannot be claimed; empty where it can."""
    if record.uuid != uuid:
        return "another machine is called so by now"
    if record.claim.at:
        return f"{record.claim.by} has claimed it"
    if not record.spare:
        return "it was not made as one"
    if record.stage != STAGES[-1] or not record.complete or record.failed:
        return f"it is at stage '{record.stage}'"
    if record.under_way:
        return f"it is being changed ({record.under_way})"
    return f"it was made as '{record.name}'" if record.name != handle.name else ""


def _no_spare(name: str, why: str, commands: Commands) -> NoSpare:
    return NoSpare(
        f"'{name}' is no spare in stock: {why}.", f"Look at it: {commands.clone('show', name)}"
    )
