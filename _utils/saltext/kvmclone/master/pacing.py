"""Make only so many clones on a host at once, and copy only so many of them into one pool."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager

from saltext.kvmclone.master import at_once
from saltext.kvmclone.master.reservations import BEGUN, Reservations, Row
from saltext.kvmclone.master.slots import Slots
from saltext.kvmclone.model.request import Request

#: Seconds that a host may take to begin a clone that was placed there; then it is no more wanted.
BEGIN_TIMEOUT_S = 120.0


class Pacing:
    """
    The turns of one command.

    :param per_host: How many clones are made on one host at the same time.
    :param per_pool: How many of these are being copied into one pool.
    """

    def __init__(self, per_host: int, per_pool: int) -> None:
        self.hosts = Slots(per_host)
        self.pools = Slots(per_pool)


class PacedCreate:
    """
    One create that waits for its turns, and keeps its reservation meanwhile.

    :param row: The reservation of the clone; None where nothing was reserved for it.
    """

    def __init__(self, pacing: Pacing, store: Reservations, row: Row | None = None) -> None:
        self._pacing = pacing
        self._store = store
        self._row = row
        #: The host begins no later, seconds since the epoch; 0 where it was not asked yet.
        self.not_after = 0.0

    @contextmanager
    def on_host(self, request: Request) -> Iterator[None]:
        """
        Wait for the turn of the create on its host.

        :raises Interrupted: The command was interrupted meanwhile.
        :raises CreateInProgress: Another create has the reservation by now.
        """
        with self._pacing.hosts.turn([request.host or request.url]):
            at_once.require_no_interrupt(request.name)
            if self._row is not None:
                self._store.hold(self._row)
            yield

    @contextmanager
    def in_pool(self, request: Request) -> Iterator[Request]:
        """Wait for the turn in the pools that disks are copied into; see :data:`.Turn`."""
        with self._pacing.pools.turn(self._copied_into(request)):
            if self._row is not None and request.placed is not None:
                self.not_after = time.time() + BEGIN_TIMEOUT_S
                self._store.hold(self._row, self.not_after)
                told = dataclasses.replace(request.placed, not_after=self.not_after)
                request = dataclasses.replace(request, placed=told)
            yield request
            if self._row is not None:
                self._store.hold(self._row, BEGUN)

    def _copied_into(self, request: Request) -> list[str]:
        """Return the pools that disks are copied into; none for overlays."""
        host = request.host or request.url
        if self._row is not None:
            copies = self._row.reserved.need.copies
            return [f"{host} {pool}" for pool, count in copies.items() if count]
        # Which pool it is the host knows; without a word of the profile all its copies count.
        return [f"{host} {request.pool}"] if request.clone_strategy == "full" else []
