"""
Handle each kind of notification.

What a minion wants is asked from that minion, what became of a machine from its host, both by
:mod:`.queries`; nothing here uses the content of an event.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from saltext.kvmclone.errors import HostUnreachable, KvmCloneError, NotFound
from saltext.kvmclone.master import progress
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.master.remote import RemoteHost
from saltext.kvmclone.model import fingerprints
from saltext.kvmclone.model.host_reports import CloneReport
from saltext.kvmclone.reactor import endings, intake, policy, queries, request_entry
from saltext.kvmclone.reactor.highstates import Highstates
from saltext.kvmclone.reactor.policy import (
    DESTROYED,
    EXPIRED,
    RELEASE,
    REQUEST,
    START,
    Ask,
    Policy,
    Refused,
)
from saltext.kvmclone.reactor.request_entry import (
    GONE,
    MADE,
    MAKING,
    QUEUED,
    REFUSED,
    Notification,
    RequestEntry,
)
from saltext.kvmclone.reactor.request_store import RequestStore

log = logging.getLogger(__name__)

#: Most requests of one minion that are looked at for one notification.
MAX_REQUESTS_AT_ONCE = 50

#: Seconds after which an unanswered question is asked again, and the number of tries.
MINION_RETRY_S, MINION_TRIES = 10.0, 5

#: The same for a machine that is not ``ready`` yet.
UNDECIDED_RETRY_S, UNDECIDED_TRIES = 3.0, 100


class Retry(Exception):
    """
    Raised where nothing can be decided yet; the notification is to be handled again.

    :param seconds: After this time.
    :param tries: At most so often in all.
    """

    def __init__(self, seconds: float, tries: int) -> None:
        super().__init__()
        self.seconds = seconds
        self.tries = tries


class RequestHandlers:
    """
    The handlers of notifications, within the policy.

    :param opts: The master's configuration.
    :param rules: The policy.
    :param store: The request store.
    """

    def __init__(self, opts: Mapping[str, Any], rules: Policy, store: RequestStore) -> None:
        self.opts = opts
        self.policy = rules
        self.store = store
        self.highstates = Highstates(store)
        #: Uuids of the clones that are being destroyed here; whoever does that ends their requests.
        self._going: set[str] = set()

    def handle(self, notification: Notification) -> Retry | None:
        """
        Handle one notification. Refusals are logged and fired on the bus.

        :return: When to handle it again; None where that was all.
        """
        handlers: dict[str, Callable[[str], None]] = {
            REQUEST: self._handle_requests,
            RELEASE: self._handle_requests,
            EXPIRED: self._handle_expired,
            START: self._handle_started,
            DESTROYED: self._handle_destroyed,
        }
        try:
            # Checked again: the policy may be stricter than when the notification came.
            if notification.bell in handlers and self.policy.answers(notification.bell):
                handlers[notification.bell](notification.about)
        except Retry as retry:
            return retry
        except KvmCloneError as error:
            if intake.is_outdated():  # the next worker may know better
                return Retry(0.0, notification.tries + 2)
            if isinstance(error, HostUnreachable) and notification.tries + 1 < MINION_TRIES:
                return Retry(MINION_RETRY_S, MINION_TRIES)
            intake.refuse(self.opts, error, bell=notification.bell, who=notification.about)
        return None

    # --- minions that ask -------------------------------------------------------------

    def _handle_requests(self, minion_id: str) -> None:
        """
        Ask a minion that sent a notification what it requests or releases, and answer it.

        :raises Retry: Something of it cannot be decided yet.
        """
        answers: dict[str, Any] = {}
        found = queries.pending(self.opts, minion_id)
        unsettled = len(found) > MAX_REQUESTS_AT_ONCE
        found = found[:MAX_REQUESTS_AT_ONCE]
        # Hosts are asked once for all of them: a minion with many requests must not keep them busy.
        own = functools.cache(lambda: self._clones_of(minion_id))
        self._reconcile_if_made({policy.name_of(item) for item in found})
        down = False
        for item in found:
            token = policy.token_of(item)
            try:
                ask = policy.read_ask(minion_id, item)
                if ask.bell == RELEASE and down:
                    unsettled = True
                    continue
                told = self._request(ask) if ask.bell == REQUEST else self._release(ask, own)
                if told is None:
                    unsettled = True
                    continue
                answers[token] = told
            except HostUnreachable as error:
                log.warning("kvm_clone reactor, '%s': %s", minion_id, error)
                unsettled = down = True
            except KvmCloneError as error:
                about = {"bell": REQUEST, "who": minion_id, "name": policy.name_of(item)}
                intake.refuse(self.opts, error, **about)
                if token:
                    self._note_refusal(Ask(token, minion_id, REQUEST, policy.name_of(item)), error)
                    answers[token] = request_entry.verdict(REFUSED, error.message)
        if answers:
            queries.tell(self.opts, minion_id, answers)
        if unsettled:
            raise Retry(UNDECIDED_RETRY_S, UNDECIDED_TRIES)

    def _note_refusal(self, ask: Ask, error: KvmCloneError) -> None:
        with self.store.requests() as requests:
            if requests.find(ask.minion_id, ask.token) is None:
                requests.put(request_entry.new_entry(ask, "", REFUSED, error.message))

    def _request(self, ask: Ask) -> dict[str, Any]:
        with self.store.requests() as requests:
            known = requests.find(ask.minion_id, ask.token)
            if known is not None:
                return request_entry.verdict(known.state, known.reason, known)
            rule = policy.judge(self.policy, ask)
            taken = requests.current(ask.name) if ask.name else None
            if taken is not None and taken.same_as(ask):
                raise Refused(f"'{ask.name}' was asked for already, and is {taken.state}.")
            if taken is not None:
                raise Refused(f"'{ask.name}' is a machine that somebody else asked for.")
            mine = requests.counted_by(rule, self.policy.rules)
            if sum(entry.state == QUEUED for entry in mine) >= self.policy.queue:
                raise Refused(
                    f"At most {self.policy.queue} requests of one rule may wait, and so many do.",
                    "Ask again later.",
                )
            entry = requests.put(request_entry.new_entry(ask, rule.key))
        log.info("kvm_clone reactor: '%s' asks for '%s'", ask.minion_id, ask.name or ask.profile)
        progress.fire(self.opts, "queued", request_entry.event_data(entry))
        return request_entry.verdict(QUEUED, "")

    def _release(self, ask: Ask, own: Callable[[], list[CloneReport]]) -> dict[str, Any] | None:
        """
        Destroy a machine that a minion gives back; None where it is still being made.

        :param own: Returns the clones that the minion itself is.
        :raises Refused: The minion may not give it back.
        """
        if not policy.may_release(self.policy, ask.minion_id):
            raise Refused(f"No rule lets '{ask.minion_id}' give machines back.", policy.HINT)
        with self.store.requests() as requests:
            known = requests.find(ask.minion_id, ask.token)
            if known is not None:
                return request_entry.verdict(known.state, known.reason)
            entry = requests.current(ask.name)
            if entry is not None and entry.minion_id != ask.minion_id:
                entry = None
            if entry is not None and entry.state == QUEUED:
                entry = _gone(entry, endings.WITHDRAWN)
                requests.put(entry)
                requests.put(request_entry.new_entry(ask, "", GONE, endings.WITHDRAWN))
            was_here = requests.has_gone(ask.minion_id, ask.name)
        if entry is not None and entry.state == MAKING:
            return None
        if entry is not None and entry.state == GONE:
            endings.announce(self.opts, self.store, entry)
            return request_entry.verdict(GONE, "It was still waiting, and will not be made.")
        uuid = entry.uuid if entry is not None else _own_uuid(ask, own())
        if not uuid and not was_here:
            raise Refused(f"'{ask.minion_id}' is not '{ask.name}', and did not ask for it.")
        released = request_entry.new_entry(ask, "", GONE, endings.RELEASED)
        if uuid and not self._destroy(ask.name, uuid, endings.RELEASED):
            # Nobody asked for it by event, so this is all that is told of it.
            event = request_entry.event_data(dataclasses.replace(released, uuid=uuid))
            progress.fire(self.opts, GONE, event)
        with self.store.requests() as requests:
            requests.put(released)
        return request_entry.verdict(GONE, "" if uuid else "It was gone already.")

    def _clones_of(self, minion_id: str) -> list[CloneReport]:
        """Return the clones whose record names this minion and the key that we accepted for it."""
        fleet = self._fleet()
        known = queries.everywhere(fleet.hosts(), ids=[minion_id])
        found = [clone for clone in known.clones if self._is_minion_of(clone, minion_id)]
        if not found:
            fleet.everywhere.require_all_known()
        return found

    def _is_minion_of(self, clone: CloneReport, minion_id: str) -> bool:
        """Return True if the record names this minion and the key that we accepted for it."""
        public = self._fleet().keys.accepted(minion_id)
        return clone.minion == minion_id and fingerprints.is_of(clone.fingerprint, public)

    def _reconcile_if_made(self, names: set[str]) -> None:
        """Reconcile if one of these names is known as made: it may have been destroyed since."""
        if self.store.has_made(names):
            self.reconcile()

    def reconcile(self) -> None:
        """End the requests of machines that are gone, if every host answers."""
        try:
            self._end_gone()
        except KvmCloneError as error:
            log.warning("kvm_clone reactor: which machines are left is not known: %s", error)

    def _end_gone(self) -> None:
        """
        End the requests of machines that are gone, so that no limit counts them any more.

        :raises KvmCloneError: Which are left is not known.
        """
        with self.store.requests() as requests:
            made = requests.in_state(MADE)
        if not made:
            return
        fleet = self._fleet()
        fleet.everywhere.require_all_known()
        known = queries.everywhere(fleet.hosts(), names=[entry.name for entry in made])
        there = {clone.uuid for clone in known.clones}
        there |= self._going
        gone = [e for e in made if e.uuid not in there and e.name not in known.damaged]
        self._end(gone, endings.NOT_FOUND)

    def _end(self, made: Iterable[RequestEntry], reason: str) -> None:
        for entry in made:
            endings.end(self.opts, self.store, _gone(entry, reason))

    # --- hosts, and machines themselves -----------------------------------------------

    def _handle_expired(self, minion_id: str) -> None:
        """
        Ask a KVM host that sent a notification which clones have expired, and destroy them.

        :raises Refused: The minion is not a KVM host of this master.
        """
        fleet = self._fleet()
        hosts = [h for _label, h in fleet.hosts() if _is_on(h, minion_id)]
        if not hosts:
            fleet.everywhere.require_all_known()
            raise Refused(
                f"'{minion_id}' is not a KVM host of this master.",
                f"Name it in its provider: host: {minion_id}",
            )
        for host in hosts:
            for clone in host.report_domains((), ()).clones:
                if not clone.expired:
                    continue
                try:
                    self._destroy(clone.name, clone.uuid, endings.EXPIRED, minion_id)
                except KvmCloneError as error:
                    about = {"bell": EXPIRED, "who": minion_id, "name": clone.name}
                    intake.refuse(self.opts, error, **about)

    def _handle_started(self, minion_id: str) -> None:
        """
        Start the highstate of a minion that is a clone, once.

        Only a clone that became ``ready`` since ``finish`` was turned on gets one.

        :raises Refused: The minion is not a clone.
        :raises Retry: The clone is not ``ready`` yet.
        """
        found = self._clones_of(minion_id)
        if not found:
            raise Refused(f"All hosts say that '{minion_id}' is not a clone.")
        if found[0].stage != "ready":
            raise Retry(UNDECIDED_RETRY_S, UNDECIDED_TRIES)
        uuid = found[0].uuid
        job = self.highstates.job_for(uuid, self.opts)
        if job:
            queries.publish(self.opts, minion_id, "state.apply", job)
            self.highstates.done(uuid)
            about = {"name": found[0].name, "minion": minion_id, "jid": job}
            progress.fire(self.opts, f"{found[0].name}/highstate", about)

    def _handle_destroyed(self, name: str) -> None:
        """End the request of a clone that is said to be gone, and remove its key, if it is."""
        if self.store.has_made({name}):
            self._end_gone()
        if not self.policy.clean_keys:
            return
        keys = self._fleet().keys
        for minion_id in intake.remembered_for(self.opts, name):
            fingerprint = keys.remembered(minion_id)
            if reason := self._why_its_key_stays(name, minion_id):
                intake.refuse(self.opts, reason, bell=DESTROYED, who=name, minion=minion_id)
            elif keys.remove(minion_id, fingerprint):
                log.info("kvm_clone reactor: '%s' is gone; its key was removed", minion_id)
                progress.fire(self.opts, f"{name}/key_removed", {"name": name, "minion": minion_id})

    def _why_its_key_stays(self, name: str, minion_id: str) -> Refused | None:
        """Return why the key of a clone that is said to be gone stays; None where it need not."""
        fleet = self._fleet()
        fleet.everywhere.require_all_known()
        hosts, its_own = fleet.hosts(), fleet.keys.host_of(minion_id)
        if its_own and its_own not in [label for label, _host in hosts]:
            return Refused(
                f"'{name}' was made on '{its_own}', which no provider names; its key stays.",
                f"If that host is gone for good: salt-key -d {minion_id}",
            )
        known = queries.everywhere(hosts, names=[name, minion_id], ids=[minion_id])
        if known.domains or any(clone.minion == minion_id for clone in known.clones):
            return Refused(f"'{name}' is said to be gone, and is there; its key stays.")
        if known.damaged:
            names = ", ".join(known.damaged[:5])
            return Refused(f"'{name}' is said to be gone, and may be {names}; its key stays.")
        return None

    def _fleet(self) -> Fleet:
        """Return a fleet with the configuration as it is now; it may have changed since."""
        return Fleet(self.opts, intake.expect_highstate)

    def _destroy(self, name: str, uuid: str, reason: str, minion_id: str = "") -> bool:
        """
        Destroy one clone: the one with that uuid, on that host if one is given.

        :param reason: What its request is told.
        :param minion_id: The minion id of the host; empty for any.
        :return: Whether it was made for a request.
        :raises KvmCloneError: It could not be destroyed.
        """
        with self.store.requests() as requests:
            made = [entry for entry in requests.in_state(MADE) if entry.uuid == uuid]
        self._going.add(uuid)
        try:
            self._remove(name, uuid, minion_id)
            self._end(made, reason)
        finally:
            self._going.discard(uuid)
        return bool(made)

    def _remove(self, name: str, uuid: str, minion_id: str) -> None:
        """Remove a clone, if it exists; see :meth:`_destroy`."""
        fleet = self._fleet()
        try:
            host, clone = fleet.find(name)
        except NotFound:
            return
        if clone.uuid != uuid or (minion_id and not _is_on(host, minion_id)):
            raise Refused(f"'{name}' is another machine than the one that was meant.")
        outcome = fleet.destroy(name)
        if outcome.error is not None:
            raise outcome.error


def _is_on(host: Any, minion_id: str) -> bool:
    return isinstance(host, RemoteHost) and host.minion_id == minion_id


def _gone(entry: RequestEntry, reason: str) -> RequestEntry:
    return dataclasses.replace(entry, state=GONE, reason=reason, told=False)


def _own_uuid(ask: Ask, own: list[CloneReport]) -> str:
    """Return the uuid of the clone that the minion itself is; empty where it is not that one."""
    return next((clone.uuid for clone in own if clone.name == ask.name), "")
