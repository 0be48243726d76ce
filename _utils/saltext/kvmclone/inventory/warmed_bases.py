"""Find the warmed machine that a fork goes on from. Reads only."""

from __future__ import annotations

import os
import re

from saltext.kvmclone.errors import NotWarmed, WarmImageUnusable
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.record import MADE, MEMORY, Record
from saltext.kvmclone.plan.fork import WarmedBase

WARM = "warm"


def find(host: Host, base: DomainHandle) -> WarmedBase:
    """
    Return the newest warmed machine of a base.

    :raises NotWarmed: There is none.
    """
    found: list[tuple[int, str, Record]] = []

    def look(handle: DomainHandle) -> None:
        record = handle.record()
        if record is None or record.becomes != WARM or record.base_uuid != base.uuid:
            return
        number = re.search(r"[0-9]+$", handle.name)
        if memory_of(record):
            found.append((int(number[0]) if number else 0, handle.name, record))

    host.each_domain(look)
    if not found:
        raise NotWarmed(
            f"'{base.name}' is not warmed here, so no fork can be made of it.",
            f"Warm it: {host.commands.clone('warm', base.name)}   Or use 'instant: prefer', which "
            "makes a quick clone then.",
        )
    _number, name, record = max(found)
    state = "shutoff" if base.was_off else base.state()
    return WarmedBase(name, memory_of(record), base.name, base.uuid, state)


def memory_of(record: Record) -> str:
    """Return the path of the memory that a record lists as saved; empty for none."""
    return next(
        (one.path for one in record.volumes if one.target == MEMORY and one.state == MADE), ""
    )


def require_usable(host: Host, name: str) -> str:
    """
    Return the path of a warmed machine's memory.

    :raises WarmImageUnusable: It is gone, or not what it was.
    """
    handle = host.find(name)
    record = handle.record() if handle is not None else None
    image = memory_of(record) if record is not None else ""
    if not image or not os.path.exists(image):
        raise WarmImageUnusable(f"The saved memory of '{name}' is gone.", "")
    return image
