"""A resumed create that fails once more: the key that it was given is the one on record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.errors import ChannelError
from saltext.kvmclone.lifecycle import bootstrap
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.record import Minion, Record
from saltext.kvmclone.model.request import Request

REQUEST = Request(name="again1", base_domain="base")
ENROLMENT = Enrolment("again1", fingerprint="second")


class Handle:
    """A domain with a record and nothing else."""

    name = "again1"

    def __init__(self, fingerprint: str) -> None:
        minion = Minion("again1", fingerprint=fingerprint)
        self.now = Record("uuid", "base", "", "quick", stage="addressed", minion=minion)
        self.writes = 0

    def record(self) -> Record:
        return self.now

    def save_record(self, record: Record) -> None:
        self.now = record
        self.writes += 1


@pytest.mark.parametrize(("before", "writes"), [("first", 1), ("second", 0)])
def test_the_key_of_an_attempt_is_on_record_before_the_guest_is_entered(
    monkeypatch: pytest.MonkeyPatch, before: str, writes: int
) -> None:
    def closed(_self: Any) -> None:
        raise ChannelError("nobody opens")

    monkeypatch.setattr(bootstrap._Bootstrap, "_agent", closed)
    handle: Any = Handle(before)
    with pytest.raises(ChannelError):
        bootstrap.bootstrap(handle, handle, handle.record(), REQUEST, ENROLMENT)
    assert handle.now == replace(handle.now, minion=Minion("again1", fingerprint="second"))
    assert handle.writes == writes
