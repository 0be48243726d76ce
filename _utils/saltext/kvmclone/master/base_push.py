"""
Copy a base from one host to others.

The hosts do that between themselves, by ssh; each is told what to do by Salt jobs, which carry
the public key of the one and the host keys of the other.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    BaseDiffers,
    ConfigError,
    CopyFailed,
    CreateInProgress,
    KvmCloneError,
)
from saltext.kvmclone.hosts.interfaces import KvmHost
from saltext.kvmclone.master import at_once, base_hosts, progress
from saltext.kvmclone.master.all_hosts import AllHosts
from saltext.kvmclone.master.base_copies import COPYING, MISSING, cell
from saltext.kvmclone.master.base_relay import Relays
from saltext.kvmclone.model import units
from saltext.kvmclone.model.base_content import BaseState

log = logging.getLogger(__name__)

#: Seconds between two looks at how far a copy is, for a person at a terminal.
PROGRESS_POLL_S = 5.0

#: Hosts by their labels.
Hosts = Mapping[str, KvmHost]


def _is_expression(word: str, labels: Iterable[str]) -> bool:
    """Return whether a word is a target expression of Salt, and no host."""
    return word not in labels and re.search(r"[^\w.-]", word) is not None


class BaseCopier:
    """
    The copies of bases that one call of the runner makes.

    :param everywhere: All hosts of the configuration.
    :param relays: Leads copies through the master, between hosts that do not reach each other.
    """

    def __init__(self, everywhere: AllHosts, relays: Relays) -> None:
        self.everywhere = everywhere
        self.relays = relays

    def push(
        self,
        base: str,
        targets: Sequence[str],
        source: str = "",
        replacing: Callable[[Hosts], None] | None = None,
    ) -> dict[str, Any]:
        """
        Copy a base to other hosts, one after the other; each succeeds or fails by itself.

        :param targets: Labels of the hosts that are to have it, or target expressions; the source
            may be among the hosts that an expression means.
        :param source: Label of the host to copy from; by default the one that has it.
        :param replacing: Is given the targets that have another base of that name, before it is
            removed there, and raises an error where it is not to be; None leaves it there.
        :raises ConfigError: A host is not known, or is not reached by a minion; or it is not clear
            which one is the source.
        :raises NotFound: No host has the base.
        """
        expressions = [word for word in targets if _is_expression(word, self.everywhere.ways)]
        targets = [word for word in targets if word not in expressions]
        named = (*targets, *filter(None, [source]))
        hosts = {label: self.behind_minion(label) for label in named}
        if source in targets:
            others = " ".join(target for target in targets if target != source)
            raise ConfigError(
                f"'{source}' is the source, and cannot be a target as well.",
                f"Leave it out: salt-run kvmclone.push {base} {others} source={source}"
                if others
                else "Name the hosts that are to have the base.",
            )
        meant = [label for one in expressions for label in self.everywhere.meant_by(one)]
        label = source or self.source(base, targets)
        targets = list(dict.fromkeys([*targets, *(one for one in meant if one != label)]))
        hosts |= {one: self.behind_minion(one) for one in (label, *targets)}
        with progress.several([label, *targets]):
            cells = self._pushed_everywhere(base, label, targets, hosts, replacing)
        failed = any("error" in one for one in cells.values())
        return {"bases": {base: cells}, "retcode": int(failed)}

    def _pushed_everywhere(
        self,
        base: str,
        source: str,
        targets: Sequence[str],
        hosts: Hosts,
        replacing: Callable[[Hosts], None] | None,
    ) -> dict[str, Any]:
        """Return what the source and each target have after a base was copied to them."""
        progress.working(source, "reading", f"'{base}', unless its digest is known")
        with _told_of(source):
            original = hosts[source].hash_base(base)
        progress.working(source, "read", units.size(original.bytes))
        progress.ended(source)
        going: dict[str, KvmHost] = {}
        if replacing is not None:
            going = {one: hosts[one] for one in targets if _has_other(one, hosts[one], original)}
            replacing(going)
        cells = {source: cell(original, original.digest)}
        for target in dict.fromkeys(targets):
            one = cells[target] = self._pushed(source, target, hosts, original, target in going)
            progress.working(target, "failed" if "error" in one else one["state"])
            progress.ended(target)
        return cells

    def behind_minion(self, label: str) -> KvmHost:
        """
        Return the host with that label.

        :raises ConfigError: There is none, or it has no minion.
        """
        ways = self.everywhere.ways
        if label not in ways:
            known = ", ".join(f"'{one}'" for one, way in ways.items() if way[0]) or "none"
            raise ConfigError(
                f"There is no host '{label}'; with a minion there are: {known}.",
                "A host is the 'host:' of a provider. See them: salt-run kvmclone.profiles",
            )
        if not ways[label][0]:
            raise ConfigError(
                f"'{label}' is reached by its url alone; a base is copied by the minions of two "
                "hosts.",
                "Set 'host:' in its provider to the minion on that KVM host.",
            )
        return self.everywhere.connect(*ways[label])

    def source(self, base: str, targets: Sequence[str]) -> str:
        """
        Return the label of the host to copy from.

        :raises ConfigError: Several have the base, and it is not known that they are the same.
        :raises KvmCloneError: None has it, see :func:`.base_hosts.host_of`.
        """
        ways, words = self.everywhere.ways, " ".join(targets)

        def state(host: KvmHost) -> BaseState | None:
            one = base_hosts.state_of(host, base)
            return None if one is not None and one.copying else one

        return base_hosts.host_of(
            self.everywhere,
            base,
            state,
            lambda label: f"salt-run kvmclone.push {base} {words} source={label}",
            besides={*targets, *(label for label, way in ways.items() if not way[0])},
            alike=True,
        )

    def _pushed(
        self, source: str, target: str, hosts: Hosts, original: BaseState, instead: bool
    ) -> dict[str, Any]:
        """Return what a host has after a base was copied there, with the error if that failed."""
        try:
            there = self._copied(source, target, hosts, original, instead)
        except KvmCloneError as error:
            state = COPYING if isinstance(error, CreateInProgress) else MISSING
            told = {"state": state, "digest": "", "bytes": 0}
            if instead:  # it may be there yet
                with contextlib.suppress(KvmCloneError):
                    now = base_hosts.state_of(hosts[target], original.name)
                    told = cell(now, original.digest)
            return {**told, "error": error.as_dict()}
        answer = cell(there, original.digest)
        if there.digest != original.digest:
            answer["error"] = _differs(target, original.name).as_dict()
        return answer

    def bring(self, base: str, source: str, target: str, hosts: Hosts) -> None:
        """
        Copy a base to one host.

        :param source: Label of the host that has it, ``target`` that of the other.
        :raises KvmCloneError: It is not there afterwards.
        """
        with _told_of(source):
            original = hosts[source].hash_base(base)
        if self._copied(source, target, hosts, original).digest != original.digest:
            raise _differs(target, base)

    def _copied(
        self, source: str, target: str, hosts: Hosts, original: BaseState, instead: bool = False
    ) -> BaseState:
        """
        Copy a base to one host, unless that has one of the name.

        :param instead: Put it in the place of another one there, which goes once the copy begins.
        :return: What it has afterwards.
        """
        there = hosts[target].expect_base(original.name)
        instead = instead and there.digest not in ("", original.digest)
        if there.digest and not instead:
            return there
        with _progress(hosts[target], source, target, original):
            return self._copy(source, target, hosts, original.name, instead)

    def _copy(self, source: str, target: str, hosts: Hosts, name: str, instead: bool) -> BaseState:
        copy, origin, there = secrets.token_hex(8), hosts[source], hosts[target]
        with contextlib.ExitStack() as undo:
            with _told_of(source):
                undo.callback(_end, origin, copy)
                offer = origin.offer_base(name, copy)
                if (offer.base, offer.copy) != (name, copy):
                    raise CopyFailed(
                        f"It offered another base than '{name}'.", "Look at that host's minion."
                    )
            undo.push(functools.partial(_end_unless_done, there, copy))
            near = there.reached(list(offer.addresses), offer.port)
            key = there.prepare_copy(offer, instead)
            if near:
                offer = replace(offer, addresses=tuple(near))
            else:
                way = self.relays.lead(offer, key, source, target, there)
                offer, key = undo.enter_context(way)
            with _told_of(source):
                origin.admit_copy(name, copy, key)
            return there.fetch_base(offer, instead)


@contextlib.contextmanager
def _told_of(source: str) -> Iterator[None]:
    """Say with an error that it is about the source, where a target is talked of."""
    try:
        yield
    except KvmCloneError as error:
        error.message = f"At the source, '{source}': {error.message}"
        raise


def _has_other(label: str, host: KvmHost, original: BaseState) -> bool:
    """
    Return whether a host has another base of the name.

    :raises KvmCloneError: That cannot be told, as where it runs: nothing is replaced anywhere.
    """
    try:
        return host.expect_base(original.name).digest not in ("", original.digest)
    except KvmCloneError as error:
        error.message = f"Nothing was replaced. {label}: {error.message}"
        raise


def _differs(target: str, name: str) -> BaseDiffers:
    return BaseDiffers(
        f"'{target}' has another base of the name '{name}' already; it stays as it is.",
        f"See both: salt-run kvmclone.bases {name}   If no clone is based on that one, push again "
        "with replace=True.",
    )


def _end_unless_done(host: KvmHost, copy: str, kind: object, *_more: object) -> None:
    """End a copy at the target after an error; otherwise it has removed its own part."""
    if kind is not None:
        _end(host, copy)


def _end(host: KvmHost, copy: str) -> None:
    try:
        with interrupts.shield():
            host.end_copy(copy)
    except KvmCloneError as error:
        # The key is let in for a limited time, and gc finds all the rest.
        log.warning("what copy %s made is not removed yet (salt-run kvmclone.gc): %s", copy, error)


@contextlib.contextmanager
def _progress(host: KvmHost, source: str, target: str, base: BaseState) -> Iterator[None]:
    """
    Say how far a copy is, as long as the block lasts, where a person reads at a terminal.

    :param host: The target.
    """
    if not progress.is_read():
        yield
        return

    def tell(done: int) -> None:
        copied = f"{units.size(done)} of {units.size(base.bytes)} from {source}"
        progress.working(target, "copying", copied)

    def look() -> None:
        # Whatever is wrong, the copy itself says so; an interrupt ends that.
        with contextlib.suppress(KvmCloneError, interrupts.Interrupt):
            seen = host.base_states([base.name])
            tell(sum(one.bytes for one in seen if one.name == base.name))

    tell(0)
    with at_once.meanwhile(look, PROGRESS_POLL_S, patience=1.0):
        yield
