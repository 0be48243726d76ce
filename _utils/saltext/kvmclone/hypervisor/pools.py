"""
Read storage pools, their volumes, and the images of a remote host through libvirt.

Reads only. Lookups go by path and never list volumes, so that a clone costs the same however
many a pool holds.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import Any

from saltext.kvmclone.errors import HostError, absent
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.constants import (
    NO_STORAGE_POOL,
    NO_STORAGE_VOL,
    NO_SUPPORT,
    POOLS_ACTIVE,
    POOLS_INACTIVE,
)
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model import libvirt_xml, volume_xml
from saltext.kvmclone.model.domain_xml import Disk
from saltext.kvmclone.model.facts import RAW, Header, ImageFacts, PoolFacts
from saltext.kvmclone.system import filesystems, image_header, images

#: Pool types whose folder (``/dev``, ``/dev/disk/by-path``) holds the devices of other pools too.
_OVER_DEV = ("disk", "iscsi", "mpath", "scsi")


def facts(host: Host, name: str, fresh: bool) -> PoolFacts | None:
    """
    Return the facts of the storage pool of that name, or None.

    :param fresh: As for :func:`facts_of`.
    """
    raw = volumes.pool_named(host, name)
    if raw is None:
        return None
    return facts_of(host, raw, fresh, bool(host.call(raw.isActive)))


def facts_of(host: Host, raw: Any, fresh: bool, active: bool = True) -> PoolFacts:
    """
    Return the facts of a storage pool.

    :param raw: libvirt's object.
    :param fresh: Whether the free space must be that of now, and its file system known; on a
        remote host libvirt has to look at every volume of the pool for that.
    :param active: Whether the pool is started.
    """
    found = described(host, raw, active)
    if not (fresh and active and found.is_folder):
        return found
    if not host.local:
        volumes.refresh(host, raw)
        return replace(found, available=int(host.call(raw.info)[3]))
    try:
        below = filesystems.of(found.path)
    except OSError:
        return found
    return replace(
        found,
        available=below.available,
        filesystem=below.id,
        shares_blocks=below.shares_blocks,
        copies_on_write=not below.shares_blocks or filesystems.copies_on_write(found.path),
    )


def described(host: Host, raw: Any, active: bool) -> PoolFacts:
    """Return a storage pool as libvirt describes it; nothing is asked of its file system."""
    root = libvirt_xml.element(host.call(raw.XMLDesc, 0))
    return PoolFacts(
        name=str(raw.name()),
        type=root.get("type", ""),
        path=(root.findtext("./target/path") or "").strip(),
        active=active,
        available=int(root.findtext("./available") or 0),
        capacity=int(root.findtext("./capacity") or 0),
    )


def holder(host: Host, path: str) -> Any | None:
    """Return libvirt's object of the active pool that holds the file; None if there is none."""
    # A file's folder leads to its pool in one call. A device's folder is that of many pools.
    folder_first = host.local and not path.startswith("/dev/")
    raw = _over_folder(host, path) if folder_first else None
    if raw is None:
        with absent(NO_STORAGE_VOL):
            volume = host.call(host.raw.storageVolLookupByPath, path)
            raw = host.call(volume.storagePoolLookupByVolume)
    if raw is None and not folder_first:
        # Perhaps a file that was put there by hand, which libvirt has not noticed yet.
        raw = _over_folder(host, path)
        if raw is not None and not host.local and volumes.lookup(host, path) is None:
            raw = None
    if raw is not None:
        host.pools[str(raw.name())] = raw
    return raw


def _over_folder(host: Host, path: str) -> Any | None:
    with absent(NO_STORAGE_POOL):
        return host.call(host.raw.storagePoolLookupByTargetPath, os.path.dirname(path))
    return None


def is_inside(host: Host, folder: str) -> bool:
    """Return whether a folder of this machine is that of an active pool, or below one."""
    wanted = os.path.realpath(folder)
    for raw in host.call(host.raw.listAllStoragePools, POOLS_ACTIVE):
        pool = described(host, raw, active=True)
        if pool.is_folder and os.path.isabs(pool.path):
            top = os.path.realpath(pool.path)
            if os.path.commonpath([top, wanted]) == top:
                return True
    return False


def asleep(host: Host, path: str) -> str:
    """Return the name of an inactive pool whose folder is the file's; empty for none."""
    folder = os.path.dirname(path)
    for raw in host.call(host.raw.listAllStoragePools, POOLS_INACTIVE):
        pool = described(host, raw, active=False)
        if pool.type in _OVER_DEV:
            continue
        same = pool.path.rstrip("/") == folder.rstrip("/")
        if pool.path and (same or (host.local and _is_same(pool.path, folder))):
            return pool.name
    return ""


def path_of(host: Host, disk: Disk) -> tuple[str, str]:
    """
    Return the path of a disk, also of one that is named by pool and volume.

    :return: The path, and what is wrong with the pool: ``unknown`` or ``asleep``, empty if nothing
        is. The path is empty if libvirt knows no such volume; a local file need not be there.
    """
    if disk.kind != "volume":
        return disk.path, ""
    raw = volumes.pool_named(host, disk.pool)
    if raw is None:
        return "", "unknown"
    if not host.call(raw.isActive):
        return "", "asleep"
    pool = described(host, raw, active=True)
    path = volume_path(host, raw, pool, disk.volume)
    if not path:
        volumes.refresh(host, raw)
        path = volume_path(host, raw, pool, disk.volume)
    elif not host.local and volumes.lookup(host, path) is None:
        path = ""
    return path, ""


def volume_path(host: Host, raw: Any, pool: PoolFacts, name: str) -> str:
    """
    Return the path of a volume by its name; empty if its pool, which must be active, has none.

    In a folder the file need not be there, nor the pool be active.

    :param raw: libvirt's object of the pool.
    """
    if pool.is_folder:  # libvirt does not look into folders below it
        return os.path.join(pool.path, name) if "/" not in name else ""
    with absent(NO_STORAGE_VOL):
        return str(host.call(host.call(raw.storageVolLookupByName, name).path))
    return ""


def look(host: Host, path: str) -> ImageFacts:
    """
    Return the facts of one image, read from its file if that is ours, otherwise through libvirt.

    An image that only libvirt could read, and that is in no active pool, has the kind ``unseen``.
    """
    if host.local:
        with suppress(PermissionError):  # a network file system that denies root access
            return images.look(path)
    raw = volumes.lookup(host, path)
    if raw is None:
        return ImageFacts(path, "unseen", readable=False)
    found = volume_xml.image(host.call(raw.XMLDesc, 0), path)
    if found.kind not in ("file", "block"):
        return found
    header = _header(host, raw)
    # libvirt copies an image in the format that it takes it for.
    if header is None or (header.format == RAW and found.header.format not in (RAW, "iso", "")):
        return found
    return replace(found, header=header)


def read(host: Host, path: str, offset: int, length: int) -> bytes:
    """
    Return some bytes of a volume's file; fewer, or none, behind its end.

    :param offset: Where to start, in bytes.
    :param length: How many bytes to read at most.
    :raises HostError: No active pool holds the file, or libvirt cannot read it to us.
    """
    raw = volumes.lookup(host, path)
    if raw is None:
        raise HostError(f"'{path}' is in no active storage pool.")
    if offset >= volume_xml.image(host.call(raw.XMLDesc, 0), path).size:
        return b""
    return _downloaded(host, raw, offset, length)


def _downloaded(host: Host, raw: Any, offset: int, length: int) -> bytes:
    data = b""
    stream = host.call(host.raw.newStream, 0)
    host.call(raw.download, stream, offset, length, 0)
    while piece := host.call(stream.recv, length):
        data += piece
    host.call(stream.finish)
    return data


def _header(host: Host, raw: Any) -> Header | None:
    """Return the header in a volume's first bytes; None if libvirt cannot download them."""
    try:
        return image_header.parse(_downloaded(host, raw, 0, image_header.LENGTH))
    except HostError as error:
        if error.code == NO_SUPPORT:
            return None
        raise


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
