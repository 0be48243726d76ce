"""
Declare what can be done on one KVM host.

:class:`.local.LocalHost` implements it over a libvirt connection. What travels between the master
and a host is made from its type hints, at both ends, see :mod:`.operations`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Protocol

from saltext.kvmclone.model.base_content import BaseState, RemovedBase
from saltext.kvmclone.model.base_copy import BaseOffer, CopyKey
from saltext.kvmclone.model.base_minion import BaseMinion
from saltext.kvmclone.model.base_request import BaseRequest, Origin
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.clone_snapshot import CloneSnapshot
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.hints import AT_MASTER, Commands
from saltext.kvmclone.model.host_reports import Daemon, HostCondition, HostReport
from saltext.kvmclone.model.leftovers import Leftover, Unfinished
from saltext.kvmclone.model.made_base import MadeBase
from saltext.kvmclone.model.placement import HostLimits, HostOffer
from saltext.kvmclone.model.record import Minion, Owner
from saltext.kvmclone.model.request import DEFAULT_URL, Request, Secrets
from saltext.kvmclone.model.spares import Claim
from saltext.kvmclone.model.warmed_base import UnwarmedBase, WarmedBase

#: Marks a parameter that holds secrets; on its way to a host only that host can open it.
SEALED = "sealed"


class KvmHost(Protocol):
    """One KVM host, wherever it is. Every method raises :class:`.errors.KvmCloneError`."""

    url: str

    # --- making, stage by stage

    def plan(self, request: Request) -> dict[str, Any]:
        """Return PLAN of a request; write nothing."""

    def offer(self, request: Request, names: Sequence[str]) -> HostOffer:
        """
        Return what the host has and has promised, and what a clone would take; write nothing.

        :param request: A clone that may be placed here, whatever it is called.
        :param names: Names of clones, of which those are wanted that some domain has.
        """

    def base_minion(self, request: Request) -> BaseMinion:
        """Return what the disks of a request's base show of a minion; write nothing."""

    def clone(
        self,
        request: Request,
        worker: Owner | None = None,
        goal: str = "cloned",
        digest: str = "",
        seed: Annotated[Mapping[str, str], SEALED] = MappingProxyType({}),
    ) -> Clone:
        """
        Make the clone, shut off, up to stage ``cloned``.

        :param worker: Who drives the create; None for this process.
        :param goal: The stage at which the create will be complete.
        :param digest: Digest of the whole request; a request that travels to a host holds less.
        :param seed: Files of the clone's own cloud-init seed; they may hold secrets.
        :raises CreateInProgress: Somebody is at work on that name, or died at it.
        :raises AlreadyExists: It is there, and complete.
        :raises KeptAfterFailure: It is there, and failed.
        :raises HostFull: It was placed here, and there is no room for it.
        :raises TooLate: It was placed here, and was to begin earlier.
        """

    def take_over(self, name: str, token: str, worker: Owner) -> Clone:
        """
        Take over the clone of a worker that is dead, or of a create that was kept.

        :param token: The token of that worker; the clone is left alone where its record has
            another.
        :param worker: The worker that drives the create from now on.
        """

    def boot(self, name: str) -> Clone:
        """Boot a clone for the first time, up to stage ``booted``."""

    def wait_for_address(self, request: Request, minion: Minion = Minion()) -> Clone:
        """
        Wait for the clone's address, up to stage ``addressed``; reset its identity on the way.

        The identity is reset over the guest agent, where there is one.

        :param minion: The minion that the clone will be, recorded before its key is accepted.
        """

    def bootstrap(self, request: Request, enrolment: Annotated[Enrolment, SEALED]) -> Clone:
        """Put a minion into the guest, up to stage ``enrolled``."""

    def give_word(self, request: Request, word: Annotated[str, SEALED]) -> bool:
        """
        Give a fork that was enrolled before another word, over its agent, for its minion to answer.

        :return: False for one that its create booted since: its uuid says which machine it is.
        """

    def check_master(
        self, request: Request, secrets: Annotated[Secrets, SEALED], publish_port: int
    ) -> GuestMinion:
        """
        Ask the guest which ports of its master it reaches, and which id and key its minion has.

        :param publish_port: The port that a minion is told by its master, if its configuration has
            none.
        :return: What it says, over its agent or ssh; nothing where it cannot be asked.
        """

    def complete(self, name: str, minion: Minion, timings: dict[str, float]) -> Clone:
        """
        Record that the clone is ``ready``.

        :param timings: What the stage took, by its name, seconds.
        """

    def keep(self, name: str, token: str, why: str, off: bool) -> Clone:
        """
        Record that the create failed and the clone is kept.

        :param token: The token of the create's worker; the clone is left alone where its record
            has another.
        :param why: The error.
        :param off: Switch the clone off.
        """

    # --- bases

    def base_from(
        self,
        request: BaseRequest,
        origin: Annotated[Origin, SEALED],
        worker: Owner | None = None,
    ) -> MadeBase:
        """
        Make a base from a disk image.

        :param origin: Where the image really is; its URL may hold secrets.
        :param worker: Who has it made; None for this process.
        :raises AlreadyExists: That very base is there.
        :raises CreateInProgress: Somebody is at work on that name, or died at it.
        """

    def promote(self, name: str, base: str, worker: Owner | None = None) -> dict[str, Any]:
        """
        Make a base of a clone, and destroy the clone.

        :param worker: Who has it made; None for this process.
        :return: The base; see ``promote`` in docs/answers.md.
        """

    # --- warming bases

    def warm(
        self, base_domain: str, worker: Owner | None = None, limits: HostLimits | None = None
    ) -> WarmedBase:
        """
        Save the memory of a base, so that forks can be made of it.

        :param worker: Who has it done; None for this process.
        :param limits: How much the host may promise; None for any amount.
        :raises CreateInProgress: Somebody is at it.
        :raises HostFull: There is no room for the machine that is booted for it.
        """

    def unwarm(self, base_domain: str) -> UnwarmedBase:
        """
        Remove the saved memories of a base.

        :raises CloneInUse: Forks stand on one; nothing was removed.
        """

    # --- copying bases

    def base_states(self, names: Sequence[str] = ()) -> list[BaseState]:
        """
        Return the bases on the host, and what is known of their content; read none of it.

        :param names: Domains to return, too, although nothing of ours is recorded with them.
        """

    def hash_base(self, base_domain: str) -> BaseState:
        """Read the content of a base, unless its digest is on record and counts."""

    def expect_base(self, base_domain: str) -> BaseState:
        """Return what stands where a base is to be copied to; see :func:`.fetch_base.expect`."""

    def offer_base(self, base_domain: str, copy: str) -> BaseOffer:
        """
        Make a base ready to be fetched by another host.

        :param copy: The id of this copy; :meth:`end_copy` takes everything back.
        """

    def prepare_copy(self, offer: BaseOffer, instead: bool = False) -> CopyKey:
        """Check that an offer can be fetched (``instead`` of a base there), and make its key."""

    def reached(self, addresses: Sequence[str], port: int) -> list[str]:
        """Return at which of another machine's addresses a port takes connections from here."""

    def admit_copy(self, base_domain: str, copy: str, key: CopyKey) -> str:
        """
        Let the host that made this key fetch what was offered, and nothing else.

        :return: The file that holds the key from now on.
        """

    def fetch_base(self, offer: BaseOffer, instead: bool = False) -> BaseState:
        """Fetch a base that is offered (``instead`` of one there), compare it, and define it."""

    def end_copy(self, copy: str) -> list[Leftover]:
        """Remove keys, links and staged files of a copy, at either end. Can be repeated."""

    def dead_copies(self, name: str = "", apply: bool = False) -> list[Leftover]:
        """
        Return what copies left that nobody is at work on any more.

        :param name: Only copies of this base.
        :param apply: Remove it.
        """

    def remove_base(self, base_domain: str, apply: bool = False) -> RemovedBase:
        """Return what removing a base deletes, which is done with ``apply`` alone."""

    # --- living

    def destroy(self, name: str, force: bool = False, token: str = "") -> Clone:
        """
        Destroy a clone.

        :return: CLONE as it was, with what was kept as warnings.
        """

    def clear(self, name: str, token: str, force: bool = False) -> list[Leftover]:
        """
        Remove what a dead worker left of a clone.

        :param token: The token of that worker; the clone is left alone where its record has
            another.
        :return: What was really removed, and what stays.
        """

    def power(self, name: str, action: str) -> Clone:
        """
        Change the power state of a clone.

        :param action: ``start``, ``stop`` (asks the guest first), ``off`` (at once) or
            ``reboot``.
        """

    def show(self, name: str) -> Clone:
        """Return one clone, as it is now."""

    def list_clones(self, spares: bool = False) -> list[Clone]:
        """
        Return every clone on the host.

        :param spares: Only those that were made as spares.
        """

    # --- spares

    def claim(
        self, name: str, uuid: str, claim: Claim, expires: float, tags: Sequence[str] = ()
    ) -> Clone:
        """
        Take a spare out of the stock: of several claims on it one succeeds.

        Whoever removes a spare that could be claimed claims it first, too.

        :param uuid: The spare's; a domain of that name with another one is left alone.
        :param expires: When its ``ttl`` ends, seconds since the epoch.
        :param tags: Words recorded with it besides its own.
        :raises NoSpare: It is not in stock, or no more.
        """

    # --- snapshots

    def snapshot(self, name: str, label: str = "") -> CloneSnapshot:
        """
        Take a snapshot of a clone.

        :param label: Empty for one that is made of the time.
        """

    def rollback(self, name: str, label: str) -> Clone:
        """Bring a clone's disks and variable store back to a snapshot."""

    def snapshots(self, name: str) -> list[CloneSnapshot]:
        """Return the snapshots of a clone, oldest first."""

    def delete_snapshot(self, name: str, label: str) -> CloneSnapshot:
        """
        Delete one snapshot; the clone and its other snapshots stay as they are.

        :return: The snapshot as it was.
        """

    # --- care

    def unfinished(self, name: str = "") -> list[Unfinished]:
        """
        Return the creates and destroys that are not finished, whoever does them.

        :param name: Only this clone; also where it failed and was kept.
        """

    def tree(self) -> dict[str, Any]:
        """Return the bases with their clones; see ``tree`` in docs/answers.md."""

    def bases(self) -> list[dict[str, Any]]:
        """Return the domains that could be cloned and are not clones; see :mod:`.lineage`."""

    def doctor(self) -> list[dict[str, Any]]:
        """Return what is wrong on the host, worst first; empty on a healthy host."""

    def condition(self) -> HostCondition:
        """Return what works on the host, how its daemon answers, and what it promised."""

    def capacity(self) -> dict[str, Any]:
        """Return what the host has and what of it is free; see :func:`.reports.capacity`."""

    def daemon(self) -> Daemon:
        """Return what tells the daemon from others."""

    def report_domains(self, names: Sequence[str], ids: Sequence[str]) -> HostReport:
        """
        Return what the host knows for certain of some domains; see :func:`.reports.report_domains`.

        :param names: Names of domains.
        :param ids: Minion ids.
        """

    def adopt(self, name: str, base_domain: str = "") -> Clone:
        """Make a clone of Salt's old driver one of ours."""

    def unprotect(self, base_domain: str) -> list[str]:
        """
        Make a protected base writable again.

        :return: Paths of the files that are writable again.
        """


def commands_of(host: object) -> Commands:
    """Return our commands as they are typed where the answers of a host are read."""
    minion = getattr(host, "minion_id", getattr(host, "label", ""))
    return Commands(getattr(host, "url", DEFAULT_URL), getattr(host, "ours", AT_MASTER), minion)
