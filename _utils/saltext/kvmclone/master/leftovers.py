"""List, or remove, what interrupted work left on all hosts and on the master itself."""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.hosts import gc
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master.all_hosts import AllHosts, with_failures
from saltext.kvmclone.master.base_relay import Relays
from saltext.kvmclone.master.keys import MinionKeys
from saltext.kvmclone.master.reservations import Reservations
from saltext.kvmclone.model.leftovers import KEPT, Leftover
from saltext.kvmclone.model.record import Minion

#: Instead of a host's label: on the master itself.
_HERE = ""


def collect(
    everywhere: AllHosts,
    keys: MinionKeys,
    relays: Relays,
    reservations: Reservations,
    name: str,
    apply: bool,
    force: bool,
) -> dict[str, Any]:
    """
    Return what dead workers left, with the keys of minions that were never finished.

    While a host cannot be asked, or the configuration cannot be read, nothing is removed.

    :param name: Only this clone, or base; empty for all.
    :param apply: Remove it.
    :param force: See :func:`.gc.collect`.
    """

    def remove_key(minion: Minion) -> bool:
        return keys.take_back(minion.id, minion.fingerprint)

    def look(host: KvmHost, apply: bool) -> list[Leftover]:
        return gc.collect(host, name, apply, force, remove_key)

    told, failed = everywhere.look(lambda host: look(host, False))
    told = everywhere.once(told)
    if not failed and (error := everywhere.catalogue.problems.forbidding_gone()):
        failed = {"configuration": error.as_dict()}
    going = apply and not failed
    if going:
        told, failed = everywhere.look(lambda host: look(host, True), most=1)
        told = everywhere.once(told)
    rows = [(label, row) for label, some in told.items() for row in some]
    # A host that says nothing may have begun what is reserved on it.
    rows += [(_HERE, row) for row in reservations.left(name, going and not failed)]
    if failed and not going:
        why = f"stays while this cannot be asked or read: {', '.join(failed)}"
        rows = [
            (label, row if row.kind == KEPT else row.stays(f"{row.reason}; {why}"))
            for label, row in rows
        ]
    rows += [(_HERE, row) for row in relays.left(name, apply and not failed)]
    found = [{**row.as_dict(), "host": label} for label, row in rows]
    stuck = apply and any(row.is_stuck for _label, row in rows)
    return with_failures({"leftovers": found, "retcode": int(stuck)}, failed, "errors")
