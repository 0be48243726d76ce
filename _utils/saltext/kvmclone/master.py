"""
The master's side of everything: which hosts there are, where a clone is, many at once.

The runner and the salt-cloud driver are thin doors over this room. It reads the
configuration once, speaks to hosts through :class:`.kvm_host.KvmHost`, and answers
with :class:`.pipeline.Outcome`.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saltext.kvmclone import (
    at_once,
    cloud_files,
    collect,
    drawing,
    interrupts,
    maps,
    names,
    ownership,
    pipeline,
    telling,
)
from saltext.kvmclone import clone as clone_module
from saltext.kvmclone.clone import Clone
from saltext.kvmclone.config import Catalogue
from saltext.kvmclone.enrolment import Enroller
from saltext.kvmclone.errors import (
    AlreadyExists,
    ConfigError,
    ForeignDomain,
    HostUnreachable,
    KvmCloneError,
    NotFound,
    no_host,
)
from saltext.kvmclone.keys import MinionKeys
from saltext.kvmclone.kvm_host import KvmHost
from saltext.kvmclone.leftovers import Unfinished
from saltext.kvmclone.operations import LocalHost
from saltext.kvmclone.ownership import Minion
from saltext.kvmclone.pipeline import Outcome
from saltext.kvmclone.remote import RemoteHost
from saltext.kvmclone.request import DEFAULT_URL, Request, Secrets


class Master:
    """
    Everything that one runner call needs.

    :param opts: The master's configuration.
    """

    def __init__(self, opts: Mapping[str, Any]) -> None:
        self.opts = opts
        self.keys = MinionKeys(opts)
        self.enroller = Enroller(opts, self.keys)
        self.started = time.monotonic()

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        """
        Providers and profiles, read when they are first needed.

        :raises ConfigError: They have problems; all of them are named.
        """
        return cloud_files.read(self.opts)

    # --- hosts ------------------------------------------------------------------------

    def host(self, minion_id: str, url: str) -> KvmHost:
        """The KVM host that a provider means: its minion, or ``url`` driven from here."""
        return RemoteHost(self.opts, minion_id, url) if minion_id else LocalHost(url)

    def hosts(self) -> list[tuple[str, KvmHost]]:
        """
        Every host of the configuration once, with the name to call it by. Those behind a
        minion come first: a daemon that two providers name is then known by its minion.
        """
        found = {
            (str(keys.get("host") or ""), str(keys.get("url") or DEFAULT_URL))
            for keys in self.catalogue.providers.values()
        }
        ordered = sorted(found, key=lambda pair: (not pair[0], pair))
        return [(minion or url, self.host(minion, url)) for minion, url in ordered]

    # --- making -----------------------------------------------------------------------

    def resolve(
        self, profile: str, name: Any, overrides: Mapping[str, Any]
    ) -> tuple[Request, Secrets, KvmHost]:
        """
        The request of one clone and the host that will make it.

        :raises InvalidName: And the others of :meth:`.config.Catalogue.resolve`.
        """
        request, secrets = self.catalogue.resolve(profile, name, overrides)
        return request, secrets, self.host(request.host, request.url)

    def plan(self, profile: str, name: Any, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """PLAN of one clone; where it cannot even be planned, the name with the error."""
        try:
            request, _secrets, host = self.resolve(profile, name, overrides)
            return host.plan(request)
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
            raise ConfigError(
                "No name was given.", f"salt-run kvmclone.create {profile} NAME [NAME…]"
            )
        twice = sorted({str(name) for name in wanted if list(wanted).count(name) > 1})
        if twice:
            raise ConfigError(f"Named twice: {', '.join(twice)}.", "Name each clone once.")

        def one(name: Any) -> Outcome:
            return self._create(profile, name, overrides)

        if len(wanted) == 1:
            return [one(wanted[0])]
        return at_once.each(one, wanted)

    def map(self, file: Any) -> list[Outcome]:
        """
        Make the machines of a map that are not there yet, several at once.

        :raises ConfigError: The map is wrong, or one of its machines cannot be; nothing was made.
        """
        wanted = maps.read(self.opts, file)
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
                there = clone_module.from_dict(error.clone)
                if there.profile == entry[0]:
                    return Outcome(there.name, there.stage, there)
            return outcome

        return at_once.each(one, wanted)

    def _create(self, profile: str, name: Any, overrides: Mapping[str, Any]) -> Outcome:
        try:
            at_once.require_no_interrupt(name)
            request, secrets, host = self.resolve(profile, name, overrides)
        except KvmCloneError as error:
            return Outcome(str(name), "", None, error)
        return self._told(
            request,
            pipeline.create(host, request, secrets, self.enroller, self._watcher(request)),
        )

    def _told(self, request: Request, outcome: Outcome) -> Outcome:
        """The outcome, after a failure was told on the bus."""
        if outcome.error is not None:
            elapsed = time.monotonic() - self.started
            where = request.host or request.url
            reached = {"stage": outcome.stage, "error": outcome.error.type}
            self._fire(request.name, "failed", request.profile, where, elapsed, **reached)
        return outcome

    # --- living -----------------------------------------------------------------------

    def find(self, name: Any) -> tuple[KvmHost, Clone]:
        """
        The host that holds a clone, and the clone.

        :raises NotFound: No host has it.
        :raises ForeignDomain: A domain has that name and is not one of ours.
        :raises ConfigError: Several hosts have one of that name, or there is no host.
        :raises HostUnreachable: No host has it, but one did not answer.
        """
        names.check(name)
        at_once.require_no_interrupt(name)
        found: dict[str, tuple[str, KvmHost, Clone]] = {}
        down: list[str] = []
        foreign: ForeignDomain | None = None
        if not (hosts := self.hosts()):
            raise no_host()
        for label, host in hosts:
            try:
                clone = host.show(name)
                found.setdefault(clone.uuid, (label, host, clone))
            except NotFound:
                continue
            except ForeignDomain as error:
                foreign = error
            except HostUnreachable as error:
                down.append(f"{label}: {error.message}")
        if len(found) > 1:
            labels = sorted(label for label, _host, _clone in found.values())
            raise ConfigError(
                f"'{name}' exists on several hosts: {', '.join(labels)}.",
                f"Say it to the one you mean: salt {labels[0]} kvm_clone.show {name}",
            )
        if found:
            _label, host, clone = next(iter(found.values()))
            return host, clone
        if foreign is not None:
            raise foreign
        if down:
            raise HostUnreachable(
                f"'{name}' is on no host that answers; not asked: {'; '.join(down)}",
                "Repeat this when the host is back.",
            )
        told, _failed = self._everywhere(lambda host: host.list_clones())
        collect.require_not_renamed(name, self.keys.ids_of(name), told.values())
        raise NotFound(f"There is no clone '{name}'.", "See what there is: salt-run kvmclone.list")

    def destroy(self, name: Any, force: bool = False) -> Outcome:
        """
        Destroy one clone, then remove its key: exactly the one on its record.

        A clone that is gone already may have left its key: that goes, too.

        :param force: Also remove the key where a host that may have the clone is down.
        """
        try:
            with interrupts.work(str(name), "the destroy", deferred=False):
                host, clone = self.find(name)
                destroyed = collect.destroy(host, name)
                self.keys.take_back(clone.minion.id or name, clone.minion.fingerprint)
        except interrupts.Interrupt:
            return Outcome(str(name), "", None, at_once.half_destroyed(name))
        except (NotFound, HostUnreachable) as error:
            left = self._left_key(str(name), error, force)
            return left or Outcome(str(name), "", None, error)
        except KvmCloneError as error:
            return Outcome(str(name), "", None, error)
        self._fire(name, "destroyed", clone.profile, clone.host, 0.0)
        return Outcome(name, destroyed.stage, destroyed)

    def _left_key(self, name: str, error: KvmCloneError, force: bool) -> Outcome | None:
        """
        Remove the key of a clone that cannot be found, if it is one that we accepted.

        :param error: Why it cannot be found: no host has it, or one that may does not answer.
        """
        ids = self.keys.ids_of(name)
        down = isinstance(error, HostUnreachable)
        if down and not force:
            if ids:
                error.hint += (
                    " Its key stays meanwhile; without the host, this removes it: "
                    f"salt-run kvmclone.destroy {name} force=True"
                )
            return None
        if not [one for one in ids if self.keys.take_back(one, self.keys.remembered(one))]:
            return None
        warning = f"'{name}' was not found; its key was removed from the master."
        if down:
            warning = (
                f"Only the key of '{name}' was removed from the master. {error.message} When that "
                f"is back: salt-run kvmclone.destroy {name}"
            )
        self._fire(name, "destroyed", "", "", 0.0)
        gone = Clone(name, "", "", "", "", "", "", ownership.DESTROYING, warnings=(warning,))
        return Outcome(name, gone.stage, gone)

    def resume(self, name: Any) -> Outcome:
        """Go on with a create that failed and was kept, or whose worker died."""
        try:
            host, clone = self.find(name)
            request, _secrets = self._as_before(clone, {})

            def resolve(item: Unfinished) -> tuple[Request, Secrets]:
                return self._as_before(clone, item.overrides)

            watcher = self._watcher(request)
            outcome = pipeline.resume(host, name, resolve, self.enroller, watcher)
        except KvmCloneError as error:
            return Outcome(str(name), "", None, error)
        return self._told(request, outcome)

    def _as_before(self, clone: Clone, overrides: Mapping[str, Any]) -> tuple[Request, Secrets]:
        """
        What a clone was asked to be, as its profile says it now.

        :raises ConfigError: It was made without a profile, so the master does not know.
        """
        if not clone.profile:
            raise ConfigError(
                f"'{clone.name}' was made without a profile, so the master does not know what it "
                "was to become.",
                f"On its host: salt {clone.host} kvm_clone.resume {clone.name}",
            )
        return self.catalogue.resolve(clone.profile, clone.name, overrides)

    def power(self, name: Any, action: str) -> Outcome:
        """``start``, ``stop`` or ``reboot`` one clone."""
        return self._on_clone(name, lambda host, _clone: host.power(name, action))

    def show(self, name: Any) -> Outcome:
        """One clone as it is now."""
        return self._on_clone(name, lambda _host, clone: clone)

    def _on_clone(self, name: Any, work: Callable[[KvmHost, Clone], Clone]) -> Outcome:
        try:
            clone = work(*self.find(name))
        except KvmCloneError as error:
            return Outcome(str(name), "", None, error)
        return Outcome(clone.name, clone.stage, clone)

    def listing(self) -> dict[str, Any]:
        """Every clone of every host; a host that fails is named, the others still list."""
        told, failed = self._everywhere(lambda host: host.list_clones())
        clones: dict[str, Any] = {}
        for clone in (clone for some in told.values() for clone in some):
            clones.setdefault(clone.name, clone.as_dict())
        return _with_failures({"clones": clones, "retcode": 0}, failed)

    # --- care -------------------------------------------------------------------------

    def _everywhere(self, look: Callable[[KvmHost], Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What ``look`` tells of every host, and the error of each host that failed."""
        told: dict[str, Any] = {}
        failed: dict[str, Any] = {}
        for label, host in self.hosts():
            try:
                told[label] = look(host)
            except KvmCloneError as error:
                failed[label] = error.as_dict()
        return told, failed

    def gc(self, name: str, apply: bool, force: bool) -> dict[str, Any]:
        """List, or remove, what dead workers left, with the keys of minions never finished."""

        def remove_key(minion: Minion) -> bool:
            return self.keys.take_back(minion.id, minion.fingerprint)

        told, failed = self._everywhere(
            lambda host: collect.collect(host, name, apply, force, remove_key)
        )
        found = [leftover.as_dict() for some in told.values() for leftover in some]
        stuck = apply and any(leftover.is_stuck for some in told.values() for leftover in some)
        return _with_failures({"leftovers": found, "retcode": int(stuck)}, failed, "errors")

    def capacities(self) -> dict[str, Any]:
        """What every host has and what of it is free; one that fails is told with its error."""
        told, failed = self._everywhere(lambda host: host.capacity())
        hosts: dict[str, Any] = {
            label: {"reachable": True, **capacity} for label, capacity in told.items()
        }
        hosts |= {label: {"reachable": False, "error": error} for label, error in failed.items()}
        return {"hosts": dict(sorted(hosts.items())), "retcode": int(bool(failed))}

    def tree(self) -> dict[str, Any]:
        """Bases and their clones over all hosts."""
        told, failed = self._everywhere(lambda host: host.tree())
        bases: dict[str, Any] = {}
        for label, tree in told.items():
            for base, branch in tree["bases"].items():
                # Two hosts may each have a base of one name.
                bases[base if base not in bases else f"{base} ({label})"] = branch
        answer = _with_failures({"bases": bases, "retcode": 0}, failed)
        if sys.stderr.isatty():
            print(drawing.draw(answer), file=sys.stderr, flush=True)
        return answer

    def doctor(self) -> dict[str, Any]:
        """What is not as it should be, on every host; ``retcode`` 1 for more than notes."""
        told, failed = self._everywhere(lambda host: host.doctor())
        findings = [{"host": label, **item} for label, some in told.items() for item in some]
        bad = any(item["level"] != "note" for item in findings)
        return _with_failures({"findings": findings, "retcode": int(bad)}, failed)

    # --- telling ----------------------------------------------------------------------

    def _watcher(self, request: Request) -> pipeline.Watcher:
        def watch(stage: str, elapsed: float, clone: Clone) -> None:
            self._fire(request.name, stage, request.profile, clone.host, elapsed)
            telling.progress(request.name, stage, elapsed, clone)

        return watch

    def _fire(
        self, name: str, word: str, profile: str, host: str, elapsed: float, **more: Any
    ) -> None:
        """What became of one clone, for whoever listens to the master's bus."""
        data = {"name": name, "host": host, "profile": profile, "stage": word, "elapsed": elapsed}
        telling.fire(self.opts, f"{name}/{word}", {**data, **more})


def _with_failures(
    answer: dict[str, Any], failed: dict[str, Any], key: str = "unreachable"
) -> dict[str, Any]:
    """The answer with the hosts that failed, which make it a failure."""
    return {**answer, key: failed, "retcode": 1} if failed else answer
