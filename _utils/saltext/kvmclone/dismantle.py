"""
Taking a clone away: what may be deleted is decided before anything is touched.

Deleted is only what the clone's record lists, its definition uses and nobody else needs.
The definition, which is the journal, goes last, so that a destroy can be repeated at any
point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from saltext.kvmclone import domain_xml, ownership, volumes
from saltext.kvmclone.errors import CloneInUse, CreateInProgress, ForeignDomain, KvmCloneError
from saltext.kvmclone.host import DomainHandle, Host


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
