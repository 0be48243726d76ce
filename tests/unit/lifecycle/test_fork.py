"""What of a fork may go on, and what must not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.errors import ChannelError, ForkFailed, HostError
from saltext.kvmclone.hypervisor.constants import OPERATION_INVALID
from saltext.kvmclone.lifecycle import first_boot, fork
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import MADE, MAKING, MEMORY, WANTED, Record, Volume

FORK = Record(
    "uuid-1", "base", "uuid-0", "instant", name="web1", stage="cloned", warmed="base.warm1",
    volumes=(Volume(MEMORY, "/pool/web1-memory.save", "raw", "instant", WANTED),),
)  # fmt: skip


class Handle:
    """A domain that notes what is done to it."""

    name = "web1"

    def __init__(self, state: str = "shutoff", running: bool = False) -> None:
        self.now = state
        self.running = running
        self.saved: list[Record] = []
        self.connection = type("", (), {"commands": Commands()})

    def state(self) -> str:
        return self.now

    def power_off(self) -> None:
        self.now = "shutoff"

    def start(self) -> None:
        if self.now == "running":
            raise HostError("it runs", code=OPERATION_INVALID)
        self.now = "running"


def begun(state: str) -> Record:
    return replace(FORK, volumes=(replace(FORK.volumes[0], state=state),))


@pytest.mark.parametrize(
    ("record", "is_begun"),
    [
        (FORK, False),
        (begun(MAKING), True),
        (begun(MADE), True),
        (replace(FORK, volumes=()), True),
        (replace(FORK, volumes=(), stage="booted"), False),
        (replace(FORK, volumes=(), strategy="quick"), False),
    ],
)
def test_a_fork_was_begun_from_its_first_byte_until_it_is_booted(
    record: Record, is_begun: bool
) -> None:
    assert record.fork_begun is is_begun


@pytest.mark.parametrize(
    ("record", "state"), [(begun(MADE), "running"), (begun(MAKING), "shutoff"), (FORK, "running")]
)
def test_what_was_begun_is_switched_off_and_does_not_go_on(record: Record, state: str) -> None:
    handle: Any = Handle(state)
    with pytest.raises(ForkFailed, match="does not go on"):
        first_boot.boot(None, handle, record)  # type: ignore[arg-type]
    assert handle.now == "shutoff"


@pytest.mark.parametrize("error", [ChannelError("silent"), HostError("refused")])
def test_what_fails_before_the_acknowledgement_switches_it_off(error: Exception) -> None:
    handle: Any = Handle("running")
    with (
        pytest.raises(ForkFailed, match="was switched off"),
        fork._switched_off_unless_acknowledged(handle),
    ):
        raise error
    assert handle.now == "shutoff"


def test_an_interrupt_switches_it_off_and_stays_an_interrupt() -> None:
    handle: Any = Handle("running")
    with (
        pytest.raises(KeyboardInterrupt),
        fork._switched_off_unless_acknowledged(handle),
    ):
        raise KeyboardInterrupt
    assert handle.now == "shutoff"


@pytest.mark.parametrize(("state", "warmed"), [("shutoff", ""), ("running", "base.warm1")])
def test_a_fork_that_boots_afresh_goes_on_from_no_memory(
    monkeypatch: pytest.MonkeyPatch, state: str, warmed: str
) -> None:
    monkeypatch.setattr(first_boot.record_store, "save", lambda _handle, _seen, mine: mine)
    handle: Any = Handle(state)
    booted = replace(FORK, volumes=(), stage="booted")
    assert first_boot.boot(None, handle, booted).warmed == warmed  # type: ignore[arg-type]


def test_only_a_fork_without_an_identity_is_given_one() -> None:
    handle: Any = None
    for record in (replace(FORK, warmed=""), replace(FORK, identity="reset")):
        assert fork.become_itself(handle, record) is record
