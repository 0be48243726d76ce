"""
The interface :class:`EnrollerInterface`: what only a master can do for a new minion.

:mod:`.provision` uses it; :class:`.enrolment.Enroller` implements it for a create by the runner.
For salt-cloud, whose core does a part of the work before it calls the driver, see
:mod:`.cloud_driver`.
"""

from __future__ import annotations

from typing import Protocol

from saltext.kvmclone.model.enrolment import Enrolment, KeyPair
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

    def verify(self, minion_id: str, uuid: str) -> Minion:
        """
        Wait for the answer to ``test.version`` from the machine with that uuid.

        :return: The minion as the record is to name it.
        """

    def becomes_ready(self, minion_id: str, uuid: str) -> None:
        """Take note that the clone with that uuid is about to be recorded as ``ready``."""

    def start_action(self, minion_id: str, function: str) -> str:
        """
        Run the profile's ``start_action`` on the minion.

        :return: What to tell the operator of a failure; empty for none.
        """
