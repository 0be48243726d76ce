"""
Have a base copied to the host that was chosen for a clone (``placement: {push: true}``).

How much a clone takes can only be said where its base is, so that a host without the base is held
against what one that has it says. Each host gets the base once, whatever waits for it there.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone.errors import BaseDiffers, KvmCloneError, NotFound
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master.base_push import BaseCopier
from saltext.kvmclone.master.slots import Slots
from saltext.kvmclone.model.placement import Decision, HostOffer
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.model.units import size
from saltext.kvmclone.plan import placement
from saltext.kvmclone.plan.placement import Asked


@dataclass(frozen=True)
class Source:
    """
    A host that has the base.

    :param label: Its label.
    :param offer: What it says of a clone.
    """

    label: str
    host: KvmHost
    offer: HostOffer


class BasesToCome:
    """
    The bases that one call of the runner brings to hosts.

    :param copier: Copies them.
    :param connect: Returns the host of a minion id and a url.
    :param pools: The turns of copies into pools.
    """

    def __init__(
        self, copier: BaseCopier, connect: Callable[[str, str], KvmHost], pools: Slots
    ) -> None:
        self.copier = copier
        self.connect = connect
        self.pools = pools
        self._turns = Slots(1)
        self._lock = threading.Lock()
        #: Sources outside of a profile's hosts, or why there is none, for each sort of clone.
        self._elsewhere: dict[str, Source | KvmCloneError] = {}
        #: The copies that some clone of this call has reserved room for.
        self._reserved: set[tuple[str, str]] = set()
        #: What came of the copies: empty where the base is there, otherwise why it is not.
        self._ended: dict[tuple[str, str], str] = {}

    def counted(self, request: Request, asked: Mapping[str, Asked]) -> dict[str, Asked]:
        """Return what each host offers if the base may be copied to those that lack it."""
        known = dict(asked)
        lacking = {
            host: offer
            for host, offer in asked.items()
            if isinstance(offer, HostOffer) and not offer.has_base
        }
        if not (request.placement.push and lacking):
            return known
        for host, offer in lacking.items():
            if why := self._ended.get((host, request.base_domain)):
                known[host] = _refused(offer, why)
        try:
            return placement.with_base(known, self.source(request, asked).offer)
        except NotFound:
            return known
        except KvmCloneError as error:
            why = f"The base is missing, and cannot be copied there: {error.message}"
            return {**known, **{host: _refused(offer, why) for host, offer in lacking.items()}}

    def once(self, request: Request, asked: Mapping[str, Asked]) -> dict[str, Asked]:
        """Return the same offers, with each copy of the base counted for its first clone alone."""
        return {
            host: placement.without_base(offer)
            if isinstance(offer, HostOffer)
            and not offer.has_base
            and (host, request.base_domain) in self._reserved
            else offer
            for host, offer in asked.items()
        }

    def reserved(self, request: Request, host: str) -> None:
        """Note that a clone has reserved the room of a copy."""
        self._reserved.add((host, request.base_domain))

    def source(self, request: Request, asked: Mapping[str, Asked]) -> Source:
        """
        Return the host that the base is copied from: one of the profile's, otherwise any.

        :raises KvmCloneError: There is none, or it is not known which.
        """
        if there := placement.sources(asked):
            offer = asked[there[0]]
            assert isinstance(offer, HostOffer)
            return Source(there[0], self.connect(there[0], request.url), offer)
        if having := [
            host for host, one in asked.items() if isinstance(one, HostOffer) and one.has_base
        ]:
            raise BaseDiffers(
                f"It is not known that it is the same on {', '.join(having)}: "
                f"salt-run kvmclone.bases {request.base_domain} hash=True",
            )
        sort = dataclasses.replace(request, name="").digest()
        with self._lock:
            if sort not in self._elsewhere:
                try:
                    self._elsewhere[sort] = self._look(request, list(asked))
                except KvmCloneError as error:
                    self._elsewhere[sort] = error
            found = self._elsewhere[sort]
        if isinstance(found, KvmCloneError):
            raise found
        return found

    def _look(self, request: Request, targets: list[str]) -> Source:
        label = self.copier.source(request.base_domain, targets)
        host = self.connect(*self.copier.everywhere.ways[label])
        return Source(label, host, host.offer(request, []))

    def bring(self, request: Request, host: str, asked: Mapping[str, Asked]) -> str:
        """
        Have the base copied to a host that lacks it, once.

        :param host: Minion id of the host.
        :return: Why it is not there; empty where it is.
        :raises Interrupt: A signal came.
        """
        base = request.base_domain
        with self._turns.turn([f"{host} {base}"]):
            if (host, base) not in self._ended:
                try:
                    source = self.source(request, asked)
                    hosts = {source.label: source.host, host: self.connect(host, request.url)}
                    with self.pools.turn(f"{host} {pool}" for pool in source.offer.base_disks):
                        self.copier.bring(base, source.label, host, hosts)
                    self._ended[host, base] = ""
                except KvmCloneError as error:
                    why = f"The base cannot be copied there: {error.message}"
                    self._ended[host, base] = why
            return self._ended[host, base]


def _refused(offer: HostOffer, why: str) -> HostOffer:
    return HostOffer(offer.memory, offer.cpus, has_base=False, there=offer.there, conflicts=(why,))


def has_base(offer: Asked) -> bool:
    """Return whether a host has the base, as far as it answers."""
    return isinstance(offer, str) or offer.has_base


@dataclass(frozen=True)
class Foreseen:
    """
    Where a clone would go at this moment.

    :param request: As it would go to its host.
    :param host: That host.
    :param source: The host that the base would be copied from first; None where it is there.
    """

    request: Request
    host: KvmHost
    decision: Decision
    source: Source | None = None

    @property
    def planner(self) -> KvmHost:
        """Return the host that can plan the clone: one that has the base."""
        return self.source.host if self.source else self.host

    @property
    def why(self) -> dict[str, Any]:
        """Return what a plan says of all hosts."""
        return {"host": self.request.host, "hosts": self.decision.reasons(self.request.host)}

    def plan(self) -> dict[str, Any]:
        """Return PLAN; what speaks against the clone at the source of its base is no conflict."""
        found = self.planner.plan(self.request)
        if self.source is None:
            return found
        label, taken = self.source.label, size(sum(self.source.offer.base_disks.values()))
        warnings = [
            f"The base '{self.request.base_domain}' is missing on {self.request.host}: the create "
            f"copies it there first, {taken} from {label}. All else is planned as {label} would "
            "make it.",
            *found["warnings"],
            *(f"On {label}: {conflict}" for conflict in found["conflicts"]),
        ]
        return {**found, "warnings": warnings, "conflicts": []}
