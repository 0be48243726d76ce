"""
:class:`KvmHost`, what can be done with clones on one KVM host, each as one call.

The interface that every door and the pipeline speak; :class:`.local.LocalHost` is it
over a libvirt connection, :class:`.remote.RemoteHost` over Salt jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.hints import AT_MASTER, Commands
from saltext.kvmclone.model.leftovers import Leftover, Unfinished
from saltext.kvmclone.model.record import Minion, Worker
from saltext.kvmclone.model.request import DEFAULT_URL, Request


class KvmHost(Protocol):
    """One KVM host, wherever it is. Every method raises :class:`.errors.KvmCloneError`."""

    url: str

    # --- making, stage by stage

    def plan(self, request: Request) -> dict[str, Any]:
        """PLAN of a request; writes nothing."""

    def clone(
        self,
        request: Request,
        worker: Worker | None = None,
        goal: str = "cloned",
        digest: str = "",
        seed: Mapping[str, str] = MappingProxyType({}),
    ) -> Clone:
        """
        Make the clone, shut off, up to stage ``cloned``.

        :param worker: Who drives the create; None for this process.
        :param goal: The stage at which the create will be complete.
        :param digest: Of the request as it was made; what travels to a host is less.
        :param seed: Files of the clone's own cloud-init seed; they may hold secrets.
        :raises CreateInProgress: Somebody is at work on that name, or died at it.
        :raises AlreadyExists: It is there, and complete.
        :raises KeptAfterFailure: It is there, and failed.
        """

    def take_over(self, name: str, token: str, worker: Worker) -> Clone:
        """
        Go on with the work of a worker that is dead, or with a create that was kept.

        :param token: That worker's word; the clone is left alone where it has another.
        """

    def boot(self, name: str) -> Clone:
        """First boot of a clone, up to stage ``booted``."""

    def wait_for_address(self, request: Request, minion: Minion = Minion()) -> Clone:
        """
        Up to stage ``addressed``; resets the identity over the agent on the way.

        :param minion: The minion that it will be, recorded before its key is accepted.
        """

    def bootstrap(self, request: Request, enrolment: Enrolment) -> Clone:
        """Put a minion into the guest, up to stage ``enrolled``."""

    def complete(self, name: str, minion: Minion, timings: dict[str, float]) -> Clone:
        """Note in the record that the clone is ``ready``."""

    def keep(self, name: str, token: str, why: str, off: bool) -> Clone:
        """Note that the create failed and is kept; switch the clone off where asked."""

    # --- living

    def destroy(self, name: str, force: bool = False, token: str = "") -> Clone:
        """Destroy a clone; answers with what it was, and what was kept as warnings."""

    def clear(self, name: str, token: str, force: bool = False) -> list[Leftover]:
        """
        Remove what a dead worker left of a clone.

        :param token: That worker's word; the clone is left alone where it has another.
        :return: What was really removed, and what stays.
        """

    def power(self, name: str, action: str) -> Clone:
        """``start``, ``stop`` (ask the guest first), ``off`` (at once) or ``reboot``."""

    def show(self, name: str) -> Clone:
        """One clone, as it is now."""

    def list_clones(self) -> list[Clone]:
        """Every clone on the host."""

    # --- care

    def unfinished(self, name: str = "") -> list[Unfinished]:
        """
        Creates and destroys that have not come to their end, whoever does them.

        :param name: Only this one; also where it failed and was kept.
        """

    def tree(self) -> dict[str, Any]:
        """Bases with their clones, as ``tree`` of CONTRACT.md."""

    def bases(self) -> list[dict[str, Any]]:
        """The machines that are no clones of ours, and could be cloned; see :mod:`.lineage`."""

    def doctor(self) -> list[dict[str, Any]]:
        """What is not as it should be, worst first; empty on a healthy host."""

    def capacity(self) -> dict[str, Any]:
        """What the host has and what of it is free; see :func:`.reports.capacity`."""

    def daemon(self) -> dict[str, Any]:
        """What tells the daemon from others; see :func:`.reports.daemon`."""

    def witness(self, names: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
        """What the host knows for certain of some machines; see :func:`.reports.witness`."""

    def adopt(self, name: str, base_domain: str = "") -> Clone:
        """Make a clone of Salt's old driver one of ours."""

    def unprotect(self, base_domain: str) -> list[str]:
        """Make a protected base writable again; answers with the files."""


def commands_of(host: object) -> Commands:
    """Return our commands as they are typed where the answers of a host are read."""
    return Commands(getattr(host, "url", DEFAULT_URL), getattr(host, "ours", AT_MASTER))
