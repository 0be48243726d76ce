"""Define the plan of a clone: everything that will be done to make it, and how it is shown."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.model import redaction
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan.planned_disk import PlannedDisk

#: Stands for what is only known when the clone is made.
GENERATED = "<generated>"

#: What generated values look like: uuids and MAC addresses.
_MADE_UP = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{2}(?::[0-9a-f]{2}){5}")

_SHOWN_OF_A_DISK = ("target", "action", "reason", "source", "destination", "format", "bytes")


@dataclass(frozen=True)
class ClonePlan:
    """
    Everything that will be done to make a clone.

    :param xml: The clone's complete definition, without its record. It may hold a
        console password: show :meth:`as_dict`, never this.
    :param nvram: Source and destination of the variable store, None where none is copied.
    :param record: The record as it is defined with, stage ``planned``.
    :param generated: Values that were made up for this plan; they are masked when shown.
    :param warmed: The warmed machine that a fork goes on from; empty for another clone.
    """

    request: Request
    base: str
    xml: str
    record: Record
    disks: tuple[PlannedDisk, ...]
    nvram: tuple[str, str] | None
    changes: dict[str, dict[str, Any]]
    warnings: tuple[str, ...]
    conflicts: tuple[str, ...]
    generated: tuple[str, ...]
    warmed: str = ""

    @property
    def sources(self) -> list[str]:
        """Return the paths of the base's disks that are cloned."""
        return [disk.source for disk in self.disks if disk.destination and not disk.bus]

    @property
    def _description(self) -> str:
        wanted = self.request.description
        return f"Cloned from {self.base}" if wanted is None else wanted

    def check(self) -> None:
        """
        Refuse a plan with conflicts.

        :raises PlanRefused: The plan has conflicts; the message lists them all.
        """
        if self.conflicts:
            listed = " ".join(
                f"({number}) {conflict}" if len(self.conflicts) > 1 else conflict
                for number, conflict in enumerate(self.conflicts, 1)
            )
            raise PlanRefused(
                f"'{self.request.name}' cannot be cloned from '{self.base}': {listed}",
                "Nothing was written. Fix this and repeat the command.",
            )

    def as_dict(self) -> dict[str, Any]:
        """Return PLAN (see docs/answers.md), without secrets and with generated values masked."""
        plain = {
            "name": self.request.name,
            "base": self.base,
            "strategy": self.request.clone_strategy,
            "disks": [
                {key: getattr(disk, key) for key in _SHOWN_OF_A_DISK}
                | {"source": redaction.path(disk.source)}
                for disk in self.disks
            ],
            "changes": self.changes,
            "warnings": list(self.warnings),
            "conflicts": list(self.conflicts),
        }
        answer: dict[str, Any] = json.loads(self._masked(json.dumps(plain), GENERATED))
        xml = redaction.redact(self.xml, self._description)
        answer["xml"] = self._masked(xml, escape(GENERATED))  # it stays well-formed
        return answer

    def _masked(self, text: str, mask: str) -> str:
        """Return the text with ``mask`` for every value that was made up for this plan."""
        generated = frozenset(self.generated)
        return _MADE_UP.sub(lambda found: mask if found[0] in generated else found[0], text)
