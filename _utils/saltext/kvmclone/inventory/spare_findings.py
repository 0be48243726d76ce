"""
Find the spares that nobody can claim, and those that stay although their time is over.

Reads only. Whatever is wrong with every clone (its base changed, its create failed) is found where
that is looked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from saltext.kvmclone.inventory.examination import Examination
from saltext.kvmclone.inventory.findings import Finding
from saltext.kvmclone.model import units
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import DESTROYING

#: Seconds after the end of a claim's ``ttl`` in which the master destroys the machine.
GRACE_S = 3600.0


def find(examined: Examination) -> Iterator[Finding]:
    """Yield what is wrong with the spares of a host."""
    now = time.time()
    for machine, record in examined.clones:
        name = machine.name
        if not record.complete or record.failed or record.stage == DESTROYING:
            continue
        why = ""
        if machine.state != "running":
            why = "it does not run"
        elif record.name and record.name != name:
            why = f"it was made as '{record.name}', and its minion is still called so"
        if record.in_stock and why:
            yield Finding(
                "spare-unusable",
                name,
                f"'{name}' is a spare in stock of the profile '{record.profile}', but {why}, so no "
                "claim takes it. The master's worker replaces it.",
                Commands().clone("spares", record.profile),
            )
        if record.claim.at and record.expires and record.expires + GRACE_S < now:
            yield Finding(
                "claim-over",
                name,
                f"'{name}' was claimed by {record.claim.by}, its ttl ended "
                f"{units.moment(record.expires)}, and nothing has destroyed it.",
                examined.commands.clone("destroy", name),
            )
