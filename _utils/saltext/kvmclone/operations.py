"""
What can be done with clones on one KVM host, each as one call.

:class:`KvmHost` is the interface that every door and the pipeline speak;
:class:`LocalHost` is it over a libvirt connection, :class:`.remote.RemoteHost` over Salt
jobs. One connection per operation: Salt forks, and connections do not survive that.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from saltext.kvmclone import (
    addresses,
    apply,
    arrival,
    bootstrap,
    dismantle,
    domain_xml,
    ownership,
    plan,
    survey,
)
from saltext.kvmclone.clone import Address, Clone, CloneDisk
from saltext.kvmclone.errors import AlreadyExists, CreateInProgress, ForeignDomain
from saltext.kvmclone.guest.minion import Enrolment
from saltext.kvmclone.host import DomainHandle, Host
from saltext.kvmclone.ownership import Minion, Record, Worker
from saltext.kvmclone.request import Request, Wait

T = TypeVar("T")


class KvmHost(Protocol):
    """One KVM host, wherever it is. Every method raises :class:`.errors.KvmCloneError`."""

    def plan(self, request: Request) -> dict[str, Any]:
        """PLAN of a request; writes nothing."""

    def clone(self, request: Request, token: str = "") -> Clone:
        """Make the clone, shut off, up to stage ``cloned``."""

    def boot(self, name: str) -> Clone:
        """First boot of a clone, up to stage ``booted``."""

    def wait_for_address(self, request: Request) -> Clone:
        """Up to stage ``addressed``; resets the identity over the agent on the way."""

    def bootstrap(self, request: Request, enrolment: Enrolment) -> Clone:
        """Put a minion into the guest, up to stage ``enrolled``."""

    def complete(self, name: str, minion: Minion, timings: dict[str, float]) -> Clone:
        """Note in the record that the clone is ``ready``."""

    def destroy(self, name: str, force: bool = False, token: str = "") -> Clone:
        """Destroy a clone; answers with what it was, and what was kept as warnings."""

    def power(self, name: str, action: str) -> Clone:
        """``start``, ``stop`` (ask the guest first), ``off`` (at once) or ``reboot``."""

    def show(self, name: str) -> Clone:
        """One clone, as it is now."""

    def list_clones(self) -> list[Clone]:
        """Every clone on the host."""


class LocalHost:
    """
    :class:`KvmHost` over a libvirt connection.

    :param url: libvirt URI.
    :param label: What CLONE calls the host: its minion id; empty for its own host name.
    """

    def __init__(self, url: str, label: str = "") -> None:
        self.url = url
        self.label = label
        #: libvirt calls of the last operation, for ``bench/``.
        self.calls = 0

    def _connected(self, work: Callable[[Host], T]) -> T:
        with Host(self.url) as host:
            try:
                return work(host)
            finally:
                self.calls = host.calls

    # --- making -----------------------------------------------------------------------

    def plan(self, request: Request) -> dict[str, Any]:
        return self._connected(
            lambda host: plan.compute(survey.facts(host, request), request).as_dict()
        )

    def clone(self, request: Request, token: str = "") -> Clone:
        return self._connected(lambda host: self._clone(host, request, token))

    def _clone(self, host: Host, request: Request, token: str) -> Clone:
        existing = host.find(request.name)
        if existing is not None:
            self._refuse_existing(host, request, existing)
        facts = survey.facts(host, request)
        worker = _worker(token or secrets.token_hex(8))
        handle, record = apply.apply(host, plan.compute(facts, request, worker))
        return self._answer(host, handle, record, state="shutoff", definition="")

    def _refuse_existing(self, host: Host, request: Request, handle: DomainHandle) -> None:
        """
        :raises AlreadyExists: The clone is there with all its disks; carries it.
        :raises CreateInProgress: It is there and was left half-made.
        """
        record = handle.record()
        if record is None:
            return  # foreign; the plan refuses it together with everything else
        clone = self._show(host, handle, record)
        if record.stage in ("planned", ownership.DESTROYING) or clone.state == "crashed":
            raise CreateInProgress(
                f"'{request.name}' exists at stage '{record.stage}': another create is at work on "
                "it, or one was interrupted.",
                f"Look: salt-run kvmclone.show {request.name}   Remove it: "
                f"salt-run kvmclone.destroy {request.name}",
            )
        raise already_exists(clone)

    def boot(self, name: str) -> Clone:
        def work(host: Host) -> Clone:
            started = time.monotonic()
            handle, record = _ours(host, name)
            handle.start()
            record = record.at("booted", booted=time.monotonic() - started)
            handle.save_record(record)
            return self._answer(host, handle, record, state="running")

        return self._connected(work)

    def wait_for_address(self, request: Request) -> Clone:
        def work(host: Host) -> Clone:
            started = time.monotonic()
            handle, record = _ours(host, request.name)
            found = arrival.arrive(handle, request, record.identity == "reset")
            warnings = [*record.warnings, *found.warnings]
            if found.identity_reset:
                record = replace(record, identity="reset", host_keys=found.host_keys)
            elif _keeps_base_identity(request, record):
                warnings.append(arrival.NO_RESET)
            record = replace(record, address=found.address, warnings=tuple(warnings))
            record = record.at("addressed", addressed=time.monotonic() - started)
            handle.save_record(record)
            sightings = tuple(sighting.address for sighting in found.sightings)
            return self._answer(host, handle, record, state="running", known=sightings)

        return self._connected(work)

    def bootstrap(self, request: Request, enrolment: Enrolment) -> Clone:
        def work(host: Host) -> Clone:
            started = time.monotonic()
            handle, record = _ours(host, request.name)
            record = bootstrap.bootstrap(handle, record, request, enrolment)
            record = record.at("enrolled", enrolled=time.monotonic() - started)
            handle.save_record(record)
            return self._answer(host, handle, record)

        return self._connected(work)

    def complete(self, name: str, minion: Minion, timings: dict[str, float]) -> Clone:
        def work(host: Host) -> Clone:
            handle, record = _ours(host, name)
            record = replace(record, minion=minion).at("ready", **timings)
            handle.save_record(record)
            return self._answer(host, handle, record)

        return self._connected(work)

    # --- living -----------------------------------------------------------------------

    def destroy(self, name: str, force: bool = False, token: str = "") -> Clone:
        def work(host: Host) -> Clone:
            handle = host.domain(name)
            record = handle.record()
            before = (
                self._show(host, handle, record) if record else _foreign(handle, self._host(host))
            )
            kept = dismantle.destroy(host, handle, force, token)
            return replace(
                before,
                stage=ownership.DESTROYING,
                state="shutoff",
                warnings=(*before.warnings, *kept),
            )

        return self._connected(work)

    def power(self, name: str, action: str) -> Clone:
        def work(host: Host) -> Clone:
            handle, record = _ours(host, name)
            state = handle.state()
            running = state != "shutoff"
            if action == "start" and state == "paused":
                handle.resume()
            elif action == "start" and not running:
                handle.start()
            elif action == "stop" and running:
                _stop(handle, time.monotonic() + 60)
            elif action == "off":
                handle.power_off()
            elif action == "reboot":
                handle.reboot() if running else handle.start()
            return self._show(host, handle, record)

        return self._connected(work)

    def show(self, name: str) -> Clone:
        return self._connected(lambda host: self._show(host, *_ours(host, name)))

    def exists(self, name: str) -> bool:
        """Whether a domain of that name exists, ours or not."""
        return self._connected(lambda host: host.find(name) is not None)

    def list_clones(self) -> list[Clone]:
        def work(host: Host) -> list[Clone]:
            def shown(handle: DomainHandle) -> Clone | None:
                record = handle.record()
                return self._show(host, handle, record) if record else None

            return [clone for clone in host.each_domain(shown) if clone]

        return sorted(self._connected(work), key=lambda clone: clone.name)

    def address_of(self, name: str, timeout: float, ip_source: str = "") -> str:
        """
        Wait for the address of a running clone; changes nothing in the guest.

        :param timeout: Hard deadline, seconds.
        :param ip_source: Where to look; empty for what its record says.
        :raises AddressTimeout: None in time.
        """

        def work(host: Host) -> str:
            handle, record = _ours(host, name)
            request = Request(
                name=name,
                base_domain=record.base,
                ip_source=ip_source or record.ip_source,
                reset_identity=False,
                wait=Wait(timeout=timeout),
            )
            return arrival.arrive(handle, request, True).address

        return self._connected(work)

    # --- answers ----------------------------------------------------------------------

    def _host(self, host: Host) -> str:
        return self.label or host.node_name()

    def _show(self, host: Host, handle: DomainHandle, record: Record) -> Clone:
        clone = self._answer(host, handle, record)
        return replace(clone, drift=survey.drifted(host, record))

    def _answer(
        self,
        host: Host,
        handle: DomainHandle,
        record: Record,
        state: str = "",
        known: tuple[Address, ...] | None = None,
        definition: str | None = None,
    ) -> Clone:
        """CLONE from the record and what is already known; asks libvirt only for the rest."""
        state = state or handle.state()
        disks = [
            CloneDisk(volume.target, volume.path, volume.format, volume.strategy)
            for volume in record.volumes
            if volume.target != "nvram"
        ]
        if definition is None:
            domain = domain_xml.read(handle.live())
            owned = {disk.path for disk in disks}
            disks += [
                CloneDisk(disk.target, disk.path, disk.format, "share")
                for disk in domain.disks
                if disk.path not in owned
            ]
            if known is None and state == "running":
                seen = addresses.look(handle, domain, record.ip_source)
                known = tuple(sighting.address for sighting in seen)
        known = known or ()
        current = {address.address for address in known}
        address = record.address
        if known and address not in current:
            address = known[0].address
        return Clone(
            name=handle.name,
            uuid=record.uuid,
            host=self._host(host),
            base=record.base,
            profile=record.profile,
            strategy=record.strategy,
            state=state,
            stage=record.stage,
            address=address,
            addresses=known,
            disks=tuple(disks),
            minion=record.minion,
            warnings=record.warnings,
            timings=record.timings,
        )


def already_exists(clone: Clone) -> AlreadyExists:
    """The error that says a clone is there, and carries it."""
    return AlreadyExists(
        f"'{clone.name}' exists already, made from '{clone.base}', at stage '{clone.stage}'.",
        f"Choose another name, or remove it first: salt-run kvmclone.destroy {clone.name}",
        clone=clone.as_dict(),
    )


def _ours(host: Host, name: str) -> tuple[DomainHandle, Record]:
    """
    A clone and its record.

    :raises NotFound: There is no such domain.
    :raises ForeignDomain: There is, and it is not ours.
    """
    handle = host.domain(name)
    record = handle.record()
    if record is None:
        raise ForeignDomain(
            f"'{name}' exists and was not made by kvm_clone; it is left alone.",
            f"Handle it with virsh: virsh -c {host.url} dominfo {name}",
        )
    return handle, record


def _foreign(handle: DomainHandle, label: str) -> Clone:
    domain = domain_xml.read(handle.definition())
    return Clone(
        name=handle.name,
        uuid=handle.uuid,
        host=label,
        base="",
        profile="",
        strategy="",
        state=handle.state(),
        stage="",
        disks=tuple(CloneDisk(d.target, d.path, d.format, "share") for d in domain.disks),
    )


def _keeps_base_identity(request: Request, record: Record) -> bool:
    """Whether nothing later in this create can still reset the identity."""
    bootstraps = request.deploy.enabled and request.deploy.bootstrap != "none"
    return request.reset_identity and record.identity != "reset" and not bootstraps


def _worker(token: str) -> Worker:
    """This process, so that another one can tell later whether it still lives."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:
        boot = source.read().strip()
    with open("/proc/self/stat", encoding="ascii") as source:
        started = int(source.read().rsplit(")", 1)[1].split()[19])
    return Worker(socket.gethostname(), boot, os.getpid(), started, token)


def _stop(handle: DomainHandle, deadline: float) -> None:
    """Ask the guest to shut down, again in case it was still booting; at last switch it off."""
    ask_at = 0.0
    while (now := time.monotonic()) < deadline:
        if handle.state() == "shutoff":
            return
        if now >= ask_at:
            handle.shut_down()
            ask_at = now + 8
        time.sleep(0.2)
    handle.power_off()
