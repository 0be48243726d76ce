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
from concurrent.futures import ThreadPoolExecutor
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
    NotAccepted,
    NotFound,
    TooLate,
)
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.interfaces import EnrollerInterface, KvmHost
from saltext.kvmclone.hosts.outcome import Outcome, Watcher
from saltext.kvmclone.master import at_once, targets
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

#: Number of hosts that are asked at the same time.
HOSTS_AT_ONCE = 32


def reasons(decision: Decision, chosen: str) -> dict[str, dict[str, Any]]:
    """Return of every host whether it is the chosen one, and what speaks for or against it."""
    return {
        one.host: {"chosen": one.host == chosen, "reason": one.reason} for one in decision.verdicts
    }


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
    :raises ConfigError: The limits of the hosts in the configuration are wrong.
    """

    def __init__(self, opts: Mapping[str, Any], connect: Callable[[str, str], KvmHost]) -> None:
        self.opts = opts
        self.connect = connect
        self.settings: FleetSettings = cloud_files.fleet_settings(opts)
        self.store = Reservations(opts)
        self.pacing = Pacing(self.settings.at_once_per_host, self.settings.at_once_per_pool)
        #: The clones that this call is about.
        self.names: set[str] = set()
        #: What each host said, for each sort of clone, and the clones that were made since.
        self._asked: dict[str, dict[str, Asked]] = {}
        self._made: dict[str, Reserved] = {}
        #: Hosts that do not answer, with what was said of that; what a target expression means.
        self._silent: dict[str, str] = {}
        #: Hosts of which it is not known what they have, with the reason.
        self._unseen: dict[str, str] = {}
        #: What the operator should know of the choice for a clone, by its name.
        self._doubts: dict[str, tuple[str, ...]] = {}
        self._meant: dict[str, tuple[str, ...]] = {}
        self._turns: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    # --- asking -----------------------------------------------------------------------

    def hosts_of(self, request: Request) -> tuple[str, ...]:
        """
        Return the minion ids of the hosts that may be chosen.

        :raises ConfigError: The target expression means no minion.
        """
        wish = request.placement
        if wish.expression and wish.expression not in self._meant:
            self._meant[wish.expression] = targets.minions(self.opts, wish.expression)
        return wish.hosts or self._meant[wish.expression]

    def ask(self, request: Request) -> dict[str, Asked]:
        """Return what each host offers, or why it cannot be chosen; each is asked once."""
        hosts = self.hosts_of(request)
        sort = dataclasses.replace(request, name="").digest()
        with self._lock:
            self.names.add(request.name)
            turn = self._turns.setdefault(sort, threading.Lock())
        with turn:  # whoever needs the same waits for the one who asks
            with self._lock:
                known = dict(self._asked.get(sort, {}))
                silent = {host: self._silent[host] for host in hosts if host in self._silent}
                names = sorted(self.names | set(self._made))
            missing = [host for host in hosts if host not in known and host not in silent]
            if missing:
                # What others have under way counts once, whether a host knows of it yet or not.
                names = sorted({*names, *(row.reserved.name for row in self.store.all())})
                with ThreadPoolExecutor(min(HOSTS_AT_ONCE, len(missing))) as pool:
                    offers = pool.map(lambda host: self._ask_one(host, request, names), missing)
                    news = dict(zip(missing, offers, strict=True))
                known |= news
                with self._lock:  # of the others some may be forgotten by now
                    self._asked[sort] = self._asked.get(sort, {}) | news
        return {host: silent.get(host, known.get(host, "")) for host in hosts}

    def _ask_one(self, host: str, request: Request, names: Sequence[str]) -> Asked:
        try:
            return self.connect(host, request.url).offer(request, names)
        except KvmCloneError as error:
            log.info("the host '%s' cannot be chosen: %s", host, error)
            reason = error.message.rstrip(".")
            if not isinstance(error, NotAccepted):
                with self._lock:
                    self._unseen[host] = reason
            if isinstance(error, HostUnreachable):
                self._give_up(host, reason)
            return reason

    def _forget(self, host: str) -> None:
        """Have a host asked again: it has promised more than we know of."""
        with self._lock:
            for sort, known in self._asked.items():
                self._asked[sort] = {key: told for key, told in known.items() if key != host}

    def _give_up(self, host: str, reason: str) -> None:
        """Take no other clone of this call to a host that does not answer."""
        with self._lock:
            self._silent[host] = reason

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
        return placement.choose(asked, limits, wish, others, request.name, last)

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
        for host in self.hosts_of(request):
            if host in self._unseen and not self.settings.limits(host).maintenance:
                raise HostUnreachable(
                    f"Whether '{host}' has a '{request.name}' is not known: {self._unseen[host]}. "
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

        asked = {host: tried.get(host, offer) for host, offer in self.ask(request).items()}

        def choose(rows: Sequence[Row], last: str) -> Reserved:
            held = next((row for row in rows if row.reserved.name == request.name), None)
            where = held.reserved.host if held else ""
            if held and isinstance(asked.get(where), HostOffer):
                chosen = where
            elif held and held.may_begin:
                raise (unanswered if where in self._silent else in_progress)(held)
            else:
                found = self._decide(request, asked, rows, last)
                base, name = request.base_domain, request.name
                chosen = placement.require_host(found, asked, base, name)
                self._doubts[name] = found.warnings
            offer = asked[chosen]
            assert isinstance(offer, HostOffer)
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

    def foresee(self, request: Request) -> tuple[Request, KvmHost, Decision]:
        """
        Return the request as it would go to its host now, the host, and why it is that one.

        :raises KvmCloneError: No host fits.
        """
        name, asked, found = request.name, self.ask(request), self.consider(request)
        host = self._host_with(request)
        host = host or placement.require_host(found, asked, request.base_domain, name)
        return self.placed_on(request, host), self.connect(host, request.url), found

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
                return going, outcome.with_warnings(self._doubts.get(request.name, ()))
            log.warning("%s: not on '%s': %s", request.name, chosen, reason)
            tried[chosen] = reason

    def _without(self, host: str, name: str) -> Outcome | None:
        """Return the outcome where a host went silent while a create waited; None elsewhere."""
        with self._lock:
            why = self._silent.get(host, "")
        return Outcome(name, "", None, NeverConnected(why)) if why else None

    def _why_elsewhere(self, host: str, paced: PacedCreate, outcome: Outcome) -> str:
        """
        Return why the clone is to be made on another host; empty where it is not.

        A host that went silent may still begin until its time is over; only then another is taken.
        """
        error = outcome.error
        if isinstance(error, (HostFull, TooLate)):
            self._forget(host)
            return error.message.rstrip(".")
        if not isinstance(error, HostUnreachable) or not _is_unknown(outcome):
            return ""
        if outcome.stage or outcome.clone is not None:  # begun there, where it stays
            self._give_up(host, f"It went silent while it made '{outcome.name}'")
            return ""
        self._give_up(host, error.message.rstrip("."))
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
