"""
Doing what a plan says, and taking it back: the only room that makes and deletes.

The definition is the journal. It is written first, with a record of every file that is
about to be made; each step moves the record's stage; a failure undoes in reverse. The
same record later says what a destroy may delete.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import dataclass, replace

from saltext.kvmclone import domain_xml, ownership, volumes
from saltext.kvmclone.codes import OPERATION_FAILED, XML_INVALID_SCHEMA
from saltext.kvmclone.errors import (
    CloneInUse,
    CreateInProgress,
    ForeignDomain,
    HostError,
    KvmCloneError,
)
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


# --- destroying ---------------------------------------------------------------------


@dataclass(frozen=True)
class Doom:
    """
    What a destroy will delete and what it will keep, decided before anything is touched.

    :param paths: Recorded files that only this domain uses.
    :param nvram: The variable store goes with the definition.
    :param kept: One sentence for every file of this domain that stays.
    """

    paths: tuple[str, ...]
    nvram: bool
    kept: tuple[str, ...]


def judge(host: Host, handle: DomainHandle, record: ownership.Record | None) -> Doom:
    """
    Decide what destroying a domain may delete.

    Deleted is only what the record lists, this domain's definition uses, and no other
    domain uses. A file that others stand on stops everything.

    :param record: None for a foreign domain: its files all stay.
    :raises CloneInUse: Another volume has one of its disks as backing file; ``force``
        never overrides this.
    """
    domain = domain_xml.read(handle.definition())
    used = [disk.path for disk in domain.disks if disk.path]
    nvram = domain.nvram.path if domain.nvram else ""
    owned = [path for path in used if record is not None and record.owns(path)]
    dependants = volumes.stand_on(host, used)
    if dependants:
        named = "; ".join(f"{', '.join(sorted(who))} on {p}" for p, who in dependants.items())
        raise CloneInUse(
            f"'{handle.name}' cannot be destroyed: other volumes stand on its disks: {named}.",
            "Destroy the clones made from it first. Nothing was touched.",
        )
    others = _used_by_others(host, handle)
    shared = {path: others[path] for path in [*owned, nvram] if path in others}
    kept = [
        f"'{path}' stays: "
        + (f"'{others[path]}' uses it too." if path in others else "not made by us.")
        for path in used
        if path not in owned or path in shared
    ]
    if record is not None:
        kept += [
            f"'{volume.path}' stays: it is ours, and no longer a disk of '{handle.name}'."
            for volume in record.volumes
            if volume.path not in used and volume.path != nvram
        ]
    return Doom(
        paths=tuple(path for path in owned if path not in shared),
        nvram=bool(record and nvram and record.owns(nvram) and nvram not in shared),
        kept=tuple(kept),
    )


def destroy(
    host: Host, handle: DomainHandle, force: bool = False, token: str = ""
) -> tuple[str, ...]:
    """
    Destroy a clone with the files that its record lists. Repeatable at any point.

    :param force: Remove a foreign domain too; of that only the definition goes, every
        file stays.
    :param token: Only where the record still carries this worker's word (a rollback).
    :return: What was kept, one sentence each.
    :raises ForeignDomain: Not one of our clones, and not forced.
    :raises CloneInUse: Something stands on its disks.
    """
    record = handle.record()
    if record is None and not force:
        raise ForeignDomain(
            f"'{handle.name}' was not made by kvm_clone, so it is not destroyed.",
            f"If you are sure, by hand: virsh undefine {handle.name}   or force=True, which "
            "keeps every one of its disks.",
        )
    if token and (record is None or record.worker.token != token):
        raise CreateInProgress(
            f"'{handle.name}' now belongs to another worker; it was left alone.",
            f"Look at it: salt-run kvmclone.show {handle.name}",
        )
    doom = judge(host, handle, record)
    if record is not None:
        handle.save_record(replace(record, stage=ownership.DESTROYING))
    handle.power_off()
    failed: list[KvmCloneError] = []
    for path in doom.paths:
        try:
            volumes.delete(host, path)
        except KvmCloneError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    handle.undefine(with_nvram=doom.nvram)
    return doom.kept


def _used_by_others(host: Host, handle: DomainHandle) -> dict[str, str]:
    """Files that other domains use, with the name of one that does."""
    used: dict[str, str] = {}
    for definition in host.each_domain(lambda other: other.definition()):
        domain = domain_xml.read(definition)
        if domain.uuid == handle.uuid:
            continue
        paths = [disk.path for disk in domain.disks]
        paths.append(domain.nvram.path if domain.nvram else "")
        used.update({path: domain.name for path in paths if path})
    return used
