"""
The master's questions to minions, whose answers nobody else can give; see :mod:`.questions`.

What minions want (:func:`pending`), what their hosts know (:func:`witness`), and what is told
to them in return.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

import salt.client
import salt.exceptions

from saltext.kvmclone import questions
from saltext.kvmclone.errors import HostUnreachable, heed_interrupt, no_host
from saltext.kvmclone.kvm_host import KvmHost

log = logging.getLogger(__name__)

PENDING, TOLD = "kvm_clone.pending", "kvm_clone.told"

_UUID = re.compile(r"[0-9a-fA-F-]{36}")


def pending(opts: Mapping[str, Any], minion_id: str) -> list[Any]:
    """
    What a minion asks for: untrusted, but surely its own.

    :raises HostUnreachable: It does not answer.
    :raises Unproven: Something answered that need not be that minion.
    """
    found = questions.ask(opts, minion_id, PENDING, {})
    return found if isinstance(found, list) else []


def witness(host: KvmHost, names: Iterable[str] = (), ids: Iterable[str] = ()) -> dict[str, Any]:
    """
    What a KVM host knows of some machines, as :func:`.publishing.witness` gives it.

    :raises KvmCloneError: It cannot be asked.
    """
    found = host.witness(list(names), list(ids))
    lists = [None]
    if isinstance(found, dict):
        lists = [found.get("domains"), found.get("clones"), found.get("damaged", [])]
    right = all(isinstance(told, list) for told in lists)
    if not right or not all(_is_clone(item) for item in found["clones"]):
        raise HostUnreachable("A KVM host answers in a form that is not known.")
    return found


def everywhere(
    hosts: Iterable[tuple[str, KvmHost]],
    names: Iterable[str] = (),
    ids: Iterable[str] = (),
) -> dict[str, Any]:
    """
    What all hosts together know.

    :raises KvmCloneError: One of them cannot be asked, or there is none: nobody can tell.
    """
    hosts = list(hosts)
    if not hosts:
        raise no_host()
    told: dict[str, Any] = {"domains": [], "clones": [], "damaged": []}
    names, ids = list(names), list(ids)
    for _label, host in hosts:
        found = witness(host, names, ids)
        told["domains"] += found["domains"]
        told["clones"] += found["clones"]
        told["damaged"] += found.get("damaged") or []  # a host of an older version tells none
    return told


def tell(opts: Mapping[str, Any], minion_id: str, answers: Mapping[str, Any]) -> None:
    """Tell a minion what came of its requests; nobody waits for its answer."""
    try:
        with salt.client.get_local_client(mopts=opts) as client:
            client.cmd_async(minion_id, TOLD, kwarg={"answers": dict(answers)}, tgt_type="list")
    except salt.exceptions.SaltClientError as error:
        heed_interrupt(error)
        log.warning("'%s' could not be told about its requests: %s", minion_id, error)


def publish(opts: Mapping[str, Any], minion_id: str, function: str) -> str:
    """Start a job on a minion, and do not wait for it; answers with its number."""
    with salt.client.get_local_client(mopts=opts) as client:
        return str(client.cmd_async(minion_id, function, tgt_type="list") or "")


def _is_clone(item: Any) -> bool:
    """Whether a host's word about a clone has the form of one; its uuid becomes a file's name."""
    if not isinstance(item, dict):
        return False
    texts = ("name", "uuid", "stage", "request", "minion", "fingerprint")
    right = all(isinstance(item.get(key), str) for key in texts)
    return right and _UUID.fullmatch(item["uuid"]) is not None
