"""
Boot a clone for the first time, and wait until it has an address and an identity of its own.

Both are stages of a create, and what starting a clone means that was left off.
"""

from __future__ import annotations

import time
from dataclasses import replace

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.hypervisor.constants import OPERATION_INVALID
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import silent_agent
from saltext.kvmclone.lifecycle import bootstrap, fork, record_store, wait_for_address
from saltext.kvmclone.lifecycle.address_query import AddressQuery
from saltext.kvmclone.model.clone import Address
from saltext.kvmclone.model.record import Record


def boot(host: Host, handle: DomainHandle, record: Record) -> Record:
    """
    Start the clone; one that runs already stays as it is.

    :return: The record as it was saved, at stage ``booted`` or at the later one that it had.
    :raises HostError: libvirt refused.
    :raises ForkFailed: It was to go on from the memory of a warmed base, and is off now.
    """
    if fork.is_due(record):
        return fork.first_boot(host, handle, record)
    started, mine = time.monotonic(), record
    try:
        handle.start()
        mine = replace(record, warmed="")  # a fork that is booted goes on from no memory any more
    except HostError as error:
        # It was started already: by somebody else, or by us before an interrupt.
        if error.code != OPERATION_INVALID or handle.state() != "running":
            raise
    if record.stage != "cloned":  # a later stage stays
        return record if mine == record else record_store.save(handle, record, mine)
    booted = record.at("booted", booted=time.monotonic() - started)
    return record_store.save(handle, record, booted)


def await_address(
    handle: DomainHandle,
    record: Record,
    query: AddressQuery,
    entered_later: bool,
    autostart: bool | None = None,
) -> tuple[Record, tuple[Address, ...]]:
    """
    Wait for the clone's address, and note what was learned of the guest on the way.

    :param record: As it was last read or written.
    :param entered_later: A bootstrap follows, which can still reset the identity over ssh.
    :param autostart: Whether the host starts it when it boots, which is set once the clone has an
        identity of its own; None leaves that as it is.
    :return: The record as it was saved, at stage ``addressed``, and every usable address.
    :raises GuestStopped: The guest crashed or shut off.
    :raises AddressTimeout: No address in time; the message says what was tried.
    :raises CreateInProgress: The clone was taken over, or is being destroyed.
    """
    started, seen = time.monotonic(), record
    mine = fork.become_itself(handle, record, entered_later)
    if mine is not record:
        record = seen = record_store.save(handle, record, mine)
        query = replace(query, resets=False, heard=True)
    found = wait_for_address.arrive(handle, query)
    record_store.current(handle, seen)  # only the clone's own worker talks to the guest
    warnings = [*record.warnings, *found.warnings]
    if found.identity_reset:
        record = replace(record, identity="reset", host_keys=found.host_keys)
    else:
        if not record.host_keys:
            record = replace(record, host_keys=bootstrap.told_host_keys(handle))
        if query.resets and not entered_later:
            warnings.append(found.not_reset)
    if autostart is not None and (record.identity or not entered_later):
        handle.set_autostart(autostart)
    agent = found.agent if found.agent == silent_agent.SILENT else ""
    record = replace(record, address=found.address, agent=agent, warnings=tuple(warnings))
    record = record.at("addressed", addressed=time.monotonic() - started)
    record = record_store.save(handle, seen, record)
    return record, tuple(sighting.address for sighting in found.sightings)
