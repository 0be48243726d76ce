"""
Find out whether two providers lead to one libvirt daemon.

A url can be spelled in many ways, and one provider may go through the host's minion while another
drives the daemon from the master. The uuid of the host alone proves nothing: vendors ship it
twice, and without SMBIOS libvirt makes one up at each start. So two providers are one daemon only
where host uuid, host name, driver, mode, user *and* the uuids of its domains agree; of a daemon
without domains, those of its pools and networks.

For display only: an action goes by the provider that it was given.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from saltext.kvmclone.errors import KvmCloneError
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.model.host_reports import Daemon

log = logging.getLogger(__name__)

#: Number of daemons that are asked at the same time.
DAEMONS_AT_ONCE = 8

# How often two daemons are compared whose domains differ: some may come and go in between.
_TRIES = 3


@dataclass(frozen=True)
class Grouping:
    """
    Hosts, grouped by daemon.

    :param groups: Labels; every host is in one group, in the order in which they were given.
    :param collisions: Pairs with one host uuid that are different daemons.
    """

    groups: tuple[tuple[str, ...], ...]
    collisions: tuple[tuple[str, str], ...] = ()


def group(hosts: Sequence[tuple[str, KvmHost]]) -> Grouping:
    """
    Return which hosts are one daemon; a host that does not tell has a group of its own.

    :param hosts: With their labels; the first label of a group is the one to show it under.
    """
    hosts = list(hosts)
    if len(hosts) < 2:
        return Grouping(tuple((label,) for label, _host in hosts))
    with ThreadPoolExecutor(max_workers=min(DAEMONS_AT_ONCE, len(hosts))) as pool:
        told = list(pool.map(lambda pair: ask(*pair), hosts))
    groups: list[list[int]] = []
    collisions = []
    for number, (label, host) in enumerate(hosts):
        for members in groups:
            first = members[0]
            if _is_one(hosts[first], told[first], (label, host), told[number]):
                members.append(number)
                break
        else:
            collisions += [
                (hosts[members[0]][0], label)
                for members in groups
                if _collide(told[members[0]], told[number])
            ]
            groups.append([number])
    return Grouping(
        tuple(tuple(hosts[number][0] for number in members) for members in groups),
        tuple(collisions),
    )


def ask(label: str, host: KvmHost) -> Daemon | None:
    """Return what a daemon says of itself; None if it cannot be read, or its host has no uuid."""
    try:
        told = host.daemon()
    except KvmCloneError as error:
        log.info("'%s' does not tell which daemon it is: %s", label, error)
        return None
    return told if told.uuid else None


def _is_one(
    one: tuple[str, KvmHost],
    first: Daemon | None,
    other: tuple[str, KvmHost],
    second: Daemon | None,
) -> bool:
    for _ in range(_TRIES):
        if first is None or second is None:
            return False
        if (first.uuid, first.name, first.kind) != (second.uuid, second.name, second.kind):
            return False
        if first.domains == second.domains:
            return first.others == second.others and not first.is_empty
        if first.domains and second.domains and first.domains.isdisjoint(second.domains):
            return False
        # A domain may have been defined or removed in between, so the first daemon is asked again.
        # The other must have every domain that the first had both times, and none that it never
        # had.
        later = ask(*one)
        if later is not None and _lies_between(first.domains, second.domains, later.domains):
            return True
        first, second = later, ask(*other)
    return False


def _lies_between(before: frozenset[str], middle: frozenset[str], after: frozenset[str]) -> bool:
    stayed = before & after
    return bool(stayed) and stayed <= middle <= before | after


def _collide(first: Daemon | None, second: Daemon | None) -> bool:
    """Return True if two different daemons have one host uuid although they should not."""
    if first is None or second is None or first.uuid != second.uuid or first.kind != second.kind:
        return False
    return first.name != second.name or not (first.is_empty or second.is_empty)
