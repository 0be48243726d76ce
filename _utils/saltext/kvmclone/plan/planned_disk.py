"""The fate of one disk as plain data, and how its volume gets its contents. Pure."""

from __future__ import annotations

from dataclasses import dataclass

REFUSED = "refused"

#: How a volume gets its contents: nothing but a backing file; its source's bytes; what
#: ``qemu-img`` reads from its source; what libvirt itself copies.
OVERLAY, BYTES, CONVERT, DAEMON = "overlay", "bytes", "convert", "daemon"

#: Or what the profile has for cloud-init.
SEED = "seed"


@dataclass(frozen=True)
class PlannedDisk:
    """
    The fate of one disk.

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
    :param method: How the volume gets its contents, see :data:`OVERLAY`.
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
        """Whether its element in the definition stays as it is: shared, or refused."""
        return self.action == "share" or self.reason == REFUSED

    @property
    def grows(self) -> bool:
        """Whether it must be made larger once it has its source's contents."""
        return self.method != OVERLAY and self.capacity > self.source_capacity
