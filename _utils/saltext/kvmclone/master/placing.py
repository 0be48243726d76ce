"""
Choose the host of a clone among those that its profile names, and make it there.

Every host is asked once for what it has and has promised, all at the same time; a batch goes by
that. The choice is reserved before the host is asked to make the clone. The host checks its room
again: if it refuses, or was never reached, the next one is tried.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.config import cloud_files
from saltext.kvmclone.config.placement_keys import FleetSettings
from saltext.kvmclone.errors import (
    ConfigError,
    ForeignDomain,
    HostFull,
    HostUnreachable,
    KvmCloneError,
    NeverConnected,
    NoHostFits,
    NotFound,
    TooLate,
)
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.enroller import EnrollerInterface
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.hosts.outcome import Outcome, Watcher
from saltext.kvmclone.master import at_once, targets
from saltext.kvmclone.master.base_push import BaseCopier
from saltext.kvmclone.master.base_to_come import BasesToCome, Foreseen, has_base
from saltext.kvmclone.master.host_offers import HostOffers
from saltext.kvmclone.master.pacing import PacedCreate, Pacing
from saltext.kvmclone.master.reservations import Reservations, Row, in_progress, unanswered
from saltext.kvmclone.model.placement import (
    Decision,
    HostOffer,
    Placed,
    Placement,
    Reserved,
)
from saltext.kvmclone.model.request import Request, Secrets
from saltext.kvmclone.plan import placement
from saltext.kvmclone.plan.placement import Asked

log = logging.getLogger(__name__)


def homes(opts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """
    Return the hosts that clones were placed on, as far as the master still has their keys.

    :param opts: The master's configuration.
    :return: Minion id and url of each.
    """
    found = Reservations(opts).homes()
    there = targets.accepted(opts, {host for host, _url in found})
    return [(host, url) for host, url in found if host in there]


class Placing:
    """
    The choice of hosts during one call of the runner.

    :param opts: The master's configuration.
    :param connect: Returns the host of a minion id and a url.
    :param copier: Copies bases to hosts that lack them.
    :raises ConfigError: The limits of the hosts in the configuration are wrong.
    """

    def __init__(
        self, opts: Mapping[str, Any], connect: Callable[[str, str], KvmHost], copier: BaseCopier
    ) -> None:
        self.opts = opts
        self.connect = connect
        self.settings: FleetSettings = cloud_files.fleet_settings(opts)
        self.store = Reservations(opts)
        self.pacing = Pacing(self.settings.at_once_per_host, self.settings.at_once_per_pool)
        self.to_come = BasesToCome(copier, connect, self.pacing.pools)
        self.offers = HostOffers(opts, connect, self.store)
        #: The clones that were made.
        self._made: dict[str, Reserved] = {}
        self._lock = threading.Lock()

    def ask(self, request: Request) -> dict[str, Asked]:
        """Return what each host offers, or why it cannot be chosen; each is asked once."""
        return self.to_come.counted(request, self.offers.ask(request))

    # --- choosing ---------------------------------------------------------------------

    def _decide(
        self, request: Request, asked: Mapping[str, Asked], rows: Sequence[Row], last: str
    ) -> Decision:
        """
        Decide about every host, without any note of it.

        :param rows: The reservations of all creates.
        :param last: The host that was chosen last for the profile.
        :raises BaseDiffers: The base is not the same on the hosts that have it.
        """
        limits = {host: self.settings.limits(host) for host in asked}
        with self._lock:
            reserved = dict(self._made)
        reserved |= {row.reserved.name: row.reserved for row in rows}
        reserved.pop(request.name, None)
        wish, others = request.placement, tuple(reserved.values())
        base = request.base_domain
        return placement.choose(asked, limits, wish, others, request.name, last, base)

    def _host_with(self, request: Request) -> str:
        """
        Return the host that has a domain of the clone's name; empty for none.

        :raises ConfigError: Several have.
        :raises HostUnreachable: One that says nothing may have it, and no key would tell.
        """
        name, asked = request.name, self.ask(request)
        there = [
            host
            for host, offer in asked.items()
            if isinstance(offer, HostOffer) and name in offer.there
        ]
        if len(there) > 1:
            raise ConfigError(
                f"'{name}' exists on several hosts: {', '.join(there)}.",
                f"Look at both: salt -L {','.join(there)} kvm_clone.show {name}",
            )
        # The name of a clone that becomes a minion is taken wherever the master has its key.
        if not there and not request.deploy.enrols:
            self._require_seen(request)
        return next(iter(there), "")

    def _require_seen(self, request: Request) -> None:
        """
        Refuse a name that a host may have which says nothing.

        :raises HostUnreachable: There is such a host, and it is not in maintenance.
        """
        unseen = self.offers.unseen
        for host in self.offers.hosts_of(request):
            if host in unseen and not self.settings.limits(host).maintenance:
                raise HostUnreachable(
                    f"Whether '{host}' has a '{request.name}' is not known: {unseen[host]}. "
                    "Without a minion no key keeps the name from being given twice.",
                    f"Repeat this when '{host}' is back. Until then leave it out of 'hosts', or "
                    "say that it is in maintenance (kvm_clone: hosts: of the master).",
                )

    def _reserve(self, request: Request, tried: Mapping[str, str]) -> Row:
        """
        Choose a host and reserve it; the one of another create of this name, if there is one.

        :raises HostUnreachable: A host that does not answer may be making it.
        :raises CreateInProgress: Another create of the name has reserved a host that this one does
            not take.
        :raises KvmCloneError: No host fits.
        """

        told = {host: tried.get(host, offer) for host, offer in self.ask(request).items()}

        def choose(rows: Sequence[Row], last: str) -> Reserved:
            asked = self.to_come.once(request, told)
            held = next((row for row in rows if row.reserved.name == request.name), None)
            where = held.reserved.host if held else ""
            if held and isinstance(asked.get(where), HostOffer):
                chosen = where
            elif held and held.may_begin:
                raise (unanswered if where in self.offers.silent else in_progress)(held)
            else:
                found = self._decide(request, asked, rows, last)
                chosen = placement.require_host(found, asked, request.base_domain, request.name)
            offer = asked[chosen]
            assert isinstance(offer, HostOffer)
            if not offer.has_base:
                self.to_come.reserved(request, chosen)
            return Reserved(request.name, chosen, offer.need, request.tags or ())

        return self.store.reserve(request.name, request.profile, request.url, choose)

    def placed_on(self, request: Request, host: str) -> Request:
        """Return the request as it goes to the host that was chosen."""
        wish = request.placement
        apart = wish.apart if wish.required else ""
        told = Placed(self.settings.limits(host), apart=apart)
        return dataclasses.replace(request, host=host, placement=Placement(), placed=told)

    def consider(self, request: Request) -> Decision:
        """
        Return what speaks for and against every host at this moment; nothing is reserved.

        :raises BaseDiffers: The base is not the same on the hosts that have it.
        """
        asked, rows = self.ask(request), self.store.all()
        return self._decide(request, asked, rows, self.store.last(request.profile))

    def foresee(self, request: Request) -> Foreseen:
        """
        Return the request as it would go to its host now, and why it is that one.

        :raises KvmCloneError: No host fits.
        """
        name, asked, found = request.name, self.ask(request), self.consider(request)
        host = self._host_with(request)
        host = host or placement.require_host(found, asked, request.base_domain, name)
        source = None if has_base(asked[host]) else self.to_come.source(request, asked)
        there = self.connect(host, request.url)
        return Foreseen(self.placed_on(request, host), there, found, source)

    # --- making -----------------------------------------------------------------------

    def create(
        self, request: Request, secrets: Secrets, master: EnrollerInterface, watcher: Watcher
    ) -> tuple[Request, Outcome]:
        """
        Make one clone: on the host that its profile names, or on one that is chosen.

        :return: The request as it went to a host, and the outcome; a failure is its error.
        """
        going = request
        try:
            if request.placement.is_wanted:
                at_once.require_no_interrupt(request.name)
                there = self._host_with(request)
                if not there:
                    return self._create(request, secrets, master, watcher)
                going = self.placed_on(request, there)
            host = self.connect(going.host, going.url)
            self.require_open(host, going)
            paced = PacedCreate(self.pacing, self.store)
            with paced.on_host(going):
                turn = paced.in_pool
                return going, provision.create(host, going, secrets, master, watcher, turn=turn)
        except interrupts.Interrupt:
            return request, Outcome(request.name, "", None, at_once.nothing_made(request.name))
        except KvmCloneError as error:
            return request, Outcome(request.name, "", None, error)

    def _create(
        self, request: Request, secrets: Secrets, master: EnrollerInterface, watcher: Watcher
    ) -> tuple[Request, Outcome]:
        """Make one clone on a host that is chosen, and on the next one where that refuses."""
        tried: dict[str, str] = {}
        while True:
            at_once.require_no_interrupt(request.name)
            row = self._reserve(request, tried)
            chosen, held = row.reserved.host, False
            if reason := self._without_base(request, row):
                log.warning("%s: not on '%s': %s", request.name, chosen, reason)
                tried[chosen] = reason
                continue
            going = self.placed_on(request, chosen)
            try:
                host = self.connect(chosen, request.url)
                paced = PacedCreate(self.pacing, self.store, row)
                with paced.on_host(going):
                    turn = paced.in_pool
                    outcome = self._without(chosen, request.name) or provision.create(
                        host, going, secrets, master, watcher, turn=turn
                    )
                if outcome.error is None or request.on_failure != "destroy":
                    with self._lock:
                        self._made[request.name] = row.reserved
                reason = self._why_elsewhere(chosen, paced, outcome)
                # A host that is silent may have it, or begin yet, so that the name stays its own.
                held = _is_unknown(outcome) and not reason
            finally:
                if not held:
                    self.store.free(row)
            if not reason:
                return going, outcome
            log.warning("%s: not on '%s': %s", request.name, chosen, reason)
            tried[chosen] = reason

    def _without(self, host: str, name: str) -> Outcome | None:
        """Return the outcome where a host went silent while a create waited; None elsewhere."""
        why = self.offers.silent.get(host, "")
        return Outcome(name, "", None, NeverConnected(why)) if why else None

    def _without_base(self, request: Request, row: Row) -> str:
        """
        Have the base copied to the host that was chosen, if it is missing there.

        :param row: The reservation; it ends where the clone is to be made elsewhere.
        :return: Why it is; empty where it is not.
        """
        host = row.reserved.host
        try:
            asked = self.ask(request)
            if has_base(asked[host]):
                return ""
            with self.store.kept(row):  # a copy may take longer than a reservation holds
                reason = self.to_come.bring(request, host, asked)
            if not reason:
                if not has_base((now := self.ask(request))[host]):  # as it was before the copy
                    for one in (host, *placement.unread(now)):  # for that the source was read
                        self.offers.forget(one)
                offer = self.ask(request)[host]
                reason = " ".join(offer.conflicts) if isinstance(offer, HostOffer) else offer
        except BaseException:
            self.store.free(row)
            raise
        if reason:
            self.store.free(row)
        return reason.rstrip(".")

    def _why_elsewhere(self, host: str, paced: PacedCreate, outcome: Outcome) -> str:
        """
        Return why the clone is to be made on another host; empty where it is not.

        A host that went silent may still begin until its time is over; only then another is taken.
        """
        error = outcome.error
        if isinstance(error, (HostFull, TooLate)):
            self.offers.forget(host)
            return error.message.rstrip(".")
        if not isinstance(error, HostUnreachable) or not _is_unknown(outcome):
            return ""
        if outcome.stage or outcome.clone is not None:  # begun there, where it stays
            self.offers.give_up(host, f"It went silent while it made '{outcome.name}'")
            return ""
        self.offers.give_up(host, error.message.rstrip("."))
        if not isinstance(error, NeverConnected):
            try:
                interrupts.pause(max(0.0, paced.not_after - time.time()))
            except interrupts.Interrupt:
                return ""  # it ends with what is known of that host
        return error.message.rstrip(".")

    def require_open(self, host: KvmHost, request: Request) -> None:
        """
        Refuse a new clone on a host in maintenance that the profile itself names.

        :raises NoHostFits: It is in maintenance, and has no clone of that name.
        """
        if not request.host or not self.settings.limits(request.host).maintenance:
            return
        try:
            host.show(request.name)
        except (NotFound, ForeignDomain):
            raise NoHostFits(
                f"No host fits '{request.name}'. {request.host}: in maintenance.",
                "Name another, or take 'maintenance' out of 'kvm_clone: hosts:' of the master.",
            ) from None


def _is_unknown(outcome: Outcome) -> bool:
    """Return whether nobody knows what there is of a clone, since its host does not answer."""
    clone = outcome.clone
    known = clone is not None and (clone.state or not clone.disks)  # of a removed one none are told
    return isinstance(outcome.error, HostUnreachable) and not known
