"""
Examine the master and all its hosts: what is wrong on each, and what is wrong between them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from saltext.kvmclone.config.placement_keys import FleetSettings
from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.hosts.interfaces import KvmHost, commands_of
from saltext.kvmclone.inventory import host_findings
from saltext.kvmclone.inventory.findings import Finding, exit_code, in_order
from saltext.kvmclone.master import fleet_findings, spares_overview
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.master.fleet_findings import HostSeen
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.host_reports import Installation
from saltext.kvmclone.system import installation

#: The kind of the finding that says that nobody can tell which minion a clone is.
_DAMAGED = "record-damaged"


def examine(fleet: Fleet, also: Iterable[Finding] = ()) -> dict[str, Any]:
    """
    Return what is wrong, and what works on each machine, with the ``retcode`` for monitoring.

    A host that did not answer the first question is asked no other.

    :param also: What else is wrong on the master.
    """
    noted = fleet.keys.noted()  # before the hosts tell their clones: more may be made meanwhile
    findings, silent = fleet.everywhere.doctor()
    shared = _shared(fleet)
    bases = sorted({base for base, _labels in shared})
    seen, failed = fleet.everywhere.look(lambda host: _look(host, bases), silent=silent)
    unreachable = {**silent, **failed}
    compared = _Comparison(fleet, seen, shared)
    found = [*also, *compared.findings()]
    found += spares_overview.findings(fleet.opts, fleet.catalogue)
    if not unreachable:
        damaged = {item["name"] for item in findings if item["kind"] == _DAMAGED}
        found += _keys(fleet, noted, list(seen.values()), damaged)
    findings += [{"host": "", **one.as_dict()} for one in in_order(list(dict.fromkeys(found)))]
    told = {
        "findings": findings,
        "loaded": compared.loaded(),
        "retcode": exit_code({item["level"] for item in findings}, bool(unreachable)),
    }
    return {**told, "unreachable": unreachable} if unreachable else told


def _look(host: KvmHost, bases: Sequence[str]) -> HostSeen:
    """
    Return what is seen of one host.

    :param bases: Names of bases that may be there.
    """
    before = time.time()
    told = host.condition()
    after = time.time()
    states = host.base_states(bases) if bases else []
    return HostSeen(commands_of(host), told, tuple(states), before, after)


def _shared(fleet: Fleet) -> list[tuple[str, tuple[str, ...]]]:
    """Return the base of each profile with several hosts, and their labels."""
    ways = fleet.everywhere
    found = {
        (str(profile.keys.get("base_domain") or ""), ways.labels_of(name))
        for name, profile in fleet.catalogue.profiles.items()
    }
    return sorted(one for one in found if len(one[1]) > 1)


class _Comparison:
    """
    The hosts, held against the master and against each other.

    :param seen: What was seen of each, by its label.
    :param shared: Bases, each with the labels of the hosts among which one is chosen.
    """

    def __init__(
        self,
        fleet: Fleet,
        seen: Mapping[str, HostSeen],
        shared: Sequence[tuple[str, tuple[str, ...]]],
    ) -> None:
        self.seen = seen
        self.shared = shared
        self.chosen = fleet.everywhere.chosen_among()
        self.master = installation.look(copies=False)
        roots = (fleet.opts.get("file_roots") or {}).get("base") or ()
        if next(iter(fleet.opts.get("fileserver_backend") or ["roots"])) != "roots":
            roots = ()  # the files of another one come first, and cannot be seen here
        cache = str(fleet.opts.get("extension_modules") or "")
        self.newer = installation.not_synced(self.master, cache, map(str, roots))
        #: What was seen of the machine of each minion, over the first of its daemons.
        self.minions: dict[str, HostSeen] = {}
        self.label_of: dict[str, str] = {}
        for label, one in seen.items():
            if one.commands.minion:
                self.minions.setdefault(one.commands.minion, one)
                self.label_of.setdefault(one.commands.minion, label)
        self.settings, self.fault = FleetSettings(), ""
        try:
            self.settings = fleet.placing.settings
        except ConfigError as error:
            self.fault = error.message

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong."""
        if self.fault:
            yield Finding("configuration", "kvm_clone", self.fault, Commands().clone("hosts"))
        yield from host_findings.of_installation(self.master, "", Commands())
        yield from fleet_findings.of_sync(self.master, self.newer)
        for minion, one in self.minions.items():
            yield from fleet_findings.of_host(one, self.master)
            if self.label_of[minion] in self.chosen:
                yield from fleet_findings.of_copies(one)
            if self.label_of[minion] in self.chosen or minion in self.settings.hosts:
                yield from fleet_findings.of_promises(one, self.settings.limits(minion))
        for base, labels in self.shared:
            states = {
                label: next((one for one in self.seen[label].bases if one.name == base), None)
                for label in labels
                if label in self.seen and not self._rests(label)
            }
            yield from fleet_findings.of_base(base, states)

    def _rests(self, label: str) -> bool:
        """Return whether a host gets no new clones."""
        return self.settings.limits(self.seen[label].commands.minion).maintenance

    def loaded(self) -> dict[str, Any]:
        """Return what works on each machine, by its label; the master's is empty."""
        return {"": _shown(self.master)} | {
            label: {
                **(_shown(one.told.installation) if one.commands.minion else {}),
                "libvirt": one.told.libvirt,
                "security": list(one.told.security),
                "latency": round(one.told.latency, 4),
                "skew": round(one.skew, 1) if one.commands.minion else 0.0,
            }
            for label, one in self.seen.items()
        }


def _shown(own: Installation) -> dict[str, Any]:
    return {
        "version": own.version,
        "digest": own.digest,
        "path": own.path,
        "salt": own.salt,
        "python": own.python,
    }


def _keys(
    fleet: Fleet, noted: Mapping[str, str], seen: Sequence[HostSeen], unreadable: Iterable[str]
) -> Iterator[Finding]:
    """
    Yield the keys of machines that are gone, if it is certain that they are.

    :param noted: The name of the clone for each minion id whose key we accepted.
    :param seen: All hosts.
    :param unreadable: Names of clones of which the minion id is not known.
    """
    try:
        fleet.everywhere.require_all_known()
    except ConfigError:  # a finding of its own
        return
    hosts = {one.commands.minion or one.commands.url for one in seen}
    for minion_id in fleet_findings.without_machine(noted, seen, unreadable):
        # Of a host that is no longer in the configuration, nobody was asked.
        if fleet.keys.host_of(minion_id) in hosts and fleet.keys.holds_ours(minion_id):
            yield fleet_findings.of_key(minion_id, noted[minion_id])
