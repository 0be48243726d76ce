"""
Storage: finding, making and deleting volumes.

Together with :mod:`.host` the only room that imports libvirt. Lookups go by path
(``storageVolLookupByPath``), so that a clone costs the same however many volumes the
pool holds; only :func:`stand_on`, which destroying needs, walks.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable
from typing import Any

from lxml import etree

from saltext.kvmclone.codes import NO_STORAGE_POOL, NO_STORAGE_VOL, STORAGE_VOL_EXIST
from saltext.kvmclone.errors import HostError, KvmCloneError, PlanRefused, PoolFull
from saltext.kvmclone.facts import PoolFacts, VolumeFacts
from saltext.kvmclone.host import Host, absent
from saltext.kvmclone.plan import PlannedDisk

log = logging.getLogger(__name__)

#: Data is copied in pieces of this many bytes.
PIECE = 64 * 2**20


def _lookup(host: Host, path: str) -> Any | None:
    with absent(NO_STORAGE_VOL):
        return host.call(host.connection.storageVolLookupByPath, path)
    return None


def find(host: Host, path: str) -> VolumeFacts | None:
    """
    What libvirt knows of the file at ``path``; None where no active pool holds it.

    A file that was put into a pool's folder by hand is found after one refresh of that pool.
    """
    raw = _lookup(host, path)
    if raw is None and refresh_folder(host, os.path.dirname(path)):
        raw = _lookup(host, path)
    if raw is None:
        return None
    root = etree.fromstring(host.call(raw.XMLDesc, 0).encode())
    holder = host.call(raw.storagePoolLookupByVolume)
    target_format = root.find("./target/format")
    return VolumeFacts(
        path=path,
        pool=str(holder.name()),
        format=target_format.get("type", "") if target_format is not None else "",
        capacity=int(root.findtext("./capacity") or 0),  # libvirt always writes bytes
        allocation=int(root.findtext("./allocation") or 0),
        backing=(root.findtext("./backingStore/path") or "").strip(),
        modified=float(root.findtext("./target/timestamps/mtime") or 0.0),
    )


def refresh_folder(host: Host, folder: str) -> bool:
    """Let the active pool over ``folder`` look at its files again; False without such a pool."""
    with absent(NO_STORAGE_POOL):
        pool = host.call(host.connection.storagePoolLookupByTargetPath, folder)
        host.call(pool.refresh, 0)
        return True
    return False


def pool(host: Host, name: str) -> PoolFacts | None:
    """The storage pool of that name, None where there is none."""
    raw = None
    with absent(NO_STORAGE_POOL):
        raw = host.call(host.connection.storagePoolLookupByName, name)
    if raw is None:
        return None
    root = etree.fromstring(host.call(raw.XMLDesc, 0).encode())
    state, _capacity, _allocation, available = host.call(raw.info)
    return PoolFacts(
        name=name,
        type=root.get("type", ""),
        path=(root.findtext("./target/path") or "").strip(),
        active=state == 2,
        available=int(available),
    )


def exists(host: Host, path: str) -> bool:
    """Whether something stands at ``path``, also where libvirt has not noticed it yet."""
    return os.path.lexists(path) if host.local else _lookup(host, path) is not None


def create(host: Host, disk: PlannedDisk, made: list[str]) -> None:
    """
    Make the volume of one planned disk.

    :param made: Holds the volume's path for as long as there may be something of ours to
        take back. Where libvirt refuses, it cleaned up by itself, and a file that stands
        there is somebody else's.
    :raises PlanRefused: The file is there already.
    :raises PoolFull: The pool ran out of room.
    :raises HostError: libvirt refused for another reason.
    """
    raw_pool = host.call(host.connection.storagePoolLookupByName, disk.pool)
    # Ten times faster than the daemon's own copy, and as sparse as the source.
    fill = (
        disk.action == "copy"
        and host.local
        and not disk.source_backing
        and os.access(disk.source, os.R_OK)
    )
    made.append(disk.destination)
    try:
        if disk.action == "overlay" or fill:
            host.call(raw_pool.createXML, _xml(disk), 0)
        else:
            source = host.call(host.connection.storageVolLookupByPath, disk.source)
            host.call(raw_pool.createXMLFrom, _xml(disk), source, 0)
    except HostError as error:
        made.remove(disk.destination)
        raise _refusal(host, raw_pool, disk, error) from error
    if fill:
        _fill(disk)


def _refusal(host: Host, raw_pool: Any, disk: PlannedDisk, error: HostError) -> KvmCloneError:
    """What libvirt's refusal to make a volume means."""
    host.call(raw_pool.refresh, 0)
    if error.code == STORAGE_VOL_EXIST or _lookup(host, disk.destination) is not None:
        return PlanRefused(
            f"The volume '{disk.destination}' appeared meanwhile; it is not ours to overwrite.",
            f"Look at it, then: virsh vol-delete {disk.destination}",
        )
    available = host.call(raw_pool.info)[3]
    return _full(disk) if available < disk.bytes + 2**20 else error


def delete(host: Host, path: str) -> bool:
    """
    Delete the file at ``path``; the caller has made sure that it may.

    :return: False where there was none.
    """
    raw = _lookup(host, path)
    if raw is None and refresh_folder(host, os.path.dirname(path)):
        raw = _lookup(host, path)
    if raw is not None:
        with absent(NO_STORAGE_VOL):
            host.call(raw.delete, 0)
            return True
        return False
    if host.local and os.path.isfile(path):
        # Its pool is gone, the file is not.
        os.unlink(path)
        return True
    return False


def stand_on(host: Host, paths: Iterable[str]) -> dict[str, list[str]]:
    """
    Volumes of all active pools that have one of ``paths`` as their backing file.

    :return: The dependants' paths by backing path; a path that nothing stands on is missing.
    """
    wanted = set(paths)
    found: dict[str, list[str]] = {}
    for raw_pool in host.call(host.connection.listAllStoragePools, 2):  # 2: active ones
        try:
            host.call(raw_pool.refresh, 0)  # overlays may have been made behind libvirt's back
        except HostError as error:
            log.warning("storage pool %s cannot be refreshed: %s", raw_pool.name(), error.message)
        for volume in host.call(raw_pool.listAllVolumes, 0):
            with absent(NO_STORAGE_VOL):  # it may have been deleted since it was listed
                root = etree.fromstring(host.call(volume.XMLDesc, 0).encode())
                backing = (root.findtext("./backingStore/path") or "").strip()
                if backing in wanted:
                    found.setdefault(backing, []).append(str(volume.path()))
    return found


# --- making -------------------------------------------------------------------------


def _xml(disk: PlannedDisk) -> str:
    root = etree.Element("volume")
    etree.SubElement(root, "name").text = disk.volume
    etree.SubElement(root, "capacity", unit="bytes").text = str(disk.capacity)
    # Without it libvirt allocates the whole capacity.
    etree.SubElement(root, "allocation").text = "0"
    target = etree.SubElement(root, "target")
    etree.SubElement(target, "format", type=disk.format)
    if disk.format == "qcow2":
        # Without it libvirt writes the format of QEMU 0.10.
        etree.SubElement(target, "compat").text = "1.1"
    if disk.action == "overlay":
        store = etree.SubElement(root, "backingStore")
        etree.SubElement(store, "path").text = disk.source
        etree.SubElement(store, "format", type=disk.source_format)
    return etree.tostring(root, encoding="unicode")


def _fill(disk: PlannedDisk) -> None:
    """Copy the source's bytes into the new volume, holes as holes."""
    try:
        with open(disk.source, "rb") as source, open(disk.destination, "r+b") as target:
            size = os.fstat(source.fileno()).st_size
            os.ftruncate(target.fileno(), 0)
            os.ftruncate(target.fileno(), size)
            for start, end in _data(source.fileno(), size):
                _copy(source.fileno(), target.fileno(), start, end)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(disk) from error
        raise HostError(
            f"Copying '{disk.source}' to '{disk.destination}' failed: {error.strerror}."
        ) from error


def _data(descriptor: int, size: int) -> Iterable[tuple[int, int]]:
    """The stretches of a file that hold data, as ``(start, end)``."""
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole until the end
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end
        position = end


def _copy(source: int, target: int, start: int, end: int) -> None:
    position = start
    while position < end:
        try:
            done = os.copy_file_range(
                source, target, min(PIECE, end - position), position, position
            )
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            done = os.pwrite(
                target, os.pread(source, min(PIECE, end - position), position), position
            )
        if done == 0:
            raise OSError(errno.EIO, "the source became shorter while it was copied")
        position += done


def _full(disk: PlannedDisk) -> PoolFull:
    return PoolFull(
        f"Storage pool '{disk.pool}' ran full while '{disk.destination}' was written.",
        f"Make room in it, or use 'clone_strategy: quick'. See: virsh pool-info {disk.pool}",
    )
