"""
Manage the clones of all hosts from the master: find, make, destroy, list them.

The runner and the salt-cloud driver are thin layers over this module. It reads the configuration
once, speaks to hosts through :class:`.interfaces.KvmHost`, and answers with
:class:`.outcome.Outcome`.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saltext.kvmclone import interrupts
from saltext.kvmclone.config import map_files, meant
from saltext.kvmclone.config.catalogue import Catalogue
from saltext.kvmclone.display import screen
from saltext.kvmclone.errors import (
    AlreadyExists,
    ConfigError,
    HostUnreachable,
    KvmCloneError,
    NotFound,
)
from saltext.kvmclone.hosts import gc, provision
from saltext.kvmclone.hosts.interfaces import KvmHost, commands_of
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.outcome import Outcome, Watcher
from saltext.kvmclone.master import at_once, left_keys, leftovers, no_such_clone, progress, targets
from saltext.kvmclone.master.all_hosts import AllHosts
from saltext.kvmclone.master.base_push import BaseCopier
from saltext.kvmclone.master.base_relay import Relays
from saltext.kvmclone.master.bundled_calls import BundledCalls
from saltext.kvmclone.master.clone_list import Selection
from saltext.kvmclone.master.enrolment import Enroller, OnReady
from saltext.kvmclone.master.keys import MinionKeys
from saltext.kvmclone.master.placing import Placing, homes
from saltext.kvmclone.master.remote import RemoteHost
from saltext.kvmclone.master.reservations import Reservations
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.leftovers import Unfinished
from saltext.kvmclone.model.names import check
from saltext.kvmclone.model.request import Request, Secrets
from saltext.kvmclone.model.spares import Claim


class Fleet:
    """
    The hosts, keys and configuration of a master, for one call of the runner.

    :param opts: The master's configuration.
    :param on_ready: See :class:`.enrolment.Enroller`.
    """

    def __init__(self, opts: Mapping[str, Any], on_ready: OnReady) -> None:
        self.opts = opts
        self.keys = MinionKeys(opts)
        self.enroller = Enroller(opts, self.keys, on_ready)
        self.started = time.monotonic()
        self.calls = BundledCalls(opts)

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        """
        Return providers and profiles, read when they are first needed.

        A warning is given of those that have problems; whoever uses these gets an error.
        """
        return progress.catalogue(self.opts)

    # --- hosts ------------------------------------------------------------------------

    def host(self, minion_id: str, url: str) -> KvmHost:
        """
        Return the KVM host that a provider means: its minion, or ``url`` driven from here.

        :param minion_id: Empty for ``url`` from here.
        """
        return RemoteHost(self.opts, minion_id, url, self.calls) if minion_id else LocalHost(url)

    @functools.cached_property
    def everywhere(self) -> AllHosts:
        """Return all hosts of the configuration as one object."""
        means = functools.partial(targets.minions, self.opts)
        return AllHosts(self.catalogue, self.host, means, functools.partial(homes, self.opts))

    @functools.cached_property
    def copier(self) -> BaseCopier:
        """Return what copies bases from host to host."""
        return BaseCopier(self.everywhere, Relays(self.opts))

    @functools.cached_property
    def placing(self) -> Placing:
        """Return the choice of hosts, for all clones of this call."""
        return Placing(self.opts, self.host, self.copier)

    def hosts(self) -> list[tuple[str, KvmHost]]:
        """Return every host of the configuration once, with its label."""
        return self.everywhere.hosts()

    # --- making -----------------------------------------------------------------------

    def resolve(
        self, profile: str, name: Any, overrides: Mapping[str, Any]
    ) -> tuple[Request, Secrets, KvmHost]:
        """
        Return the request of one clone, its secrets, and the host that will make it.

        :raises KvmCloneError: What :meth:`.catalogue.Catalogue.resolve` raises, InvalidName among
            others.
        """
        request, secrets = self.catalogue.resolve(profile, name, overrides)
        return request, secrets, self.host(request.host, request.url)

    def plan(self, profile: str, name: Any, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return PLAN of one clone; where it cannot even be planned, the name with the error."""
        try:
            meant.require_at_master(self.catalogue, "plan", profile, [name], overrides)
            request, _secrets, host = self.resolve(profile, name, overrides)
            why: dict[str, Any] = {}
            seen = None
            if request.placement.is_wanted:
                seen = self.placing.foresee(request)
                request, host, why = seen.request, seen.planner, seen.why
            found = seen.plan() if seen else host.plan(request)
            told = self.enroller.foresee(request, lambda: host.base_minion(request))
            said = (*self.catalogue.remarks(profile, overrides), *self._elsewhere())
            return {**told.added_to(found, said), **why}
        except KvmCloneError as error:
            return Outcome(str(name), "", None, error).as_dict()

    def create(
        self, profile: str, wanted: Sequence[Any], overrides: Mapping[str, Any]
    ) -> list[Outcome]:
        """
        Make clones, several at once; each succeeds or fails by itself.

        :param wanted: Their names.
        :raises ConfigError: No name, or one of them twice; nothing was made.
        """
        if not wanted:
            raise ConfigError("Which name?", Commands().clone("create", str(profile), "NAME"))
        twice = sorted({str(name) for name in wanted if list(wanted).count(name) > 1})
        if twice:
            raise ConfigError(f"Named twice: {', '.join(twice)}.", "Name each clone once.")

        try:
            meant.require_at_master(self.catalogue, "create", profile, wanted, overrides)
        except ConfigError as error:
            return [Outcome(str(name), "", None, error) for name in wanted]
        if len(wanted) == 1:
            return [self._create(profile, wanted[0], overrides)]
        try:
            most = self.placing.settings.at_once
        except ConfigError as error:
            return [Outcome(str(name), "", None, error) for name in wanted]
        self.placing.offers.names.update(map(str, wanted))
        with progress.several([str(name) for name in wanted]):
            return self.calls.each(
                lambda name: self._create(profile, name, overrides), wanted, most
            )

    def map(self, file: Any) -> list[Outcome]:
        """
        Make the machines of a map that are not there yet, several at once.

        If any of them cannot be resolved, the errors are the outcomes, and nothing is made.

        :raises ConfigError: The map is wrong; nothing was made.
        """
        wanted = map_files.read(self.opts, file)
        placing = self.placing
        placing.offers.names.update(str(name) for _profile, name, _keys in wanted)
        refused = []
        for profile, name, keys in wanted:
            try:
                self.resolve(profile, name, keys)
            except KvmCloneError as error:
                refused.append(Outcome(str(name), "", None, error))
        if refused:
            return refused

        def one(entry: tuple[str, Any, dict[str, Any]]) -> Outcome:
            outcome = self._create(*entry)
            error = outcome.error
            if isinstance(error, AlreadyExists) and error.clone:
                there = Clone.from_dict(error.clone)
                if there.profile == entry[0] and not there.in_stock:
                    screen.note(there.name, there, there.state)
                    return Outcome(there.name, there.stage, there)
            return outcome

        with progress.several([str(name) for _profile, name, _keys in wanted]):
            return self.calls.each(one, wanted, placing.settings.at_once)

    def create_spare(
        self, profile: str, name: str, keys: Mapping[str, Any], digest: str, claim: Claim
    ) -> Outcome:
        """
        Make a clone as a spare of its profile.

        :param keys: Profile keys that win over the profile's.
        :param digest: See :meth:`.Secrets.profile_digest_of`.
        :param claim: Who has it from the beginning; nobody for one that goes into the stock.
        """
        return self._create(profile, name, keys, spare=digest, claim=claim)

    def _create(
        self, profile: str, name: Any, overrides: Mapping[str, Any], **ours: Any
    ) -> Outcome:
        """
        Make one clone.

        :param ours: Fields of its request that no key of a profile sets.
        """
        progress.begun(str(name))
        try:
            at_once.require_no_interrupt(name)
            request, secrets, _host = self.resolve(profile, name, overrides)
            request = dataclasses.replace(request, **ours)
            placing = self.placing
        except KvmCloneError as error:
            progress.ended(str(name), error.type)
            return Outcome(str(name), "", None, error)
        watcher = self._watcher(request)
        with interrupts.defer():  # what came of it is told, also where the signal comes late
            return self._told(*placing.create(request, secrets, self.enroller, watcher))

    def _told(self, request: Request, outcome: Outcome) -> Outcome:
        """Fire an event of a failure; add warnings of problems elsewhere to a success."""
        progress.ended(request.name, outcome.error.type if outcome.error else "")
        if outcome.error is not None:
            elapsed = time.monotonic() - self.started
            where = request.host or ("" if request.placement.is_wanted else request.url)
            reached = {"stage": outcome.stage, "error": outcome.error.type}
            self._fire(request.name, "failed", request.profile, where, elapsed, **reached)
        elif outcome.clone is not None:
            return self._outcome(outcome.clone)
        return outcome

    # --- living -----------------------------------------------------------------------

    def find(self, name: Any) -> tuple[KvmHost, Clone]:
        """
        Return the host that holds a clone, and the clone; see :meth:`.all_hosts.AllHosts.find`.

        :raises Renamed: It has another name now.
        """
        check(name)
        at_once.require_no_interrupt(name)
        try:
            return self.everywhere.find(name)
        except NotFound as error:
            no_such_clone.explain(self.everywhere, self.keys.ids_of(name), name, error)
            raise

    def destroy(self, name: Any, force: bool = False) -> Outcome:
        """
        Destroy one clone, then remove its key: exactly the one on its record.

        A clone that is gone already may have left its key, which is then removed too.

        :param force: Also remove the key where a host that may have the clone is down.
        """
        try:
            with interrupts.work(str(name), "the destroy", deferred=False):
                host, clone = self.find(name)
                destroyed = gc.destroy(host, name)
                self.keys.take_back(clone.minion.id or name, clone.minion.fingerprint)
        except interrupts.Interrupt:
            return Outcome(str(name), "", None, at_once.half_destroyed(name))
        except (NotFound, HostUnreachable) as error:
            gone = left_keys.remove(self.keys, str(name), error, force)
            if gone is None:
                return Outcome(str(name), "", None, error)
            self._fire(gone.name, "destroyed", "", "", 0.0)
            return Outcome(gone.name, gone.stage, gone)
        except KvmCloneError as error:
            return Outcome(str(name), "", None, error)
        with interrupts.defer():
            self._fire(name, "destroyed", clone.profile, clone.host, 0.0)
            return self._outcome(destroyed)

    def resume(self, name: Any) -> Outcome:
        """Resume a create that failed and was kept, or whose worker died."""
        try:
            host, clone = self.find(name)
            request, _secrets = self._as_before(host, clone, {})

            def resolve(item: Unfinished) -> tuple[Request, Secrets]:
                return self._as_before(host, clone, item.overrides)

            watcher = self._watcher(request)
            with interrupts.defer():
                outcome = provision.resume(host, name, resolve, self.enroller, watcher)
                return self._told(request, outcome)
        except interrupts.Interrupt:
            return Outcome(str(name), "", None, at_once.half_done(name))
        except KvmCloneError as error:
            return Outcome(str(name), "", None, error)

    def _as_before(
        self, host: KvmHost, clone: Clone, overrides: Mapping[str, Any]
    ) -> tuple[Request, Secrets]:
        """
        Return what a clone was asked to be, as its profile says it now.

        :param host: The host that has it.
        :raises ConfigError: It was made without a profile, so the master does not know.
        """
        if not clone.profile:
            provision.refuse_base(host, clone.name)
            raise ConfigError(
                f"'{clone.name}' was made without a profile, so the master does not know its keys.",
                f"On its host: {commands_of(host).resume(clone.name, '')}",
            )
        request, secrets = self.catalogue.resolve(clone.profile, clone.name, overrides)
        if request.placement.is_wanted:
            request = self.placing.placed_on(request, clone.host)
        return request, secrets

    def power(self, name: Any, action: str) -> Outcome:
        """Start, stop or reboot one clone, as ``action`` says."""
        return self._on_clone(name, lambda host, _clone: host.power(name, action))

    def show(self, name: Any) -> Outcome:
        """Return one clone as it is now."""
        return self._on_clone(name, lambda _host, clone: clone)

    def _on_clone(self, name: Any, work: Callable[[KvmHost, Clone], Clone]) -> Outcome:
        try:
            host, found = self.find(name)
            clone = work(host, found)
            screen.note(clone.name, clone, found.state)
        except interrupts.Interrupt:
            return Outcome(str(name), "", None, at_once.half_done(name))
        except KvmCloneError as error:
            return Outcome(str(name), "", None, error)
        return self._outcome(clone)

    def _outcome(self, clone: Clone) -> Outcome:
        """Return the outcome of a success, with warnings of problems in other sections."""
        warned = dataclasses.replace(clone, warnings=(*clone.warnings, *self._elsewhere()))
        return Outcome(clone.name, clone.stage, warned)

    def _elsewhere(self) -> tuple[str, ...]:
        return self.catalogue.problems.elsewhere()

    def listing(self, wanted: Selection = Selection()) -> dict[str, Any]:
        """Return the clones of every host; a host that fails is named, the others still list."""
        return self.everywhere.listing(wanted)

    # --- care -------------------------------------------------------------------------

    def gc(self, name: str, apply: bool, force: bool) -> dict[str, Any]:
        """
        List, or remove, what dead workers left, with the keys of minions never finished.

        While a host cannot be asked, or the configuration cannot be read, nothing is removed.
        """

        relays, reserved = self.copier.relays, Reservations(self.opts)
        return leftovers.collect(self.everywhere, self.keys, relays, reserved, name, apply, force)

    def tree(self) -> dict[str, Any]:
        """Return bases and their clones over all hosts."""
        return self.everywhere.tree()

    # --- telling ----------------------------------------------------------------------

    def _watcher(self, request: Request) -> Watcher:
        def watch(stage: str, elapsed: float, clone: Clone) -> None:
            self._fire(request.name, stage, request.profile, clone.host, elapsed)
            progress.progress(request.name, stage, elapsed, clone)

        return watch

    def _fire(
        self, name: str, word: str, profile: str, host: str, elapsed: float, **more: Any
    ) -> None:
        """
        Fire an event about one clone on the master's bus.

        :param elapsed: Seconds that it took.
        """
        data = {"name": name, "host": host, "profile": profile, "stage": word, "elapsed": elapsed}
        progress.fire(self.opts, f"{name}/{word}", {**data, **more})
