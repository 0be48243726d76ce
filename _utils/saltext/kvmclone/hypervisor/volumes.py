"""
Find, make and delete volumes.

Lookups go by path (``storageVolLookupByPath``), so that a clone costs the same however many
volumes the pool holds.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import HostError, KvmCloneError, PlanRefused, PoolFull, absent
from saltext.kvmclone.hypervisor.constants import (
    INTERNAL_ERROR,
    NO_STORAGE_POOL,
    NO_STORAGE_VOL,
    OPERATION_INVALID,
    STORAGE_VOL_EXIST,
)
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model import volume_xml
from saltext.kvmclone.model.facts import QCOW2, ImageFacts
from saltext.kvmclone.plan.disks import BYTES, CONVERT, EMPTY, OVERLAY, SEED, PlannedDisk
from saltext.kvmclone.plan.planned_disk import ALONE
from saltext.kvmclone.system import copying

#: libvirt goes on copying after its client died, and refreshes no pool until it is done. How long
#: to wait for that, seconds.
VOLUME_BUSY_TIMEOUT_S = 60.0


def pool_named(host: Host, name: str) -> Any | None:
    """Return libvirt's object of the storage pool of that name, or None."""
    if name not in host.pools:
        with absent(NO_STORAGE_POOL):
            host.pools[name] = host.call(host.raw.storagePoolLookupByName, name)
    return host.pools.get(name)


def lookup(host: Host, path: str) -> Any | None:
    """
    Return libvirt's volume of the file at ``path``; None if no active pool holds it.

    A file that was put into a pool's folder by hand is found after one refresh of that pool.
    """
    raw = _lookup(host, path)
    if raw is None and refresh_folder(host, os.path.dirname(path)):
        raw = _lookup(host, path)
    return raw


def _lookup(host: Host, path: str) -> Any | None:
    with absent(NO_STORAGE_VOL):
        return host.call(host.raw.storageVolLookupByPath, path)
    return None


def is_known(host: Host, path: str) -> bool:
    """Return whether libvirt knows the file at ``path`` as a volume, without a pool refresh."""
    return _lookup(host, path) is not None


def find(host: Host, path: str) -> ImageFacts | None:
    """
    Return the image at ``path`` as libvirt describes it; None if no active pool holds it.

    Its header is what libvirt says of it, and nothing is read from the file.
    """
    raw = lookup(host, path)
    return volume_xml.image(host.call(raw.XMLDesc, 0), path) if raw is not None else None


def refresh_folder(host: Host, folder: str) -> bool:
    """Refresh the active pool over ``folder``; return False if there is none."""
    with absent(NO_STORAGE_POOL):
        refresh(host, host.call(host.raw.storagePoolLookupByTargetPath, folder))
        return True
    return False


def refresh(host: Host, raw_pool: Any) -> None:
    """
    Let a pool look at its files again, waiting while libvirt makes a volume there for somebody.

    libvirt then refuses with no better number than that of an internal error.
    """
    _patiently(lambda: host.call(raw_pool.refresh, 0), INTERNAL_ERROR)


def _patiently(ask: Callable[[], Any], busy: int) -> None:
    """Repeat ``ask`` while its error is ``busy``, at most :data:`VOLUME_BUSY_TIMEOUT_S`."""
    deadline = time.monotonic() + VOLUME_BUSY_TIMEOUT_S
    while True:
        try:
            ask()
            return
        except HostError as error:
            if error.code != busy or time.monotonic() > deadline:
                raise
        interrupts.pause(0.3)


def exists(host: Host, path: str) -> bool:
    """Return whether there is a file at ``path``; if it is remote, whether libvirt knows it."""
    return os.path.lexists(path) if host.local else _lookup(host, path) is not None


def create(host: Host, disk: PlannedDisk, made: Callable[[], None]) -> str:
    """
    Make the volume of one planned disk.

    :param made: Called once, as soon as the volume is known to exist and to be ours, before it is
        filled. A failure before that leaves nothing of ours behind, unless the connection broke.
    :return: What was done: the plan's action, or ``copy`` if the kernel would not share blocks.
    :raises PlanRefused: The file is there already, or the pool or the source is gone.
    :raises PoolFull: The pool ran out of room.
    :raises HostError: libvirt refused for another reason, or qemu-img is missing or failed.
    """
    raw_pool = pool_named(host, disk.pool)
    if raw_pool is None:
        raise _without_pool(host, disk)
    convert = disk.method in (CONVERT, ALONE) and copying.can_convert()
    if disk.method in (CONVERT, ALONE) and not convert and not disk.source_pool:
        raise HostError(
            f"qemu-img, which reads '{disk.source}', is not installed on this host.",
            "Install it: apt install qemu-utils   or: dnf install qemu-img",
        )

    def make() -> Any:
        if disk.method in (OVERLAY, BYTES, SEED, EMPTY) or convert:
            return host.call(raw_pool.createXML, _xml(disk), 0)
        source = host.call(host.raw.storageVolLookupByPath, disk.source)
        return host.call(raw_pool.createXMLFrom, _xml(disk), source, 0)

    try:
        raw = _unless_gone(host, raw_pool, disk, make)
    except HostError as error:
        raise _refusal(host, raw_pool, disk, error) from error
    made()
    done = disk.action
    if disk.method == BYTES:
        done = _fill(host, disk)
    elif convert:
        _convert(host, disk)
    if disk.grows and disk.format == QCOW2 and not convert:
        try:
            host.call(raw.resize, disk.capacity, 0)
        except HostError as error:
            # qemu-img does it, without an error number. The image's tables take a few clusters.
            full = _available(host, raw_pool, disk) < 2**20
            raise (_full(host, disk) if full else error) from error
    return done


def upload(host: Host, disk: PlannedDisk, content: bytes) -> None:
    """
    Write the content of a volume that was just made, from its first byte on.

    :raises HostError: libvirt refused.
    """
    raw = host.call(host.raw.storageVolLookupByPath, disk.destination)
    stream = host.call(host.raw.newStream, 0)
    host.call(raw.upload, stream, 0, len(content), 0)
    at = 0
    while at < len(content):
        at += host.call(stream.send, content[at : at + 2**16])
    host.call(stream.finish)


def _unless_gone(host: Host, raw_pool: Any, disk: PlannedDisk, make: Callable[[], Any]) -> Any:
    """Make a volume; retry after a refresh if libvirt lists a file that was removed by hand."""
    try:
        return make()
    except HostError as error:
        if error.code != STORAGE_VOL_EXIST:
            raise
        refresh(host, raw_pool)
        if exists(host, disk.destination):
            raise
        return make()


def _refusal(host: Host, raw_pool: Any, disk: PlannedDisk, error: HostError) -> KvmCloneError:
    """Return the error to raise after libvirt refused to make a volume, by the likely cause."""
    running = False
    with absent(NO_STORAGE_POOL):
        running = bool(host.call(raw_pool.isActive))
    if not running:
        host.pools.pop(disk.pool, None)  # it may be gone
        return _without_pool(host, disk)
    if not host.local:
        refresh(host, raw_pool)
    if error.code == STORAGE_VOL_EXIST or exists(host, disk.destination):
        path, look = disk.destination, host.commands.virsh("vol-dumpxml", disk.destination)
        return PlanRefused(
            f"The volume '{path}' appeared in the meantime; it is not ours to overwrite.",
            "See what it is, or choose another name: "
            + (host.commands.there("ls", "-l", path) if host.local else look),
        )
    if host.local and disk.source_real and not os.path.exists(disk.source_real):
        return PlanRefused(
            f"The base's disk '{disk.source}' disappeared in the meantime.",
            "See whether somebody removed the base: "
            + host.commands.there("ls", "-la", os.path.dirname(disk.source)),
        )
    available = _available(host, raw_pool, disk)
    return _full(host, disk) if available < disk.bytes + 2**20 else error


def _without_pool(host: Host, disk: PlannedDisk) -> PlanRefused:
    there = pool_named(host, disk.pool) is not None
    words = ("pool-start", disk.pool) if there else ("pool-list", "--all")
    return PlanRefused(
        f"The storage pool '{disk.pool}' {'was stopped' if there else 'disappeared'} in the "
        "meantime.",
        f"{'Start it' if there else 'List them'}, then repeat the command: "
        + host.commands.virsh(*words),
    )


def _available(host: Host, raw_pool: Any, disk: PlannedDisk) -> int:
    if not host.local:
        return int(host.call(raw_pool.info)[3])
    return _room(disk)


def _room(disk: PlannedDisk) -> int:
    room = os.statvfs(os.path.dirname(disk.destination))
    return room.f_bavail * room.f_frsize


def delete(host: Host, path: str) -> bool:
    """
    Delete the file at ``path``; the caller has made sure that it may.

    :return: False if there was none.
    :raises HostError: It cannot be deleted, or libvirt still writes it after
        :data:`VOLUME_BUSY_TIMEOUT_S`.
    """
    # libvirt knows every volume that it is making, so a file that it does not know can just go.
    raw = _lookup(host, path)
    if raw is None and not host.local:
        folder = os.path.dirname(path)
        if not refresh_folder(host, folder):
            raise HostError(
                f"'{path}' cannot be deleted: no storage pool over '{folder}' is running.",
                "Find it and start it, then repeat the command: "
                + host.commands.virsh("pool-list", "--all"),
            )
        raw = _lookup(host, path)
    if raw is not None:
        with absent(NO_STORAGE_VOL):
            _delete(host, raw, path)
            return True
        return False
    if host.local and os.path.isfile(path):
        try:
            os.unlink(path)
        except OSError as error:
            raise HostError(
                f"'{path}' cannot be deleted: {error.strerror}.",
                "Look at its folder, then repeat the command: "
                + host.commands.there("ls", "-ld", os.path.dirname(path)),
            ) from error
        return True
    return False


def _delete(host: Host, raw: Any, path: str) -> None:
    try:
        _patiently(lambda: host.call(raw.delete, 0), OPERATION_INVALID)
    except HostError as error:
        if error.code == NO_STORAGE_VOL:
            raise
        if error.code != OPERATION_INVALID:
            raise HostError(
                f"'{path}' cannot be deleted: {error.message}.",
                f"Look at it, then repeat the command: {host.commands.there('ls', '-ld', path)}",
                code=error.code,
            ) from error
        size = host.commands.virsh("vol-info", "--bytes", "--physical", path)
        raise HostError(
            f"libvirt is still writing '{path}', so it cannot be deleted yet.",
            f"Wait until it no longer grows, then repeat the command: {size}",
            code=error.code,
        ) from error


# --- making -------------------------------------------------------------------------


def _xml(disk: PlannedDisk) -> str:
    # libvirt's defaults would be all of the capacity allocated, and the qcow2 of QEMU 0.10.
    compat = "<compat>1.1</compat>" if disk.format == QCOW2 else ""
    below = ""
    if disk.method == OVERLAY:
        path, form = escape(disk.source_real), quoteattr(disk.source_format)
        below = f"<backingStore><path>{path}</path><format type={form}/></backingStore>"
    return (
        f"<volume><name>{escape(disk.volume)}</name>"
        f"<capacity unit='bytes'>{disk.capacity}</capacity><allocation>0</allocation>"
        f"<target><format type={quoteattr(disk.format)}/>{compat}</target>{below}</volume>"
    )


def _fill(host: Host, disk: PlannedDisk) -> str:
    """Copy the source's bytes into the new volume; return ``reflink`` or ``copy``."""
    try:
        shared = disk.action == "reflink" and copying.share_blocks(
            disk.source_real, disk.destination
        )
        if not shared:
            copying.copy(disk.source_real, disk.destination)
        if disk.grows and disk.format != QCOW2:
            # libvirt would refuse a size beyond what is free, although nothing is written.
            copying.grow(disk.destination, disk.capacity)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(host, disk) from error
        raise _unfinished(disk, str(error.strerror)) from error
    return "reflink" if shared else "copy"


def _convert(host: Host, disk: PlannedDisk) -> None:
    """Let qemu-img write what the guest sees of the source, with its backing files or alone."""
    source, form = disk.source_real, disk.source_format
    try:
        alone = disk.method == ALONE
        copying.convert(source, form, disk.destination, disk.format, alone=alone)
    except copying.ConvertFailed as error:
        if _room(disk) < 8 * 2**20:  # qemu-img writes in chunks of about a MiB
            raise _full(host, disk) from error
        raise _unfinished(disk, str(error)) from error


def _unfinished(disk: PlannedDisk, why: str) -> HostError:
    return HostError(
        f"Copying '{disk.source}' to '{disk.destination}' failed: {why}.",
        "Look at both files; what was written is removed again.",
    )


def _full(host: Host, disk: PlannedDisk) -> PoolFull:
    return PoolFull(
        f"Storage pool '{disk.pool}' filled up while '{disk.destination}' was written.",
        "Make room in it, or use 'clone_strategy: quick'. See: "
        + host.commands.virsh("pool-info", disk.pool),
    )
