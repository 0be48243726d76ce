"""
Find the files that a clone writes, and which of its disks can be part of a snapshot.

Reads only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from saltext.kvmclone.hypervisor import pools
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory.file_usage import file_id
from saltext.kvmclone.model import domain_xml, redaction
from saltext.kvmclone.model.domain_xml import Disk, Domain
from saltext.kvmclone.model.facts import QCOW2, RAW
from saltext.kvmclone.model.record import FrozenDisk, Record
from saltext.kvmclone.model.snapshots import NVRAM, frozen
from saltext.kvmclone.plan.disk_wishes import is_empty, shared
from saltext.kvmclone.system import images


@dataclass(frozen=True)
class CloneDisks:
    """
    The disks of a clone.

    :param tops: The file that the clone writes, by target, of each disk that its record lists.
    :param disks: Those of them that can be part of a snapshot.
    :param capacities: The bytes that the guest sees of these, by target.
    :param left_out: One sentence for each disk that a snapshot leaves as it is.
    :param refused: One sentence for each disk that forbids a snapshot.
    :param nvram: The variable store, where the record lists it and it is there; otherwise empty.
    :param has_tpm: It has a TPM, whose state no snapshot holds.
    """

    tops: Mapping[str, str]
    disks: tuple[FrozenDisk, ...]
    capacities: Mapping[str, int]
    left_out: tuple[str, ...]
    refused: tuple[str, ...]
    nvram: str
    has_tpm: bool


def look(host: Host, handle: DomainHandle, record: Record) -> CloneDisks:
    """Return the disks of a clone, as it is defined."""
    text = handle.definition()
    domain = domain_xml.read(text, host.folders.stores)
    tops = tops_of(host, domain, record)
    disks: list[FrozenDisk] = []
    capacities: dict[str, int] = {}
    left_out, refused = [], []
    for disk in domain.disks:
        if is_empty(disk):
            continue
        if why := _why_left_out(disk, record):
            left_out.append(f"Disk {disk.target} is no part of it: {why}.")
        elif why := _why_refused(disk, tops.get(disk.target, ""), record):
            refused.append(f"Disk {disk.target}: {why}.")
        else:
            path = tops[disk.target]
            capacities[disk.target] = capacity(path, disk.format)
            disks.append(FrozenDisk(disk.target, path, disk.format))
    store = domain.nvram.path if domain.nvram else ""
    recorded = [one.path for one in record.volumes if (one.target, one.label) == (NVRAM, "")]
    known = bool(store) and _same(store, recorded, host.local) != "" and os.path.isfile(store)
    if store and not known and os.path.exists(store):
        left_out.append(f"Its variable store '{store}' is not on the record, and no part of it.")
    return CloneDisks(
        tops, tuple(disks), capacities, tuple(left_out), tuple(refused),
        _same(store, recorded, host.local) if known else "", "<tpm" in text,
    )  # fmt: skip


def capacity(path: str, form: str) -> int:
    """Return the bytes that a guest sees of an image of some format."""
    found = images.look(path)
    return found.size if form == RAW else found.header.capacity


def tops_of(host: Host, domain: Domain, record: Record) -> dict[str, str]:
    """Return the file that each disk of a definition names, where the record lists it."""
    found = {}
    for disk in domain.disks:
        path = pools.path_of(host, disk)[0]
        listed = [one.path for one in record.volumes if one.target == disk.target]
        if path and (known := _same(path, listed, host.local)):
            found[disk.target] = known
    return found


def _same(path: str, listed: list[str], local: bool) -> str:
    """Return which of some paths is the same file; empty for none."""
    key = file_id(path, local)
    return next((one for one in listed if file_id(one, local) == key), "")


def _why_left_out(disk: Disk, record: Record) -> str:
    if why := shared(disk):
        return why
    if disk.transient:
        return "what is written to it is lost at every stop anyway"
    recorded = any(one.target == disk.target for one in record.volumes)
    if not recorded and disk.kind in ("file", "volume"):
        where = redaction.path(disk.path) or disk.named
        return f"'{where}' was not made for the clone; after a rollback it is as it is now"
    return ""


def _why_refused(disk: Disk, top: str, record: Record) -> str:
    if disk.kind not in ("file", "volume"):
        return f"it is of the kind '{disk.kind}', and only files can be frozen"
    if not top:
        return (
            f"it writes '{redaction.path(disk.path) or disk.named}', which is not on the record; a "
            "snapshot of another tool may have left that"
        )
    if top in frozen(record):
        return f"it writes '{top}', which a snapshot froze; somebody changed that by hand"
    if disk.encrypted or disk.sliced or disk.data:
        return "its image is encrypted, or a part of another, or has a data file"
    if disk.format not in (QCOW2, RAW):
        return f"its format is {disk.format}"
    found = images.look(top)
    if found.kind != "file":
        return f"'{top}' is {found.kind}"
    if disk.format == QCOW2 and (found.header.format != QCOW2 or found.header.fault):
        return f"'{top}' is not a sound qcow2 image"
    return ""
