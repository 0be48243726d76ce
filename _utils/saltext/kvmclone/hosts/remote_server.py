"""
Carry out on a KVM host what the master asks of it by a Salt job.

:class:`.master.remote.RemoteHost` is the other end; see :mod:`.operations` for what travels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import salt.utils.minion

from saltext.kvmclone.errors import HostUnreachable, KvmCloneError
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.operations import OPERATIONS, VERSION
from saltext.kvmclone.model.plain import to_plain
from saltext.kvmclone.system import sealing

FUNCTION = "kvm_clone.remote"


def serve(
    opts: Mapping[str, Any],
    operation: str,
    arguments: Mapping[str, Any],
    url: str,
    by_hand: bool = False,
) -> dict[str, Any]:
    """
    Carry out one operation of a :class:`RemoteHost` on this host.

    :param opts: This minion's configuration.
    :param operation: Its :attr:`.operations.Operation.wire_name`.
    :param arguments: Its arguments, as plain data.
    :param url: libvirt URI as seen from here.
    :param by_hand: A person asks, who need not give the version.
    :return: ``{"version", "answer": …}``, or ``{"version", "error": {"type", "message", "hint"}}``.
    """
    minion_id = str(opts.get("id", ""))
    try:
        name, _at, version = str(operation).partition("@")
        if version != str(VERSION) and (version or not by_hand):
            raise HostUnreachable(
                f"The master has another version of kvm_clone than the KVM host '{minion_id}': "
                f"they speak {version or 1} and {VERSION}.",
                "Bring both to one version. On the master: salt-run saltutil.sync_all   "
                f"The host: salt {minion_id} saltutil.sync_all",
            )
        if name not in OPERATIONS:
            raise HostUnreachable(f"'{minion_id}' does not know the operation '{name}'.")
        try:
            given = OPERATIONS[name].from_wire(
                arguments,
                lambda token, to: sealing.unseal(sealing.own_key(opts), token, to, minion_id),
            )
        except ValueError as error:
            raise HostUnreachable(f"'{minion_id}' cannot read what is asked: {error}.") from error
        answer = getattr(LocalHost(url, label=minion_id), name)(**given)
        return {"version": VERSION, "answer": to_plain(answer)}
    except KvmCloneError as error:
        return {"version": VERSION, "error": error.as_dict()}


def working(opts: Mapping[str, Any], jid: str) -> bool:
    """
    Return True if this minion still works on a job.

    :param opts: This minion's configuration.
    :param jid: The job's number.
    """
    return any(str(job.get("jid")) == jid for job in salt.utils.minion.running(opts))
