"""
Declare what only a master can do for a new minion.

It is implemented by :class:`.enrolment.Enroller`, and by :class:`.cloud_keys.CloudEnroller` for
salt-cloud, whose core does a part of the work before it calls the driver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from saltext.kvmclone.model.base_minion import BaseMinion, Foresight
from saltext.kvmclone.model.enrolment import Enrolment, KeyPair
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.record import Minion
from saltext.kvmclone.model.request import Request, Secrets


class EnrollerInterface(Protocol):
    """What only a master can do for a new minion."""

    @property
    def is_its_master(self) -> bool:
        """
        Return True if the minion will answer to this master.

        Where it will not, its key is not accepted here and the create ends at ``enrolled``.
        """

    def require_free(self, minion_id: str) -> None:
        """
        Refuse a minion id that the master already has a key for.

        :raises KeyConflict: The master has one.
        """

    def prepare(self, request: Request, secrets: Secrets) -> None:
        """
        Find what cannot work (a missing script, a wrong passphrase) before anything is made.

        :raises KvmCloneError: Something cannot work.
        """

    def foresee(self, request: Request, look: Callable[[], BaseMinion]) -> Foresight:
        """
        Return what stands against the guest's becoming a minion, before anything is made.

        :param look: :meth:`.KvmHost.base_minion` of the request.
        """

    def generate(self, bits: int) -> KeyPair:
        """
        Return a key pair for the minion.

        :param bits: Size of the RSA modulus.
        """

    def fingerprint(self, public: str) -> str:
        """
        Return the fingerprint of a public key.

        :param public: The key as PEM text.
        """

    def accept(self, minion_id: str, public: str, name: str, host: str) -> None:
        """
        Accept exactly this public key for a minion id.

        :param public: The key as PEM text.
        :param name: Name of the clone.
        :param host: Minion id or libvirt URI of the host that has the clone.
        """

    def remove(self, minion_id: str, fingerprint: str) -> bool:
        """
        Remove the key of a minion id, if it has this fingerprint.

        :return: Whether a key was removed.
        """

    def settle(self, minion_id: str) -> None:
        """Delete the keys that were submitted under this minion id and were not accepted."""

    def enrolment(self, request: Request, secrets: Secrets, pair: KeyPair) -> Enrolment:
        """Return everything that goes into the guest."""

    def verify(
        self, minion_id: str, uuid: str, ask: Callable[[int], GuestMinion], word: str | None = None
    ) -> Minion:
        """
        Wait for the answer to ``test.version`` from the machine with that uuid.

        :param word: What a fork was given over its agent; see :func:`.verify.verify`.
        :param ask: :meth:`.KvmHost.check_master` of the clone, given the ``publish_port``.
        :return: The minion as the record is to name it.
        """

    def becomes_ready(self, minion_id: str, uuid: str) -> None:
        """Take note that the clone with that uuid is about to be recorded as ``ready``."""

    def start_action(self, minion_id: str, function: str) -> str:
        """
        Run the profile's ``start_action`` on the minion.

        :return: What to tell the operator of a failure; empty for none.
        """
