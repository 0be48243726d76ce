"""
Compare the hosts with the master, and with each other, for a doctor.

Pure. What it goes by is asked by :mod:`.fleet_doctor`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from saltext.kvmclone.inventory import host_findings
from saltext.kvmclone.inventory.findings import Finding, in_words
from saltext.kvmclone.model.base_content import BaseState
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.host_reports import HostCondition, Installation
from saltext.kvmclone.model.placement import HostLimits
from saltext.kvmclone.plan import placement

#: Seconds that the clock of a host may differ from the master's.
SKEW_S = 5.0


@dataclass(frozen=True)
class HostSeen:
    """
    What was seen of one host.

    :param commands: How commands are typed that run there; without a minion it is driven from the
        master, and what works there is what works here.
    :param before: The master's time before it was asked for its own, ``after`` the answer came,
        seconds since the epoch.
    """

    commands: Commands
    told: HostCondition
    bases: tuple[BaseState, ...] = ()
    before: float = 0.0
    after: float = 0.0

    @property
    def skew(self) -> float:
        """Return the seconds by which its clock is ahead at least; less than 0 for behind."""
        clock = self.told.installation.clock
        ahead, behind = clock - self.after, clock - self.before
        return max(ahead, 0.0) + min(behind, 0.0)


def of_sync(master: Installation, newer: str) -> Iterator[Finding]:
    """
    Yield a finding where the master does not work with what it would sync.

    :param newer: The folder of that; empty for none.
    """
    if newer:
        yield Finding(
            "sync-stale",
            master.path,
            f"This master works with the files of kvm_clone in '{master.path}', and '{newer}' has "
            "others. After the master, sync its hosts.",
            Commands().sync(),
        )


def of_host(seen: HostSeen, master: Installation) -> Iterator[Finding]:
    """Yield what is wrong with what works on a host that a minion was asked of."""
    minion = seen.commands.minion
    yield from host_findings.of_installation(seen.told.installation, minion, seen.commands)
    own = seen.told.installation
    if own.digest and master.digest and own.digest != master.digest:
        yield Finding(
            "library-differs",
            minion,
            f"'{minion}' works with other files of kvm_clone ({own.version}, in '{own.path}') than "
            f"this master ({master.version}, in '{master.path}'). Sync the host again; where a "
            "package is installed, install the same one on both.",
            seen.commands.sync(),
        )
    yield from _clock(seen)


def _clock(seen: HostSeen) -> Iterator[Finding]:
    minion = seen.commands.minion
    if abs(seen.skew) > SKEW_S:
        word = "ahead of" if seen.skew > 0 else "behind"
        yield Finding(
            "clock-differs",
            minion,
            f"The clock of '{minion}' is {abs(seen.skew):.0f} seconds {word} this master's. A "
            "clone that is placed there may be refused as too late, and a key for a copy of a base "
            "be over before it is used. Set both by the time of the network.",
            seen.commands.beside("timedatectl", "set-ntp", "true"),
        )


def of_promises(seen: HostSeen, limits: HostLimits) -> Iterator[Finding]:
    """Yield a finding for a host that has promised more than it may."""
    name = seen.commands.minion
    if excess := placement.excess(seen.told.offer, limits):
        yield Finding(
            "over-promised",
            name,
            f"'{name}' has promised its clones and running guests {excess}. No clone is placed "
            "there any more, and those there may run short of it. Destroy some, or let it promise "
            "more in 'kvm_clone: hosts:' of the master.",
            Commands().clone("list", f"host={name}"),
        )


def of_copies(seen: HostSeen) -> Iterator[Finding]:
    """Yield why no base can be copied to or from a host."""
    name = seen.commands.minion
    own = seen.told.installation
    if own.lacking:
        yield Finding(
            "no-push",
            name,
            f"Bases can be pushed to and from other hosts, but not '{name}': it lacks "
            f"{in_words(list(own.lacking))}.",
            f"salt {shlex.quote(name)} pkg.install {','.join(own.lacking)}",
        )
    if own.shut:
        yield Finding(
            "no-push",
            name,
            f"No base can be pushed from '{name}': {own.shut}.",
            seen.commands.beside("sshd", "-T"),
        )


def of_base(base: str, states: Mapping[str, BaseState | None]) -> Iterator[Finding]:
    """
    Yield what keeps clones of a base from being placed on some of their hosts.

    :param states: What each host has under that name; None for nothing.
    """
    by_digest: dict[str, list[str]] = {}
    for host, state in states.items():
        if state is not None and not state.copying:
            by_digest.setdefault(state.digest, []).append(host)
    unread = by_digest.pop("", [])
    if len(by_digest) > 1:
        groups = "; ".join(in_words(hosts) for hosts in by_digest.values())
        yield Finding(
            "bases-differ",
            base,
            f"The base '{base}' is not the same on all hosts of a profile: one content on {groups} "
            "each. No clone of it is placed until it is. Remove the wrong one, and push the right "
            "one there, or put its host into maintenance.",
            Commands().clone("bases", base),
        )
    elif unread and (by_digest or len(unread) > 1):
        yield Finding(
            "base-unread",
            base,
            f"The base '{base}' on {in_words(unread)} was never compared with that on other hosts, "
            "or was changed since, so no clone of it is placed there.",
            Commands().clone("bases", base, "hash=True"),
        )


def without_machine(
    noted: Mapping[str, str], hosts: Iterable[HostSeen], unreadable: Iterable[str]
) -> list[str]:
    """
    Return the minion ids with a key of ours that belong to no clone.

    :param noted: The name of the clone for each id, looked up before the hosts.
    :param hosts: All of them.
    :param unreadable: Names of clones of which the minion id is not known.
    """
    ids, names = set[str](), set(unreadable)
    for one in hosts:
        ids |= set(one.told.clones.values())
        names |= set(one.told.clones)
    return sorted(one for one, name in noted.items() if one not in ids and name not in names)


def of_key(minion_id: str, name: str) -> Finding:
    """
    Return the finding for a key whose machine is gone.

    :param name: What the clone was called.
    """
    return Finding(
        "key-without-machine",
        minion_id,
        f"This master accepts the key of '{minion_id}', and no host has its clone '{name}' any "
        "more. Whoever has that key is let in.",
        Commands().clone("destroy", name),
    )
