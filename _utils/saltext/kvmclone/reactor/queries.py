"""
Ask minions and hosts for the master, and tell minions what became of their requests.

No other machine can answer in their place, see :mod:`.signed_call`. What minions want is
:func:`pending`, what their hosts know is :func:`witness`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import salt.client
import salt.exceptions

from saltext.kvmclone.errors import HostUnreachable, heed_interrupt, no_host
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master import signed_call

log = logging.getLogger(__name__)

PENDING, TOLD = "kvm_clone.pending", "kvm_clone.told"

_UUID = re.compile(r"[0-9a-fA-F-]{36}")

#: What a host's answer must say of a clone, each as text.
_TEXTS = ("name", "uuid", "stage", "request", "minion", "fingerprint")


@dataclass(frozen=True)
class CloneReport:
    """
    What a host knows of one of its clones.

    :param stage: As its record has it, see :data:`.record.STAGES`.
    :param request: Digest of the request that it was made from.
    :param minion: Its minion id; empty for none.
    :param fingerprint: Fingerprint of the minion's key; empty for none.
    :param expired: Its ``ttl`` has passed.
    """

    name: str
    uuid: str
    stage: str
    request: str
    minion: str
    fingerprint: str
    expired: bool = False


@dataclass(frozen=True)
class HostReport:
    """
    What a host, or all of them together, know of some domains.

    :param domains: The names asked for that any domain has, a clone of ours or not.
    :param clones: The clones asked for, and those whose ``ttl`` has passed.
    :param damaged: Domains of which nobody can tell whose they are.
    """

    domains: tuple[str, ...] = ()
    clones: tuple[CloneReport, ...] = ()
    damaged: tuple[str, ...] = ()


def pending(opts: Mapping[str, Any], minion_id: str) -> list[Any]:
    """
    Return what a minion requests: untrusted data, but certainly its own.

    :raises HostUnreachable: It does not answer.
    :raises Unproven: Something answered that need not be that minion.
    """
    found = signed_call.ask(opts, minion_id, PENDING, {})
    return found if isinstance(found, list) else []


def witness(host: KvmHost, names: Iterable[str] = (), ids: Iterable[str] = ()) -> HostReport:
    """
    Return what a KVM host knows of some domains; see :func:`.reports.witness`.

    :param names: Names of domains.
    :param ids: Minion ids.
    :raises HostUnreachable: It answers in another form.
    :raises KvmCloneError: It cannot be asked.
    """
    found = host.witness(list(names), list(ids))
    # A host of an older version does not report damaged records.
    found = {"damaged": [], **found} if isinstance(found, dict) else {}
    lists = [found.get(key) for key in ("domains", "clones", "damaged")]
    right = all(isinstance(told, list) for told in lists)
    if not right or not all(_is_clone(item) for item in found["clones"]):
        raise HostUnreachable("A KVM host answers in a form that is not known.")
    return HostReport(
        tuple(map(str, found["domains"])),
        tuple(_clone(item) for item in found["clones"]),
        tuple(map(str, found["damaged"])),
    )


def everywhere(
    hosts: Iterable[tuple[str, KvmHost]],
    names: Iterable[str] = (),
    ids: Iterable[str] = (),
) -> HostReport:
    """
    Return what all hosts together know of some domains.

    :param names: Names of domains.
    :param ids: Minion ids.
    :raises KvmCloneError: One of them cannot be asked, or there is none: nobody can tell.
    """
    hosts = list(hosts)
    if not hosts:
        raise no_host()
    names, ids = list(names), list(ids)
    told = [witness(host, names, ids) for _label, host in hosts]
    # Two providers may name one daemon, so its answers are counted once.
    return HostReport(
        tuple(dict.fromkeys(name for one in told for name in one.domains)),
        tuple(dict.fromkeys(clone for one in told for clone in one.clones)),
        tuple(dict.fromkeys(name for one in told for name in one.damaged)),
    )


def tell(opts: Mapping[str, Any], minion_id: str, answers: Mapping[str, Any]) -> None:
    """
    Tell a minion what became of its requests; do not wait for its answer.

    :param answers: By token, see :meth:`.request_spool.RequestSpool.told`.
    """
    try:
        with salt.client.get_local_client(mopts=opts) as client:
            client.cmd_async(minion_id, TOLD, kwarg={"answers": dict(answers)}, tgt_type="list")
    except salt.exceptions.SaltClientError as error:
        heed_interrupt(error)
        log.warning("'%s' could not be told about its requests: %s", minion_id, error)


def publish(opts: Mapping[str, Any], minion_id: str, function: str, job: str) -> None:
    """
    Start a job on a minion, and do not wait for it.

    :param job: The job's number.
    """
    with salt.client.get_local_client(mopts=opts) as client:
        client.cmd_async(minion_id, function, tgt_type="list", jid=job)


def _is_clone(item: Any) -> bool:
    """
    Return True if an item of a host's answer has the form of a clone.

    The uuid is checked too, since it becomes the name of a file.
    """
    if not isinstance(item, dict):
        return False
    right = all(isinstance(item.get(key), str) for key in _TEXTS)
    return right and _UUID.fullmatch(item["uuid"]) is not None


def _clone(item: Mapping[str, Any]) -> CloneReport:
    return CloneReport(**{key: item[key] for key in _TEXTS}, expired=bool(item.get("expired")))
