"""
The master's questions to minions, whose answers nobody else can give; see :mod:`.sworn`.

What minions want (:func:`pending`), what their hosts know (:func:`witness`), and what is told
to them in return.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

import salt.client
import salt.exceptions
import salt.utils.event

from saltext.kvmclone import publishing, sworn
from saltext.kvmclone.errors import HostUnreachable
from saltext.kvmclone.keys import MinionKeys
from saltext.kvmclone.kvm_host import KvmHost
from saltext.kvmclone.remote import RemoteHost
from saltext.kvmclone.sworn import Unproven

log = logging.getLogger(__name__)

PENDING, WITNESS, TOLD = "kvm_clone.pending", "kvm_clone.witness", "kvm_clone.told"

#: Seconds that a minion gets for its answer.
TIMEOUT = 20

_UUID = re.compile(r"[0-9a-fA-F-]{36}")


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
    if not all(_is_clone(item) for item in found["clones"]):
        raise HostUnreachable(f"The answer of '{host.minion_id}' has a form that is not known.")
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
    wanted: str = ""
    heard: Unproven | None = None
    with (
        salt.client.get_local_client(mopts=opts) as client,
        salt.utils.event.get_master_event(opts, opts["sock_dir"], listen=True) as bus,
    ):
        arguments = {**arguments, "challenge": token}
        try:
            published = client.run_job(minion_id, question, kwarg=arguments, tgt_type="list")
        except salt.exceptions.SaltClientError as error:
            raise HostUnreachable(
                f"The job for '{minion_id}' could not be published: {error}",
                "Is the master running? salt-run manage.status",
            ) from error
        wanted = f"salt/job/{published.get('jid')}/ret/{minion_id}" if published else ""
        deadline = time.monotonic() + TIMEOUT
        # A hard deadline, and not the first answer but the first that is proven: a liar can
        # neither hold us nor be faster.
        while wanted and time.monotonic() < deadline:
            event = bus.get_event(wait=0.5, tag=wanted, full=True, auto_reconnect=True)
            if event is None or event["tag"] != wanted:
                continue
            returned = event["data"].get("return")
            try:
                return sworn.check(word, minion_id, returned)
            except Unproven as error:
                heard = error
                if isinstance(returned, str):
                    heard.hint += f" It said: {returned[:300]}"
    raise heard or HostUnreachable(
        f"'{minion_id}' does not answer.", f"Ask it: salt {minion_id} {question}"
    )


def _is_clone(item: Any) -> bool:
    """Whether a host's word about a clone has the form of one; its uuid becomes a file's name."""
    if not isinstance(item, dict):
        return False
    texts = ("name", "uuid", "stage", "request", "minion", "fingerprint")
    right = all(isinstance(item.get(key), str) for key in texts)
    return right and _UUID.fullmatch(item["uuid"]) is not None
