"""
Query all configured hosts at once: which of them has a clone, and what they have together.

A daemon that two providers name is shown once. Whatever cannot be read or reached is named in the
answer, and the others are shown all the same.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.display import screen
from saltext.kvmclone.errors import (
    ConfigError,
    ForeignDomain,
    HostUnreachable,
    KvmCloneError,
    MissingPackage,
    NotFound,
    no_host,
)
from saltext.kvmclone.hosts import daemons
from saltext.kvmclone.hosts.daemons import Grouping
from saltext.kvmclone.hosts.interfaces import KvmHost, commands_of
from saltext.kvmclone.inventory.findings import (
    Finding,
    in_words,
    of_configuration,
)
from saltext.kvmclone.master import at_once
from saltext.kvmclone.master.clone_list import Selection
from saltext.kvmclone.master.ways import Means, Way, Ways, no_minions
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.hints import AT_MASTER, Commands

#: The answer of every host that answered, by its label.
Told = dict[str, Any]

#: Number of hosts that are asked at the same time.
LOOKS = 32

#: Likewise for one clone, since many may be looked for at once.
FINDS = 8


class AllHosts:
    """
    The hosts of all providers that can be read.

    :param catalogue: Providers, profiles, and what is wrong with others.
    :param connect: Returns the host of a minion id and a url.
    :param means: See :class:`.ways.Ways`, as for ``homes``.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        connect: Callable[[str, str], KvmHost],
        means: Means = no_minions,
        homes: Callable[[], Iterable[Way]] = tuple,
    ) -> None:
        self.catalogue = catalogue
        self.connect = connect
        self._ways = Ways(catalogue, means, homes)
        self._left_out: set[str] = set()

    @property
    def ways(self) -> dict[str, Way]:
        """Return how each daemon is reached, once, by its label; see :class:`.ways.Ways`."""
        return self._ways.labelled

    def labels_of(self, profile: str) -> tuple[str, ...]:
        """Return the labels of a profile's hosts; see :meth:`.ways.Ways.labels_of`."""
        return self._ways.labels_of(profile)

    def chosen_among(self) -> frozenset[str]:
        """Return the labels of the hosts among which the master chooses for some profile."""
        labels = map(self.labels_of, self.catalogue.profiles)
        return frozenset(label for some in labels if len(some) > 1 for label in some)

    def meant_by(self, expression: str) -> tuple[str, ...]:
        """Return the labels of the hosts that are meant; see :meth:`.ways.Ways.meant_by`."""
        return self._ways.meant_by(expression)

    def hosts(self) -> list[tuple[str, KvmHost]]:
        """Return every host with its label."""
        ways = self.ways.items()
        return [(label, self.connect(*way)) for label, way in ways if label not in self._left_out]

    def leave_out(self, labels: Iterable[str]) -> None:
        """Ask these hosts no more: each question to a host that is silent takes half a minute."""
        self._left_out |= set(labels)

    def require_all_known(self) -> None:
        """
        Refuse to take a machine for gone while something of the configuration cannot be read.

        :raises ConfigError: A provider, or any file at all, cannot be read; or it is not known
            which hosts are meant, or one is left out.
        """
        if self._left_out:
            raise ConfigError(f"Not asked: {', '.join(sorted(self._left_out))}.")
        if error := self.catalogue.problems.forbidding_gone():
            raise error
        for unknown in self._ways.unknown.values():
            raise unknown

    def look(
        self,
        work: Callable[[KvmHost], Any],
        most: int = LOOKS,
        silent: Collection[str] = (),
    ) -> tuple[Told, dict[str, Any]]:
        """
        Call ``work`` with every host, and collect what it returns.

        :param most: How many are asked at the same time.
        :param silent: Labels of hosts that are not asked, since they did not answer before.
        :return: The answers by label, and the error of each host that failed; also of whatever
            cannot be read and may name a host.
        """
        told: Told = {}
        failed: dict[str, Any] = {}
        hosts = [pair for pair in self.hosts() if pair[0] not in silent]
        for label, answer in self._ask(work, hosts, most):
            if isinstance(answer, KvmCloneError):
                failed[label] = answer.as_dict()
            else:
                told[label] = answer
        for name, unread in self.catalogue.problems.hiding_hosts().items():
            label = f"provider {name}" if name in self.ways else name
            failed[label] = unread.as_dict()
        failed |= {section: error.as_dict() for section, error in self._ways.unknown.items()}
        return told, failed

    @staticmethod
    def _ask(
        work: Callable[[KvmHost], Any], hosts: Sequence[tuple[str, KvmHost]], most: int
    ) -> list[tuple[str, Any]]:
        """Return what ``work`` returns for each host, or its error, with the host's label."""
        each = functools.partial(_asked, work)
        if min(most, len(hosts)) < 2:
            return list(map(each, hosts))
        return at_once.each(each, hosts, most)

    def group(self, labels: Iterable[str]) -> Grouping:
        """Return which of these hosts are one daemon."""
        wanted = set(labels)
        return daemons.group([pair for pair in self.hosts() if pair[0] in wanted])

    def once(self, told: Told) -> Told:
        """
        Return the answer of each daemon under the first of its labels.

        :param told: Answers by label; empty ones stay as they are.
        """
        some = [label for label, answer in told.items() if answer]
        if len(some) < 2:
            return told
        again = {label for labels in self.group(some).groups for label in labels[1:]}
        return {label: answer for label, answer in told.items() if label not in again}

    # --- one clone --------------------------------------------------------------------

    def find(self, name: str) -> tuple[KvmHost, Clone]:
        """
        Return the host that holds a clone, and the clone.

        :raises NotFound: No host has it.
        :raises ForeignDomain: A domain has that name and is not one of our clones.
        :raises ConfigError: Several hosts have one of that name, or there is no host, or none
            that can be asked has it and something cannot be read.
        :raises HostUnreachable: No host has it, but one did not answer.
        """
        found: dict[str, tuple[KvmHost, Clone]] = {}
        down = [f"{name}: {error.message}" for name, error in self._ways.unknown.items()]
        foreign: ForeignDomain | None = None
        if not (hosts := self.hosts()) and not down:
            self.require_all_known()
            raise no_host()
        answers = self._ask(lambda host: host.show(name), hosts, FINDS)
        for (label, host), (_label, answer) in zip(hosts, answers, strict=True):
            if isinstance(answer, Clone):
                found[label] = host, answer
            elif isinstance(answer, ForeignDomain):
                foreign = answer
            elif isinstance(answer, (HostUnreachable, MissingPackage)):
                down.append(f"{label}: {answer.message}")  # a url needs libvirt-python here
            elif not isinstance(answer, NotFound):
                raise answer
        if found:
            return found[self._the_one(name, {label: one[1] for label, one in found.items()})]
        if foreign is not None:
            raise foreign
        if unread := self.catalogue.problems.forbidding_gone():
            raise ConfigError(
                f"'{name}' is on no host that could be asked. {unread.message}", unread.hint
            )
        if down:
            raise HostUnreachable(
                f"'{name}' is on no host that answers; no answer from {'; '.join(down)}",
                "Repeat this when the host is back.",
            )
        raise NotFound(f"There is no clone '{name}'.", "List them: salt-run kvmclone.list")

    def _the_one(self, name: str, found: Mapping[str, Clone]) -> str:
        """
        Return the label to use for a clone: that of its own provider, otherwise the first.

        :param found: The clone as each host shows it, by label.
        :raises ConfigError: It is not one clone, on one daemon.
        """
        if len(found) > 1:
            firsts = [labels[0] for labels in self.group(found).groups]
            if len({clone.uuid for clone in found.values()}) > 1 or len(firsts) > 1:
                ways = [self.ways[label] for label in firsts]
                shown = (Commands(url, AT_MASTER, host).on_host("show", name) for host, url in ways)
                hint = f"Run it for the one you mean: {'   Or: '.join(shown)}"
                if len({clone.uuid for clone in found.values()}) == 1:
                    hint += "   If they are one host: salt '*' saltutil.sync_all"
                raise ConfigError(
                    f"'{name}' exists on several hosts: {', '.join(sorted(firsts))}.", hint
                )
        own = {self._ways.label_of(clone.profile) for clone in found.values()}
        return next((label for label in found if label in own), next(iter(found)))

    # --- everything -------------------------------------------------------------------

    def listing(self, wanted: Selection = Selection()) -> dict[str, Any]:
        """Return the clones of every host; a host that fails is named, the others still list."""
        found, failed = self.clones(wanted)
        clones = {key: screen.note(key, clone).as_dict() for key, clone in found.items()}
        return with_failures({"clones": wanted.in_order(clones), "retcode": 0}, failed)

    def clones(self, wanted: Selection = Selection()) -> tuple[dict[str, Clone], dict[str, Any]]:
        """Return the clones of every host by name, and the errors of those that failed."""
        told, failed = self.look(lambda host: host.list_clones())
        clones: dict[str, Clone] = {}
        there = list(self.each_once(told))
        wanted.require_host([*self.ways, *(clone.host for _label, clone in there)])
        for label, clone in there:
            if wanted.takes(label, clone):
                # Two hosts may each have a clone of one name.
                clones[clone.name if clone.name not in clones else f"{clone.name} ({label})"] = (
                    clone
                )
        return clones, failed

    def each_once(self, told: Told) -> Iterable[tuple[str, Clone]]:
        """
        Return every clone once, with a label: that of its own provider, or the first that has it.

        :param told: The clones of each host, by label.
        """
        seen = [(label, clone) for label, clones in told.items() for clone in clones]
        uuids = [clone.uuid for _label, clone in seen]
        shared = {label for label, clone in seen if uuids.count(clone.uuid) > 1}
        first = {label: labels[0] for labels in self.group(shared).groups for label in labels}
        chosen: dict[tuple[str, str], tuple[str, Clone]] = {}
        for label, clone in seen:
            key = (first.get(label, label), clone.uuid)
            if key not in chosen or self._ways.label_of(clone.profile) == label:
                chosen[key] = label, clone
        return chosen.values()

    def capacities(self) -> dict[str, Any]:
        """Return what every host has and what of it is free; one that fails has its error."""
        told, failed = self.look(lambda host: host.capacity())
        hosts: dict[str, Any] = {}
        for label, *others in self.group(told).groups:
            hosts[label] = {"reachable": True, **told[label]}
            if others:
                hosts[label]["also"] = others
        hosts |= {label: {"reachable": False, "error": error} for label, error in failed.items()}
        return {"hosts": dict(sorted(hosts.items())), "retcode": int(bool(failed))}

    def tree(self) -> dict[str, Any]:
        """Return bases and their clones over all hosts."""
        told, failed = self.look(lambda host: host.tree()["bases"])
        bases: dict[str, Any] = {}
        for label, tree in self.once(told).items():
            for base, branch in tree.items():
                # Two hosts may each have a base of one name.
                key = base if base not in bases else f"{base} ({label})"
                bases[key] = {**branch, "host": label}
        return with_failures({"bases": bases, "retcode": 0}, failed)

    def doctor(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return what is wrong on every host and in the configuration, and what failed."""
        told, failed = self.look(_findings)
        grouping = self.group(told)
        findings = [
            {"host": labels[0], **item} for labels in grouping.groups for item in told[labels[0]]
        ]
        own = [*self._twice(grouping), *self._own(grouping)]
        findings += [{"host": "", **finding.as_dict()} for finding in own]
        return findings, failed

    def _twice(self, grouping: Grouping) -> list[Finding]:
        """
        Return a finding for each name that clones of several hosts have.

        So it ends where a host went silent at a create, was given up, and came back.
        """
        if len(grouping.groups) < 2:
            return []
        told, _failed = self.look(lambda host: host.list_clones())
        having: dict[str, list[str]] = {}
        for label, *_others in grouping.groups:
            for clone in told.get(label, ()):
                having.setdefault(clone.name, []).append(label)
        found = []
        for name, labels in sorted(having.items()):
            if len(labels) > 1:
                text = (
                    f"'{name}' is on {in_words(labels)}. By its name alone none of them is "
                    "started, stopped or destroyed; one that is not wanted is destroyed on its "
                    "host."
                )
                minion, url = self.ways[labels[0]]
                hint = Commands(url, AT_MASTER, minion).on_host("show", name)
                found.append(Finding("name-twice", name, text, hint))
        return found

    def _own(self, grouping: Grouping) -> list[Finding]:
        """
        Return the findings about the master's own configuration.

        :param grouping: Which of the hosts are one daemon.
        """
        found = of_configuration(self.catalogue.problems, f"{AT_MASTER}profiles")
        for labels in grouping.groups:
            if len(labels) > 1:
                names = self._ways.providers_of(labels)
                text = (
                    f"The providers {', '.join(names)} name one daemon ({', '.join(labels)}). It "
                    "is shown once; a command goes by the provider that it names."
                )
                found.append(Finding("daemon-twice", labels[0], text, f"{AT_MASTER}profiles"))
        for one, other in grouping.collisions:
            text = (
                f"'{one}' and '{other}' have one host uuid but different machines, so they count "
                "as two hosts. libvirt refuses to migrate between them; host_uuid in its "
                "libvirtd.conf gives a host another."
            )
            minion, url = self.ways[other]
            hint = Commands(url, AT_MASTER, minion).virsh("capabilities")
            found.append(Finding("host-uuid-twice", other, text, hint))
        return found


def _findings(host: KvmHost) -> list[dict[str, Any]]:
    """
    Return what a host finds wrong with itself.

    :raises HostUnreachable: It gave an answer of an unknown form.
    """
    found = host.doctor()
    wanted = {field.name for field in dataclasses.fields(Finding)} | {"level"}
    if any(set(one) != wanted or not all(map(_is_text, one.values())) for one in found):
        update = commands_of(host).sync()
        raise HostUnreachable("It gave an answer of an unknown form.", f"Update it: {update}")
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _asked(work: Callable[[KvmHost], Any], pair: tuple[str, KvmHost]) -> tuple[str, Any]:
    """Return the label of a host, and what ``work`` returns for it, or its error."""
    label, host = pair
    try:
        return label, work(host)
    except KvmCloneError as error:
        return label, error


def with_failures(
    answer: dict[str, Any], failed: dict[str, Any], key: str = "unreachable"
) -> dict[str, Any]:
    """
    Return the answer with the hosts that failed, which make ``retcode`` 1.

    :param failed: Errors by label; empty for none.
    :param key: The key to put them under.
    """
    return {**answer, key: failed, "retcode": 1} if failed else answer
