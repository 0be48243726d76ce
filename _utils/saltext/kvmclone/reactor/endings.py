"""
Note what became of a request, and say so: in the log, on the master's bus, to the minion.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.master import progress
from saltext.kvmclone.reactor import queries, request_entry
from saltext.kvmclone.reactor.request_entry import RequestEntry
from saltext.kvmclone.reactor.request_store import RequestStore

log = logging.getLogger(__name__)

#: Why a machine is gone, as the reason of its request.
WITHDRAWN, RELEASED, EXPIRED = "withdrawn", "released", "expired"
NOT_FOUND = "no host has it under this name any more"


def end(opts: Mapping[str, Any], store: RequestStore, entry: RequestEntry) -> bool:
    """
    Write what became of a request, and announce it.

    :param entry: As it is from now on.
    :return: False where it is over already, and was announced.
    """
    entry = dataclasses.replace(entry, told=False)
    with store.requests() as requests:
        known = requests.find(entry.minion_id, entry.token)
        if known is None or known.over:
            return False
        requests.put(entry)
    announce(opts, store, entry)
    return True


def announce(opts: Mapping[str, Any], store: RequestStore, entry: RequestEntry) -> None:
    """Log what became of a request, fire it on the master's bus, and tell the minion."""
    log.info(
        "kvm_clone reactor: '%s' of '%s' is %s. %s",
        entry.name, entry.minion_id, entry.state, entry.reason,
    )  # fmt: skip
    progress.fire(opts, entry.state, request_entry.event_data(entry))
    tell(opts, entry)
    with store.requests() as requests:
        now = requests.find(entry.minion_id, entry.token)
        if now is not None and now.state == entry.state:  # else it is another's to tell
            requests.put(dataclasses.replace(now, told=True))


def tell(opts: Mapping[str, Any], entry: RequestEntry) -> None:
    """Tell the minion that made a request what became of it."""
    verdict = request_entry.verdict(entry.state, entry.reason, entry)
    queries.tell(opts, entry.minion_id, {entry.token: verdict})
