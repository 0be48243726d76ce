"""
Offer room for a clone on this host, and check it again before the clone is defined.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from saltext.kvmclone.errors import HostFull, TooLate
from saltext.kvmclone.hosts.local_connection import ReachableHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import host_offer, promises
from saltext.kvmclone.model.placement import HostOffer
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan import placement
from saltext.kvmclone.plan.clone_plan import ClonePlan
from saltext.kvmclone.system import processes

#: Locked while a host adds up its promises and defines one more clone; no clone is called so.
_LOCK = "placement on"


class LocalPlacement(ReachableHost):
    """The part of :class:`.local.LocalHost` that says what the host can take."""

    def offer(self, request: Request, names: Sequence[str]) -> HostOffer:
        return self.looked(lambda host: host_offer.look(host, request, names))


@contextmanager
def admitted(host: Host, plan: ClonePlan) -> Iterator[None]:
    """
    Hold the host's promises still while a clone is defined, if it was placed there.

    :raises TooLate: It was to begin earlier.
    :raises HostFull: There is no room any more, or a clone that this one is to be apart from.
    """
    request = plan.request
    if request.placed is None:
        yield
        return
    with processes.name_lock(f"{_LOCK} {host.url}"):
        require_in_time(request)
        offer, placed = promises.look(host), request.placed
        fault = placement.apart_fault(offer, placed.apart)
        if fault := fault or placement.room_fault(offer, host_offer.need_of(plan), placed.limits):
            raise HostFull(
                f"'{host.node_name()}' cannot take '{request.name}': {fault}.",
                "What each host has: salt-run kvmclone.hosts",
            )
        yield


def require_in_time(request: Request) -> None:
    """
    Refuse a clone that was to begin earlier: it may be placed elsewhere by now.

    :raises TooLate: It is too late.
    """
    late = time.time() - request.placed.not_after if request.placed else 0.0
    if request.placed and request.placed.not_after and late > 0:
        raise TooLate(
            f"The job to make '{request.name}' came {late:.0f} seconds too late, so nothing was "
            "made here.",
            "Repeat the command. If that happens again: are the clocks of the master and of this "
            "host right?",
        )
