"""What an unfinished apply made is deleted, or the error says that it is left."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone.errors import CreateInProgress, HostError, KvmCloneError, PlanRefused
from saltext.kvmclone.lifecycle import journal
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import BASE, Record


def undone(
    monkeypatch: pytest.MonkeyPatch, error: KvmCloneError, problem: KvmCloneError, becomes: str
) -> KvmCloneError:
    def fail(*_arguments: Any) -> list[str]:
        raise problem

    monkeypatch.setattr(journal, "take_back", fail)
    host = SimpleNamespace(commands=Commands(minion="kvm01"))
    record = replace(Record("u", "b", "bu", "full"), becomes=becomes)
    work = journal.Journal(SimpleNamespace(name="debian12"), record)  # type: ignore[arg-type]
    try:
        journal.undo(host, work, error)  # type: ignore[arg-type]
    except KvmCloneError as other:
        return other
    return error


@pytest.mark.parametrize("error", [HostError("broken", "Look."), PlanRefused("no", "Look.")])
def test_what_was_to_become_a_base_and_cannot_be_deleted_is_named(
    monkeypatch: pytest.MonkeyPatch, error: KvmCloneError
) -> None:
    told = undone(monkeypatch, error, HostError("no storage"), BASE)
    assert type(told) is HostError
    assert told.hint.startswith("Look.   What was made is left: ")
    assert "gc debian12" in told.hint


def test_a_create_is_undone_once_more_and_what_changed_hands_is_not_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = undone(monkeypatch, HostError("broken", "Look."), HostError("no storage"), "")
    assert told.hint == "Look."
    told = undone(monkeypatch, HostError("broken", "Look."), CreateInProgress("theirs"), BASE)
    assert told.hint == "Look."
