"""
Adopt the clones that Salt's own libvirt driver made (up to Salt 3007).

These carry no record, only a description, and the driver shared with the base whatever it did not
know how to copy. So ownership is proved file by file, and what cannot be proved to be the clone's
own is listed as shared and is never deleted: a file too many is a nuisance, a file too few is
somebody's data.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

from saltext.kvmclone.errors import AlreadyExists, ForeignDomain
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_changes, clone_view, file_usage_scan
from saltext.kvmclone.inventory.file_usage import FileUsage
from saltext.kvmclone.inventory.legacy_clones import (
    Candidate,
    _carries_record,
    _judge,
    _made,
    _told_base,
)
from saltext.kvmclone.model import domain_xml, libvirt_xml
from saltext.kvmclone.model.record import DRIVER_NAMED, BaseDisk, Record


def adopt(host: Host, name: str, base_domain: str = "") -> Record:
    """
    Write a record into the definition of an old clone, running or not, so that it is one of ours.

    :param base_domain: What it was cloned from, where its description does not say so.
    :return: The record; its warnings name every file that stays on a destroy.
    :raises NotFound: There is no such domain, or no such base.
    :raises AlreadyExists: It is a clone of ours already.
    :raises ForeignDomain: Nothing says that it is a clone.
    """
    handle = host.domain(name)
    if (record := handle.record()) is not None:
        clone_view.require_no_saved_memory(record, name, host.commands)
        raise AlreadyExists(
            f"'{name}' is already a clone of kvm_clone.",
            f"Look at it: {host.commands.clone('show', name)}",
        )
    root = libvirt_xml.parse(handle.definition())
    told = _told_base(host, root)
    if not base_domain and (not told or _carries_record(root)):
        reason = (
            "it carries the record of another clone, so it is a copy of that"
            if _carries_record(root)
            else "its description does not say 'Cloned from BASE'"
        )
        raise ForeignDomain(
            f"'{name}' does not look like a clone that salt-cloud made: {reason}.",
            "If you know what it was cloned from: "
            + host.commands.on_host("adopt", name, "base_domain=BASE"),
        )
    base_name = base_domain or told
    base = host.domain(base_domain) if base_domain else host.find(told)
    domain = domain_xml.facts(root, host.folders.stores)
    usage = file_usage_scan.scan(host)
    judged = _judge(host, usage, handle.uuid, domain, base, base_name)
    base_disks = _base_disks(host, usage, base, judged)
    record = replace(_record_of(handle, judged, base), base_disks=base_disks)
    handle.save_record(record)
    return record


def _record_of(handle: DomainHandle, judged: Candidate, base: DomainHandle | None) -> Record:
    """Return the record of an adopted clone, complete but for the files of its base."""
    return Record(
        uuid=handle.uuid,
        name=handle.name,
        base=judged.base,
        base_uuid=base.uuid if base is not None else "",
        strategy=judged.strategy,
        stage="addressed",
        goal="addressed",
        created=_created(judged),
        volumes=judged.volumes,
        warnings=(
            f"Adopted {time.strftime('%Y-%m-%d %H:%M')}; whether the base changed before that is "
            "not known.",
            *judged.shared,
        ),
    )


# --- the record ---------------------------------------------------------------------


def _created(judged: Candidate) -> float:
    """
    Return when the clone was made, from the uuids of its volumes; now where they do not tell.

    :return: Seconds since the epoch.
    """
    matches = [DRIVER_NAMED.fullmatch(os.path.basename(volume.path)) for volume in judged.volumes]
    times = [_made(match["uuid"]) for match in matches if match]
    return round(min(times), 3) if times else time.time()


def _base_disks(
    host: Host, usage: FileUsage, base: DomainHandle | None, judged: Candidate
) -> tuple[BaseDisk, ...]:
    """Return the base's files as they are now: the clone's backing files, or the base's disks."""
    if judged.strategy == "quick":
        chains = {v.target: usage.chain(v.path) for v in judged.volumes if v.target != "nvram"}
    elif base is not None:
        facts = domain_xml.read(base.definition())
        chains = {
            disk.target: [disk.path, *usage.chain(disk.path)]
            for disk in facts.disks
            if disk.path and disk.device == "disk" and not disk.readonly
        }
    else:
        chains = {}
    found = []
    for target, paths in chains.items():
        for path in paths:
            modified = base_changes.modified(host, path)
            if modified is not None:
                found.append(BaseDisk(target, path, _size(host, path), modified))
    return tuple(found)


def _size(host: Host, path: str) -> int:
    if host.local:
        return os.stat(path).st_blocks * 512
    volume = volumes.find(host, path)
    return volume.allocation if volume is not None else 0
