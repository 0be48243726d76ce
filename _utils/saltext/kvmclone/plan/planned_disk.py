"""
Define the decision about one disk as plain data, and the ways to fill its volume. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

REFUSED = "refused"

#: The ways to fill a volume: with nothing but a backing file; with its source's bytes; with what
#: ``qemu-img`` reads from its source; with what libvirt itself copies.
OVERLAY, BYTES, CONVERT, DAEMON = "overlay", "bytes", "convert", "daemon"

#: As :data:`CONVERT`, of that one image alone, whatever backing file it names.
ALONE = "alone"

#: Or with a cloud-init seed of the clone's own, or with nothing at all.
SEED, EMPTY = "seed", "empty"


@dataclass(frozen=True)
class PlannedDisk:
    """
    The decision about one disk.
    :param action: ``overlay | copy | reflink | share | skip``; also ``skip`` where a
        conflict refuses the disk.
    :param reason: Why, in words.
    :param destination: Path of the new volume, ``pool`` its pool, ``volume`` its name there;
        all empty where none is made.
    :param bytes: What will be written.
    :param capacity: Bytes that the clone's guest sees, ``source_capacity`` the base's.
    :param source_real: The source as an overlay names it, and as it is opened.
    :param source_format: What the source is to the guest: ``qcow2`` or ``raw``.
    :param source_pool: Active pool of the source; empty where it has none.
    :param method: How the volume is filled, see :data:`OVERLAY`.
    :param emptied: A drive that is left out of the clone with its medium alone.
    :param bus: Bus of a disk that the base does not have; empty for all others.
    """

    target: str
    action: str
    reason: str
    source: str
    destination: str = ""
    format: str = ""
    bytes: int = 0
    pool: str = ""
    volume: str = ""
    capacity: int = 0
    source_capacity: int = 0
    source_real: str = ""
    source_format: str = ""
    source_pool: str = ""
    method: str = ""
    emptied: bool = False
    bus: str = ""

    @property
    def stays(self) -> bool:
        """Return whether its element in the definition stays as it is: shared, or refused."""
        return self.action == "share" or self.reason == REFUSED

    @property
    def grows(self) -> bool:
        """Return whether the volume must be made larger once it has its source's contents."""
        return self.method not in (OVERLAY, EMPTY) and self.capacity > self.source_capacity
