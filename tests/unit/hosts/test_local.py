"""A clone that was left off has its first boot, and a fork that must not go on has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.errors import ForkFailed
from saltext.kvmclone.hosts import local
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import MADE, MEMORY, Record, Volume

KEPT = Record(
    "uuid-1", "base", "uuid-0", "instant", name="web1", stage="cloned", failed="interrupted",
    warmed="base.warm1",
    volumes=(Volume(MEMORY, "/pool/web1-memory.save", "raw", "instant", MADE),),
)  # fmt: skip


class Handle:
    """A domain that is off."""

    name = "web1"

    def __init__(self) -> None:
        self.connection = type("", (), {"commands": Commands()})
        self.started = False

    def state(self) -> str:
        return "shutoff"

    def start(self) -> None:
        self.started = True


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Handle:
    made = Handle()

    @contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[Any]:
        yield made.connection

    monkeypatch.setattr(local, "ConnectedOperation", opened)
    return made


@pytest.mark.parametrize("action", ["start", "reboot"])
def test_a_fork_that_was_kept_before_it_had_random_numbers_is_not_started(
    monkeypatch: pytest.MonkeyPatch, handle: Handle, action: str
) -> None:
    monkeypatch.setattr(local, "clone_record", lambda *_: (handle, KEPT))
    with pytest.raises(ForkFailed, match="does not go on") as caught:
        LocalHost("test:///default").power("web1", action)
    assert not handle.started
    assert "kvmclone.destroy web1" in caught.value.hint


@pytest.mark.parametrize("action", ["start", "reboot"])
def test_what_was_left_off_is_given_its_identity_at_its_first_boot(
    monkeypatch: pytest.MonkeyPatch, handle: Handle, action: str
) -> None:
    record = replace(KEPT, strategy="quick", failed="", goal="cloned", warmed="", volumes=())
    monkeypatch.setattr(local, "clone_record", lambda *_: (handle, record))
    monkeypatch.setattr(local.first_boot, "boot", lambda _host, _handle, mine: mine.at("booted"))
    monkeypatch.setattr(LocalHost, "_addressed", lambda *given: given[3].stage)
    assert LocalHost("test:///default").power("web1", action) == "booted"
    assert not handle.started
