"""
Make one clone, from request to minion: stages, progress, rollback.

A create is a sequence of stages, each one call on a :class:`.interfaces.KvmHost`. On a host alone
it ends at ``addressed``; with an :class:`EnrollerInterface` it goes on to ``ready``, which is
recorded only after ``test.version`` came back from the machine that was made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    AlreadyExists,
    ConfigError,
    CreateInProgress,
    ForeignDomain,
    HostError,
    KeyConflict,
    KvmCloneError,
    NotFound,
    PlanRefused,
    named,
)
from saltext.kvmclone.hosts import instead_of_fork, rollback
from saltext.kvmclone.hosts.create_state import CreateState, Turn
from saltext.kvmclone.hosts.enroller import EnrollerInterface
from saltext.kvmclone.hosts.gc import owner_state_of
from saltext.kvmclone.hosts.interfaces import KvmHost, commands_of
from saltext.kvmclone.hosts.outcome import Outcome, Watcher
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.leftovers import Unfinished
from saltext.kvmclone.model.plain import from_plain
from saltext.kvmclone.model.record import ALIVE, DEAD, DESTROYING, Minion, Work
from saltext.kvmclone.model.request import Request, Secrets

log = logging.getLogger(__name__)

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
    turn: Turn = contextlib.nullcontext,
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
    :param turn: What the host's part waits for.
    :return: The outcome; a failure is its ``error``, and is not raised.
    """
    made = _Create(host, request, secrets, master, watcher, start, turn=turn)
    outcome = made.run()
    failed = outcome.error
    if instead_of_fork.is_wanted(host, request, failed):
        log.warning("%s: made as a quick clone: %s", request.name, failed)
        instead = dataclasses.replace(request, clone_strategy="quick")
        quick = _Create(host, instead, secrets, master, watcher, start, turn=turn)
        quick.digest = made.digest  # a repeated create asks for the same
        outcome = instead_of_fork.explained(quick.run(), failed)
    return instead_of_fork.warm_afterwards(host, request, outcome)


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
    found = [item for item in host.unfinished(name) if not item.repairs]
    if not found:
        stage = host.show(name).stage
        raise ConfigError(
            f"There is nothing to resume: '{name}' is complete at stage '{stage}'.",
            f"Look at it: {commands_of(host).clone('show', name)}",
        )
    item = found[0]
    _require_clone(host, item)
    if item.work.goal == "ready" and master is None:
        raise ConfigError(
            f"'{name}' was to become a minion, and that needs the master.",
            f"There: {Commands().clone('resume', name)}",
        )
    request, secrets = resolve(item)
    request = dataclasses.replace(request, spare=item.spare, claim=item.claim)
    start = item.work.goal != "cloned"
    kept = item.work if item.failed else None
    return _Create(host, request, secrets, master, watcher, start, kept).run()


def refuse_base(host: KvmHost, name: str) -> None:
    """
    Refuse to resume what is not to become a clone.

    :raises ConfigError: A base is being made under that name.
    """
    for item in host.unfinished(name):
        _require_clone(host, item)


def _require_clone(host: KvmHost, item: Unfinished) -> None:
    if item.becomes:
        collect = commands_of(host).clone("gc", item.name, "apply=True")
        raise ConfigError(
            f"'{item.name}' was being made into a base, which is not resumed.",
            f"Remove what there is of it: {collect}   Then repeat the command that makes it.",
        )


def _fault(name: str, error: BaseException) -> HostError:
    return HostError(
        f"An unexpected fault in the create of '{name}': {named(error)}.",
        "The traceback is in the log. Please report it.",
    )


class _Create(CreateState):
    """The stages of one create, in their order."""

    def run(self) -> Outcome:
        """Go through the stages up to the goal; undo everything on a failure."""
        name = self.request.name
        with interrupts.work(name, "the create", where=self.commands.where()):
            try:
                for stage in (
                    self._prepare,
                    self._begin,
                    self._boot,
                    self._await_address,
                    self._bootstrap,
                    self._await_minion,
                ):
                    interrupts.check()
                    stage()
                    if self.clone is not None and self.clone.stage == self.goal:
                        break
            except (KvmCloneError, interrupts.Interrupt) as error:
                with interrupts.shield():
                    return rollback.failed(self, error)
            except Exception as error:
                log.exception("%s: an unexpected fault", name)
                with interrupts.shield():
                    return rollback.failed(self, _fault(name, error))
            except BaseException as error:  # the end of this process: undo, then let it end
                with interrupts.shield():
                    rollback.roll_back(self, _fault(name, error))
                raise
        assert self.clone is not None
        return Outcome(name, self.clone.stage, self.clone)

    def _prepare(self) -> None:
        """Refuse what cannot work on the master's side before the host is asked."""
        if self.master is not None:
            if self.kept is None:
                self._require_free(self.master)
            self.master.prepare(self.request, self.secrets)
            if self.kept is None:
                self._foresee(self.master)

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
            if not self._is_there():
                raise conflict from None

    def _is_there(self) -> bool:
        try:
            self.host.show(self.request.name)
        except (NotFound, ForeignDomain):
            return False
        return True

    def _foresee(self, master: EnrollerInterface) -> None:
        """
        Warn of what stands against a minion in the guest, or refuse what cannot become one.

        :raises PlanRefused: It cannot become one, and there is no such clone.
        """
        name, request = self.request.name, self.request
        told = master.foresee(request, lambda: self.host.base_minion(request))
        for warning in told.warnings:
            log.warning("%s: %s", name, warning)
        if told.conflicts and not self._is_there():
            raise PlanRefused(
                f"'{name}' cannot become a minion: {' '.join(told.conflicts)}",
                "Nothing was written. Fix this and repeat the command.",
            )

    def _begin(self) -> None:
        """Have the clone made, take it over, or wait until another create has finished it."""
        self.asked = True
        if self.kept is not None:
            self._take_over(self.kept.worker.token)
            return
        request, seed = self.request, dict(self.secrets.seed)
        waited = False
        deadline = time.monotonic() + self.request.wait.timeout + OTHER_CREATE_TIMEOUT_S
        while True:
            try:
                interrupts.check()
                with self.turn(request) as told:
                    made = self.host.clone(told, self.worker, self.goal, self.digest, seed)
                self.reached("cloned", made)
                return
            except AlreadyExists as error:
                if not waited or error.clone is None or error.clone["stage"] != self.goal:
                    raise
                self.clone = Clone.from_dict(error.clone)
                return
            except CreateInProgress as busy:
                if busy.work is None or time.monotonic() > deadline:
                    raise
                if self._follow(busy, from_plain(Work, busy.work)):
                    return
                waited = True

    def _follow(self, busy: CreateInProgress, work: Work) -> bool:
        """
        Wait a moment for another worker, remove what it left, or take over its work.

        :return: True if its work was taken over; False to ask the host again.
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
            return False
        begun = work.stage not in ("planned", DESTROYING)
        if life != DEAD or (begun and not same):
            raise busy
        with contextlib.suppress(NotFound, CreateInProgress):  # another worker was faster
            if begun:
                self._take_over(work.worker.token)
                return True
            self.host.destroy(name, token=work.worker.token)
        return False

    def _take_over(self, token: str) -> None:
        """
        Go on where another worker stopped; remove its minion key unless the guest has it.

        :param token: The token of that worker.
        """
        clone = self.host.take_over(self.request.name, token, self.worker)
        self.stage, self.clone = clone.stage, clone
        left = clone.minion.fingerprint
        if left and self.master is not None:
            if clone.stage == "enrolled":
                # The minion in the guest has both, whatever the clone is called by now.
                self.fingerprint, self.minion_id = left, clone.minion.id
            else:
                self.master.remove(clone.minion.id, left)

    # --- the guest --------------------------------------------------------------------

    def _boot(self) -> None:
        assert self.clone is not None
        if self.master is not None and self.lacks("enrolled"):
            # The key takes a second or two to make; the guest takes longer to boot.
            pool = ThreadPoolExecutor(max_workers=1)
            self.pair = pool.submit(self.master.generate, self.request.deploy.keysize)
            pool.shutdown(wait=False)
        self.was_off = self.clone.state != "running"
        if self.lacks("booted"):
            self.reached("booted", self.host.boot(self.request.name))
        elif self.was_off:
            self.clone = self.host.boot(self.request.name)

    def _await_address(self) -> None:
        if self.lacks("addressed") or (self.was_off and self.lacks("enrolled")):
            minion = self._announced()
            self.reached("addressed", self.host.wait_for_address(self.request, minion))

    def _announced(self) -> Minion:
        """Return what the record says of the minion before its key is accepted."""
        if self.pair is None or self.master is None:
            return Minion()
        fingerprint = self.master.fingerprint(self.pair.result().public)
        return Minion(id=self.request.minion_id, fingerprint=fingerprint)

    # --- the minion -------------------------------------------------------------------

    def _bootstrap(self) -> None:
        if self.pair is None or self.master is None:
            return
        request, keys = self.request, self.pair.result()
        enrolment = self.master.enrolment(request, self.secrets, keys)
        if self.is_fork:
            self.word = token_hex(16)
            enrolment = dataclasses.replace(enrolment, word=self.word)
        # Accepted before the minion starts, so that it is let in at its first attempt.
        self.fingerprint = self.master.fingerprint(keys.public)
        if self.master.is_its_master:
            where = request.host or request.url
            self.master.accept(request.minion_id, keys.public, request.name, where)
        interrupts.check()
        self.reached("enrolled", self.host.bootstrap(request, enrolment))

    def _check_master(self, publish_port: int) -> GuestMinion:
        """Ask the guest of its minion; see :meth:`.interfaces.KvmHost.check_master`."""
        login = dataclasses.replace(self.secrets, seed=())
        return self.host.check_master(self.request, login, publish_port)

    def _expected(self) -> str | None:
        """Return the word that a fork's minion has to answer; None where its uuid is to be."""
        # Until its first reboot a fork shows the uuid that its own agent was told.
        if self.is_fork and not self.word:  # it was enrolled by another worker
            word = token_hex(16)
            self.word = word if self.host.give_word(self.request, word) else ""
        return self.word or None

    def _await_minion(self) -> None:
        """Wait for the minion's answer, record ``ready``, and run its ``start_action``."""
        if self.master is None or not self.master.is_its_master or self.clone is None:
            return
        started = time.monotonic()
        uuid = self.clone.uuid
        minion = self.master.verify(self.minion_id, uuid, self._check_master, self._expected())
        minion = dataclasses.replace(minion, fingerprint=self.fingerprint)
        self.master.settle(self.minion_id)
        self.master.becomes_ready(self.minion_id, uuid)
        timings = {"ready": time.monotonic() - started}
        interrupts.check()
        self.reached("ready", self.host.complete(self.request.name, minion, timings))
        if self.request.deploy.start_action:
            interrupts.check()
            problem = self.master.start_action(self.minion_id, self.request.deploy.start_action)
            if problem:
                warnings = (*self.clone.warnings, problem)
                self.clone = dataclasses.replace(self.clone, warnings=warnings)
