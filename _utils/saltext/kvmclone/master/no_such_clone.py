"""
Say why there is no clone of a name: it was renamed, it was mistyped, or nobody knows.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

from saltext.kvmclone.errors import HostUnreachable, NotFound
from saltext.kvmclone.hosts import gc
from saltext.kvmclone.master.all_hosts import AllHosts

#: How alike two names are, from 0 to 1, where one may be meant for the other.
_ALIKE = 0.75


def explain(everywhere: AllHosts, ids: Collection[str], name: str, error: NotFound) -> None:
    """
    Raise an error that says more than that there is no such clone, if more is known.

    :param ids: The minion ids that the clone of that name has, or had.
    :param error: What was raised because no host has it.
    :raises HostUnreachable: A host that may know of its new name does not answer.
    :raises Renamed: It has another name now.
    :raises NotFound: Another clone has nearly that name.
    """
    told, failed = everywhere.look(lambda host: host.list_clones())
    if failed:
        raise HostUnreachable(
            f"Whether '{name}' was renamed is not known; no answer from {', '.join(failed)}.",
            "Repeat this when the host is back.",
        ) from None
    gc.require_not_renamed(name, ids, told.values())
    names = [clone.name for clones in told.values() for clone in clones]
    for near in difflib.get_close_matches(name, names, n=1, cutoff=_ALIKE):
        raise NotFound(f"There is no clone '{name}'. Did you mean '{near}'?", error.hint) from None
