"""
The master's questions to minions, whose answers nobody else can give; see :mod:`.sworn`.

What minions want (:func:`pending`), what their hosts know (:func:`witness`), and what is told
to them in return.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import salt.client
import salt.exceptions

from saltext.kvmclone import publishing, sworn
from saltext.kvmclone.errors import HostUnreachable
from saltext.kvmclone.keys import MinionKeys
from saltext.kvmclone.kvm_host import KvmHost
from saltext.kvmclone.remote import RemoteHost

log = logging.getLogger(__name__)

PENDING, WITNESS, TOLD = "kvm_clone.pending", "kvm_clone.witness", "kvm_clone.told"

#: Seconds without a sign of life from a minion.
TIMEOUT = 15


def pending(opts: Mapping[str, Any], minion_id: str) -> list[Any]:
    """
    What a minion asks for: untrusted, but surely its own.

    :raises HostUnreachable: It does not answer.
    :raises Unproven: Something answered that need not be that minion.
    """
    found = _ask(opts, minion_id, PENDING, {})
    return found if isinstance(found, list) else []


def witness(
    opts: Mapping[str, Any], host: KvmHost, names: Iterable[str] = (), ids: Iterable[str] = ()
) -> dict[str, Any]:
    """
    What a KVM host knows of some machines, as :func:`.publishing.witness` gives it.

    :raises KvmCloneError: It cannot be asked.
    """
    if not isinstance(host, RemoteHost):
        return publishing.witness(host.url, names, ids)
    arguments = {"names": list(names), "ids": list(ids), "url": host.url}
    found = _ask(opts, host.minion_id, WITNESS, arguments)
    if not isinstance(found, dict) or not {"domains", "clones"} <= set(found):
        raise HostUnreachable(f"The answer of '{host.minion_id}' is no answer: {str(found)[:200]}")
    return found


def everywhere(
    opts: Mapping[str, Any],
    hosts: Iterable[tuple[str, KvmHost]],
    names: Iterable[str] = (),
    ids: Iterable[str] = (),
) -> dict[str, Any]:
    """
    What all hosts together know.

    :raises KvmCloneError: One of them cannot be asked, so nobody can tell.
    """
    told: dict[str, Any] = {"domains": [], "clones": []}
    names, ids = list(names), list(ids)
    for _label, host in hosts:
        found = witness(opts, host, names, ids)
        told["domains"] += found["domains"]
        told["clones"] += found["clones"]
    return told


def tell(opts: Mapping[str, Any], minion_id: str, answers: Mapping[str, Any]) -> None:
    """Tell a minion what came of its requests; nobody waits for its answer."""
    try:
        with salt.client.get_local_client(mopts=opts) as client:
            client.cmd_async(minion_id, TOLD, kwarg={"answers": dict(answers)}, tgt_type="list")
    except salt.exceptions.SaltClientError as error:
        log.warning("'%s' could not be told about its requests: %s", minion_id, error)


def publish(opts: Mapping[str, Any], minion_id: str, function: str) -> str:
    """Start a job on a minion, and do not wait for it; answers with its number."""
    with salt.client.get_local_client(mopts=opts) as client:
        return str(client.cmd_async(minion_id, function, tgt_type="list") or "")


def _ask(opts: Mapping[str, Any], minion_id: str, question: str, arguments: dict[str, Any]) -> Any:
    public = MinionKeys(opts).accepted(minion_id)
    if not public:
        raise HostUnreachable(
            f"The master has no accepted key for '{minion_id}'.",
            f"Accept it: salt-key -a {minion_id}",
        )
    word, token = sworn.challenge(public, minion_id, question)
    try:
        with salt.client.get_local_client(mopts=opts) as client:
            returned = client.cmd(
                minion_id,
                question,
                kwarg={**arguments, "challenge": token},
                tgt_type="list",
                timeout=TIMEOUT,
            )
    except salt.exceptions.SaltClientError as error:
        raise HostUnreachable(
            f"The job for '{minion_id}' could not be published: {error}",
            "Is the master running? salt-run manage.status",
        ) from error
    answer = returned.get(minion_id) if isinstance(returned, dict) else None
    if not answer:
        raise HostUnreachable(
            f"'{minion_id}' does not answer.", f"Ask it: salt {minion_id} {question}"
        )
    if isinstance(answer, str):
        raise HostUnreachable(
            f"'{minion_id}' cannot answer: {answer[:300]}",
            f"Bring our modules there: salt {minion_id} saltutil.sync_all",
        )
    return sworn.check(word, minion_id, answer)
