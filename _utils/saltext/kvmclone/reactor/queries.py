"""
Ask minions and hosts for the master, and tell minions what became of their requests.

No other machine can answer in their place, see :mod:`.signed_call`. What minions want is
:func:`pending`, what their hosts know is :func:`everywhere`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import salt.client
import salt.exceptions

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import no_host
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master import signed_call
from saltext.kvmclone.model.host_reports import HostReport

log = logging.getLogger(__name__)

PENDING, TOLD = "kvm_clone.pending", "kvm_clone.told"


def pending(opts: Mapping[str, Any], minion_id: str) -> list[Any]:
    """
    Return what a minion requests: untrusted data, but certainly its own.

    :raises HostUnreachable: It does not answer.
    :raises Unproven: Something answered that need not be that minion.
    """
    found = signed_call.ask(opts, minion_id, PENDING, {})
    return found if isinstance(found, list) else []


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
    told = [host.report_domains(names, ids) for _label, host in hosts]
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
        interrupts.heed(error)
        log.warning("'%s' could not be told about its requests: %s", minion_id, error)


def publish(opts: Mapping[str, Any], minion_id: str, function: str, job: str) -> None:
    """
    Start a job on a minion, and do not wait for it.

    :param job: The job's number.
    """
    with salt.client.get_local_client(mopts=opts) as client:
        client.cmd_async(minion_id, function, tgt_type="list", jid=job)
