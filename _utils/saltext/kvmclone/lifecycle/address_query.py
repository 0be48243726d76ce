"""Say which address of a guest a wait looks for: as a request asks, or as a record says."""

from __future__ import annotations

from dataclasses import dataclass

from saltext.kvmclone.hypervisor import addresses
from saltext.kvmclone.hypervisor.addresses import AddressFilter
from saltext.kvmclone.model.record import Record, Reservation
from saltext.kvmclone.model.request import AddressPick, Request, Wait


@dataclass(frozen=True)
class AddressQuery:
    """
    Which address of a guest to wait for, for how long, and what to do on the way.

    :param ip_source: Where to look, see :data:`.addresses.SOURCES`.
    :param pick: Which of several addresses counts.
    :param reservations: What was reserved for the clone.
    :param wait: Deadline and pauses.
    :param seed: The clone's cloud-init seed: ``none``, ``own``, ``keep``, ``out`` or ``told``.
    :param resets: Reset the guest's identity over its agent, once that connects.
    :param heard: The agent need not be waited for: the identity was reset in an earlier attempt,
        or the state of the agent does not matter to the caller.
    """

    ip_source: str
    pick: AddressPick = AddressPick()
    reservations: tuple[Reservation, ...] = ()
    wait: Wait = Wait()
    seed: str = "none"
    resets: bool = False
    heard: bool = False

    @classmethod
    def from_request(cls, request: Request, record: Record) -> AddressQuery:
        """Return what a create waits for; the record says what was done and reserved already."""
        return cls(
            request.ip_source,
            request.pick,
            record.reservations,
            request.wait,
            record.seed or request.seed,
            resets=request.reset_identity and record.identity != "reset",
            heard=record.identity == "reset",
        )

    @classmethod
    def from_record(cls, record: Record) -> AddressQuery:
        """Return what is waited for where nobody has a request: as the record says."""
        return cls(
            record.ip_source,
            record.pick,
            record.reservations,
            seed=record.seed or "none",
            resets=record.identity not in ("kept", "reset"),
            heard=record.identity == "reset",
        )

    @property
    def wanted(self) -> AddressFilter:
        """Return which address counts."""
        return addresses.address_filter(self.pick, self.reservations)
