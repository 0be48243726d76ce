"""
Define SNAPSHOT, what every door answers with about one snapshot. See docs/answers.md. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.model.plain import to_plain


@dataclass(frozen=True)
class SnapshotDisk:
    """One disk in a snapshot: the file that it froze, and the bytes that this occupies."""

    target: str
    path: str
    bytes: int


@dataclass(frozen=True)
class CloneSnapshot:
    """
    One snapshot of a clone, with the fields of SNAPSHOT in docs/answers.md.

    :param name: The clone.
    :param host: What its host is called.
    :param created: When it was taken, seconds since the epoch.
    :param frozen: The clone ran, and its file systems were frozen; otherwise it was off.
    :param current: It is the snapshot that the clone goes on from.
    """

    name: str
    host: str
    label: str
    created: float
    disks: tuple[SnapshotDisk, ...]
    frozen: bool
    current: bool
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return SNAPSHOT: plain data."""
        plain: dict[str, Any] = to_plain(self)
        return plain
