"""
One clone from request to minion: stages, progress, rollback. Every door comes through here.

A create is a row of stages, each one call on a :class:`.operations.KvmHost`. On a host
alone it ends at ``addressed``; with a :class:`MasterSide` it goes on to ``ready``, which
is said only after ``test.version`` came back from the machine that was made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import secrets as secrets_module
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from saltext.kvmclone.clone import Clone
from saltext.kvmclone.errors import (
    CreateInProgress,
    ForeignDomain,
    HostUnreachable,
    KeyConflict,
    KvmCloneError,
    NotFound,
)
from saltext.kvmclone.operations import KvmHost, already_exists
from saltext.kvmclone.ownership import Minion
from saltext.kvmclone.request import Request, Secrets

log = logging.getLogger(__name__)


class KeyPair(Protocol):
    """A minion's key pair, PEM."""

    @property
    def private(self) -> str: ...

    @property
    def public(self) -> str: ...


class MasterSide(Protocol):
    """What only a master can do for a new minion."""

    def require_free(self, minion_id: str) -> None:
        """Refuse an id that the master already has a key for."""

    def generate(self, bits: int) -> KeyPair:
        """Make a key pair."""

    def fingerprint(self, public: str) -> str:
        """The fingerprint of a public key."""

    def accept(self, minion_id: str, public: str) -> None:
        """Accept exactly this public key."""

    def remove(self, minion_id: str, fingerprint: str) -> bool:
        """Take exactly that key back."""

    def enrolment(self, request: Request, secrets: Secrets, pair: KeyPair) -> Any:
        """Everything that goes into the guest."""

    def verify(self, minion_id: str, uuid: str) -> Minion:
        """Wait for ``test.version`` from that machine."""

    def start_action(self, minion_id: str, function: str) -> str:
        """Run the profile's ``start_action``; a failure comes back in words."""


#: Told of every stage that is reached: the stage, the seconds it took, the clone so far.
Watcher = Callable[[str, float, Clone], None]


@dataclass(frozen=True)
class Outcome:
    """
    How a create ended.

    :param stage: The last stage that was reached, ``""`` before the first.
    :param clone: The clone as last seen; None where none was made.
    :param error: What went wrong; None for success.
    """

    name: str
    stage: str
    clone: Clone | None = None
    error: KvmCloneError | None = None

    def as_dict(self) -> dict[str, Any]:
        """CLONE, with the error and the stage reached where it failed."""
        answer = self.clone.as_dict() if self.clone else {"name": self.name}
        if self.error is not None:
            answer = {**answer, "stage": self.stage, "error": self.error.as_dict()}
        return answer


def _silent(_stage: str, _elapsed: float, _clone: Clone) -> None:
    return None


def create(
    host: KvmHost,
    request: Request,
    secrets: Secrets = Secrets(),
    master: MasterSide | None = None,
    watcher: Watcher = _silent,
    start: bool = True,
) -> Outcome:
    """
    Make one clone.

    :param host: The KVM host that makes it.
    :param secrets: Logins for the guest.
    :param master: Enrols it as a minion; None ends at ``addressed``.
    :param watcher: Told of every stage.
    :param start: False leaves the clone off, at ``cloned``.
    """
    return _Create(host, request, secrets, master, watcher, start).run()


class _Create:
    """One create under way: what was reached, and what must be taken back."""

    def __init__(
        self,
        host: KvmHost,
        request: Request,
        secrets: Secrets,
        master: MasterSide | None,
        watcher: Watcher,
        start: bool,
    ) -> None:
        if master is None:  # nobody here bootstraps, whatever the profile says
            deploy = dataclasses.replace(request.deploy, enabled=False)
            request = dataclasses.replace(request, deploy=deploy)
        self.host = host
        self.request = request
        self.secrets = secrets
        enrols = request.deploy.enabled and request.deploy.bootstrap != "none"
        self.master = master if enrols else None
        self.watcher = watcher
        self.start = start
        self.token = secrets_module.token_hex(8)
        self.stage = ""
        #: The host was asked to clone, so something may exist even without an answer.
        self.asked = False
        self.clone: Clone | None = None
        self.fingerprint = ""

    def run(self) -> Outcome:
        try:
            self._through_the_stages()
        except KvmCloneError as error:
            return Outcome(self.request.name, self.stage, self.clone, self._roll_back(error))
        except BaseException as error:  # Ctrl-C, or a fault of ours: take back, then let it fly
            self._roll_back(HostUnreachable(repr(error)))
            raise
        return Outcome(self.request.name, self.stage, self.clone)

    def _through_the_stages(self) -> None:
        request, host = self.request, self.host
        if self.master is not None:
            self._require_free(self.master)
        self.asked = True
        self._reach("cloned", lambda: host.clone(request, self.token))
        if not self.start:
            return
        if self.master is None:
            self._reach("booted", lambda: host.boot(request.name))
            self._reach("addressed", lambda: host.wait_for_address(request))
            return
        # The key takes a second or two to make; the guest takes longer to boot.
        with ThreadPoolExecutor(max_workers=1) as pool:
            pair = pool.submit(self.master.generate, request.deploy.keysize)
            self._reach("booted", lambda: host.boot(request.name))
            self._reach("addressed", lambda: host.wait_for_address(request))
        self._enrol(self.master, pair)

    def _require_free(self, master: MasterSide) -> None:
        """
        :raises AlreadyExists: The clone is there, and the key is its own; carries it.
        :raises KeyConflict: The master knows the id from elsewhere.
        """
        try:
            master.require_free(self.request.minion_id)
        except KeyConflict as conflict:
            try:
                clone = self.host.show(self.request.name)
            except (NotFound, ForeignDomain):
                raise conflict from None
            raise already_exists(clone) from conflict

    def _enrol(self, master: MasterSide, pair: Future[KeyPair]) -> None:
        request, host = self.request, self.host
        keys = pair.result()
        enrolment = master.enrolment(request, self.secrets, keys)
        # Accepted before the minion starts: its first knock is then answered at once.
        self.fingerprint = master.fingerprint(keys.public)
        master.accept(request.minion_id, keys.public)
        self._reach("enrolled", lambda: host.bootstrap(request, enrolment))

        started = time.monotonic()
        uuid = self.clone.uuid if self.clone else ""
        minion = master.verify(request.minion_id, uuid)
        minion = dataclasses.replace(minion, fingerprint=self.fingerprint)
        timings = {"ready": time.monotonic() - started}
        self._reach("ready", lambda: host.complete(request.name, minion, timings))
        if request.deploy.start_action and self.clone:
            problem = master.start_action(request.minion_id, request.deploy.start_action)
            if problem:
                warnings = (*self.clone.warnings, problem)
                self.clone = dataclasses.replace(self.clone, warnings=warnings)

    def _reach(self, stage: str, work: Callable[[], Clone]) -> None:
        started = time.monotonic()
        self.clone = work()
        self.stage = stage
        elapsed = self.clone.timings.get(stage, time.monotonic() - started)
        self.watcher(stage, elapsed, self.clone)

    def _roll_back(self, error: KvmCloneError) -> KvmCloneError:
        """Take back what exists, as ``on_failure`` wants it; answers with the error to show."""
        problems = []
        if self.fingerprint and self.master is not None:
            try:
                self.master.remove(self.request.minion_id, self.fingerprint)
            except (KvmCloneError, OSError) as problem:
                problems.append(
                    f"The key of '{self.request.minion_id}' could not be removed: {problem}"
                )
        try:
            if self.clone is not None:
                self._on_failure(self.clone.name)
            elif self.asked and isinstance(error, HostUnreachable):
                # The answer was lost, not necessarily the clone. The token names ours alone.
                self._take_back_unseen()
        except KvmCloneError as problem:
            problems.append(f"'{self.request.name}' could not be taken back: {problem.message}")
        if problems:
            error.hint = " ".join([error.hint, *problems]).strip()
            log.error("%s: %s", self.request.name, error)
        return error

    def _take_back_unseen(self) -> None:
        with contextlib.suppress(NotFound, ForeignDomain, CreateInProgress):
            self.host.destroy(self.request.name, token=self.token)

    def _on_failure(self, name: str) -> None:
        if self.request.on_failure == "destroy":
            self.host.destroy(name, token=self.token)
        elif self.request.on_failure == "stop":
            self.host.power(name, "off")
