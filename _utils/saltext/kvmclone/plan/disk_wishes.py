"""Say what a profile wants for a disk of the base, and what the clone's volume is called. Pure."""

from __future__ import annotations

import re

from saltext.kvmclone.model.domain_xml import Disk
from saltext.kvmclone.model.facts import QCOW2, RAW, ImageFacts, SourceFacts
from saltext.kvmclone.model.request import DiskChanges, Request
from saltext.kvmclone.plan.disk_sources import ONE_OWNER, kind_refused

#: A file that is named as :func:`volume_name` names a clone's volume, or as one of its snapshots',
#: with one of the common targets only: a ``backup-sdcard.raw`` is nobody's disk ``sdcard``.
_VOLUME_NAME = re.compile(
    r"(?P<clone>[A-Za-z0-9][A-Za-z0-9.-]*)-(?:(?:[fhsv]d|xvd|ubd)[a-z]{1,2}|nvme[0-9]+n[0-9]+)"
    r"(?:\.(?:qcow2|raw)|\.[A-Za-z0-9][A-Za-z0-9_-]*\.[1-9][0-9]*\.qcow2)"
)

_NO_WISH = DiskChanges()

#: Bytes that a file name can have on Linux.
LONGEST_NAME = 255


def wish_for(disk: Disk, request: Request) -> DiskChanges:
    """Return what the profile wants for a disk."""
    return request.disks.get(disk.target, _NO_WISH)


def shared(disk: Disk) -> str:
    """Say why a disk may be shared with the base; empty where it may not."""
    if disk.kind in ONE_OWNER:
        return ""
    if is_empty(disk):
        return "an empty drive"
    if disk.device == "cdrom":
        return "cdrom media are read-only"
    if disk.shareable:
        return "the base marks it as shareable"
    if disk.readonly and disk.device != "lun":
        return "the disk is read-only"
    return ""


def is_empty(disk: Disk) -> bool:
    """Return whether this is a drive without a medium."""
    return disk.device in ("cdrom", "floppy") and not (disk.path or disk.volume or disk.protocol)


def may_be_cloned(disk: Disk, request: Request) -> bool:
    """Return whether the disk gets a file of its own, unless its images forbid it."""
    wish = wish_for(disk, request)
    if wish.action in ("skip", "share") or is_empty(disk) or kind_refused(disk):
        return False
    return wish.action == "clone" or not shared(disk)


def strategy_of(disk: Disk, request: Request) -> str:
    """
    Return ``full`` or ``quick``: unless the profile says so, no overlay on what may be shared.
    """
    return wish_for(disk, request).strategy or ("full" if shared(disk) else request.clone_strategy)


def pool_of(disk: Disk, request: Request, source: SourceFacts | None) -> str:
    """Return the name of the pool for the clone's volume; empty where nothing names one."""
    return wish_for(disk, request).pool or request.pool or (source.pool if source else "")


def format_of(disk: Disk, request: Request) -> str:
    """Return the format of a clone's volume; an overlay is always qcow2."""
    return QCOW2 if strategy_of(disk, request) == "quick" else disk.format


def volume_name(disk: Disk, request: Request) -> str:
    """Return the name of a clone's volume, ``NAME-vda.qcow2``."""
    return f"{request.name}-{disk.target}.{format_of(disk, request)}"


def clone_named_in(file: str) -> str:
    """Return the clone that a file is named after, see :func:`volume_name`; empty for none."""
    match = _VOLUME_NAME.fullmatch(file)
    return match["clone"] if match else ""


def capacity_of(disk: Disk, image: ImageFacts) -> int:
    """Return the bytes of a disk that the base's guest sees."""
    return image.size if disk.format == RAW else image.header.capacity
