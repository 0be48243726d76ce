"""Compare the bases of all hosts; :mod:`.base_push` copies one from host to host."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any

from saltext.kvmclone.errors import KvmCloneError
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master.all_hosts import AllHosts, with_failures
from saltext.kvmclone.model.base_content import BaseState

#: What a host has under the name of a base, see docs/answers.md.
SAME, OTHER, UNKNOWN, MISSING, COPYING = "same", "other", "unknown", "missing", "copying"

#: The states of each host by its label, by the name of the base.
_Seen = dict[str, dict[str, BaseState]]


def bases(everywhere: AllHosts, name: str = "", hash: bool = False) -> dict[str, Any]:
    """
    Return which host has which base, and whether its content is the same.

    :param name: Only this one; by default those of profiles, and all with a record of ours.
    :param hash: Read the content where its digest is not on record.
    """
    wanted = [name] if name else _of_profiles(everywhere)
    told, failed = everywhere.look(lambda host: host.base_states(wanted))
    marked = {one.name for some in told.values() for one in some} - set(wanted)
    if marked and not name:
        # What one host has a record of, another may have without.
        wanted = sorted({*wanted, *marked})
        told, failed = everywhere.look(lambda host: host.base_states(wanted))
    told = everywhere.once(told)
    seen: _Seen = {
        base: {label: one for label, some in told.items() for one in some if one.name == base}
        for base in wanted
    }
    errors = _hash(dict(everywhere.hosts()), seen) if hash else {}
    answer = {base: _row(states, sorted(told)) for base, states in seen.items()}
    for (base, label), failure in errors.items():
        answer[base][label]["error"] = failure.as_dict()
    return with_failures({"bases": answer, "retcode": int(bool(errors))}, failed)


def _of_profiles(everywhere: AllHosts) -> list[str]:
    named = (profile.keys.get("base_domain") for profile in everywhere.catalogue.profiles.values())
    return sorted({str(name) for name in named if name})


def _hash(hosts: Mapping[str, KvmHost], seen: _Seen) -> dict[tuple[str, str], KvmCloneError]:
    """Have every base read whose digest is not known; return the errors by base and host."""
    errors = {}
    for base, states in seen.items():
        for label, one in states.items():
            if one.digest or one.copying:
                continue
            try:
                states[label] = hosts[label].hash_base(base)
            except KvmCloneError as error:
                errors[base, label] = error
    return errors


def _row(states: Mapping[str, BaseState], labels: Iterable[str]) -> dict[str, Any]:
    """Return what each host has of one base."""
    reference = _most_common(states)
    return {label: cell(states.get(label), reference) for label in labels}


def _most_common(states: Mapping[str, BaseState]) -> str:
    """Return the digest that most hosts have, of several the one of the first; empty for none."""
    digests = [states[label].digest for label in sorted(states) if states[label].digest]
    counted = collections.Counter(digests).most_common(1)  # equal ones in the order of their coming
    return counted[0][0] if counted else ""


def cell(one: BaseState | None, reference: str) -> dict[str, Any]:
    """
    Return what one host has of a base, as docs/answers.md has it.

    :param reference: The digest that is the right one.
    """
    if one is None:
        return {"state": MISSING, "digest": "", "bytes": 0}
    state = UNKNOWN
    if one.copying:
        state = COPYING
    elif one.digest:
        state = SAME if one.digest == reference else OTHER
    return {"state": state, "digest": one.digest, "bytes": one.bytes}
