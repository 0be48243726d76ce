"""
Keep the stock of spares: look at all hosts, make what is missing, destroy what is of no use.

It is driven by the one worker of the reactor (:mod:`.worker`), step by step. All that it goes by is
on the hosts, so a worker that was killed leaves nothing that the next one would do twice.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

from saltext.kvmclone.errors import ConfigError, KvmCloneError, NoSpare, NotFound, named
from saltext.kvmclone.hosts.gc import owner_state_of
from saltext.kvmclone.hosts.outcome import Outcome
from saltext.kvmclone.master import spares_make, spares_notes, verify
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.master.spares_notes import Notes
from saltext.kvmclone.master.spares_stock import (
    IN_STOCK,
    READY,
    Doing,
    Removal,
    Steps,
    kind_of,
    silent_spares,
    steps,
)
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.record import DEAD
from saltext.kvmclone.model.spares import Claim

log = logging.getLogger(__name__)

#: Least seconds between two looks at all hosts.
LOOK_INTERVAL_S = 5.0

#: Least seconds between two looks that nothing in particular has asked for.
USUAL_INTERVAL_S = 60.0

#: Seconds after which the spares in stock are asked for ``test.version`` again.
ASK_INTERVAL_S = 600.0

#: Seconds that they have for an answer at first, and once more for those that gave none.
ANSWER_TIMEOUT_S, SECOND_TIMEOUT_S = 15.0, 45.0

#: Who claims a spare that is to be destroyed, so that nobody else gets it meanwhile.
REMOVER = "kvm_clone"


@dataclasses.dataclass(frozen=True)
class Look:
    """
    What came of one look at all hosts.

    :param asked: The spares were asked for ``test.version``.
    :param holds: There are spares, claimed ones among them.
    :param silent: Labels of the hosts that did not answer.
    """

    steps: Steps
    holds: bool
    asked: bool
    silent: tuple[str, ...]


class Refill:
    """
    The refilling of the stock by one worker.

    :param opts: The master's configuration.
    :param fleet: Returns a fleet with the configuration as it is now.
    """

    def __init__(self, opts: Mapping[str, Any], fleet: Callable[[], Fleet]) -> None:
        self.opts = opts
        self.fleet = fleet
        self.notes: Notes = spares_notes.read(opts)
        #: Whether all hosts are to be looked at.
        self.is_look_wanted = False
        self._looked_at = float("-inf")
        self._looking: Future[Look] | None = None
        #: The creates that run, with the name of the spare and its profile.
        self._making: dict[Future[Outcome], tuple[str, str]] = {}
        #: The removals that run, with the name of the spare.
        self._removing: dict[Future[None], str] = {}
        #: What is to be made as soon as there is room, how many by profile, and by whom: what one
        #: look has found is one batch, for the choice of hosts and the limits on each.
        self._missing: dict[str, int] = {}
        self._maker = fleet()
        #: Spares that were not destroyed; the next worker tries again.
        self._left: set[str] = set()
        #: How many spares were made and destroyed.
        self.done = 0

    def want_look(self, soon: bool) -> None:
        """
        Have all hosts looked at, if any profile wants spares or there are some.

        :param soon: Also if they were looked at a moment ago.
        """
        if soon or time.time() - self.notes.looked >= USUAL_INTERVAL_S:
            self.is_look_wanted = self.is_look_wanted or self.notes.holds or self._is_wanted()

    def running(self) -> list[Future[Any]]:
        """Return the pieces of work that are under way."""
        return [*self._making, *self._removing, *([self._looking] if self._looking else [])]

    @property
    def making(self) -> int:
        """Return how many spares are being made here."""
        return len(self._making)

    def go_on(self, pool: Executor, room: int) -> bool:
        """
        Take note of what has ended, and begin what can be begun.

        :param room: How many more clones may be made at this moment.
        :return: Whether anything is left to do.
        """
        self._reap()
        if self._looking is not None and self._looking.done():
            looked, self._looking = self._looking, None
            if error := looked.exception():
                log.warning("kvm_clone spares: the stock was not looked at: %s", _told(error))
            else:
                self._take(pool, looked.result())
        is_due = time.monotonic() - self._looked_at >= LOOK_INTERVAL_S
        if self._looking is None and self.is_look_wanted and is_due:
            self.is_look_wanted, self._looked_at = False, time.monotonic()
            doing = Doing(
                making=dict(self._making.values()), leaving={*self._left, *self._removing.values()}
            )
            self._looking = pool.submit(self._look, doing)
        if self._looking is None:  # it would not know of a create that begins now
            self._make(pool, room)
        return bool(self.running() or self.is_look_wanted or self._missing)

    def wind_down(self) -> bool:
        """
        Take note of what has ended, and begin nothing more.

        :return: Whether anything still runs.
        """
        self._reap()
        return not all(one.done() for one in self.running())

    def _reap(self) -> None:
        for made in [one for one in self._making if one.done()]:
            name, profile = self._making.pop(made)
            if error := made.exception() or made.result().error:
                log.warning("kvm_clone spares: '%s' was not made: %s", name, _told(error))
                self._note(self.notes.failed(profile, _told(error), time.time()))
                self._missing.pop(profile, None)
            else:
                self._note(self.notes.made(profile))
                self.done += 1
            self.is_look_wanted = True
        for removed in [one for one in self._removing if one.done()]:
            name = self._removing.pop(removed)
            if error := removed.exception():
                log.warning("kvm_clone spares: '%s' was not destroyed: %s", name, _told(error))
                self._left.add(name)
            else:
                self.done += 1
            self.is_look_wanted = True

    def _note(self, notes: Notes) -> None:
        self.notes = notes
        try:
            spares_notes.write(self.opts, notes)
        except KvmCloneError as error:
            log.warning("kvm_clone spares: %s", error)

    def _is_wanted(self) -> bool:
        try:
            known = spares_make.numbers(self.fleet().catalogue).values()
            return any(number is not None for number in known)
        except KvmCloneError as error:
            log.warning("kvm_clone spares: %s", error)
            return False

    # --- looking ----------------------------------------------------------------------

    def _look(self, doing: Doing) -> Look:
        """
        Look at all hosts, and decide what is to be done.

        :param doing: What this worker is doing.
        """
        fleet = self.fleet()
        told, failed = fleet.everywhere.look(lambda host: host.list_clones(spares=True))
        for label, error in failed.items():
            log.warning("kvm_clone spares: '%s' does not answer: %s", label, error["message"])
        there = list(fleet.everywhere.each_once(told))
        clones = [clone for _label, clone in there]
        wishes, unread = spares_make.wishes(fleet, sorted({one.profile for one in clones}))
        idle = [one for one in clones if one.name not in {*doing.making, *doing.leaving}]
        doing = dataclasses.replace(
            doing, dead=_dead(fleet, idle), draining=_draining(fleet, there), unread=unread
        )
        asks = time.time() - self.notes.asked >= ASK_INTERVAL_S
        if asks:
            digests = {profile: wish.digest for profile, wish in wishes.items()}
            stocked = [c for c in clones if kind_of(c, digests.get(c.profile, "")) == IN_STOCK]
            doing = dataclasses.replace(doing, silent=self._silent(stocked))
        decided = steps(wishes, clones, time.time(), doing)
        return Look(decided, bool(clones), asks, tuple(sorted(failed)))

    def _silent(self, stocked: Collection[Clone]) -> set[str]:
        """Return the names of those spares whose minion does not answer, asked twice."""
        ids = [clone.minion.id for clone in stocked if clone.minion.id]
        silent = verify.silent(self.opts, ids, ANSWER_TIMEOUT_S)
        silent = verify.silent(self.opts, silent, SECOND_TIMEOUT_S)
        found, doubtful = silent_spares(stocked, silent)
        for where in doubtful:
            log.warning("none of the spares %s answers, so that none is destroyed for it", where)
        return found

    def _take(self, pool: Executor, look: Look) -> None:
        """Begin what a look has found to be done."""
        now = time.time()
        asked = now if look.asked else self.notes.asked
        notes = dataclasses.replace(
            self.notes, looked=now, asked=asked, holds=look.holds, silent=look.silent
        )
        self._note(notes)
        for removal in look.steps.remove:
            name = removal.clone.name
            log.info("kvm_clone spares: '%s' is destroyed: %s", name, removal.reason)
            self._removing[pool.submit(self._remove, removal)] = name
        self._maker, failures = self.fleet(), self.notes.failures
        self._missing = {
            profile: count
            for profile, count in look.steps.make.items()
            if profile not in failures or failures[profile].until <= now
        }

    # --- making and destroying --------------------------------------------------------

    def _make(self, pool: Executor, room: int) -> None:
        """Begin to make what is missing, as far as there is room."""
        for profile in sorted(self._missing):
            while room > 0 and self._missing.get(profile):
                room -= 1
                self._missing[profile] -= 1
                try:
                    name = spares_make.new_name(spares_make.of_profile(self._maker, profile)[0])
                except KvmCloneError as error:
                    self._note(self.notes.failed(profile, _told(error), time.time()))
                    self._missing.pop(profile)
                    break
                log.info("kvm_clone spares: '%s' is made for '%s'", name, profile)
                making = pool.submit(spares_make.make, self._maker, profile, name)
                self._making[making] = (name, profile)
        self._missing = {profile: count for profile, count in self._missing.items() if count}

    def _remove(self, removal: Removal) -> None:
        """
        Destroy one spare.

        :raises NoSpare: Somebody has claimed it in the meantime.
        :raises KvmCloneError: It could not be destroyed.
        """
        fleet, clone = self.fleet(), removal.clone
        try:
            host, there = fleet.find(clone.name)
        except NotFound:
            return
        if there.uuid != clone.uuid:
            raise NoSpare(f"'{clone.name}' is another machine by now.")
        if clone.in_stock and clone.stage == READY:
            now = time.time()
            host.claim(clone.name, clone.uuid, Claim(REMOVER, now), now)
        if error := fleet.destroy(clone.name).error:
            raise error


def _dead(fleet: Fleet, clones: Iterable[Clone]) -> set[str]:
    """Return the names of those spares that are unfinished and whose worker is gone."""
    unfinished = {one.name for one in clones if one.stage != READY}
    if not unfinished:
        return set()
    told, _failed = fleet.everywhere.look(lambda host: host.unfinished())
    return {
        item.name
        for items in told.values()
        for item in items
        if item.name in unfinished and owner_state_of(item.work) == DEAD
    }


def _draining(fleet: Fleet, there: Iterable[tuple[str, Clone]]) -> set[str]:
    """
    Return the names of the clones on hosts in maintenance; none while the limits cannot be read.

    :param there: The clones, each with its host's label.
    """
    try:
        settings, ways = fleet.placing.settings, fleet.everywhere.ways
    except ConfigError as error:
        log.warning("kvm_clone spares: %s", error)
        return set()
    return {
        clone.name
        for label, clone in there
        if (minion := ways[label][0]) and settings.limits(minion).maintenance
    }


def _told(error: BaseException) -> str:
    """Return an error as a log, or the overview of the stock, shows it."""
    return f"{error.type}: {error.message}" if isinstance(error, KvmCloneError) else named(error)
