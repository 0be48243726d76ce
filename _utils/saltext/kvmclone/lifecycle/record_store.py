"""
Write a clone's record after a wait, without overwriting what others wrote in the meantime.

Waiting for a guest takes minutes. During that time an operator may change the clone's tags,
another worker may take the clone over, and somebody may have begun to destroy it. So a record
that was read before a wait is never simply written back after it.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace

from saltext.kvmclone.errors import (
    ForeignDomain,
    HostError,
    NotFound,
    absent,
)
from saltext.kvmclone.hypervisor.constants import NO_DOMAIN
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import (
    clone_view,
)
from saltext.kvmclone.model.record import DESTROYING, STAGES, Record
from saltext.kvmclone.system import processes

log = logging.getLogger(__name__)


def save(handle: DomainHandle, seen: Record, mine: Record) -> Record:
    """
    Write the findings of this piece of work over the record as it stands now.

    :param seen: The record as this work read it, or last wrote it.
    :param mine: The same record with what this work found out.
    :return: The record as it stands now.
    :raises CreateInProgress: Another worker has the clone, or it is being destroyed; nothing was
        written.
    :raises NotFound: The clone is gone.
    """
    with ExitStack() as stack:
        try:
            # A destroy marks the record under the same lock; without the lock the window in which
            # both write is a millisecond.
            stack.enter_context(processes.name_lock(handle.name))
        except HostError as error:
            log.debug("%s: the record is written without a turn: %s", handle.name, error)
        record = merged(seen, mine, current(handle, seen))
        handle.save_record(record)
    return record


def current(handle: DomainHandle, mine: Record) -> Record:
    """
    Return the record as it stands now.

    :param mine: The record as this work knows it.
    :raises CreateInProgress: Another worker has the clone, or it is being destroyed.
    :raises NotFound: The clone is gone.
    """
    now = None
    with absent(NO_DOMAIN):
        now = handle.record()
    if now is None:
        raise NotFound(
            f"'{handle.name}' was removed while kvm_clone was working on it.",
            f"List them: {handle.connection.commands.listing()}",
        )
    others = now.worker.token != mine.worker.token
    if others or (now.stage == DESTROYING and mine.stage != DESTROYING):
        raise clone_view.in_progress(now, handle.name, handle.connection.commands)
    return now


def clone_record(host: Host, name: str) -> tuple[DomainHandle, Record]:
    """
    Return the domain of a clone and its record.

    :raises NotFound: There is no such domain.
    :raises ForeignDomain: The domain exists, and carries no record of ours, or is no clone.
    """
    handle = host.domain(name)
    record = handle.record()
    if record is None:
        raise ForeignDomain(
            f"'{name}' exists and was not made by kvm_clone; it is left alone.",
            f"Handle it with virsh: {host.commands.virsh('dominfo', name)}",
        )
    if not record.is_clone:
        raise clone_view.no_clone(record, name, host.commands)
    return handle, record


def merged(seen: Record, mine: Record, now: Record) -> Record:
    """
    Return the stored record with what a piece of work has found out since it read it.

    :param seen: The record as that work read it.
    :param mine: The same with what it found out.
    :param now: The record as it is stored now.
    """
    found = {
        name: getattr(mine, name)
        for name in Record.__dataclass_fields__
        if getattr(mine, name) != getattr(seen, name)
    }
    if "warnings" in found:
        added = [w for w in mine.warnings if w not in seen.warnings and w not in now.warnings]
        found["warnings"] = (*now.warnings, *added)
    if "timings" in found:
        found["timings"] = {**now.timings, **mine.timings}
    if "stage" in found and STAGES.index(now.stage) > STAGES.index(mine.stage):
        del found["stage"]  # another process has brought the clone further
    return replace(now, **found)
