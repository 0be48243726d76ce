"""
Recognise the clones of Salt's old libvirt driver, and the files that are provably theirs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from lxml import etree

from saltext.kvmclone.errors import absent
from saltext.kvmclone.hypervisor.constants import NO_DOMAIN
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import file_usage_scan
from saltext.kvmclone.inventory.file_usage import FileId, FileUsage
from saltext.kvmclone.model import domain_xml, libvirt_xml
from saltext.kvmclone.model.domain_xml import Disk, Domain
from saltext.kvmclone.model.record import DRIVER_NAMED, MADE, Volume
from saltext.kvmclone.model.record_xml import NAMESPACE
from saltext.kvmclone.system import filesystems

_DESCRIPTION = re.compile(r"Cloned from (.+)")


#: Seconds from the epoch of version 1 uuids, in 1582, to 1970.
_UUID_EPOCH_S = 12219292800


#: Seconds within which all disks of one clone are made, even if each is copied.
_ONE_CLONE_S = 6 * 3600.0


@dataclass(frozen=True)
class Candidate:
    """
    A domain that could be adopted.

    :param volumes: Files that it would own.
    :param shared: One sentence for each file that would stay on a destroy.
    """

    name: str
    base: str
    strategy: str
    volumes: tuple[Volume, ...]
    shared: tuple[str, ...]


def candidates(host: Host, usage: FileUsage | None = None) -> list[Candidate]:
    """
    Return the domains that the old driver made and nobody has adopted, by name.

    :param usage: A scan of the host, if one was made already.
    """

    def look(handle: DomainHandle) -> tuple[DomainHandle, etree._Element]:
        return handle, libvirt_xml.parse(handle.definition())

    found = []
    for handle, root in host.each_domain(look):
        base = _told_base(host, root)
        if base and not _carries_record(root):
            usage = usage or file_usage_scan.scan(host)
            domain = domain_xml.facts(root, host.folders.stores)
            with absent(NO_DOMAIN):  # either machine may be removed at this moment
                found.append(_judge(host, usage, handle.uuid, domain, host.find(base), base))
    return sorted(found, key=lambda candidate: candidate.name)


def _told_base(host: Host, root: etree._Element) -> str:
    """
    Return the base that a domain's description names; empty for another description.

    Several words are the name of a domain only where there is one of that name: otherwise they are
    somebody's note, and not for others to read.
    """
    match = _DESCRIPTION.fullmatch(libvirt_xml.text(root, "description"))
    name = match[1].strip() if match else ""
    return name if len(name.split()) < 2 or host.find(name) is not None else ""


def _carries_record(root: etree._Element) -> bool:
    return root.find(f"./metadata/{{{NAMESPACE}}}clone") is not None


def _judge(
    host: Host,
    usage: FileUsage,
    uuid: str,
    domain: Domain,
    base: DomainHandle | None,
    base_name: str,
) -> Candidate:
    """Decide file by file what an old clone owns."""
    others = _Others(
        base=domain_xml.read(base.definition()) if base is not None else None,
        uuid=uuid,
        usage=usage,
        base_name=base_name,
        base_files=_files_of(usage, base),
        used=usage.used_by_others(uuid),
        claimed=usage.claimed_by_others(uuid),
    )
    owned: list[Volume] = []
    shared: list[str] = []
    originals: dict[str, float] = {}
    quick = False
    for disk in domain.disks:
        if not disk.path:
            continue
        chain = usage.chain(disk.path)
        why = _why_shared(host, usage, domain.name, disk, chain, others, originals)
        if why:
            shared.append(f"'{disk.path}' stays on a destroy: {why}.")
            continue
        stands_on_base = bool(others.base_files & {usage.file_id(path) for path in chain})
        quick = quick or stands_on_base or (base is None and bool(chain))
        strategy = "overlay" if chain else "copy"
        owned.append(Volume(disk.target, disk.path, disk.format, strategy, MADE))
    if domain.nvram and (path := domain.nvram.path):
        if why := _why_store_shared(domain.name, path, usage.file_id(path), others):
            shared.append(f"'{path}' stays on a destroy: {why}.")
        else:
            inode = filesystems.inode(path) if host.local else ""
            owned.append(Volume("nvram", path, "raw", "copy", inode=inode))
    return Candidate(
        name=domain.name,
        base=base_name,
        strategy="quick" if quick else "full",
        volumes=tuple(owned),
        shared=tuple(shared),
    )


@dataclass(frozen=True)
class _Others:
    """
    The others that a file may belong to instead of the old clone.

    :param base: The base's definition; None if it is gone.
    :param base_files: Every file of the base, down to the ends of their chains.
    :param used: Files that other domains use, with the name of one that does.
    :param claimed: Files on the records of clones of ours, with the name of one of these.
    :param uuid: The old clone's own.
    """

    base: Domain | None
    base_name: str
    base_files: set[FileId]
    used: Mapping[FileId, str]
    claimed: Mapping[FileId, str]
    usage: FileUsage
    uuid: str


def _why_shared(
    host: Host,
    usage: FileUsage,
    name: str,
    disk: Disk,
    chain: list[str],
    others: _Others,
    originals: dict[str, float],
) -> str:
    """
    Return why a disk is not, or not surely, the old clone's own; empty if it is.

    :param chain: The disk's backing files.
    :param originals: See :func:`_named_by_driver`.
    """
    key = usage.file_id(disk.path)
    if disk.device != "disk":
        return f"the old driver copied no {disk.device}"
    if disk.kind != "file":
        return f"the old driver copied no disk of type '{disk.kind}'"
    if disk.readonly or disk.shareable:
        return "it is marked as shared"
    if reason := _of_others(key, others):
        return reason
    if host.local and os.path.islink(disk.path):
        return "it is a link"
    if standing := usage.overlays_on([disk.path]).get(disk.path):
        return f"other images are based on it: {', '.join(standing)}"
    if not _named_by_driver(name, disk, others.base, chain, originals):
        return "its name does not prove that it was made for this clone"
    if host.local and not os.path.isfile(disk.path):
        return "it does not exist"
    return ""


def _why_store_shared(name: str, path: str, key: FileId, others: _Others) -> str:
    """Return why a variable store is not, or not surely, the old clone's own; empty if it is."""
    own = _named_after(name, os.path.basename(path))
    if user := others.usage.derived_by_others(others.uuid, path):
        return f"libvirt keeps a file of '{user}' under that very name"
    return _of_others(key, others) or ("" if own else "it is not named after this clone")


def _of_others(key: FileId, others: _Others) -> str:
    """Return who else has a file, as a clause; empty for nobody."""
    if key in others.base_files:
        return f"it belongs to the base '{others.base_name}'"
    if key in others.used:
        return f"'{others.used[key]}' uses it too"
    if key in others.claimed:
        return f"it is on the record of '{others.claimed[key]}'"
    return ""


def _files_of(usage: FileUsage, base: DomainHandle | None) -> set[FileId]:
    """Return the identities of all files of the base, down to the ends of their chains."""
    paths = [use.path for use in usage.uses if base is not None and use.uuid == base.uuid]
    paths += [below for path in paths for below in usage.chain(path)]
    return {usage.file_id(path) for path in paths}


def _named_by_driver(
    name: str, disk: Disk, base: Domain | None, chain: list[str], seen: dict[str, float]
) -> bool:
    """
    Return whether a file's name proves that it was made for this clone, as this disk.

    Either it is the driver's ``ORIGINAL-UUID.EXT``, ``ORIGINAL.EXT`` being the name of the base's
    disk of the same target if that can still be known; or our own ``NAME-TARGET.EXT`` (a record
    that was lost). Somebody may have attached the disk of another old clone, which has such a name
    too.

    :param seen: Originals that proved a disk already, and when that was made; each proves one.
    """
    file = os.path.basename(disk.path)
    match = DRIVER_NAMED.fullmatch(file)
    originals = (
        {os.path.basename(d.path) for d in base.disks if d.target == disk.target} if base else set()
    )
    if match:
        original = match["stem"] + (match["extension"] or "")
        known = originals | {os.path.basename(path) for path in chain[:1]}
        if original in seen or (base is not None and original not in known):
            return False
        if base is not None and not originals:  # the base has no such disk
            return False
        made = _made(match["uuid"])
        together = all(abs(made - other) < _ONE_CLONE_S for other in seen.values())
        if together and (not known or original in known):
            seen[original] = made
            return True
        return False
    ours = file == f"{name}-{disk.target}.{disk.format}"
    return ours and bool(originals)


def _named_after(name: str, file: str) -> bool:
    """
    Return whether a file is called ``NAME.fd``, ``NAME_VARS.fd`` or ``NAME-nvram…``.

    A longer name is another machine's.
    """
    return re.fullmatch(rf"{re.escape(name)}(?:_VARS|-nvram)?(?:\.[A-Za-z0-9]+)?", file) is not None


def _made(uuid: str) -> float:
    """Return when a uuid of version 1 was made, in seconds since the epoch."""
    return UUID(uuid).time / 1e7 - _UUID_EPOCH_S
