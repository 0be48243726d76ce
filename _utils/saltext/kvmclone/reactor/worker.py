"""
Answer notifications, make the requested machines, refill the stock of spares. One process per
master.

The process is started by :mod:`.intake`, with the worker's lock of :mod:`.request_store`. It may be
killed at any point; the next one goes on from the request store: a create that was under way is
requested again, which takes its clone over. After an upgrade it ends by itself, for the next one to
go on with the new library.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from saltext.kvmclone.config.value_types import DURATION
from saltext.kvmclone.errors import (
    AlreadyExists,
    ConfigError,
    HostUnreachable,
    KvmCloneError,
    named,
)
from saltext.kvmclone.master import progress
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.master.spares_fill import Refill
from saltext.kvmclone.reactor import claims, endings, intake, policy, queries, request_entry
from saltext.kvmclone.reactor.handlers import RequestHandlers
from saltext.kvmclone.reactor.policy import Policy
from saltext.kvmclone.reactor.request_entry import (
    FAILED,
    MADE,
    MAKING,
    QUEUED,
    REFUSED,
    Notification,
    RequestEntry,
)
from saltext.kvmclone.reactor.request_store import RequestStore

log = logging.getLogger(__name__)

#: Number of notifications that are answered at the same time; each waits for a minion.
NOTIFICATIONS_AT_ONCE = 4

#: Seconds between two looks whether the machines that count for a limit still exist.
RECONCILE_INTERVAL_S = 20.0

#: Seconds between two attempts where a host does not answer.
CREATE_RETRY_S = 10.0

#: Seconds between two readings of the policy.
POLICY_READ_INTERVAL_S = 5.0

#: Seconds that requests keep the worker while the policy is wrong: enough to read it again.
FAULT_TIMEOUT_S = 20.0

#: Seconds that an upgrade takes to replace the library's files, one by one.
UPGRADE_S = 5.0

#: Number of looks at the stock, and of spares that are made or destroyed, at the same time.
SPARES_AT_ONCE = 16

_IDLE_POLL_S = 0.5


class Worker:
    """
    The worker process: one run, from the first notification to the last.

    :param opts: The master's configuration.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self.opts = opts
        self.policy = Policy()
        self.policy_read_at = time.monotonic()
        self.section: Any = opts.get("kvm_clone")
        #: What is wrong with the policy: while anything is, no request begins or is refused, and no
        #: notification is answered. Spares need no policy.
        self.fault: ConfigError | None = None
        self.fault_since = 0.0
        try:
            self.policy = intake.read_policy(opts)
        except ConfigError as error:
            self._heed(error)
        self.store = RequestStore(opts)
        self.handlers = RequestHandlers(opts, self.policy, self.store)
        self.stock = Refill(opts, self._fleet)
        self.answering: dict[Future[None], Notification] = {}
        self.making: dict[Future[None], RequestEntry] = {}
        self.looking: dict[Future[None], None] = {}
        self.looked_at = float("-inf")
        #: Machines that are gone are to be looked for.
        self.is_look_wanted = False
        self.done = 0

    def work(self, lock: int) -> int:
        """
        Answer notifications and make machines until there is nothing left.

        :param lock: File descriptor of the worker's lock; it is closed at the end.
        :return: How many notifications were answered, and machines made or, as spares, destroyed.
        """
        while True:
            try:
                self._tell_again()
                self._until_idle()
            except KvmCloneError as error:
                if not intake.is_outdated():
                    raise
                log.info("kvm_clone reactor: the next worker goes on: %s", error)
            finally:
                os.close(lock)
            if intake.is_outdated():
                time.sleep(UPGRADE_S)
                intake.start_worker(self.opts)
                return self.done + self.stock.done
            # A notification that came while we still held the lock started no worker: look again.
            again = self.store.lock_worker() if self._is_work_left() else None
            if again is None:
                return self.done + self.stock.done
            lock = again

    def _until_idle(self) -> None:
        with (
            ThreadPoolExecutor(NOTIFICATIONS_AT_ONCE) as handlers,
            ThreadPoolExecutor(self.policy.workers) as makers,
            ThreadPoolExecutor(SPARES_AT_ONCE) as stockers,
        ):
            while self._go_on(handlers, makers, stockers):
                busy = [*self.answering, *self.making, *self.looking, *self.stock.running()]
                if busy:
                    wait(busy, timeout=_IDLE_POLL_S, return_when=FIRST_COMPLETED)
                else:
                    time.sleep(_IDLE_POLL_S)

    def _go_on(
        self, handlers: ThreadPoolExecutor, makers: ThreadPoolExecutor, stockers: ThreadPoolExecutor
    ) -> bool:
        """
        Begin what can be begun.

        :param stockers: Look at the stock, and make and destroy spares.
        :return: Whether anything is left to do.
        """
        self._reap(self.answering)
        self._reap(self.making)
        self._reap(self.looking)
        if intake.is_outdated():
            return bool(self.answering or self.making or self.looking or self.stock.wind_down())
        self._read_policy()
        waiting = self._notifications()
        if any(notification.bell == policy.STOCK for notification in waiting):
            self.stock.want_look(soon=True)
        busy = {notification.question for notification in self.answering.values()}
        for notification in waiting:
            due = notification.after <= time.time() and notification.question not in busy
            if due and len(self.answering) < NOTIFICATIONS_AT_ONCE:
                self.answering[handlers.submit(self._answer, notification)] = notification
                busy.add(notification.question)
        for entry in self._begin():
            self.making[makers.submit(self._make, entry)] = entry
        if self._is_look_due():
            self.looking[handlers.submit(self.handlers.reconcile)] = None
        self.stock.opts = self.opts
        # What minions ask for goes first: a spare is for whoever comes later.
        room = self.policy.workers - len(self.making) - self.stock.making
        refills = self.stock.go_on(stockers, room)
        running = self.answering or self.making or self.looking or refills
        return bool(running or waiting or self._is_work_left())

    def _is_look_due(self) -> bool:
        since = time.monotonic() - self.looked_at
        if not self.is_look_wanted or self.looking or since < RECONCILE_INTERVAL_S:
            return False
        self.is_look_wanted, self.looked_at = False, time.monotonic()
        return True

    def _reap(self, running: dict[Future[None], Any]) -> None:
        for future in [future for future in running if future.done()]:
            what = running.pop(future)
            self.done += what is not None
            if error := future.exception():
                log.error("kvm_clone reactor, %s: %s", what, named(error), exc_info=error)
                if isinstance(what, RequestEntry):
                    self._end(what, FAILED, f"An unexpected error: {named(error)}")
                elif what is not None and not intake.is_outdated():
                    self.store.answered(what)

    def _is_work_left(self) -> bool:
        is_mended_soon = time.monotonic() - self.fault_since < FAULT_TIMEOUT_S
        with self.store.requests() as requests:
            waiting = requests.in_state(MAKING)
            if not self.fault or is_mended_soon:
                waiting += requests.in_state(QUEUED)
        return bool(waiting or self._notifications())

    def _notifications(self) -> list[Notification]:
        """Return what is to be answered; what only a policy can judge waits for one."""
        found = self.store.notifications()
        return [one for one in found if one.bell == policy.STOCK] if self.fault else found

    def _tell_again(self) -> None:
        """Tell minions how requests ended whose worker was killed before it could tell them."""
        with self.store.requests() as requests:
            untold = requests.take_untold()
        for entry in untold:
            endings.tell(self.opts, entry)

    def _answer(self, notification: Notification) -> None:
        retry = self.handlers.handle(notification)
        if retry is not None and notification.tries + 1 < retry.tries:
            after = time.time() + retry.seconds
            self.store.note(notification.bell, notification.about, after, notification.tries + 1)
        else:
            self.store.answered(notification)

    def _fleet(self) -> Fleet:
        """Return a fleet with the configuration as it is now; it may have changed since."""
        return Fleet(self.opts, intake.expect_highstate)

    def _read_policy(self) -> None:
        """
        Read the policy again, if its last reading is old.

        This process outlives the master that started it, and a rule that is made stricter also
        counts for requests that still wait.
        """
        if time.monotonic() - self.policy_read_at < POLICY_READ_INTERVAL_S:
            return
        self.policy_read_at = time.monotonic()
        before = self.section
        self.section = intake.written_section(str(self.opts["conf_file"]))
        if self.section != before:
            return  # it may be just being written: it counts once two readings are the same
        try:
            if self.section is intake.UNREADABLE:
                raise ConfigError("The master's configuration cannot be read.", "Its log says why.")
            self.opts = {**self.opts, "kvm_clone": self.section}
            self.policy = intake.read_policy(self.opts)
            self.fault = None
            self.handlers.highstates.switch(self.policy.finish)
        except ConfigError as error:
            self._heed(error)
        self.handlers.policy, self.handlers.opts = self.policy, self.opts

    def _heed(self, fault: ConfigError) -> None:
        """Allow nothing from now on, and say once why."""
        if self.fault is None:
            log.error("kvm_clone reactor: %s", fault)
            self.fault_since = time.monotonic()
        self.policy, self.fault = Policy(), fault

    # --- making -----------------------------------------------------------------------

    def _begin(self) -> list[RequestEntry]:
        """
        Mark and return the entries to make now: those left half-made, then the oldest that wait.

        A request that waited too long, or that the policy does not allow any more, is refused.
        """
        now = time.time()
        busy = {(e.minion_id, e.token) for e in self.making.values()}
        begun: list[RequestEntry] = []
        refused: list[tuple[RequestEntry, str]] = []
        with self.store.requests() as requests:
            left = [e for e in requests.in_state(MAKING) if (e.minion_id, e.token) not in busy]
            begun += left[: max(0, self.policy.workers - len(busy))]
            for entry in requests.in_state(QUEUED):
                if self.fault:
                    break
                is_late = now - entry.asked > self.policy.patience
                try:
                    rule = policy.judge(self.policy, entry.ask)
                except policy.Refused as error:
                    refused.append((entry, error.message))
                    continue
                is_full = len(busy) + len(begun) >= self.policy.workers
                if is_full and not is_late:
                    continue
                counted = requests.counted_by(rule, self.policy.rules)
                alive = sum(one.state in request_entry.ALIVE for one in counted)
                limit = policy.why_it_waits(rule, alive, [one.begun for one in counted], now)
                if is_full and not limit:
                    limit = f"at most {self.policy.workers} machines are made at the same time"
                if is_late:
                    refused.append((entry, self._too_late(limit)))
                    continue
                if limit:
                    self.is_look_wanted = True
                    continue
                begins = dataclasses.replace(entry, state=MAKING, begun=now, rule=rule.key)
                begun.append(requests.put(begins))
        for entry, reason in refused:
            self._end(entry, REFUSED, reason)
        return begun

    def _too_late(self, why: str) -> str:
        """Return what a request is told that waited too long."""
        waited = f"It waited longer than {DURATION.write(self.policy.patience)} for its turn"
        return f"{waited}: {why}." if why else f"{waited}."

    def _make(self, entry: RequestEntry) -> None:
        """Make one machine, as the runner would, and tell the minion that requested it."""
        if entry.is_claim:
            ended = claims.claimed(self._fleet(), entry)
            self._end(ended, ended.state, ended.reason, ended.uuid)
            return
        fleet = self._fleet()
        try:
            request, _secrets, _host = fleet.resolve(entry.profile, entry.name, entry.keys)
            if entry.digest and entry.digest != request.digest():
                log.info("'%s' is not what it was when its create began", entry.name)
            known = queries.everywhere(self._fleet().hosts(), names=[entry.name])
            if not entry.digest and entry.name in known.domains:
                self._end(entry, REFUSED, f"A machine named '{entry.name}' exists already.")
                return
        except KvmCloneError as error:
            self._end(entry, FAILED, f"{error.type}: {error.message}")
            return
        if not entry.digest:
            entry = dataclasses.replace(entry, digest=request.digest())
            with self.store.requests() as requests:
                requests.put(entry)
        for attempt in range(3):
            if attempt:
                time.sleep(CREATE_RETRY_S)
            outcome = fleet.create(entry.profile, [entry.name], entry.keys)[0]
            if not isinstance(outcome.error, HostUnreachable) or intake.is_outdated():
                break
            log.warning("'%s', attempt %s: %s", entry.name, attempt + 1, outcome.error)
        reason = f"{outcome.error.type}: {outcome.error.message}" if outcome.error else ""
        left = self._left(entry) if outcome.error else None
        if outcome.clone is not None and not outcome.error:
            entry = dataclasses.replace(entry, address=outcome.clone.address)
            self._end(entry, MADE, "", outcome.clone.uuid)
        elif left is not None:
            # It was finished before an earlier worker was killed, or it failed and is kept.
            finished = isinstance(outcome.error, AlreadyExists)
            self._end(entry, MADE, "" if finished else reason, left)
        else:
            self._end(entry, FAILED, reason)

    def _left(self, entry: RequestEntry) -> str | None:
        """Return the uuid of the clone that exists because of this very request; None for none."""
        try:
            for clone in queries.everywhere(self._fleet().hosts(), names=[entry.name]).clones:
                if clone.name == entry.name and clone.request == entry.digest:
                    return clone.uuid
        except KvmCloneError as error:
            log.warning("what is left of '%s' is not known: %s", entry.name, error)
        return None

    def _end(self, entry: RequestEntry, state: str, reason: str, uuid: str = "") -> None:
        if state == FAILED and intake.is_outdated():
            self._leave(entry)
            return
        ended = dataclasses.replace(entry, state=state, reason=reason, uuid=uuid)
        endings.end(self.opts, self.store, ended)

    def _leave(self, entry: RequestEntry) -> None:
        """Leave a request to the next worker: its create goes on, or has not begun."""
        with self.store.requests() as requests:
            now = requests.find(entry.minion_id, entry.token)
            if now is not None and not now.digest:
                requests.put(dataclasses.replace(now, state=QUEUED, begun=0.0))


def work_off(opts: Mapping[str, Any]) -> dict[str, Any]:
    """
    Answer every notification and make what was requested, until nothing is left.

    :return: ``done``: how much was done, and what is wrong with the policy, if anything is;
        ``busy`` instead where another process does it.
    """
    given = os.environ.pop(intake.LOCK_VARIABLE, "")
    try:
        lock = RequestStore(opts).lock_worker(int(given) if given.isdigit() else None)
        if lock is None:
            return {"busy": True, "retcode": 0}
        os.set_inheritable(lock, False)
        worker = Worker(opts)
        # The schedule, and people, also mean machines that were destroyed without an event.
        worker.is_look_wanted = not given
        worker.stock.want_look(soon=not given)
        told: dict[str, Any] = {"done": worker.work(lock), "retcode": 0}
        return {**told, "error": worker.fault.as_dict(), "retcode": 1} if worker.fault else told
    except KvmCloneError as error:
        # A worker that the reactor started has nobody else to report to.
        log.error("kvm_clone reactor: %s", error)
        progress.fire(opts, "refused", {"error": error.as_dict()})
        raise
