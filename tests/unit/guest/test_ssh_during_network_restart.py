"""Entering a guest over ssh that still has a restart of its network before it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone.errors import ChannelError, CommandFailed
from saltext.kvmclone.guest.channel import Result
from saltext.kvmclone.hypervisor.addresses import SeenAddress
from saltext.kvmclone.lifecycle import bootstrap
from saltext.kvmclone.model.clone import Address
from saltext.kvmclone.model.record import Record, Reservation
from saltext.kvmclone.model.request import AddressPick

OVER, PENDING, FAILED, SETTLING = 0, 3, 4, 5
OLD, NEW = "192.0.2.7", "192.0.2.8"


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Connection:
    """One that answers with these statuses, the last one for ever; an error breaks it."""

    name = "ssh"

    def __init__(self, *answers: int | BaseException) -> None:
        self.answers = list(answers)
        self.closed = False

    def run(self, _command: str, **_options: Any) -> Result:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return Result(answer, "", "")

    def close(self) -> None:
        self.closed = True


class Entering(bootstrap._Bootstrap):
    """
    A bootstrap whose guest is these connections, one after the other, the last for ever.

    Each takes a second to be entered, and its address `renewal` seconds to be seen.
    """

    def __init__(
        self,
        clock: Clock,
        *connections: Connection,
        renewal: float = 0.0,
        address: str = OLD,
        reserved: tuple[Reservation, ...] = (),
    ) -> None:
        handle: Any = SimpleNamespace(name="web1")
        wishes: Any = SimpleNamespace(pick=AddressPick())
        record = Record("", "", "", "quick", address=address, reservations=reserved)
        super().__init__(handle, handle, record, wishes, wishes)
        self.clock = clock
        self.connections = list(connections)
        self.renewal = renewal
        self.looked = 0

    def _await_renewal(self, before: Any) -> None:
        self.looked += 1
        self.clock.sleep(self.renewal)

    def _counting(self) -> Any:
        self.looked += 1
        return ()

    def _enter(self, deadline: float) -> Any:
        if self.clock.now >= deadline:
            raise ChannelError("no sshd until the deadline")
        self.clock.sleep(1.0)
        return self.connections.pop(0) if len(self.connections) > 1 else self.connections[0]

    def _save(self) -> None:
        self.seen = self.record


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(bootstrap, "time", made)
    monkeypatch.setattr(bootstrap, "pause", made.sleep)
    return made


BEFORE = (SeenAddress(Address("vnet0", "52:54:00:00:00:01", OLD, 24, "ipv4", "lease"), "1"),)


@pytest.mark.parametrize("before", [BEFORE, ()], ids=["after a reset", "resumed"])
def test_nothing_is_done_in_a_guest_before_its_network_was_restarted(
    clock: Clock, before: Any
) -> None:
    """Also where an earlier attempt, whose process is gone, did the reset."""
    connection = Connection(PENDING, PENDING, PENDING, OVER)
    entering = Entering(clock, connection)
    assert entering._reach(before) is connection
    assert connection.answers == [OVER]
    assert not connection.closed
    assert entering.record.warnings == ()


def reservation(address: str) -> tuple[Reservation, ...]:
    return (Reservation("default", "52:54:00:00:00:01", address),)


@pytest.mark.parametrize(
    ("address", "before", "reserved", "asked"),
    [
        (OLD, BEFORE, (), 3),
        (NEW, BEFORE, (), 1),
        (OLD, (), (), 3),
        (OLD, BEFORE, reservation(OLD), 1),
        (OLD, (), reservation(OLD), 1),
    ],
    ids=["old", "new", "resumed", "reserved", "resumed and reserved"],
)
def test_an_old_address_counts_only_when_the_guest_had_time_to_give_it_up(
    clock: Clock, address: str, before: Any, reserved: Any, asked: int
) -> None:
    """networkd is up, and so restarted, a moment before it drops the address it had."""
    connection = Connection(SETTLING, SETTLING, OVER, OVER, OVER)
    entering = Entering(clock, connection, address=address, reserved=reserved)
    entering._reach(before)
    assert 5 - len(connection.answers) == asked
    assert entering.record.warnings == ()


@pytest.mark.parametrize("error", [ChannelError, CommandFailed])
@pytest.mark.parametrize("before", [BEFORE, ()], ids=["after a reset", "resumed"])
def test_a_connection_that_goes_with_the_restart_is_made_anew_at_the_new_address(
    clock: Clock, before: Any, error: Callable[[str], Exception]
) -> None:
    """As where the guest reboots instead."""
    lost, new = Connection(PENDING, error("it broke")), Connection(OVER)
    entering = Entering(clock, lost, new)
    assert entering._reach(before) is new
    assert lost.closed
    assert not new.closed
    assert entering.looked == 2, "the address was looked up again"


def test_a_restart_that_never_comes_is_waited_for_as_long_as_for_sshd_and_is_a_warning(
    clock: Clock,
) -> None:
    connection = Connection(PENDING)
    entering = Entering(clock, connection)
    started = clock.now
    assert entering._reach(BEFORE) is connection
    assert clock.now - started == pytest.approx(bootstrap.SSH_TIMEOUT_S, abs=2)
    assert entering.record.warnings == (bootstrap.UNSETTLED["pending"],)
    assert entering.seen is entering.record, "it is on record, should the deployment break"


def test_a_restart_that_failed_is_a_warning_at_once(clock: Clock) -> None:
    entering = Entering(clock, Connection(PENDING, FAILED))
    started = clock.now
    entering._reach(BEFORE)
    assert clock.now - started < 5
    assert entering.record.warnings == (bootstrap.UNSETTLED["failed"],)


@pytest.mark.parametrize("error", [ChannelError, CommandFailed])
def test_a_guest_that_breaks_every_connection_is_given_up_in_time(
    clock: Clock, error: type[Exception]
) -> None:
    connection = Connection(error("it broke"))
    entering = Entering(clock, connection)
    started = clock.now
    with pytest.raises(error):
        entering._reach(BEFORE)
    assert clock.now - started <= bootstrap.SSH_TIMEOUT_S + 2
    assert entering.looked <= bootstrap.SSH_TIMEOUT_S / 2 + 2, (
        "each took a second, and then a pause"
    )
    assert connection.closed


def test_sshd_has_its_time_also_where_the_new_address_took_longer(clock: Clock) -> None:
    """As where the old lease was given back, and the guest's switch holds its first packets."""
    connection = Connection(OVER)
    entering = Entering(clock, connection, renewal=bootstrap.SSH_TIMEOUT_S + 30)
    assert entering._reach(BEFORE) is connection


def test_whoever_interrupts_leaves_no_connection_open(clock: Clock) -> None:
    connection = Connection(PENDING, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        Entering(clock, connection)._reach(BEFORE)
    assert connection.closed
