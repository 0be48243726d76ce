"""
Doing what a plan says, and taking it back when a step fails.

The definition is the journal. It is written first, with a record of every file that is
about to be made; each step moves the record's stage; a failure undoes in reverse. The
same record later says what :mod:`.dismantle` may delete.
"""

from __future__ import annotations

import logging
import os
import shutil
import time

from saltext.kvmclone import domain_xml, ownership, volumes
from saltext.kvmclone.codes import OPERATION_FAILED, XML_INVALID_SCHEMA
from saltext.kvmclone.errors import CreateInProgress, HostError, KvmCloneError
from saltext.kvmclone.host import DomainHandle, Host
from saltext.kvmclone.plan import ClonePlan

log = logging.getLogger(__name__)


def apply(host: Host, plan: ClonePlan) -> tuple[DomainHandle, ownership.Record]:
    """
    Make the clone, shut off; on any failure nothing of it is left.

    :param plan: A plan without conflicts.
    :return: The domain and its record, at stage ``cloned``.
    :raises PlanRefused: The plan has conflicts, or the name was taken meanwhile.
    :raises KvmCloneError: A step failed; what was made is gone again.
    """
    plan.check()
    started = time.monotonic()
    handle = _define(host, plan)
    made: list[str] = []
    try:
        for disk in plan.disks:
            if disk.destination:
                volumes.create(host, disk, made)
        if plan.nvram:
            _copy_nvram(*plan.nvram, made)
        if plan.request.autostart is not None:
            handle.set_autostart(plan.request.autostart)
        record = plan.record.at("cloned", cloned=time.monotonic() - started)
        handle.save_record_offline(record)
    except BaseException as error:
        _undo(host, handle, made, error)
        raise
    return handle, record


def _define(host: Host, plan: ClonePlan) -> DomainHandle:
    root = domain_xml.parse(plan.xml)
    ownership.embed(root, plan.record)
    name = plan.request.name
    try:
        return host.define(domain_xml.serialize(root), plan.request.validate_xml)
    except HostError as error:
        if error.code == XML_INVALID_SCHEMA:
            raise HostError(
                f"libvirt's schema refuses the definition of '{name}': {error.message}",
                "If the base itself is known to work, set 'validate_xml: no' in the provider.",
                code=error.code,
            ) from error
        if error.code == OPERATION_FAILED and host.find(name) is not None:
            raise CreateInProgress(
                f"Another worker defined '{name}' at the same moment.",
                f"Look at it: salt-run kvmclone.show {name}",
            ) from error
        raise


def _copy_nvram(source: str, destination: str, made: list[str]) -> None:
    """
    Copy the variable store; a base that never booted has none yet, and libvirt makes it.

    :param made: Gets the copy's path as soon as it exists.
    """
    try:
        with open(source, "rb") as original, open(destination, "xb") as copy:
            made.append(destination)
            shutil.copyfileobj(original, copy)
            shutil.copymode(source, destination)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.path.exists(source):
            return
        raise HostError(
            f"Copying the NVRAM '{source}' to '{destination}' failed: {error.strerror}.",
            "Look at that folder; nothing was overwritten.",
        ) from error


def _undo(host: Host, handle: DomainHandle, made: list[str], error: BaseException) -> None:
    """
    Take back, last first, what an unfinished apply made. What cannot be taken back keeps
    the definition, and with it the journal, for a later destroy; ``error`` then says so.
    """
    name = handle.name
    try:
        undone = [path for path in reversed(made) if volumes.delete(host, path)]
        handle.undefine(with_nvram=False)  # the copy is among those deleted
    except KvmCloneError as problem:
        log.error("%s: not undone: %s", name, problem)
        if isinstance(error, KvmCloneError):
            error.hint = (
                f"{error.hint} Taking it back failed too: {problem.message} Repeat that: "
                f"salt-run kvmclone.destroy {name}"
            ).strip()
    else:
        log.info("%s: undone after %r: %s", name, error, undone)
