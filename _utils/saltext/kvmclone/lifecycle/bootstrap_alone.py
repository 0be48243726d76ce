"""Put a minion into a clone from its KVM host alone; its key waits for the master to accept it."""

from __future__ import annotations

from dataclasses import replace

from saltext.kvmclone.errors import (
    ConfigError,
    GuestStopped,
    KeyConflict,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import clone_view
from saltext.kvmclone.lifecycle import record_store
from saltext.kvmclone.lifecycle.bootstrap import bootstrap
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.model.request import Request


def alone(
    host: Host, handle: DomainHandle, record: Record, request: Request, enrolment: Enrolment
) -> Record:
    """
    Put a minion into an existing clone from the KVM host alone; nobody accepts its key.

    :param enrolment: As :func:`.enrolment.on_this_host` makes it.
    :return: The record as it was saved, with a warning that says how to accept the key.
    :raises ConfigError: The profile says ``bootstrap: none``, so there is nothing to do.
    :raises GuestStopped: The clone does not run.
    :raises CreateInProgress: Somebody is at work on it.
    :raises KeyConflict: It is already a minion that has answered its master.
    """
    name = handle.name
    if request.deploy.bootstrap == "none":
        raise ConfigError(
            f"The configuration of '{name}' says 'bootstrap: none', so there is nothing to do.",
            f"Say how: {handle.connection.commands.on_host('bootstrap', name, 'bootstrap=auto')}",
        )
    if not record.complete and not record.failed:
        raise clone_view.in_progress(record, name, handle.connection.commands)
    if record.stage == "ready":
        raise KeyConflict(
            f"'{name}' is already the minion '{record.minion.id}' of a master that knows its key.",
            "A new key would lock it out. To start over: "
            f"{handle.connection.commands.clone('destroy', name)}",
        )
    state = handle.state()
    if state != "running":
        raise GuestStopped(
            f"'{name}' is {state}, so nothing can be put into it.",
            f"Start it: {handle.connection.commands.clone('start', name)}",
        )
    request = replace(request, ip_source=record.ip_source, pick=record.pick)
    record = bootstrap(host, handle, record, request, enrolment)
    done = record
    if record.failed:
        # It was kept after a failure; with its minion it is complete, and no longer a leftover.
        done = replace(record, failed="", goal="enrolled").at("enrolled")
    master = enrolment.minion_config.get("master")
    accept = (
        f"No master has accepted the key of '{enrolment.minion_id}' yet; its master is {master}. "
        f"{enrolment.way_to_accept()}"
    )
    return record_store.save(handle, record, replace(done, warnings=(*done.warnings, accept)))
