"""Reach a KVM host so that only so many clones are made there, and disks copied, at once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master.reservations import BEGUN, Reservations, Row
from saltext.kvmclone.master.slots import Slots
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.record import Owner
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


class PacedHost:
    """
    A KVM host (:class:`.interfaces.KvmHost`) whose :meth:`clone` waits for its turn.

    :param host: The host itself.
    :param row: The reservation of the clone; None where the profile names the host.
    """

    def __init__(self, host: KvmHost, pacing: Pacing, store: Reservations, row: Row | None) -> None:
        self._host = host
        self._pacing = pacing
        self._store = store
        self._row = row
        self.url = host.url
        #: The host begins no later, seconds since the epoch; 0 where it was not asked yet.
        self.not_after = 0.0

    def __getattr__(self, name: str) -> Any:
        """Return whatever else the host has."""
        return getattr(self._host, name)

    def clone(
        self,
        request: Request,
        worker: Owner | None = None,
        goal: str = "cloned",
        digest: str = "",
        seed: Mapping[str, str] = MappingProxyType({}),
    ) -> Clone:
        """Make the clone; see :meth:`.interfaces.KvmHost.clone`."""
        with self._pacing.pools.turn(self._copied_into(request)):
            if self._row is not None and request.placed is not None:
                self.not_after = time.time() + BEGIN_TIMEOUT_S
                self._store.hold(self._row, self.not_after)
                told = dataclasses.replace(request.placed, not_after=self.not_after)
                request = dataclasses.replace(request, placed=told)
            made = self._host.clone(request, worker, goal, digest, seed)
            if self._row is not None:
                self._store.hold(self._row, BEGUN)
            return made

    def _copied_into(self, request: Request) -> list[str]:
        """Return the pools that disks are copied into; none for overlays."""
        host = request.host or request.url
        if self._row is not None:
            copies = self._row.reserved.need.copies
            return [f"{host} {pool}" for pool, count in copies.items() if count]
        # Which pool it is the host knows; without a word of the profile all its copies count.
        return [f"{host} {request.pool}"] if request.clone_strategy == "full" else []
