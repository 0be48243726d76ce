"""
Hand out spares, and destroy those that are given back.

A claim is written on the spare's record before anything else: of several claims one succeeds. Only
then the minion is asked for ``test.version``, and only after that the caller is told. So a claim
waits for three jobs: which spares there are, the record, the minion. A fourth takes the grain off
that keeps commands away from spares; nobody waits for it, since a minion that reads its grains
again is busy for a while.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import salt.utils.user

from saltext.kvmclone import interrupts
from saltext.kvmclone.config import meant, value_types
from saltext.kvmclone.config.value_types import DURATION
from saltext.kvmclone.display import text
from saltext.kvmclone.errors import (
    ConfigError,
    HostUnreachable,
    Interrupted,
    KvmCloneError,
    NoSpare,
    VerificationFailed,
)
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.master import at_once, many, progress, spares_make, spares_notes, verify
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.master.spares_stock import IN_STOCK, kind_of
from saltext.kvmclone.model import fingerprints
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import INSTANT
from saltext.kvmclone.model.spares import GRAIN, Claim

log = logging.getLogger(__name__)

#: Most machines of one claim.
MOST_CLAIMED = 100

#: Seconds that a spare has for its answer, before it is destroyed and the next one is taken.
ANSWER_TIMEOUT_S = 45.0

#: Has the stock of a profile refilled, given the master's configuration and the profile.
Wake = Callable[[Mapping[str, Any], str], None]


@dataclass(frozen=True)
class ClaimRequest:
    """
    What somebody claims.

    :param by: Who claims it: a user, or the id of a minion.
    :param count: How many machines.
    :param ttl: Seconds until they are destroyed; None for what the profile says.
    :param tags: Words recorded with each.
    :param wait: What is not in stock is made.
    """

    profile: str
    by: str
    count: int = 1
    ttl: float | None = None
    tags: tuple[str, ...] = ()
    wait: bool = True


@dataclass(frozen=True)
class Claimed:
    """
    What became of a claim.

    :param outcomes: Each machine that was claimed, or failed to be made.
    :param error: Why there are fewer than were wanted; None where there are not.
    """

    outcomes: Sequence[Outcome] = ()
    error: KvmCloneError | None = None

    def completed(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return an answer with the clones, with the reason why there are fewer."""
        if self.error is None:
            return answer
        return {**answer, "error": self.error.as_dict(), "retcode": answer["retcode"] or 1}


def read(profile: Any, count: Any, ttl: Any, tag: Any, wait: bool) -> ClaimRequest:
    """
    Return what the user of this process typed after ``claim``, checked.

    :param ttl: None for what the profile says, ``tag`` for none.
    :raises ConfigError: Something of it cannot be.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_CLAIMED:
        raise ConfigError(
            f"count: {count!r} is not a number from 1 to {MOST_CLAIMED}.",
            f"For example: {Commands().clone('claim', str(profile), 'count=2')}",
        )
    return ClaimRequest(
        str(profile),
        salt.utils.user.get_specific_user().removeprefix("sudo_"),
        count,
        _parsed("ttl", DURATION, ttl),
        _parsed("tag", value_types.TEXTS, tag) or (),
        wait,
    )


def _parsed(key: str, kind: value_types.ValueType[Any], value: Any) -> Any:
    if value is None:
        return None
    if fault := kind.fault(value):
        raise ConfigError(f"{key}: {fault}.", f"For example: {key}={kind.example_for(value)}")
    return kind.parse(value)


def claim(fleet: Fleet, wanted: ClaimRequest, wake: Wake) -> Claimed:
    """
    Take spares out of the stock of a profile, and make what is missing.

    :param wake: Has the stock refilled.
    :raises ConfigError: There is no such profile, or it and the claim have no ``ttl``.
    :raises NoSpare: There are too few, and none is to be made; nothing was claimed.
    """
    taking = _Taking(fleet, wanted)
    if not wanted.wait and len(taking.candidates) < wanted.count:
        raise taking.too_few(len(taking.candidates))
    try:
        found = many.each(fleet, taking.one, range(wanted.count))
    finally:
        wake(fleet.opts, wanted.profile)
    outcomes = [one for one in found if one is not None]
    return Claimed(outcomes, taking.ran_short(outcomes) if len(outcomes) < wanted.count else None)


@dataclass
class _Candidates:
    """The spares that nobody has claimed, as far as is known, in an order of our own."""

    left: list[tuple[str, Clone]]
    silent: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self.left)

    def take(self) -> tuple[str, Clone] | None:
        """Return one with its host's label, and forget it; None where none is left."""
        with self.lock:
            while self.left:
                label, clone = self.left.pop()
                if label not in self.silent:
                    return label, clone
            return None


class _Taking:
    """
    The work on one claim, of one machine or several.

    :raises ConfigError: See :func:`claim`.
    """

    def __init__(self, fleet: Fleet, wanted: ClaimRequest) -> None:
        self.fleet = fleet
        self.wanted = wanted
        profile = wanted.profile
        meant.require_at_master(fleet.catalogue, "claim", profile, [], {})
        self.request, secrets = spares_make.of_profile(fleet, profile)
        spares_make.require_minion(self.request)
        ttl = wanted.ttl if wanted.ttl is not None else self.request.ttl
        if ttl is None:
            raise ConfigError(
                f"How long is the machine wanted? Neither the claim nor the profile '{profile}' "
                "has a 'ttl'; at its end the machine is destroyed.",
                Commands().clone("claim", profile, "ttl=8h"),
            )
        self.ttl = ttl
        self.digest = secrets.profile_digest_of(self.request)
        self.hosts = dict(fleet.everywhere.hosts())
        self.failed: set[str] = set()
        labels = set(fleet.everywhere.labels_of(profile)) or set(self.hosts)
        # Each question to a host that is silent takes half a minute.
        silent = labels & set(spares_notes.read(fleet.opts).silent)
        self.candidates = _Candidates(self._there(labels - silent))
        if silent and len(self.candidates) < wanted.count:  # it may have come back
            self.candidates.left[:0] = self._there(silent)

    def _there(self, labels: set[str]) -> list[tuple[str, Clone]]:
        """Return the spares in stock on some hosts, with the label of each one's host."""
        everywhere = self.fleet.everywhere
        others = self.hosts.keys() - labels
        told, failed = everywhere.look(lambda host: host.list_clones(spares=True), silent=others)
        self.failed |= set(failed)
        found = [
            (label, clone)
            for label, clone in everywhere.each_once(told)
            if clone.profile == self.wanted.profile and kind_of(clone, self.digest) == IN_STOCK
        ]
        random.shuffle(found)  # so that claims at the same time seldom want the same one
        return found

    def one(self, _number: int) -> Outcome | None:
        """Return one machine, or how its making failed; None where there is none."""
        while found := self.candidates.take():
            label, clone = found
            try:
                if (claimed := self._take(label, clone)) is not None:
                    return Outcome(claimed.name, claimed.stage, claimed)
            except interrupts.Interrupt:
                return Outcome(clone.name, "", None, _half_claimed(clone.name))
            except verify.NeverAsked as error:
                error.hint += f"   Then give it back: {Commands().clone('release', clone.name)}"
                return Outcome(clone.name, "", None, error)
        return self._made() if self.wanted.wait else None

    def too_few(self, count: int) -> NoSpare:
        """
        Return the error where nothing is made for a claim.

        :param count: How many there were.
        """
        profile = self.wanted.profile
        there = text.counted(count, "spare") if count else "no spare"
        words = f"'{profile}' has {there} in stock; wanted: {self.wanted.count}."
        if self.failed:
            words += f" No answer from {', '.join(sorted(self.failed))}."
        return NoSpare(words, f"See the stock: {Commands().clone('spares', profile)}")

    def ran_short(self, outcomes: Sequence[Outcome]) -> NoSpare:
        """
        Return the error where others were faster, or spares did not answer, during the claim.

        What was claimed by then stays claimed: none of it may go back into the stock, and if all
        of it were destroyed, a few claims at the same time could leave nobody with a machine.
        """
        names = [one.name for one in outcomes if one.error is None]
        if not names:
            return self.too_few(0)
        error = self.too_few(len(names))
        return NoSpare(
            f"{text.counted(len(names), 'machine')} of the {self.wanted.count} that were wanted "
            f"of '{self.wanted.profile}' could be claimed, and the stock has no more: "
            f"{', '.join(names)}.",
            f"Use what was claimed, or give it back: {Commands().clone('release', *names)}   "
            f"{error.hint}",
        )

    def _take(self, label: str, clone: Clone) -> Clone | None:
        """
        Claim one spare and verify its minion; None where it is somebody else's, or silent.

        :raises verify.NeverAsked: This master asks nobody, so that every spare would seem silent.
        """
        host, began = self.hosts[label], time.time()
        who = Claim(self.wanted.by, began)
        try:
            claimed: Clone = host.claim(
                clone.name, clone.uuid, who, began + self.ttl, self.wanted.tags
            )
        except KvmCloneError as error:
            if not isinstance(error, NoSpare):
                log.warning("'%s' is not claimed: %s", clone.name, error)
            if isinstance(error, HostUnreachable):
                self.candidates.silent.add(label)
            return None
        try:
            version = self._verified(claimed)
        except verify.NeverAsked:
            raise
        except KvmCloneError as error:
            log.warning("The spare '%s' is destroyed: %s", clone.name, error)
            if failure := self.fleet.destroy(clone.name).error:
                log.warning("'%s' stays until its time is over: %s", clone.name, failure)
            return None
        # Its pillar is refreshed as well: by that the master hears of the grains.
        verify.start(self.fleet.opts, claimed.minion.id, "grains.setval", GRAIN, None, True)
        self._fire(claimed, time.time() - began)
        return replace(claimed, minion=replace(claimed.minion, version=version))

    def _verified(self, clone: Clone) -> str:
        """
        Return the version that the minion of a claimed spare answers with.

        :raises MinionTimeout: It does not answer.
        :raises VerificationFailed: It is another machine, or the key is not that on the record.
        """
        minion = clone.minion
        if not fingerprints.is_of(minion.fingerprint, self.fleet.keys.accepted(minion.id)):
            raise VerificationFailed(
                f"The key that this master accepts for '{minion.id}' is not that on its record.",
                "It is destroyed, and the next one is taken.",
            )
        # Until its first reboot a fork may show another uuid, and its own proves nothing.
        word = "" if clone.strategy == INSTANT else None
        # Its guest is not asked why it is silent: it is destroyed.
        return verify.verify(
            self.fleet.opts, minion.id, clone.uuid, GuestMinion, ANSWER_TIMEOUT_S, word
        ).version

    def _made(self) -> Outcome:
        """Make a machine for this claim, since none is in stock."""
        try:
            at_once.require_no_interrupt(self.wanted.profile)
            name = spares_make.new_name(self.request)
        except KvmCloneError as error:
            return Outcome(self.wanted.profile, "", None, error)
        keys: dict[str, Any] = {"ttl": self.ttl}
        if self.wanted.tags:
            keys["tags"] = list(dict.fromkeys((*(self.request.tags or ()), *self.wanted.tags)))
        who = Claim(self.wanted.by, time.time())
        outcome = spares_make.make(self.fleet, self.wanted.profile, name, who, keys)
        if outcome.clone is None or outcome.error is not None:
            return outcome
        self._fire(outcome.clone, time.time() - who.at)
        said = f"No spare of '{self.wanted.profile}' was in stock, so this machine was made."
        return replace(
            outcome,
            clone=replace(outcome.clone, warnings=(*outcome.clone.warnings, said)),
        )

    def _fire(self, clone: Clone, elapsed: float) -> None:
        data = {"name": clone.name, "host": clone.host, "profile": clone.profile}
        more = {"stage": "claimed", "elapsed": elapsed, "by": clone.claim.by}
        progress.fire(self.fleet.opts, f"{clone.name}/claimed", {**data, **more})


def _half_claimed(name: str) -> Interrupted:
    return Interrupted(
        f"The claim of '{name}' was interrupted: it may be claimed, and is destroyed at the end "
        "of its ttl.",
        f"Give it back now: {Commands().clone('release', name)}",
    )


def release(fleet: Fleet, names: Sequence[Any], yes: bool) -> tuple[many.Chosen, list[Outcome]]:
    """
    Destroy machines that were claimed.

    :param yes: The question before many machines is answered already.
    :raises ConfigError: What :func:`.many.carry_out` raises; nothing was done.
    """
    return many.carry_out(fleet, "release", names, {}, yes, _release)


def _release(fleet: Fleet, name: Any) -> Outcome:
    try:
        _host, clone = fleet.find(name)
        if not clone.claim.at:
            what = "is in stock, and nobody has claimed it" if clone.spare else "was no spare"
            raise ConfigError(
                f"'{name}' {what}; only a machine that was claimed is released.",
                f"To destroy it all the same: {Commands().clone('destroy', str(name))}",
            )
    except KvmCloneError as error:
        return Outcome(str(name), "", None, error)
    return fleet.destroy(name)
