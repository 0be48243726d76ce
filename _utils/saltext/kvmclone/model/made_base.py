"""
Define the answer about a base that was made. See docs/answers.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.model.plain import to_plain


@dataclass(frozen=True)
class BaseDisk:
    """One disk of a base that was made; ``capacity`` is bytes, 0 where it is not known yet."""

    target: str
    path: str
    format: str
    capacity: int = 0


@dataclass(frozen=True)
class MadeBase:
    """
    A base that was made. Times are seconds.

    :param host: What the host is called: its minion id, or its own host name.
    :param source: URL without user information and query, or path of the image.
    :param digest: ``sha256:…`` of the image; empty where it is not known yet.
    :param protected: Its files are read-only, so that no start can change them.
    :param timings: Seconds that each step took.
    """

    name: str
    host: str
    source: str
    digest: str
    disks: tuple[BaseDisk, ...] = ()
    protected: bool = True
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as every door answers with it."""
        plain: dict[str, Any] = to_plain(self)
        return plain
