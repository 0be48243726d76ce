"""
Make one clone, from request to minion: stages, progress, rollback.

A create is a sequence of stages, each one call on a :class:`.interfaces.KvmHost`. On a host alone
it ends at ``addressed``; with a :class:`EnrollerInterface` it goes on to ``ready``, which is recorded
only after ``test.version`` came back from the machine that was made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    AlreadyExists,
    ConfigError,
    CreateInProgress,
    ForeignDomain,
    HostUnreachable,
    Interrupted,
    KeptAfterFailure,
    KeyConflict,
    KvmCloneError,
    NeverConnected,
    NotFound,
    PlanRefused,
    named,
)
from saltext.kvmclone.hosts import rollback
from saltext.kvmclone.hosts.enroller_interface import EnrollerInterface, KeyPair
from saltext.kvmclone.hosts.gc import owner_state_of
from saltext.kvmclone.hosts.interfaces import KvmHost, commands_of
from saltext.kvmclone.hosts.outcome import Outcome, Watcher
from saltext.kvmclone.model.clone import Clone, clone_from_dict
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.leftovers import Unfinished
from saltext.kvmclone.model.record import (
    ALIVE,
    DEAD,
    DESTROYING,
    STAGES,
    Minion,
    Work,
    work_from_dict,
)
from saltext.kvmclone.model.request import Request, Secrets
from saltext.kvmclone.system import processes

log = logging.getLogger(__name__)

#: Errors after which nothing of ours exists.
REFUSALS = (AlreadyExists, CreateInProgress, KeptAfterFailure, NeverConnected, PlanRefused)

#: Seconds before a create looks again at one of the same name that is under way.
OTHER_CREATE_POLL_S = 0.5

#: Seconds, on top of the wait for an address, that a create waits for one of the same name.
OTHER_CREATE_TIMEOUT_S = 600.0


def _silent(_stage: str, _elapsed: float, _clone: Clone) -> None:
    return None


def create(
    host: KvmHost,
    request: Request,
    secrets: Secrets = Secrets(),
    master: EnrollerInterface | None = None,
    watcher: Watcher = _silent,
    start: bool = True,
) -> Outcome:
    """
    Make one clone.

    If a create with the same request is under way, wait for it and return the same outcome; if
    its worker died, go on with its work.

    :param host: The KVM host that makes it.
    :param secrets: Logins for the guest.
    :param master: Enrols it as a minion; None ends at ``addressed``.
    :param watcher: Called at every stage.
    :param start: False leaves the clone off, at ``cloned``.
    :return: The outcome; a failure is its ``error``, and is not raised.
    """
    return _Create(host, request, secrets, master, watcher, start).run()


def resume(
    host: KvmHost,
    name: str,
    resolve: Callable[[Unfinished], tuple[Request, Secrets]],
    master: EnrollerInterface | None = None,
    watcher: Watcher = _silent,
) -> Outcome:
    """
    Resume a create that failed and was kept, or whose worker died, where it stopped.

    :param resolve: Returns what the profile and the arguments of that time say now.
    :return: The outcome; a failure of the create is its ``error``, and is not raised.
    :raises ConfigError: There is nothing to resume, or it takes the master.
    """
    found = host.unfinished(name)
    if not found:
        stage = host.show(name).stage
        raise ConfigError(
            f"There is nothing to resume: '{name}' is complete at stage '{stage}'.",
            f"Look at it: {commands_of(host).clone('show', name)}",
        )
    item = found[0]
    if item.work.goal == "ready" and master is None:
        raise ConfigError(
            f"'{name}' was to become a minion, which takes the master.",
            f"There: {Commands().clone('resume', name)}",
        )
    request, secrets = resolve(item)
    start = item.work.goal != "cloned"
    kept = item.work if item.failed else None
    return _Create(host, request, secrets, master, watcher, start, kept).run()


class _Create:
    """One create under way: what was reached, and what must be undone."""

    def __init__(
        self,
        host: KvmHost,
        request: Request,
        secrets: Secrets,
        master: EnrollerInterface | None,
        watcher: Watcher,
        start: bool,
        kept: Work | None = None,
    ) -> None:
        if master is None:  # nobody here bootstraps, whatever the profile says
            deploy = dataclasses.replace(request.deploy, enabled=False)
            request = dataclasses.replace(request, deploy=deploy)
        self.host = host
        self.commands = commands_of(host)
        self.request = request
        self.secrets = secrets
        self.digest = secrets.digest_of(request)
        enrols = request.deploy.enabled and request.deploy.bootstrap != "none"
        self.master = master if enrols and start else None
        self.watcher = watcher
        #: The create that failed and was kept, where this one resumes it.
        self.kept = kept
        self.goal = "addressed" if start else "cloned"
        if self.master is not None:
            self.goal = "ready" if self.master.is_its_master else "enrolled"
        self.worker = processes.this_process()
        self.minion_id = request.minion_id
        self.stage = ""
        #: The host was asked to clone, so something may exist even if no answer came.
        self.asked = False
        #: True while another worker makes the clone and this one waits for it.
        self.followed = False
        self.clone: Clone | None = None
        self.fingerprint = ""

    def run(self) -> Outcome:
        name = self.request.name
        with interrupts.work(name, "the create", where=self.commands.where()):
            try:
                interrupts.check()
                clone = self._through_the_stages()
            except (KvmCloneError, interrupts.Interrupt) as error:
                with interrupts.shield():
                    return Outcome(name, self.stage, self.clone, self._failed(error))
            except BaseException as error:  # a fault of ours: undo, then raise it
                with interrupts.shield():
                    self._roll_back(HostUnreachable(named(error)))
                raise
        return Outcome(name, clone.stage, clone)

    def _failed(self, error: KvmCloneError | interrupts.Interrupt) -> KvmCloneError:
        """Undo what exists, and return the error to show."""
        if isinstance(error, KvmCloneError):
            # A failure after a Ctrl-C is a consequence of it: it ends our child processes as well.
            if isinstance(error, REFUSALS) or not interrupts.pressed():
                return self._roll_back(error)
            log.info("%s: after the interrupt: %s", self.request.name, error)
        cut = rollback.InterruptedCreate(
            self.request.name, self.stage, self.clone is not None, self.asked, self.followed,
            self._wish(Interrupted("")), self.goal, self.commands,
        )  # fmt: skip
        interrupted = self._roll_back(cut.error())
        cut.tell(interrupted)
        return interrupted

    def _wish(self, error: KvmCloneError) -> str:
        """Return what becomes of the clone; an interrupt does not destroy one that was kept."""
        wish = self.request.on_failure
        kept = self.kept is not None and isinstance(error, Interrupted)
        return "keep" if kept and wish == "destroy" else wish

    def _through_the_stages(self) -> Clone:
        request, host = self.request, self.host
        if self.master is not None:
            if self.kept is None:
                self._require_free(self.master)
            self.master.prepare(request, self.secrets)
        self.asked = True
        self.clone = self._begin()
        if self.clone.stage == self.goal:
            return self.clone
        # The key takes a second or two to make; the guest takes longer to boot.
        with ThreadPoolExecutor(max_workers=1) as pool:
            pair = None
            if self.master is not None and self._lacks("enrolled"):
                pair = pool.submit(self.master.generate, request.deploy.keysize)
            was_off = self.clone.state != "running"
            if self._lacks("booted"):
                self._reach("booted", lambda: host.boot(request.name))
            elif was_off:
                self.clone = host.boot(request.name)
            if self._lacks("addressed") or (was_off and self._lacks("enrolled")):
                minion = self._announced(pair)
                self._reach("addressed", lambda: host.wait_for_address(request, minion))
        if self.master is not None:
            self._enrol(self.master, pair)
        return self.clone

    # --- beginning, or going on -------------------------------------------------------

    def _require_free(self, master: EnrollerInterface) -> None:
        """
        Refuse a minion id that the master has a key for, if the host has no clone of this name.

        Of a clone that is there, the host itself says how far it is.

        :raises KeyConflict: The master has a key for the id, and there is no such clone.
        """
        try:
            master.require_free(self.request.minion_id)
        except KeyConflict as conflict:
            try:
                self.host.show(self.request.name)
            except (NotFound, ForeignDomain):
                raise conflict from None

    def _begin(self) -> Clone:
        """Return the clone as it is: just made, taken over, or finished by another create."""
        if self.kept is not None:
            token = self.kept.worker.token
            return self._take_over(self.host.take_over(self.request.name, token, self.worker))
        waited = False
        deadline = time.monotonic() + self.request.wait.timeout + OTHER_CREATE_TIMEOUT_S
        while True:
            try:
                self._reach("cloned", self._clone)
                assert self.clone is not None
                return self.clone
            except AlreadyExists as error:
                if not waited or error.clone is None or error.clone["stage"] != self.goal:
                    raise
                return clone_from_dict(error.clone)
            except CreateInProgress as busy:
                if busy.work is None or time.monotonic() > deadline:
                    raise
                taken = self._follow(busy, work_from_dict(busy.work))
                if taken is not None:
                    return taken
                waited = True

    def _clone(self) -> Clone:
        asked = (self.request, self.worker, self.goal, self.digest)
        if not self.secrets.seed:
            return self.host.clone(*asked)
        return self.host.clone(*asked, dict(self.secrets.seed))

    def _follow(self, busy: CreateInProgress, work: Work) -> Clone | None:
        """
        Wait a moment for another worker, remove what it left, or take over its work.

        :return: The clone where its work was taken over; None to ask the host again.
        :raises CreateInProgress: It does something else, or nobody here can tell.
        """
        name, life = self.request.name, owner_state_of(work)
        same = (work.request, work.goal) == (self.digest, self.goal)
        # A destroy for good has that for its goal; one that removes leftovers keeps the create's.
        clears_up = work.stage == DESTROYING and work.goal != DESTROYING
        if life == ALIVE and (same or clears_up):
            self.followed = True
            interrupts.pause(OTHER_CREATE_POLL_S)
            self.followed = False
            return None
        begun = work.stage not in ("planned", DESTROYING)
        if life != DEAD or (begun and not same):
            raise busy
        with contextlib.suppress(NotFound, CreateInProgress):  # another worker was faster
            if begun:
                return self._take_over(self.host.take_over(name, work.worker.token, self.worker))
            self.host.destroy(name, token=work.worker.token)
        return None

    def _take_over(self, clone: Clone) -> Clone:
        """Go on where another worker stopped; remove its minion key unless the guest has it."""
        self.stage, self.clone = clone.stage, clone
        left = clone.minion.fingerprint
        if left and self.master is not None:
            if clone.stage == "enrolled":
                # The minion in the guest has both, whatever the clone is called by now.
                self.fingerprint, self.minion_id = left, clone.minion.id
            else:
                self.master.remove(clone.minion.id, left)
        return clone

    def _lacks(self, stage: str) -> bool:
        return STAGES.index(self.stage) < STAGES.index(stage)

    # --- towards a minion -------------------------------------------------------------

    def _announced(self, pair: Future[KeyPair] | None) -> Minion:
        """Return what the record says of the minion before its key is accepted."""
        if pair is None or self.master is None:
            return Minion()
        fingerprint = self.master.fingerprint(pair.result().public)
        return Minion(id=self.request.minion_id, fingerprint=fingerprint)

    def _enrol(self, master: EnrollerInterface, pair: Future[KeyPair] | None) -> None:
        request, host = self.request, self.host
        if pair is not None:
            keys = pair.result()
            enrolment = master.enrolment(request, self.secrets, keys)
            # Accepted before the minion starts, so that it is let in at its first attempt.
            self.fingerprint = master.fingerprint(keys.public)
            if master.is_its_master:
                where = request.host or request.url
                master.accept(request.minion_id, keys.public, request.name, where)
            self._reach("enrolled", lambda: host.bootstrap(request, enrolment))
        if not master.is_its_master:
            return

        started = time.monotonic()
        uuid = self.clone.uuid if self.clone else ""
        minion = master.verify(self.minion_id, uuid)
        minion = dataclasses.replace(minion, fingerprint=self.fingerprint)
        master.settle(self.minion_id)
        master.becomes_ready(self.minion_id, uuid)
        timings = {"ready": time.monotonic() - started}
        self._reach("ready", lambda: host.complete(request.name, minion, timings))
        if request.deploy.start_action and self.clone:
            interrupts.check()
            problem = master.start_action(self.minion_id, request.deploy.start_action)
            if problem:
                warnings = (*self.clone.warnings, problem)
                self.clone = dataclasses.replace(self.clone, warnings=warnings)

    def _reach(self, stage: str, work: Callable[[], Clone]) -> None:
        interrupts.check()
        started = time.monotonic()
        self.clone = work()
        self.stage = stage
        elapsed = self.clone.timings.get(stage, time.monotonic() - started)
        self.watcher(stage, elapsed, self.clone)

    # --- and back ---------------------------------------------------------------------

    def _roll_back(self, error: KvmCloneError) -> KvmCloneError:
        """Undo what exists, as ``on_failure`` wants it, and return the error to show."""
        if self.stage == "ready":
            return error  # complete and in use: what comes after is not a reason to undo it
        problems = []
        try:
            if self.clone is not None:
                rollback.persist(lambda: self._on_failure(error))
            elif self.asked and not isinstance(error, REFUSALS):
                # The answer was lost, not necessarily the clone. The token is that of our clone
                # alone.
                rollback.persist(self._take_back_unseen)
        except KvmCloneError as problem:
            processes.give_up(self.worker)  # so that others may repeat it while this process lives
            problems.append(
                f"'{self.request.name}' could not be taken back: {problem.message} Repeat that: "
                f"{self.commands.clone('gc', self.request.name, 'apply=True')}"
            )
        except BaseException:  # a second Ctrl-C
            processes.give_up(self.worker)
            raise
        # After the clone, since its minion would submit the key again while it runs. A kept clone
        # keeps its key, which is on its record and is removed with it.
        kept = self.clone is not None and self._wish(error) != "destroy"
        if self.fingerprint and self.master is not None:
            try:
                if not kept:
                    self.master.remove(self.minion_id, self.fingerprint)
                self.master.settle(self.minion_id)
            except (KvmCloneError, OSError) as problem:
                problems.append(f"The key of '{self.minion_id}' could not be removed: {problem}")
        if problems:
            error.hint = " ".join([error.hint, *problems]).strip()
            log.error("%s: %s", self.request.name, error)
        return error

    def _take_back_unseen(self) -> None:
        with contextlib.suppress(NotFound, ForeignDomain, CreateInProgress):
            self.host.destroy(self.request.name, token=self.worker.token)

    def _on_failure(self, error: KvmCloneError) -> None:
        name, token, wish = self.request.name, self.worker.token, self._wish(error)
        if wish != "destroy":
            self.host.keep(name, token, f"{error.type}: {error.message}", off=wish == "stop")
            return
        with contextlib.suppress(NotFound):  # an earlier attempt succeeded after all
            self.host.destroy(name, token=token)
