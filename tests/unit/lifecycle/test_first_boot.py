"""libvirt starts a clone with its host only once the clone is a machine of its own."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.lifecycle import first_boot
from saltext.kvmclone.lifecycle.wait_for_address import Arrival
from saltext.kvmclone.model.record import Record


class Handle:
    """A domain that notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def set_autostart(self, on: bool) -> None:
        self.done.append(on)


@pytest.mark.parametrize(
    ("reset", "entered_later", "wish", "done"),
    [
        (True, True, True, [True, "addressed"]),
        (False, False, True, [True, "addressed"]),
        (False, True, True, ["addressed"]),  # the bootstrap does it
        (True, True, None, ["addressed"]),
    ],
)
def test_it_is_set_before_the_stage_is_recorded_and_not_before_there_is_an_identity(
    monkeypatch: pytest.MonkeyPatch,
    reset: bool,
    entered_later: bool,
    wish: bool | None,
    done: list[Any],
) -> None:
    handle: Any = Handle()

    def save(_handle: Any, _seen: Record, record: Record) -> Record:
        handle.done.append(record.stage)
        return record

    sightings: Any = [type("", (), {"address": type("", (), {"address": "10.0.0.1"})})]
    arrival = Arrival(tuple(sightings), identity_reset=reset)
    monkeypatch.setattr(first_boot.wait_for_address, "arrive", lambda *_: arrival)
    monkeypatch.setattr(first_boot.record_store, "current", lambda *_: None)
    monkeypatch.setattr(first_boot.record_store, "save", save)
    monkeypatch.setattr(first_boot.bootstrap, "told_host_keys", lambda _handle: ())
    query: Any = type("", (), {"resets": False})
    first_boot.await_address(
        handle, Record("u1", "base", "u2", "quick"), query, entered_later, wish
    )
    assert handle.done == done
