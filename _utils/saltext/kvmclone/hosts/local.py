"""
Do each operation of one KVM host over one new connection to libvirt.

Salt forks, and connections do not survive that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from saltext.kvmclone.display import screen
from saltext.kvmclone.errors import CreateInProgress, PlanRefused
from saltext.kvmclone.hosts import reports
from saltext.kvmclone.hosts.local_base_copies import LocalBaseCopies
from saltext.kvmclone.hosts.local_bases import LocalBases
from saltext.kvmclone.hosts.local_connection import ConnectedOperation
from saltext.kvmclone.hosts.local_placement import LocalPlacement, admitted
from saltext.kvmclone.hosts.local_snapshots import LocalSnapshots
from saltext.kvmclone.hosts.local_warming import LocalWarming
from saltext.kvmclone.hypervisor import power
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import (
    base_minion,
    clone_planning,
    clone_snapshots,
    clone_view,
    doctor,
    lineage,
    silent_agent,
    surroundings,
)
from saltext.kvmclone.inventory.unfinished import base_stays, find, listed, stays_base
from saltext.kvmclone.lifecycle import (
    adjust,
    adopt,
    bootstrap,
    claim_spare,
    create,
    first_boot,
    fork,
    master_ports,
    protect,
    record_store,
    remove_base,
    snapshot_work,
    wait_for_address,
)
from saltext.kvmclone.lifecycle.address_query import AddressQuery
from saltext.kvmclone.lifecycle.adjust import Adjustment
from saltext.kvmclone.lifecycle.bootstrap_alone import alone
from saltext.kvmclone.lifecycle.destroy import destroy, examine
from saltext.kvmclone.lifecycle.record_store import clone_record
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.base_minion import BaseMinion
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.host_reports import Daemon, HostCondition, HostReport
from saltext.kvmclone.model.leftovers import Leftover, Unfinished
from saltext.kvmclone.model.record import BY_WORD, DESTROYING, Minion, Owner, Record
from saltext.kvmclone.model.request import Request, Secrets, Wait
from saltext.kvmclone.model.spares import Claim
from saltext.kvmclone.system import processes


class LocalHost(LocalBases, LocalBaseCopies, LocalPlacement, LocalSnapshots, LocalWarming):
    """
    A KVM host (:class:`.interfaces.KvmHost`) that this process reaches over libvirt.

    See :class:`.local_connection.ReachableHost`; what makes bases is :class:`.LocalBases`.
    """

    # --- making -----------------------------------------------------------------------

    def plan(self, request: Request) -> dict[str, Any]:
        return self.looked(lambda host: clone_planning.compute(host, request).as_dict())

    def base_minion(self, request: Request) -> BaseMinion:
        return self.looked(lambda host: base_minion.look(host, request))

    def clone(
        self,
        request: Request,
        worker: Owner | None = None,
        goal: str = "cloned",
        digest: str = "",
        seed: Mapping[str, str] = MappingProxyType({}),
    ) -> Clone:
        me = worker or processes.this_process()
        with ConnectedOperation(self) as host:
            taken = clone_view.refuse_existing(host, request.name, self.label)
            planned = clone_planning.compute(host, request, taken, me, goal != "cloned")
            record = replace(
                planned.record,
                goal=goal,
                request=digest or planned.record.request,
                identity="" if request.reset_identity else "kept",
                overrides=json.dumps(request.overrides) if request.overrides else "",
            )
            planned = replace(planned, record=record)
            try:
                if request.protect:
                    planned.check()
                    protect.check(host, host.domain(planned.base), planned.sources)
                handle, record = create.apply(host, planned, seed, admitted(host, planned))
            except (PlanRefused, CreateInProgress):
                # Another worker may have begun since we looked: its error says more.
                clone_view.refuse_existing(host, request.name, self.label, me)
                raise
            return clone_view.describe_new(host, handle, record, self.label)

    def take_over(self, name: str, token: str, worker: Owner) -> Clone:
        with ConnectedOperation(self, name) as host:
            with processes.name_lock(name):
                handle, record = clone_record(host, name)
                if record.worker.token != token or record.stage == DESTROYING or record.becomes:
                    raise clone_view.in_progress(record, name, host.commands)
                record = replace(record, worker=worker, failed="")
                handle.save_record(record)
            return clone_view.describe_running(host, handle, record, self.label)

    def boot(self, name: str) -> Clone:
        with ConnectedOperation(self) as host:
            handle, record = clone_record(host, name)
            record = first_boot.boot(host, handle, record)
            return clone_view.describe_running(host, handle, record, self.label, state="running")

    def wait_for_address(self, request: Request, minion: Minion = Minion()) -> Clone:
        with ConnectedOperation(self, listens=True) as host:
            handle, record = clone_record(host, request.name)
            if minion != Minion():
                record = record_store.save(handle, record, replace(record, minion=minion))
            query = AddressQuery.from_request(request, record)
            enters = request.deploy.enrols
            return self._addressed(host, handle, record, query, enters, request.autostart)

    def _addressed(
        self,
        host: Host,
        handle: DomainHandle,
        record: Record,
        query: AddressQuery,
        entered_later: bool = False,
        autostart: bool | None = None,
    ) -> Clone:
        """Wait for a clone's address, see :func:`.first_boot.await_address`; return the clone."""
        record, known = first_boot.await_address(handle, record, query, entered_later, autostart)
        return clone_view.describe_running(host, handle, record, self.label, "running", known)

    def bootstrap(self, request: Request, enrolment: Enrolment) -> Clone:
        with ConnectedOperation(self, listens=True) as host:
            started = time.monotonic()
            handle, record = clone_record(host, request.name)
            record = bootstrap.bootstrap(host, handle, record, request, enrolment)
            if request.autostart is not None:  # over ssh it got its identity only now
                handle.set_autostart(request.autostart)
            took = time.monotonic() - started
            record = record_store.save(handle, record, record.at("enrolled", enrolled=took))
            return clone_view.describe_running(host, handle, record, self.label)

    def bootstrap_alone(self, request: Request, enrolment: Enrolment) -> Clone:
        """
        Put a minion into the guest without a master; its key waits to be accepted there.

        :raises KvmCloneError: See :func:`.bootstrap_alone.alone`.
        """
        with ConnectedOperation(self, listens=True) as host:
            handle, record = clone_record(host, request.name)
            record = alone(host, handle, record, request, enrolment)
            return clone_view.describe_running(host, handle, record, self.label)

    def give_word(self, request: Request, word: str) -> bool:
        with ConnectedOperation(self) as host:
            handle, record = clone_record(host, request.name)
            if record.warmed:
                fork.give_word(handle, word)
            return bool(record.warmed)

    def check_master(self, request: Request, secrets: Secrets, publish_port: int) -> GuestMinion:
        with ConnectedOperation(self) as host:
            return master_ports.look(
                *clone_record(host, request.name), request, secrets, publish_port
            )

    def complete(self, name: str, minion: Minion, timings: dict[str, float]) -> Clone:
        with ConnectedOperation(self) as host:
            handle, record = clone_record(host, name)
            left = fork.forget_word(handle) if minion.verified_by == BY_WORD else ()
            warnings = (*record.warnings, *left)
            # Its minion answered, so the guest came up, whatever became of its agent.
            ready = replace(record, minion=minion, agent="", warnings=warnings)
            ready = ready.at("ready", **timings)
            record = record_store.save(handle, record, ready)
            return clone_view.describe_running(host, handle, record, self.label)

    def keep(self, name: str, token: str, why: str, off: bool) -> Clone:
        with ConnectedOperation(self) as host:
            handle, record = clone_record(host, name)
            if record.worker.token != token:
                raise clone_view.in_progress(record, name, host.commands)
            if off or record.fork_begun:  # which nobody may use
                handle.power_off()
            record = record_store.save(handle, record, replace(record, failed=why))
            return clone_view.describe_running(host, handle, record, self.label)

    # --- living -----------------------------------------------------------------------

    def destroy(self, name: str, force: bool = False, token: str = "", dry: bool = False) -> Clone:
        with ConnectedOperation(self, name) as host:
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

    def clear(self, name: str, token: str, force: bool = False) -> list[Leftover]:
        with ConnectedOperation(self, name) as host:
            handle = host.domain(name)
            record = handle.record()
            if record is not None and clone_snapshots.is_unfinished(record):
                done = snapshot_work.repair(host, handle, record, token, force)
                return clone_snapshots.rows(name, record, done.files, done.kept, "", removed=True)
            if record is not None and base_stays(host, handle, record):
                remove_base.withdraw(host, handle, token)
                return [stays_base(name, "", removed=True)]
            gone = destroy(host, handle, force, token)
            return listed(
                name, "", gone.files, gone.reservations, gone.unprotected, gone.kept, removed=True
            )

    def power(self, name: str, action: str) -> Clone:
        starts = action in ("start", "reboot")  # which starts one that is off
        # Only a first start waits for the guest.
        with ConnectedOperation(self, listens=starts) as host:
            handle, record = clone_record(host, name)
            unfinished = not (record.complete or record.failed) or record.stage == DESTROYING
            unfinished = unfinished or snapshot_work.forbids_start(record)
            if unfinished and starts:
                raise clone_view.in_progress(record, name, host.commands)
            state = handle.state()
            if starts and state == "shutoff" and record.stage == "cloned":
                # It was left off, so this is its first boot.
                fork.require_not_begun(handle, record)
                record = first_boot.boot(host, handle, record)
                return self._addressed(host, handle, record, AddressQuery.from_record(record))
            if record.agent and silent_agent.answers(handle, domain_xml.read(handle.live())):
                record = record_store.save(handle, record, replace(record, agent=""))
            power.change(handle, state, action)
            clone = clone_view.describe(host, handle, record, self.label, host.commands)
            return screen.note(name, clone, state)

    def show(self, name: str) -> Clone:
        return self.looked(
            lambda host: clone_view.describe(
                host, *clone_record(host, name), self.label, host.commands
            )
        )

    def adjust(self, request: Request, dry: bool) -> Adjustment:
        """
        Make an existing clone what a request asks for, as far as that can be done.

        :param dry: Only compare.
        :raises CreateInProgress: Its create is not finished.
        :raises PlanRefused: It is a spare in stock.
        """
        with ConnectedOperation(self) as host:
            handle, record = clone_record(host, request.name)
            if record.failed or record.stage == DESTROYING or not record.complete:
                clone_view.refuse_existing(host, request.name, self.label)
            if record.under_way:
                raise clone_view.in_progress(record, request.name, host.commands)
            if record.in_stock:
                raise PlanRefused(*clone_view.of_the_stock(record, request.name))
            found = adjust.compare(host, handle, record, request, host.commands)
            if not dry and not found.refused:
                adjust.apply(found)
            return found

    def pending_changes(self, name: str) -> dict[str, Any]:
        """Return what the next start of a running clone changes, and a sentence that says so."""
        return self.looked(
            lambda host: clone_view.pending(clone_record(host, name)[0], host.commands)
        )

    def exists(self, name: str) -> bool:
        """Return True if a domain of that name exists, a clone of ours or not."""
        return self.looked(lambda host: host.find(name) is not None)

    def list_clones(self, spares: bool = False) -> list[Clone]:
        def work(host: Host) -> list[Clone]:
            def shown(handle: DomainHandle) -> Clone | None:
                record = handle.record()
                if record is None or not record.is_clone or (spares and not record.spare):
                    return None
                return clone_view.describe(host, handle, record, self.label, host.commands)

            return [clone for clone in host.each_domain(shown) if clone]

        return sorted(self.looked(work), key=lambda clone: clone.name)

    def address_of(self, name: str, timeout: float, ip_source: str = "") -> str:
        """
        Wait for the address of a running clone; change nothing in the guest.

        :param timeout: Hard deadline, seconds.
        :param ip_source: Where to look; empty for what its record says.
        :raises AddressTimeout: No address in time.
        """
        with ConnectedOperation(self, listens=True) as host:
            handle, record = clone_record(host, name)
            query = replace(
                AddressQuery.from_record(record),
                ip_source=ip_source or record.ip_source,
                wait=Wait(timeout=timeout),
                resets=False,
                heard=True,
            )
            return wait_for_address.arrive(handle, query).address

    def claim(
        self, name: str, uuid: str, claim: Claim, expires: float, tags: Sequence[str] = ()
    ) -> Clone:
        with ConnectedOperation(self, name) as host:
            handle, record = claim_spare.claim(host, name, uuid, claim, expires, tags)
            return clone_view.describe_running(host, handle, record, self.label)

    # --- care -------------------------------------------------------------------------

    def unfinished(self, name: str = "") -> list[Unfinished]:
        return self.looked(lambda host: find(host, name))

    def tree(self) -> dict[str, Any]:
        return self.looked(lambda host: lineage.tree(host).as_dict())

    def bases(self) -> list[dict[str, Any]]:
        return self.looked(lineage.bases)

    def doctor(self) -> list[dict[str, Any]]:
        return self.looked(lambda host: [f.as_dict() for f in doctor.examine(host, host.commands)])

    def adopt(self, name: str, base_domain: str = "") -> Clone:
        with ConnectedOperation(self) as host:
            adopt.adopt(host, name, base_domain)
            return clone_view.describe(host, *clone_record(host, name), self.label)

    def unprotect(self, base_domain: str) -> list[str]:
        with ConnectedOperation(self) as host:
            return protect.unprotect(host, host.domain(base_domain))

    # --- reports ----------------------------------------------------------------------

    def capacity(self) -> dict[str, Any]:
        return self.looked(reports.capacity)

    def condition(self) -> HostCondition:
        return self.looked(surroundings.condition)

    def daemon(self) -> Daemon:
        return self.looked(reports.daemon)

    def report_domains(self, names: Sequence[str], ids: Sequence[str]) -> HostReport:
        return self.looked(lambda host: reports.report_domains(host, names, ids))

    def published(self) -> dict[str, Any]:
        """Return what the mine publishes of this host; see :func:`.reports.published`."""
        return self.looked(lambda host: reports.published(host, self.label))

    def published_addresses(self, profile: str, tag: str) -> dict[str, str]:
        """Return the addresses of the clones that run, by name; see :func:`.reports.addresses`."""
        return self.looked(lambda host: reports.addresses(host, profile, tag))

    def expired(self) -> list[str]:
        """Return the names of the clones whose ``ttl`` has passed."""
        return self.looked(reports.expired)
