"""
Compute which files of a clone its snapshots need, and how new ones are called.

Pure. Snapshots form a tree: each freezes the files that the clone wrote until then, and the clone
goes on with overlays on them. After a rollback it goes on with other overlays on the same files.
So at rest a clone has for each disk the frozen file of every snapshot and the one that it writes,
and nothing else.

What is under way stands in the record: ``ACTION LABEL``. A worker that dies leaves one of these:

* ``snapshot L``: the snapshot counts if the definition names its overlays, otherwise they go;
* ``rollback L``: the definition names the files from before, and the fresh overlays go;
* ``rolled_back L``: the definition names the fresh overlays; the variable store is put back, and
  what nothing needs any more goes;
* ``delete_snapshot L``: once nothing stands on its files they go, until then the snapshot stays.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from saltext.kvmclone.errors import InvalidName
from saltext.kvmclone.model.facts import QCOW2, RAW
from saltext.kvmclone.model.record import (
    LABEL,
    SNAPSHOT,
    WANTED,
    FrozenDisk,
    Record,
    Snapshot,
    Volume,
)

TAKE, ROLL_BACK, ROLLED_BACK, DELETE = "snapshot", "rollback", "rolled_back", "delete_snapshot"

#: Most snapshots of one clone. QEMU opens every image of a chain, and each read may pass them all.
MOST_SNAPSHOTS = 32

#: The variable store, among the targets of disks.
NVRAM = "nvram"

_RULE = (
    "A label is made of letters, digits, hyphens and underscores, begins with a letter or digit, "
    "and has at most 40 characters."
)


def check_label(label: object) -> str:
    """
    Return a label, once it is known to be usable.

    :raises InvalidName: It cannot be used, or the command line made something else of it.
    """
    if not isinstance(label, str):
        raise InvalidName(
            f"The label {label!r:.60} was read as {type(label).__name__}, not as text.",
            "Quote it, on the command line label='\"007\"'.",
        )
    if LABEL.fullmatch(label) is None:
        raise InvalidName(f"The label {label[:60]!r} cannot be used.", _RULE)
    return label


def label_of(seconds: float) -> str:
    """
    Return the label of a snapshot that was given none: the time, in UTC.

    :param seconds: Since the epoch.
    """
    return time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(seconds))


def doing(record: Record) -> tuple[str, str]:
    """Return the action that is under way and its label; both empty where none is."""
    action, _, label = record.under_way.partition(" ")
    return action, label


def find(record: Record, label: str) -> Snapshot | None:
    """Return the snapshot of that label, or None; one that is still being taken counts."""
    return next((one for one in record.snapshots if one.label == label), None)


def finished(record: Record) -> tuple[Snapshot, ...]:
    """Return the snapshots without one that is still being taken."""
    action, label = doing(record)
    return tuple(one for one in record.snapshots if (action, label) != (TAKE, one.label))


# --- the tree ------------------------------------------------------------------------

#: The file that the clone writes, of each disk that is on its record, by target.
Tops = Mapping[str, str]


def frozen(record: Record, without: str = "") -> set[str]:
    """
    Return the files that snapshots froze.

    :param without: The label of a snapshot that does not count.
    """
    return {disk.path for one in record.snapshots if one.label != without for disk in one.disks}


def unneeded(record: Record, tops: Tops, without: str = "") -> tuple[Volume, ...]:
    """
    Return the files of snapshots that nothing needs any more, the last made first.

    Of a disk that the clone does not have now, nothing is returned: whoever took it out may put
    it back.

    :param without: The label of a snapshot that does not count any more.
    """
    kept = frozen(record, without) | set(tops.values())
    kept |= {one.nvram for one in record.snapshots if one.label != without}
    for path in tuple(kept):
        kept |= set(_chain(record, path))
    gone = frozen(record) - frozen(record, without)
    return tuple(
        volume
        for volume in reversed(record.volumes)
        if (volume.label or volume.path in gone)
        and volume.path not in kept
        and (volume.target in tops or volume.target == NVRAM)
    )


def _chain(record: Record, path: str) -> list[str]:
    """Return the files of the clone that a file stands on, nearest first."""
    below = {volume.path: volume.below for volume in record.volumes}
    found: list[str] = []
    while (path := below.get(path, "")) and path not in found:
        found.append(path)
    return found


def standing_on(record: Record, path: str, tops: Tops, without: str = "") -> tuple[Volume, ...]:
    """
    Return the clone's overlays directly on one of its files that something needs.

    :param without: The label of a snapshot that does not count any more.
    """
    idle = {volume.path for volume in unneeded(record, tops, without)}
    return tuple(
        volume for volume in record.volumes if volume.below == path and volume.path not in idle
    )


def settled(record: Record, tops: Tops) -> tuple[tuple[Snapshot, ...], tuple[Volume, ...]]:
    """
    Return how what is under way ends if nobody goes on with it.

    :return: The snapshots that stay, and the files that go, the last made first.
    """
    action, label = doing(record)
    snapshot = find(record, label)
    gone = ""
    if snapshot is not None and action == TAKE and not is_on(record, label, tops):
        gone = label
    elif snapshot is not None and action == DELETE:
        left = [standing_on(record, disk.path, tops, label) for disk in snapshot.disks]
        gone = "" if any(left) else label
    return without_snapshot(record, gone), unneeded(record, tops, gone)


def current(record: Record, tops: Tops) -> str:
    """Return the label of the snapshot that the clone stands on; empty for none."""
    below = {volume.path: volume.below for volume in record.volumes}
    for one in reversed(finished(record)):
        here = [disk for disk in one.disks if disk.target in tops]
        if here and all(below.get(tops[disk.target]) == disk.path for disk in here):
            return one.label
    return ""


def is_on(record: Record, label: str, tops: Tops) -> bool:
    """Return whether the clone writes an overlay on a snapshot's files, of any disk."""
    snapshot = find(record, label)
    below = {volume.path: volume.below for volume in record.volumes}
    return snapshot is not None and any(
        below.get(tops.get(disk.target, "")) == disk.path for disk in snapshot.disks
    )


def rebased(record: Record, child: str, parent: Volume) -> tuple[Volume, ...]:
    """
    Return the volumes of the record once an overlay took over the content of what it stood on.

    :param child: Path of the overlay.
    :param parent: The volume that it stood on.
    """
    strategy = "copy" if parent.strategy == "reflink" else parent.strategy
    return changed(record, child, below=parent.below, strategy=strategy)


def changed(record: Record, path: str, **changes: Any) -> tuple[Volume, ...]:
    """Return the volumes of the record with some fields of one of them changed."""
    return tuple(
        replace(volume, **changes) if volume.path == path else volume for volume in record.volumes
    )


def without_volumes(record: Record, paths: Collection[str]) -> tuple[Volume, ...]:
    """Return the volumes of the record without some of them."""
    return tuple(volume for volume in record.volumes if volume.path not in paths)


def without_snapshot(record: Record, label: str) -> tuple[Snapshot, ...]:
    """Return the snapshots of the record without one."""
    return tuple(one for one in record.snapshots if one.label != label)


# --- new files -----------------------------------------------------------------------


def new_overlay(
    record: Record, frozen: FrozenDisk, label: str, capacity: int, exists: Callable[[str], bool]
) -> Volume:
    """
    Return the volume of a new overlay, ``NAME-vda.LABEL.1.qcow2``, beside what it stands on.

    :param frozen: What it stands on.
    :param capacity: Bytes that the guest sees.
    :param exists: Returns whether there is a file at a path.
    """
    folder, file = os.path.split(frozen.path)
    name = record.name or file.partition(f"-{frozen.target}.")[0]  # a record of version 0.1
    stem = os.path.join(folder, f"{name}-{frozen.target}.{label}")
    path = _free(record, lambda number: f"{stem}.{number}.qcow2", exists)
    return Volume(
        frozen.target, path, QCOW2, SNAPSHOT, WANTED, capacity, label=label, below=frozen.path
    )


def store_copy(record: Record, store: str, label: str, exists: Callable[[str], bool]) -> Volume:
    """
    Return the volume of a copy of the variable store, ``STORE.LABEL.1``, beside it.

    :param store: Path of the store.
    :param exists: Returns whether there is a file at a path.
    """
    path = _free(record, lambda number: f"{store}.{label}.{number}", exists)
    return Volume(NVRAM, path, RAW, SNAPSHOT, WANTED, label=label)


def _free(record: Record, path: Callable[[int], str], exists: Callable[[str], bool]) -> str:
    number = 1
    while record.owns(path(number)) or exists(path(number)):
        number += 1
    return path(number)


def labels(snapshots: Iterable[Snapshot]) -> str:
    """Return the labels of snapshots for a message."""
    return ", ".join(one.label for one in snapshots) or "none"
