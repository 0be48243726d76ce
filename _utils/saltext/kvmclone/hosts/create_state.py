"""Hold the state of one create under way: what was reached, and what must be undone."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from concurrent.futures import Future

from saltext.kvmclone.errors import ForkFailed, Interrupted, KvmCloneError
from saltext.kvmclone.hosts.enroller import EnrollerInterface
from saltext.kvmclone.hosts.interfaces import KvmHost, commands_of
from saltext.kvmclone.hosts.outcome import Watcher
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.enrolment import KeyPair
from saltext.kvmclone.model.record import INSTANT, STAGES, Work
from saltext.kvmclone.model.request import Request, Secrets
from saltext.kvmclone.system import processes

#: Waits until the host may be asked to make a clone, gives the request as it goes there, and ends
#: when the host has answered.
Turn = Callable[[Request], contextlib.AbstractContextManager[Request]]


class CreateState:
    """
    One create under way.

    :param host: The KVM host that makes the clone.
    :param master: Enrols it as a minion; None ends at ``addressed``.
    :param watcher: Called at every stage.
    :param start: False leaves the clone off, at ``cloned``.
    :param kept: The create that failed and was kept, where this one resumes it.
    :param turn: What the host's part waits for.
    """

    def __init__(
        self,
        host: KvmHost,
        request: Request,
        secrets: Secrets,
        master: EnrollerInterface | None,
        watcher: Watcher,
        start: bool,
        kept: Work | None = None,
        turn: Turn = contextlib.nullcontext,
    ) -> None:
        if master is None:  # nobody here bootstraps, whatever the profile says
            deploy = dataclasses.replace(request.deploy, enabled=False)
            request = dataclasses.replace(request, deploy=deploy)
        self.host = host
        self.commands = commands_of(host)
        self.request = request
        self.secrets = secrets
        self.digest = secrets.digest_of(request)
        self.master = master if request.deploy.enrols and start else None
        self.watcher = watcher
        self.kept = kept
        self.turn = turn
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
        #: The clone did not run when this create began, or went on with it.
        self.was_off = False
        #: The minion's key pair, being made while the guest boots.
        self.pair: Future[KeyPair] | None = None
        self.fingerprint = ""
        #: What a fork's minion has to answer, once it was given that.
        self.word = ""

    @property
    def is_fork(self) -> bool:
        """Return whether the clone went on from the memory of a warmed base."""
        return self.clone is not None and self.clone.strategy == INSTANT

    def lacks(self, stage: str) -> bool:
        """Return True if the stage was not reached yet."""
        return STAGES.index(self.stage) < STAGES.index(stage)

    def reached(self, stage: str, clone: Clone) -> None:
        """Note that a stage was reached, and tell the watcher."""
        self.stage, self.clone = stage, clone
        self.watcher(stage, clone.timings.get(stage, 0.0), clone)

    def wish(self, error: KvmCloneError) -> str:
        """
        Return what becomes of the clone: ``destroy``, ``stop`` or ``keep``.

        An interrupt does not destroy one that was kept; a fork that did not become a machine of its
        own, or is not known to have, is never kept.
        """
        if isinstance(error, ForkFailed) or (self.is_fork and self.lacks("booted")):
            return "destroy"
        wish = self.request.on_failure
        kept = self.kept is not None and isinstance(error, Interrupted)
        return "keep" if kept and wish == "destroy" else wish
