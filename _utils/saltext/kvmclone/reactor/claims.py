"""
Claim a spare for a minion that asks for a machine without naming one.
"""

from __future__ import annotations

import dataclasses

from saltext.kvmclone.config.value_types import DURATION
from saltext.kvmclone.errors import KvmCloneError
from saltext.kvmclone.master import spares_claim
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.reactor import intake
from saltext.kvmclone.reactor.request_entry import FAILED, MADE, RequestEntry


def claimed(fleet: Fleet, entry: RequestEntry) -> RequestEntry:
    """
    Claim a machine for a request, and return the request as it ends by that.

    A worker that is killed in between leaves a machine that is destroyed at the end of its ttl;
    the next one claims another.
    """
    ttl = DURATION.parse(entry.keys["ttl"]) if "ttl" in entry.keys else None
    wanted = spares_claim.ClaimRequest(entry.profile, entry.minion_id, ttl=ttl)
    try:
        found = spares_claim.claim(fleet, wanted, intake.refill)
    except KvmCloneError as error:
        return _failed(entry, error)
    outcome = found.outcomes[0]
    if outcome.error is not None or outcome.clone is None:
        return _failed(entry, outcome.error)
    clone = outcome.clone
    return dataclasses.replace(
        entry, state=MADE, name=clone.name, uuid=clone.uuid, address=clone.address
    )


def _failed(entry: RequestEntry, error: KvmCloneError | None) -> RequestEntry:
    reason = f"{error.type}: {error.message}" if error else ""
    return dataclasses.replace(entry, state=FAILED, reason=reason)
