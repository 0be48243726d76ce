"""
Remove a base from hosts, or copy one in its place: on all of them, or on none if one refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saltext.kvmclone.errors import HostUnreachable, KvmCloneError, NotFound
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master import at_once, many
from saltext.kvmclone.master.all_hosts import LOOKS
from saltext.kvmclone.master.base_copies import MISSING, cell
from saltext.kvmclone.master.base_push import Hosts
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.base_content import BaseState, RemovedBase


def remove(fleet: Fleet, base: str, labels: Sequence[str], yes: bool) -> dict[str, Any]:
    """
    Remove a base from hosts.

    :param labels: Labels of the hosts; none for all that have it.
    :param yes: The question before many hosts is answered already.
    :raises KvmCloneError: A host does not answer, or refuses; nothing was removed anywhere.
    :raises NotFound: No host has it.
    """
    there = _having(fleet, base, labels)
    hosts = {label: fleet.copier.behind_minion(label) for label in there}
    _require_removable(base, hosts)
    many.require_yes(fleet.opts, "remove", [f"{base} on {label}" for label in hosts], yes)

    def one(label: str) -> dict[str, Any]:
        try:
            gone = hosts[label].remove_base(base, apply=True)
        except KvmCloneError as error:
            return {**cell(there[label], there[label].digest), "error": error.as_dict()}
        return {
            "state": MISSING,
            "digest": "",
            "bytes": 0,
            "removed": list(gone.files),
            "kept": list(gone.kept),
        }

    cells = dict(zip(hosts, at_once.each(one, list(hosts), LOOKS), strict=True))
    failed = any("error" in told for told in cells.values())
    return {"bases": {base: cells}, "retcode": int(failed)}


def push(
    fleet: Fleet, base: str, labels: Sequence[str], source: str, replace: bool, yes: bool
) -> dict[str, Any]:
    """
    Copy a base to hosts.

    :param labels: Labels of the hosts that are to have it.
    :param source: See :meth:`.base_push.BaseCopier.push`, as for what is returned and raised.
    :param replace: Put it in the place of another one of that name.
    :param yes: The question before many hosts is answered already.
    :raises KvmCloneError: A host has another one, and refuses to remove it; nothing was done.
    """

    def replacing(hosts: Hosts) -> None:
        _require_removable(base, hosts)
        many.require_yes(fleet.opts, "replace", [f"{base} on {label}" for label in hosts], yes)

    return fleet.copier.push(base, labels, source, replacing if replace else None)


def _having(fleet: Fleet, base: str, labels: Sequence[str]) -> dict[str, BaseState]:
    """
    Return what the hosts have that are meant, by label.

    :raises HostUnreachable: One does not answer: whether clones stand on the base there is not
        known.
    """
    for label in labels:
        fleet.copier.behind_minion(label)
    told, failed = fleet.everywhere.look(lambda host: host.base_states([base]))
    if silent := [label for label in failed if not labels or label in labels]:
        raise HostUnreachable(
            f"Nothing was removed: whether '{base}' is in use there is not known, with no answer "
            f"from {', '.join(silent)}.",
            "Repeat this when the host is back, or name the hosts that are meant: "
            f"salt-run kvmclone.remove_base {base} HOST",
        )
    told = told if labels else fleet.everywhere.once(told)
    found = {
        label: one
        for label, some in told.items()
        for one in some
        if one.name == base and (not labels or label in labels)
    }
    if missing := [label for label in labels if label not in found]:
        raise NotFound(
            f"There is no base '{base}' on {', '.join(missing)}; nothing was removed.",
            f"See where it is: salt-run kvmclone.bases {base}",
        )
    if not found:
        raise NotFound(
            f"No host has a base '{base}'.", "See what there is: salt-run kvmclone.bases"
        )
    return found


def _require_removable(base: str, hosts: Hosts) -> None:
    """
    Refuse to remove a base from hosts if it cannot be removed from one of them.

    :raises KvmCloneError: The error of the first that refuses, with what the others say.
    """

    def one(host: KvmHost) -> RemovedBase | KvmCloneError:
        try:
            return host.remove_base(base)
        except KvmCloneError as error:
            return error

    told = dict(zip(hosts, at_once.each(one, list(hosts.values()), LOOKS), strict=True))
    refused = {label: one for label, one in told.items() if isinstance(one, KvmCloneError)}
    if not refused:
        return
    first = next(iter(refused.values()))
    listed = " ".join(f"{label}: {error.message}" for label, error in refused.items())
    first.message = f"Nothing was removed. {listed}"
    raise first
