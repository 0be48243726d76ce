"""
Reach a KVM host through its minion: each operation is one Salt job.

On the minion, :func:`.remote_server.serve` answers. Errors travel as data, so that the master can
branch on their type; secrets travel sealed to the minion's own public key, and the published job
holds ciphertext only. Every answer is signed (see :mod:`.signed_call`): a "not found" leads to
the removal of a key, and ``ready`` rests on every answer before it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from saltext.kvmclone import errors, interrupts
from saltext.kvmclone.errors import HostUnreachable, KvmCloneError, NotFound, named
from saltext.kvmclone.hosts.remote_server import AS_ASKED, FUNCTION, SEED_PURPOSE
from saltext.kvmclone.master import signed_call
from saltext.kvmclone.model.clone import Clone, clone_from_dict
from saltext.kvmclone.model.cloud_seed import OWN
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.leftovers import Leftover, Unfinished, unfinished_from_dict
from saltext.kvmclone.model.record import Minion, Owner
from saltext.kvmclone.model.request import Deploy, Login, Request
from saltext.kvmclone.system import processes, sealing

log = logging.getLogger(__name__)

#: Seconds that a job which was interrupted on the master's side may take on the host until the
#: definition of its clone is there, and seconds between two looks.
BEGUN_TIMEOUT_S, BEGUN_POLL_S = 10.0, 0.5


class RemoteHost:
    """
    A KVM host that is reached through its minion.

    :param opts: The master's configuration.
    :param minion_id: The minion id of the KVM host.
    :param url: libvirt URI as seen *from that host*.
    """

    def __init__(self, opts: Mapping[str, Any], minion_id: str, url: str) -> None:
        self.opts = opts
        self.minion_id = minion_id
        self.url = url

    def plan(self, request: Request) -> dict[str, Any]:
        answer: dict[str, Any] = self._call(_as_asked("plan", request), request=_for_host(request))
        return answer

    def clone(
        self,
        request: Request,
        worker: Owner | None = None,
        goal: str = "cloned",
        digest: str = "",
        seed: Mapping[str, str] = MappingProxyType({}),
    ) -> Clone:
        public = self._public_key  # without one no job is published, and nothing needs undoing
        purpose = sealing.purpose(request.name, SEED_PURPOSE)
        content = json.dumps(dict(seed)).encode()
        sealed = sealing.seal(public, content, purpose, self.minion_id) if seed else ""
        sealed_seed = {"seed": sealed} if seed else {}
        worker = worker or processes.this_process()
        try:
            return self._clone(
                _as_asked("clone", request),
                request=_for_host(request),
                worker=dataclasses.asdict(worker),
                goal=goal,
                digest=digest or request.digest(),
                **sealed_seed,
            )
        except interrupts.Interrupt:
            with interrupts.shield():
                self._await_begun(request.name)
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

    def take_over(self, name: str, token: str, worker: Owner) -> Clone:
        return self._clone("take_over", name=name, token=token, worker=dataclasses.asdict(worker))

    def boot(self, name: str) -> Clone:
        return self._clone("boot", name=name)

    def wait_for_address(self, request: Request, minion: Minion = Minion()) -> Clone:
        plain = dataclasses.asdict(minion)
        return self._clone("wait_for_address", request=_for_host(request), minion=plain)

    def bootstrap(self, request: Request, enrolment: Enrolment) -> Clone:
        public = self._public_key
        bundle = sealing.seal(
            public,
            enrolment.to_bytes(),
            sealing.purpose(request.name, request.minion_id),
            self.minion_id,
        )
        return self._clone("bootstrap", request=_for_host(request), bundle=bundle)

    def complete(self, name: str, minion: Minion, timings: dict[str, float]) -> Clone:
        plain = dataclasses.asdict(minion)
        return self._clone("complete", name=name, minion=plain, timings=timings)

    def keep(self, name: str, token: str, why: str, off: bool) -> Clone:
        return self._clone("keep", name=name, token=token, why=why, off=off)

    def destroy(self, name: str, force: bool = False, token: str = "") -> Clone:
        return self._clone("destroy", name=name, force=force, token=token)

    def clear(self, name: str, token: str, force: bool = False) -> list[Leftover]:
        rows = self._call("clear", name=name, token=token, force=force)
        with self._understood():
            return [Leftover(**row) for row in rows]

    def power(self, name: str, action: str) -> Clone:
        return self._clone("power", name=name, action=action)

    def show(self, name: str) -> Clone:
        return self._clone("show", name=name)

    def list_clones(self) -> list[Clone]:
        told = self._call("list_clones")
        with self._understood():
            return [clone_from_dict(item) for item in told]

    def unfinished(self, name: str = "") -> list[Unfinished]:
        told = self._call("unfinished", name=name)
        with self._understood():
            return [unfinished_from_dict(item) for item in told]

    def tree(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._call("tree")
        return answer

    def bases(self) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self._call("bases")
        return answer

    def doctor(self) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self._call("doctor")
        return answer

    def capacity(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._call("capacity")
        return answer

    def daemon(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._call("daemon")
        return answer

    def witness(self, names: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
        answer: dict[str, Any] = self._call("witness", names=list(names), ids=list(ids))
        return answer

    def adopt(self, name: str, base_domain: str = "") -> Clone:
        return self._clone("adopt", name=name, base_domain=base_domain)

    def unprotect(self, base_domain: str) -> list[str]:
        answer: list[str] = self._call("unprotect", base_domain=base_domain)
        return answer

    @property
    def _public_key(self) -> str:
        """Return the accepted public key of the host's minion."""
        return signed_call.accepted_key(self.opts, self.minion_id)

    def _clone(self, operation: str, **arguments: Any) -> Clone:
        told = self._call(operation, **arguments)
        with self._understood():
            return clone_from_dict(told)

    def _call(self, operation: str, **arguments: Any) -> Any:
        """
        Call an operation on the host by one job, and return its answer.

        :param operation: Name of a method of :class:`.interfaces.KvmHost`.
        :param arguments: Its arguments, as plain data.
        :raises HostUnreachable: The minion does not answer.
        :raises Unproven: What answers is not proven to be that minion; or it lacks our module.
        :raises KvmCloneError: What the host raised.
        """
        asked = {"operation": operation, "arguments": arguments, "url": self.url}
        answer = signed_call.ask(self.opts, self.minion_id, FUNCTION, asked, patient=True)
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise errors.from_dict(answer["error"])
        if isinstance(answer, dict) and "answer" in answer:
            return answer["answer"]
        raise self._strange(str(answer)[:300])

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """
        Turn what goes wrong while reading an answer into an error of that host.

        :raises HostUnreachable: The answer has a form that is not known.
        """
        try:
            yield
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise self._strange(named(error)[:300]) from error

    def _strange(self, what: str) -> HostUnreachable:
        return HostUnreachable(
            f"The minion '{self.minion_id}' answers in a form that is not known: {what}",
            f"Bring our modules there: salt {self.minion_id} saltutil.sync_all",
        )


def _as_asked(operation: str, request: Request) -> str:
    """
    Return the name of an operation that no host of an earlier version knows, where such a one would
    drop keys that it does not know of, and make another machine than was asked for.
    """
    asks_more = (
        request.seed == OWN
        or any(wish.serial or wish.wwn for wish in request.disks.values())
        or any(wish.portgroup for wish in request.networks)
    )
    return operation + AS_ASKED * asks_more


def _for_host(request: Request) -> dict[str, Any]:
    """
    Return the request as the host needs it, as plain data.

    It lacks what is put into the guest (that travels sealed), so that nothing of it is kept in
    the job cache.
    """
    deploy = Deploy(
        enabled=request.deploy.enabled,
        bootstrap=request.deploy.bootstrap,
        append_domain=request.deploy.append_domain,
    )
    login: Login = dataclasses.replace(request.login, private_key="")
    return dataclasses.replace(request, deploy=deploy, login=login).as_dict()
