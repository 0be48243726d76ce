"""
Reach a KVM host through its minion: each operation is one Salt job, or a part of one.

On the minion, :func:`.remote_server.serve` answers. Errors travel as data, so that the master can
branch on their type; secrets travel sealed to the minion's own public key, and the published job
holds ciphertext only. Every answer is signed (see :mod:`.signed_call`): a "not found" leads to
the removal of a key, and ``ready`` rests on every answer before it.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from saltext.kvmclone import errors, interrupts
from saltext.kvmclone.errors import (
    AlreadyExists,
    CreateInProgress,
    HostUnreachable,
    KvmCloneError,
    NotFound,
    OtherVersion,
    named,
)
from saltext.kvmclone.hosts.operations import OPERATIONS, VERSION, Operation
from saltext.kvmclone.master import signed_call
from saltext.kvmclone.master.bundled_calls import BundledCalls
from saltext.kvmclone.model.base_request import BaseRequest, Origin
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.made_base import MadeBase
from saltext.kvmclone.model.plain import from_plain
from saltext.kvmclone.model.record import Owner, Work
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.system import processes, sealing

log = logging.getLogger(__name__)

#: Seconds that a job which was interrupted on the master's side may take on the host until the
#: definition of its clone is there, and seconds between two looks.
BEGUN_TIMEOUT_S, BEGUN_POLL_S = 10.0, 0.5


class RemoteHost:
    """
    A KVM host (:class:`.interfaces.KvmHost`) that is reached through its minion.

    :param opts: The master's configuration.
    :param minion_id: The minion id of the KVM host.
    :param url: libvirt URI as seen *from that host*.
    :param calls: What the same command asks of other hosts, and of this one in other threads.
    """

    def __init__(
        self,
        opts: Mapping[str, Any],
        minion_id: str,
        url: str,
        calls: BundledCalls | None = None,
    ) -> None:
        self.opts = opts
        self.minion_id = minion_id
        self.url = url
        self.calls = calls or BundledCalls(opts)
        self.commands = Commands(url, minion=minion_id)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return an operation, a method of :class:`.interfaces.KvmHost`, to call on the host."""
        if name not in OPERATIONS:
            raise AttributeError(f"a KVM host has no '{name}'")
        return functools.partial(self._call, OPERATIONS[name])

    def clone(
        self,
        request: Request,
        worker: Owner | None = None,
        goal: str = "cloned",
        digest: str = "",
        seed: Mapping[str, str] = MappingProxyType({}),
    ) -> Clone:
        """Make the clone; see :meth:`.interfaces.KvmHost.clone`."""
        # Without a key no job is published, and nothing needs undoing.
        signed_call.accepted_key(self.opts, self.minion_id)
        whole = (worker or processes.this_process(), goal, digest or request.digest(), seed)
        try:
            made: Clone = self._call(OPERATIONS["clone"], request, *whole)
            return made
        except interrupts.Interrupt:
            with interrupts.shield():
                self._await_begun(request.name)
            raise

    def base_from(
        self, request: BaseRequest, origin: Origin, worker: Owner | None = None
    ) -> MadeBase:
        """Make a base from an image; see :meth:`.interfaces.KvmHost.base_from`."""
        made: MadeBase = self._made("base_from", request.name, worker, request, origin)
        return made

    def promote(self, name: str, base: str, worker: Owner | None = None) -> dict[str, Any]:
        """Make a base of a clone; see :meth:`.interfaces.KvmHost.promote`."""
        made: dict[str, Any] = self._made("promote", base, worker, name, base)
        return made

    def _made(self, operation: str, base: str, worker: Owner | None, *given: Any) -> Any:
        """Have a base made, and after an interrupt wait until there is something to undo."""
        signed_call.accepted_key(self.opts, self.minion_id)
        try:
            return self._call(OPERATIONS[operation], *given, worker or processes.this_process())
        except interrupts.Interrupt:
            with interrupts.shield():
                self._await_begun(base)
            raise

    def _await_begun(self, name: str) -> None:
        """
        Wait until an interrupted job has defined its clone, or surely will not.

        Only then can it be told whether there is anything to undo.

        :param name: Name of the clone.
        """
        deadline = time.monotonic() + BEGUN_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                if self.unfinished(name):
                    return
            except NotFound:
                pass
            except KvmCloneError as error:
                log.info("%s: what the interrupted job does is not known: %s", name, error)
                return
            time.sleep(BEGUN_POLL_S)

    def _call(self, operation: Operation, *args: Any, **kwargs: Any) -> Any:
        """
        Call an operation on the host by a job, and return its answer.

        :raises HostUnreachable: The minion does not answer, or in a form that is not known.
        :raises OtherVersion: Its modules are older or newer than ours; it did nothing.
        :raises Unproven: What answers is not proven to be that minion; or it lacks our module.
        :raises KvmCloneError: What the host raised.
        """
        arguments = operation.to_wire(args, kwargs, self._seal)
        asked = {"operation": operation.wire_name, "arguments": arguments, "url": self.url}
        told = self.calls.ask(self.minion_id, asked)
        try:
            version = from_plain(int, told.get("version", 1))
            if version != VERSION:
                raise self._other_version(version)
            if "error" not in told:
                return from_plain(operation.returns, told["answer"])
            error = errors.from_dict(told["error"])
            if isinstance(error, AlreadyExists) and error.clone is not None:
                Clone.from_dict(error.clone)
            if isinstance(error, CreateInProgress) and error.work is not None:
                from_plain(Work, error.work)
        except (AttributeError, LookupError, ValueError) as strange:
            raise self._strange(named(strange)[:300]) from strange
        raise error

    def _seal(self, data: bytes, purpose: bytes) -> str:
        public = signed_call.accepted_key(self.opts, self.minion_id)
        return sealing.seal(public, data, purpose, self.minion_id)

    def _other_version(self, version: int) -> OtherVersion:
        age, hint = "an older", f"Update it: {self.commands.sync()}"
        if version > VERSION:
            age, hint = "a newer", f"Update this master: {Commands(self.url).sync()}   Or {hint}"
        return OtherVersion(
            f"The KVM host '{self.minion_id}' has {age} version of kvm_clone than this master; "
            "nothing was done there.",
            hint,
        )

    def _strange(self, what: str) -> HostUnreachable:
        return HostUnreachable(
            f"The minion '{self.minion_id}' gave an answer of an unknown form: {what}",
            f"Update its modules: {self.commands.sync()}",
        )
