"""
Compare the bases of all hosts, and copy one from host to host.

The hosts do that between themselves, by ssh; each is told what to do by Salt jobs, which carry
the public key of the one and the host keys of the other.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    BaseDiffers,
    ConfigError,
    CopyFailed,
    CreateInProgress,
    HostUnreachable,
    KvmCloneError,
    NotFound,
)
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master import progress
from saltext.kvmclone.master.all_hosts import with_failures
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.model.base_content import BaseState
from saltext.kvmclone.model.units import size

log = logging.getLogger(__name__)

#: What a host has under the name of a base, see docs/answers.md.
SAME, OTHER, UNKNOWN, MISSING, COPYING = "same", "other", "unknown", "missing", "copying"

#: The states of each host by its label, by the name of the base.
_Seen = dict[str, dict[str, BaseState]]


def bases(fleet: Fleet, name: str = "", hash: bool = False) -> dict[str, Any]:
    """
    Return which host has which base, and whether its content is the same.

    :param name: Only this one; by default those of profiles, and all with a record of ours.
    :param hash: Read the content where its digest is not on record.
    """
    wanted = [name] if name else _of_profiles(fleet)
    told, failed = fleet.everywhere.look(lambda host: host.base_states(wanted))
    marked = {one.name for some in told.values() for one in some} - set(wanted)
    if marked and not name:
        # What one host has a record of, another may have without.
        wanted = sorted({*wanted, *marked})
        told, failed = fleet.everywhere.look(lambda host: host.base_states(wanted))
    told = fleet.everywhere.once(told)
    seen: _Seen = {
        base: {label: one for label, some in told.items() for one in some if one.name == base}
        for base in wanted
    }
    errors = _hash(dict(fleet.hosts()), seen) if hash else {}
    answer = {base: _row(states, sorted(told)) for base, states in seen.items()}
    for (base, label), failure in errors.items():
        answer[base][label]["error"] = failure.as_dict()
    return with_failures({"bases": answer, "retcode": int(bool(errors))}, failed)


def _of_profiles(fleet: Fleet) -> list[str]:
    named = (profile.keys.get("base_domain") for profile in fleet.catalogue.profiles.values())
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
    return {label: _cell(states.get(label), reference) for label in labels}


def _most_common(states: Mapping[str, BaseState]) -> str:
    """Return the digest that most hosts have, of several the one of the first; empty for none."""
    digests = [states[label].digest for label in sorted(states) if states[label].digest]
    counted = collections.Counter(digests).most_common(1)  # equal ones in the order of their coming
    return counted[0][0] if counted else ""


def _cell(one: BaseState | None, reference: str) -> dict[str, Any]:
    if one is None:
        return {"state": MISSING, "digest": "", "bytes": 0}
    state = UNKNOWN
    if one.copying:
        state = COPYING
    elif one.digest:
        state = SAME if one.digest == reference else OTHER
    return {"state": state, "digest": one.digest, "bytes": one.bytes}


def push(fleet: Fleet, base: str, targets: Sequence[str], source: str = "") -> dict[str, Any]:
    """
    Copy a base to other hosts, one after the other; each succeeds or fails by itself.

    :param targets: Labels of the hosts that are to have it.
    :param source: Label of the host to copy from; by default the one that has it.
    :raises ConfigError: A host is not known, or is not reached by a minion; or it is not clear
        which one is the source.
    :raises NotFound: No host has the base.
    """
    hosts = {label: _behind_minion(fleet, label) for label in (*targets, *filter(None, [source]))}
    if source in targets:
        others = " ".join(target for target in targets if target != source)
        raise ConfigError(
            f"'{source}' is the source, and cannot be a target as well.",
            f"Leave it out: salt-run kvmclone.push {base} {others} source={source}"
            if others
            else "Name the hosts that are to have the base.",
        )
    label = source or _source(fleet, base, targets)
    hosts[label] = _behind_minion(fleet, label)
    with progress.several([label, *targets]):
        progress.working(label, "reading", f"'{base}', unless its digest is known")
        with _told_of(label):
            original = hosts[label].hash_base(base)
        progress.working(label, "read", size(original.bytes))
        progress.ended(label)
        cells = {}
        for target in targets:
            cell = cells[target] = _pushed(label, hosts, target, original)
            progress.working(target, "failed" if "error" in cell else cell["state"])
            progress.ended(target)
    failed = any("error" in cell for cell in cells.values())
    answer = {label: _cell(original, original.digest), **cells}
    return {"bases": {base: answer}, "retcode": int(failed)}


def _behind_minion(fleet: Fleet, label: str) -> KvmHost:
    """
    Return the host with that label.

    :raises ConfigError: There is none, or it has no minion.
    """
    ways = fleet.everywhere.ways
    if label not in ways:
        known = ", ".join(f"'{one}'" for one, way in ways.items() if way[0]) or "none"
        raise ConfigError(
            f"There is no host '{label}'; with a minion there are: {known}.",
            "A host is the 'host:' of a provider. See them: salt-run kvmclone.profiles",
        )
    if not ways[label][0]:
        raise ConfigError(
            f"'{label}' is reached by its url alone; a base is copied by the minions of two hosts.",
            "Set 'host:' in its provider to the minion on that KVM host.",
        )
    return fleet.host(*ways[label])


def _source(fleet: Fleet, base: str, targets: Sequence[str]) -> str:
    """
    Return the label of the host to copy from.

    :raises ConfigError: Several have the base, and it is not known that they are the same.
    :raises NotFound: None has it.
    """
    told, failed = fleet.everywhere.look(lambda host: host.base_states([base]))
    having = {
        label: one
        for label, some in fleet.everywhere.once(told).items()
        for one in some
        if one.name == base and not one.copying and label not in targets
    }
    having = {label: one for label, one in having.items() if fleet.everywhere.ways[label][0]}
    if not having and failed:
        raise HostUnreachable(
            f"No host that answers has a base '{base}' to copy; no answer from "
            f"{', '.join(failed)}.",
            "Repeat this when the host is back.",
        )
    if not having:
        raise NotFound(
            f"No other host has a base '{base}'.", "See what there is: salt-run kvmclone.bases"
        )
    if len(having) > 1 and len({one.digest or label for label, one in having.items()}) > 1:
        raise ConfigError(
            f"Several hosts have a base '{base}', and it is not known that their contents are the "
            f"same: {', '.join(sorted(having))}.",
            "Name the one to copy from: "
            f"salt-run kvmclone.push {base} {' '.join(targets)} source={min(having)}",
        )
    return min(having)


@contextlib.contextmanager
def _told_of(source: str) -> Iterator[None]:
    """Say with an error that it is about the source, where a target is talked of."""
    try:
        yield
    except KvmCloneError as error:
        error.message = f"At the source, '{source}': {error.message}"
        raise


def _pushed(
    source: str, hosts: Mapping[str, KvmHost], target: str, original: BaseState
) -> dict[str, Any]:
    """
    Copy a base to one host.

    :param source: Label of the host that has it, ``target`` of the other.
    :return: What that has afterwards, with the error if it failed.
    """
    name = original.name
    try:
        progress.working(target, "looking", f"what it has as '{name}'")
        there = hosts[target].expect_base(name)
        if not there.digest:
            progress.working(target, "copying", f"{size(original.bytes)} from {source}")
            there = _push_one(source, hosts, hosts[target], name)
        if there.digest == original.digest:
            return _cell(there, original.digest)
        differs = BaseDiffers(
            f"'{target}' has another base of the name '{name}' already; it stays as it is.",
            "Rename one of them, or remove it if no clone is based on it. See both: "
            f"salt-run kvmclone.bases {name}",
        )
        return {**_cell(there, original.digest), "error": differs.as_dict()}
    except KvmCloneError as error:
        state = COPYING if isinstance(error, CreateInProgress) else MISSING
        return {"state": state, "digest": "", "bytes": 0, "error": error.as_dict()}


def _push_one(source: str, hosts: Mapping[str, KvmHost], target: KvmHost, name: str) -> BaseState:
    origin = hosts[source]
    copy = secrets.token_hex(8)
    with contextlib.ExitStack() as undo:
        with _told_of(source):
            undo.callback(_end, origin, copy)
            offer = origin.offer_base(name, copy)
            if (offer.base, offer.copy) != (name, copy):
                raise CopyFailed(
                    f"It offered another base than '{name}'.", "Look at that host's minion."
                )
        undo.callback(_end, target, copy)
        key = target.prepare_copy(offer)
        with _told_of(source):
            origin.admit_copy(name, copy, key)
        found = target.fetch_base(offer)
        undo.pop_all()  # the target removed its own part
        undo.callback(_end, origin, copy)
    return found


def _end(host: KvmHost, copy: str) -> None:
    try:
        with interrupts.shield():
            host.end_copy(copy)
    except KvmCloneError as error:
        # The key is let in for a limited time, and gc finds all the rest.
        log.warning("what copy %s made is not removed yet (salt-run kvmclone.gc): %s", copy, error)
