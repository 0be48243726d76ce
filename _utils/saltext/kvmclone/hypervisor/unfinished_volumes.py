"""
Tell a volume that a dead worker was making from a file that somebody put in its place.
"""

from __future__ import annotations

import os
import time

from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.facts import QCOW2
from saltext.kvmclone.model.record import SNAPSHOT, Volume
from saltext.kvmclone.system import images

#: Seconds after which libvirt is certainly done with a file that it only had to make.
NEW_FILE_BUSY_S = 3.0

#: Bytes that an image takes at most when nothing was written to it: its own tables.
_EMPTY = {"qcow2": 2**20, "raw": 0}


def resembles(host: Host, volume: Volume) -> bool:
    """
    Return whether the file at a volume's path could be the one that a dead worker was making.

    On this machine a volume is marked as made before it is filled, so one that is still being made
    is *empty*: a file with any content is somebody else's, and so is one that stays open for
    writing. libvirt goes on for a moment after its client died; that is waited for.
    """
    if not host.local:
        known = volumes.find(host, volume.path)
        return known is not None and _fits(volume, known.header.format, known.header.capacity)
    deadline = time.monotonic() + NEW_FILE_BUSY_S
    while not (fits := _is_empty(volume)):
        try:
            fresh = time.time() - os.stat(volume.path).st_mtime < NEW_FILE_BUSY_S
        except OSError:
            return False
        if not fresh or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return fits


def _is_empty(volume: Volume) -> bool:
    """Return whether an image of the volume's format is at its path, with nothing written to it."""
    try:
        found = images.look(volume.path)
        if found.kind != "file" or found.written:
            return False
        if os.stat(volume.path).st_blocks * 512 > _EMPTY[volume.format]:
            return False
    except OSError:
        return False
    form = found.header.format
    return _fits(volume, form, found.header.capacity if form == QCOW2 else found.size)


def _fits(volume: Volume, form: str, capacity: int) -> bool:
    """Return whether format and capacity are the volume's, or those of a copy not yet grown."""
    if volume.format != QCOW2:
        return not volume.capacity or capacity <= volume.capacity
    exact = volume.strategy in ("overlay", SNAPSHOT)
    fits = capacity == volume.capacity if exact else 0 < capacity <= volume.capacity
    return form == QCOW2 and fits
