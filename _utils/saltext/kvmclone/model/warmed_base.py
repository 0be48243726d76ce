"""
Describe a base that was warmed, as commands answer. See docs/answers.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.model.plain import to_plain


@dataclass(frozen=True)
class WarmedBase:
    """
    A base whose memory was saved, to be forked. Times are seconds.

    :param host: What the host is called: its minion id, or its own host name.
    :param generation: Number of this saved memory; each one that replaces it has the next.
    :param machine: Name of the domain that holds it.
    :param path: The saved memory.
    :param bytes: What saved memory, overlays and variable store occupy.
    :param timings: Seconds that each step took.
    """

    name: str
    host: str
    generation: int
    machine: str
    path: str
    bytes: int = 0
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as every door answers with it."""
        plain: dict[str, Any] = to_plain(self)
        return plain


@dataclass(frozen=True)
class UnwarmedBase:
    """
    A base whose saved memories were removed.

    :param host: As of :class:`WarmedBase`.
    :param removed: Paths of the files that were deleted.
    :param kept: What stays, a sentence each.
    """

    name: str
    host: str
    removed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as every door answers with it."""
        plain: dict[str, Any] = to_plain(self)
        return plain
