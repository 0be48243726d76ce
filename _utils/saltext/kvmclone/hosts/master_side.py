"""
:class:`MasterSide`, what only a master can do for a new minion.

The interface that :mod:`.provision` speaks; :class:`.enrolment.Enroller` is it for a create by the
runner, and salt-cloud's core has a part of the work done before it asks (see :mod:`.cloud_driver`).
"""

from __future__ import annotations

from typing import Any, Protocol

from saltext.kvmclone.model.record import Minion
from saltext.kvmclone.model.request import Request, Secrets


class KeyPair(Protocol):
    """A minion's key pair, PEM."""

    @property
    def private(self) -> str: ...

    @property
    def public(self) -> str: ...


class MasterSide(Protocol):
    """What only a master can do for a new minion."""

    @property
    def is_its_master(self) -> bool:
        """
        Whether the minion will answer to this master. Where it will not, its key is not accepted
        here and the create ends at ``enrolled``.
        """

    def require_free(self, minion_id: str) -> None:
        """Refuse an id that the master already has a key for."""

    def prepare(self, request: Request, secrets: Secrets) -> None:
        """Find what cannot work (a missing script, a wrong passphrase) before anything is made."""

    def generate(self, bits: int) -> KeyPair:
        """Make a key pair."""

    def fingerprint(self, public: str) -> str:
        """The fingerprint of a public key."""

    def accept(self, minion_id: str, public: str, name: str, host: str) -> None:
        """Accept exactly this public key, of the clone of that name on that host."""

    def remove(self, minion_id: str, fingerprint: str) -> bool:
        """Take exactly that key back."""

    def settle(self, minion_id: str) -> None:
        """Clear what other keys knocked under this id while it was ours to give."""

    def enrolment(self, request: Request, secrets: Secrets, pair: KeyPair) -> Any:
        """Everything that goes into the guest."""

    def verify(self, minion_id: str, uuid: str) -> Minion:
        """Wait for ``test.version`` from that machine."""

    def becomes_ready(self, minion_id: str, uuid: str) -> None:
        """Hear that the clone with that uuid is about to be noted as ``ready``."""

    def start_action(self, minion_id: str, function: str) -> str:
        """Run the profile's ``start_action``; a failure comes back in words."""
