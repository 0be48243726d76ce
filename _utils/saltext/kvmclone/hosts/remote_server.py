"""
Carry out on a KVM host what the master asks of it by a Salt job.

:class:`.master.remote.RemoteHost` is the other end; what travels between them is plain data.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import salt.utils.minion

from saltext.kvmclone.errors import HostUnreachable, KvmCloneError
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.leftovers import Leftover, Unfinished
from saltext.kvmclone.model.record import Minion, Owner
from saltext.kvmclone.model.request import Request, request_from_dict
from saltext.kvmclone.system import sealing

FUNCTION = "kvm_clone.remote"

#: What a sealed seed is bound to beside the clone's name, in place of a minion id.
SEED_PURPOSE = "seed"

#: Behind the name of an operation: the request has keys that version 0.1 reads over.
AS_ASKED = "_as_asked"


def serve(
    opts: Mapping[str, Any], operation: str, arguments: Mapping[str, Any], url: str
) -> dict[str, Any]:
    """
    Carry out one operation of a :class:`RemoteHost` on this host.

    :param opts: This minion's configuration.
    :param operation: Name of a method of :class:`.interfaces.KvmHost`.
    :param arguments: Its arguments, as plain data.
    :param url: libvirt URI as seen from here.
    :return: ``{"answer": …}``, or ``{"error": {"type", "message", "hint"}}``.
    """
    host = LocalHost(url, label=str(opts.get("id", "")))
    try:
        if operation not in _SERVED:
            raise HostUnreachable(
                f"This host does not know the operation '{operation}'.",
                "Its modules are older than the master's: "
                + shlex.join(["salt", host.label, "saltutil.sync_all"]),
            )
        return {"answer": _plain(_SERVED[operation](host, opts, arguments))}
    except KvmCloneError as error:
        return {"error": error.as_dict()}


def working(opts: Mapping[str, Any], jid: str) -> bool:
    """
    Return True if this minion still works on a job.

    :param opts: This minion's configuration.
    :param jid: The job's number.
    """
    return any(str(job.get("jid")) == jid for job in salt.utils.minion.running(opts))


def _plain(answer: Any) -> Any:
    if isinstance(answer, Clone):
        return answer.as_dict()
    if isinstance(answer, list):
        return [_plain(item) for item in answer]
    return dataclasses.asdict(answer) if isinstance(answer, (Leftover, Unfinished)) else answer


def _request(arguments: Mapping[str, Any]) -> Request:
    return request_from_dict(arguments["request"])


def _bootstrap(host: KvmHost, opts: Mapping[str, Any], arguments: Mapping[str, Any]) -> Clone:
    request = _request(arguments)
    bundle = sealing.unseal(
        sealing.own_key(opts),
        arguments["bundle"],
        sealing.purpose(request.name, request.minion_id),
    )
    return host.bootstrap(request, Enrolment.from_bytes(bundle))


def _make_clone(host: KvmHost, opts: Mapping[str, Any], arguments: Mapping[str, Any]) -> Clone:
    request = _request(arguments)
    worker, goal = Owner(**arguments["worker"]), arguments["goal"]
    if "seed" not in arguments:
        return host.clone(request, worker, goal, arguments["digest"])
    purpose = sealing.purpose(request.name, SEED_PURPOSE)
    content = sealing.unseal(sealing.own_key(opts), arguments["seed"], purpose)
    return host.clone(request, worker, goal, arguments["digest"], json.loads(content))


_Served = Callable[[KvmHost, Mapping[str, Any], Mapping[str, Any]], Any]

_SERVED: dict[str, _Served] = {
    "plan": lambda host, _opts, a: host.plan(_request(a)),
    f"plan{AS_ASKED}": lambda host, _opts, a: host.plan(_request(a)),
    "clone": _make_clone,
    f"clone{AS_ASKED}": _make_clone,
    "take_over": lambda host, _opts, a: host.take_over(a["name"], a["token"], Owner(**a["worker"])),
    "boot": lambda host, _opts, a: host.boot(a["name"]),
    "wait_for_address": lambda host, _opts, a: host.wait_for_address(
        _request(a), Minion(**a["minion"])
    ),
    "keep": lambda host, _opts, a: host.keep(a["name"], a["token"], a["why"], a["off"]),
    "bootstrap": _bootstrap,
    "complete": lambda host, _opts, a: host.complete(
        a["name"], Minion(**a["minion"]), a["timings"]
    ),
    "destroy": lambda host, _opts, a: host.destroy(a["name"], a["force"], a["token"]),
    "clear": lambda host, _opts, a: host.clear(a["name"], a["token"], a["force"]),
    "power": lambda host, _opts, a: host.power(a["name"], a["action"]),
    "show": lambda host, _opts, a: host.show(a["name"]),
    "list_clones": lambda host, _opts, _a: host.list_clones(),
    "unfinished": lambda host, _opts, a: host.unfinished(a["name"]),
    "tree": lambda host, _opts, _a: host.tree(),
    "bases": lambda host, _opts, _a: host.bases(),
    "doctor": lambda host, _opts, _a: host.doctor(),
    "capacity": lambda host, _opts, _a: host.capacity(),
    "daemon": lambda host, _opts, _a: host.daemon(),
    "witness": lambda host, _opts, a: host.witness(a["names"], a["ids"]),
    "adopt": lambda host, _opts, a: host.adopt(a["name"], a["base_domain"]),
    "unprotect": lambda host, _opts, a: host.unprotect(a["base_domain"]),
}
