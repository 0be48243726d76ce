"""
Describe what the disks of a base show of a Salt minion while it is off, and what follows from that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BaseMinion:
    """
    The minion of a base, as far as its disks show it; None for what cannot be seen.

    :param installed: There is a salt-minion.
    :param keys: It has keys of its own.
    """

    installed: bool | None = None
    keys: bool | None = None


@dataclass(frozen=True)
class Foresight:
    """What stands against a clone's becoming a minion: reasons to refuse it, and warnings."""

    conflicts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def added_to(self, plan: dict[str, Any], warnings: Iterable[str] = ()) -> dict[str, Any]:
        """
        Return PLAN with all of this in it.

        :param warnings: What else is to be said of it.
        """
        return {
            **plan,
            "conflicts": [*plan["conflicts"], *self.conflicts],
            "warnings": [*plan["warnings"], *self.warnings, *warnings],
        }
