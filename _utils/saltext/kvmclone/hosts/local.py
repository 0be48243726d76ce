"""
Operations on one KVM host over libvirt, with a new connection for each of them.

Salt forks, and connections do not survive that.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from saltext.kvmclone.errors import (
    CreateInProgress,
    HostError,
    HostUnreachable,
    NeverConnected,
    PlanRefused,
)
from saltext.kvmclone.hosts import reports
from saltext.kvmclone.hosts.interfaces import commands_of
from saltext.kvmclone.hypervisor import power
from saltext.kvmclone.hypervisor.constants import NO_DOMAIN, OPERATION_INVALID
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import (
    clone_view,
    doctor,
    host_facts,
    lineage,
    pending_changes,
    silent_agent,
)
from saltext.kvmclone.inventory.unfinished import find, listed
from saltext.kvmclone.lifecycle import (
    adjust,
    adopt,
    bootstrap,
    protect,
    record_store,
    wait_for_address,
)
from saltext.kvmclone.lifecycle import create as apply
from saltext.kvmclone.lifecycle.adjust import Adjustment
from saltext.kvmclone.lifecycle.bootstrap_alone import alone
from saltext.kvmclone.lifecycle.destroy import changed_hands, destroy, examine
from saltext.kvmclone.lifecycle.record_store import clone_record
from saltext.kvmclone.lifecycle.wait_for_address import keeps_base_identity
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.hints import AT_MASTER
from saltext.kvmclone.model.leftovers import Leftover, Unfinished
from saltext.kvmclone.model.record import DESTROYING, Minion, Owner, Record
from saltext.kvmclone.model.request import Deploy, Request, Wait
from saltext.kvmclone.plan import planner
from saltext.kvmclone.system import processes

T = TypeVar("T")

log = logging.getLogger(__name__)


class LocalHost:
    """
    A KVM host (:class:`.interfaces.KvmHost`) that this process reaches over libvirt.

    :param url: libvirt URI.
    :param label: What CLONE calls the host: its minion id; empty for its own host name.
    :param ours: How our commands begin where the answers are read.
    """

    def __init__(self, url: str, label: str = "", ours: str = AT_MASTER) -> None:
        self.url = url
        self.label = label
        self.ours = ours
        #: Number of libvirt calls of the last operation, for ``bench/``.
        self.calls = 0

    def _connected(self, work: Callable[[Host], T], name: str = "") -> T:
        """Return ``work(host)`` of a new connection; NotFound if domain ``name`` went away."""
        with Host(self.url, commands=commands_of(self)) as host:
            try:
                return work(host)
            except HostError as error:
                if name and error.code == NO_DOMAIN:
                    host.domain(name)
                    raise changed_hands(name, host.commands) from error
                raise
            finally:
                self.calls = host.calls

    def _looked(self, work: Callable[[Host], T]) -> T:
        """Return ``work(host)``, which only reads; repeat it once where the connection breaks."""
        try:
            return self._connected(work)
        except NeverConnected:
            raise
        except HostUnreachable as error:
            log.info("asking again: %s", error)
            return self._connected(work)

    # --- making -----------------------------------------------------------------------

    def plan(self, request: Request) -> dict[str, Any]:
        return self._looked(
            lambda host: planner.compute(host_facts.facts(host, request), request).as_dict()
        )

    def clone(
        self,
        request: Request,
        worker: Owner | None = None,
        goal: str = "cloned",
        digest: str = "",
        seed: Mapping[str, str] = MappingProxyType({}),
    ) -> Clone:
        def work(host: Host) -> Clone:
            me = worker or processes.this_process()
            taken = clone_view.refuse_existing(host, request.name, self.label)
            planned = planner.compute(host_facts.facts(host, request, taken), request, me)
            record = replace(
                planned.record,
                goal=goal,
                request=digest or request.digest(),
                identity="" if request.reset_identity else "kept",
                overrides=json.dumps(request.overrides) if request.overrides else "",
            )
            planned = replace(planned, record=record)
            try:
                if request.protect:
                    planned.check()
                    protect.check(host, host.domain(planned.base), planned.sources)
                handle, record = apply.apply(host, planned, seed)
            except (PlanRefused, CreateInProgress):
                # Another worker may have begun since we looked: its error says more.
                clone_view.refuse_existing(host, request.name, self.label, me)
                raise
            return clone_view.describe_new(host, handle, record, self.label)

        return self._connected(work)

    def take_over(self, name: str, token: str, worker: Owner) -> Clone:
        def work(host: Host) -> Clone:
            with processes.name_lock(name):
                handle, record = clone_record(host, name)
                if record.worker.token != token or record.stage == DESTROYING:
                    raise clone_view.in_progress(record, name, host.commands)
                record = replace(record, worker=worker, failed="")
                handle.save_record(record)
            return clone_view.describe_running(host, handle, record, self.label)

        return self._connected(work, name)

    def boot(self, name: str) -> Clone:
        def work(host: Host) -> Clone:
            started = time.monotonic()
            handle, record = clone_record(host, name)
            try:
                handle.start()
            except HostError as error:
                # It was started already: by somebody else, or by us before an interrupt.
                if error.code != OPERATION_INVALID or handle.state() != "running":
                    raise
            if record.stage == "cloned":  # a later stage stays
                booted = record.at("booted", booted=time.monotonic() - started)
                record = record_store.save(handle, record, booted)
            return clone_view.describe_running(host, handle, record, self.label, state="running")

        return self._connected(work)

    def wait_for_address(self, request: Request, minion: Minion = Minion()) -> Clone:
        def work(host: Host) -> Clone:
            started = time.monotonic()
            handle, record = clone_record(host, request.name)
            if minion != Minion():
                record = record_store.save(handle, record, replace(record, minion=minion))
            seen = record
            asked = replace(request, seed=record.seed or request.seed)
            found = wait_for_address.arrive(
                handle, asked, record.identity == "reset", record.reservations
            )
            record_store.current(handle, seen)  # only the clone's own worker talks to the guest
            warnings = [*record.warnings, *found.warnings]
            if found.identity_reset:
                record = replace(record, identity="reset", host_keys=found.host_keys)
            else:
                if not record.host_keys:
                    record = replace(record, host_keys=bootstrap.told_host_keys(handle))
                if keeps_base_identity(request, record):
                    warnings.append(found.not_reset)
            agent = found.agent if found.agent == silent_agent.SILENT else ""
            record = replace(record, address=found.address, agent=agent, warnings=tuple(warnings))
            record = record.at("addressed", addressed=time.monotonic() - started)
            record = record_store.save(handle, seen, record)
            sightings = tuple(sighting.address for sighting in found.sightings)
            return clone_view.describe_running(
                host, handle, record, self.label, state="running", known=sightings
            )

        return self._connected(work)

    def bootstrap(self, request: Request, enrolment: Enrolment) -> Clone:
        def work(host: Host) -> Clone:
            started = time.monotonic()
            handle, record = clone_record(host, request.name)
            record = bootstrap.bootstrap(host, handle, record, request, enrolment)
            enrolled = record.at("enrolled", enrolled=time.monotonic() - started)
            record = record_store.save(handle, record, enrolled)
            return clone_view.describe_running(host, handle, record, self.label)

        return self._connected(work)

    def bootstrap_alone(self, request: Request, enrolment: Enrolment) -> Clone:
        """
        Put a minion into the guest without a master; its key waits to be accepted there.

        :raises KvmCloneError: See :func:`.bootstrap_alone.alone`.
        """

        def work(host: Host) -> Clone:
            handle, record = clone_record(host, request.name)
            record = alone(host, handle, record, request, enrolment)
            return clone_view.describe_running(host, handle, record, self.label)

        return self._connected(work)

    def complete(self, name: str, minion: Minion, timings: dict[str, float]) -> Clone:
        def work(host: Host) -> Clone:
            handle, record = clone_record(host, name)
            # Its minion answered, so the guest came up, whatever became of its agent.
            ready = replace(record, minion=minion, agent="").at("ready", **timings)
            record = record_store.save(handle, record, ready)
            return clone_view.describe_running(host, handle, record, self.label)

        return self._connected(work)

    def keep(self, name: str, token: str, why: str, off: bool) -> Clone:
        def work(host: Host) -> Clone:
            handle, record = clone_record(host, name)
            if record.worker.token != token:
                raise clone_view.in_progress(record, name, host.commands)
            if off:
                handle.power_off()
            record = record_store.save(handle, record, replace(record, failed=why))
            return clone_view.describe_running(host, handle, record, self.label)

        return self._connected(work)

    # --- living -----------------------------------------------------------------------

    def destroy(self, name: str, force: bool = False, token: str = "", dry: bool = False) -> Clone:
        def work(host: Host) -> Clone:
            handle = host.domain(name)
            record = handle.record()
            told = (
                clone_view.describe(host, handle, record, self.label)
                if record
                else clone_view.foreign(host, handle, self.label)
            )
            if dry:
                kept = examine(host, handle, force)
            else:
                kept = destroy(host, handle, force, token).sentences
                told = replace(told, stage=DESTROYING, state="shutoff")
            return replace(told, warnings=(*told.warnings, *kept))

        return self._connected(work, name)

    def clear(self, name: str, token: str, force: bool = False) -> list[Leftover]:
        def work(host: Host) -> list[Leftover]:
            gone = destroy(host, host.domain(name), force, token)
            return listed(
                name, "", gone.files, gone.reservations, gone.unprotected, gone.kept, removed=True
            )

        return self._connected(work, name)

    def power(self, name: str, action: str) -> Clone:
        def work(host: Host) -> Clone:
            handle, record = clone_record(host, name)
            unfinished = not (record.complete or record.failed) or record.stage == DESTROYING
            if unfinished and action in ("start", "reboot"):
                raise clone_view.in_progress(record, name, host.commands)
            state = handle.state()
            if action == "start" and state == "shutoff" and record.stage == "cloned":
                return self._first_start(name, record)
            if record.agent and silent_agent.answers(handle, domain_xml.read(handle.live())):
                record = record_store.save(handle, record, replace(record, agent=""))
            power.change(handle, state, action)
            return clone_view.describe(host, handle, record, self.label, host.commands)

        return self._connected(work)

    def _first_start(self, name: str, record: Record) -> Clone:
        """Boot a clone that was left off, and give it its identity and address."""
        self.boot(name)
        return self.wait_for_address(
            Request(
                name=name,
                base_domain=record.base,
                ip_source=record.ip_source,
                pick=record.pick,
                reset_identity=record.identity != "kept",
                seed=record.seed or "none",
                deploy=Deploy(enabled=False),
            )
        )

    def show(self, name: str) -> Clone:
        return self._looked(
            lambda host: clone_view.describe(
                host, *clone_record(host, name), self.label, host.commands
            )
        )

    def adjust(self, request: Request, dry: bool) -> Adjustment:
        """
        Make an existing clone what a request asks for, as far as that can be done.

        :param dry: Only compare.
        :raises CreateInProgress: Its create is not finished.
        """

        def work(host: Host) -> Adjustment:
            handle, record = clone_record(host, request.name)
            if record.failed or record.stage == DESTROYING or not record.complete:
                clone_view.refuse_existing(host, request.name, self.label)
            found = adjust.compare(host, handle, record, request, host.commands)
            if not dry and not found.refused:
                adjust.apply(found)
            return found

        return self._connected(work)

    def pending_changes(self, name: str) -> dict[str, Any]:
        """Return what the next start of a running clone changes, and a sentence that says so."""

        def work(host: Host) -> dict[str, Any]:
            waiting = clone_view.pending_changes(clone_record(host, name)[0])
            note = pending_changes.sentence(name, waiting, host.commands) if waiting else ""
            return {"changes": waiting, "note": note}

        return self._looked(work)

    def exists(self, name: str) -> bool:
        """Return True if a domain of that name exists, a clone of ours or not."""
        return self._looked(lambda host: host.find(name) is not None)

    def list_clones(self) -> list[Clone]:
        def work(host: Host) -> list[Clone]:
            def shown(handle: DomainHandle) -> Clone | None:
                record = handle.record()
                if record is None:
                    return None
                return clone_view.describe(host, handle, record, self.label, host.commands)

            return [clone for clone in host.each_domain(shown) if clone]

        return sorted(self._looked(work), key=lambda clone: clone.name)

    def address_of(self, name: str, timeout: float, ip_source: str = "") -> str:
        """
        Wait for the address of a running clone; change nothing in the guest.

        :param timeout: Hard deadline, seconds.
        :param ip_source: Where to look; empty for what its record says.
        :raises AddressTimeout: No address in time.
        """

        def work(host: Host) -> str:
            handle, record = clone_record(host, name)
            request = Request(
                name=name,
                base_domain=record.base,
                ip_source=ip_source or record.ip_source,
                pick=record.pick,
                reset_identity=False,
                wait=Wait(timeout=timeout),
            )
            return wait_for_address.arrive(handle, request, True, record.reservations).address

        return self._connected(work)

    # --- care -------------------------------------------------------------------------

    def unfinished(self, name: str = "") -> list[Unfinished]:
        return self._looked(lambda host: find(host, name))

    def tree(self) -> dict[str, Any]:
        return self._looked(lambda host: lineage.tree(host).as_dict())

    def bases(self) -> list[dict[str, Any]]:
        return self._looked(lineage.bases)

    def doctor(self) -> list[dict[str, Any]]:
        return self._looked(lambda host: [f.as_dict() for f in doctor.examine(host, host.commands)])

    def capacity(self) -> dict[str, Any]:
        return reports.capacity(self.url)

    def daemon(self) -> dict[str, Any]:
        return reports.daemon(self.url)

    def witness(self, names: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
        return reports.witness(self.url, names, ids)

    def adopt(self, name: str, base_domain: str = "") -> Clone:
        def work(host: Host) -> Clone:
            adopt.adopt(host, name, base_domain)
            return clone_view.describe(host, *clone_record(host, name), self.label)

        return self._connected(work)

    def unprotect(self, base_domain: str) -> list[str]:
        return self._connected(lambda host: protect.unprotect(host, host.domain(base_domain)))
