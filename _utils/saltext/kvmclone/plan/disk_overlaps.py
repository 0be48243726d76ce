"""
Refuse a base with one file as two disks: their clones would be two files, or one the base's.

Pure.
"""

from __future__ import annotations

import os

from saltext.kvmclone.model.domain_xml import Disk
from saltext.kvmclone.plan.disk_sources import PlanIssues, skipping
from saltext.kvmclone.plan.disks import PlannedDisk


def check(disks: tuple[Disk, ...], planned: tuple[PlannedDisk, ...], notes: PlanIssues) -> None:
    """
    Check the decisions about the base's disks against each other.

    :param disks: The base's, in the order of ``planned``.
    :param notes: Gets reasons to refuse.
    """
    written: dict[str, str] = {}
    for fate in planned:
        if not fate.destination:
            continue
        if fate.source_real in written:
            notes.conflicts.append(
                f"Disks {written[fate.source_real]} and {fate.target} are the same file "
                f"'{fate.source_real}'; their clones would be two. Fix the base."
            )
        written[fate.source_real] = fate.target
    for disk, fate in zip(disks, planned, strict=True):
        if fate.destination:
            written |= {place: disk.target for place in (_plain(disk), disk.named) if place}
    for disk, fate in zip(disks, planned, strict=True):
        place = _plain(disk) if _plain(disk) in written else disk.named
        if fate.action == "share" and place in written:
            notes.conflicts.append(
                f"Disk {disk.target} would share '{place}' with the base, whose disk "
                f"{written[place]} it is. Fix the base, {skipping(disk)}"
            )


def _plain(disk: Disk) -> str:
    """Return a disk's path without detours (``/pool/../pool/x``); empty where it has none."""
    return os.path.normpath(disk.path) if disk.path else ""
