"""What work found out is written over what others wrote meanwhile, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given

from saltext.kvmclone.lifecycle.record_store import merged
from saltext.kvmclone.model.record import (
    STAGES,
    Record,
)
from tests.support.records import RECORDS, UUID


@given(seen=RECORDS, mine=RECORDS)
def test_where_nobody_else_wrote_a_record_is_simply_written(seen: Record, mine: Record) -> None:
    forward = max(seen.stage, mine.stage, key=STAGES.index)
    found = merged(seen, mine, seen)
    assert replace(found, warnings=(), timings={}, stage="") == replace(
        mine, warnings=(), timings={}, stage=""
    )
    assert found.stage == forward
    assert set(found.warnings) == {*seen.warnings, *mine.warnings}
    assert found.timings == {**seen.timings, **mine.timings}


@given(seen=RECORDS, now=RECORDS)
def test_a_piece_of_work_that_found_nothing_changes_nothing(seen: Record, now: Record) -> None:
    assert merged(seen, seen, now) == now


def test_what_two_wrote_is_both_there() -> None:
    seen = Record(uuid=UUID, base="base", base_uuid="x", strategy="quick", warnings=("old",))
    mine = replace(seen, address="192.0.2.7", warnings=("old", "mine")).at("addressed", booted=1.0)
    now = replace(seen, tags=("new",), warnings=("old", "theirs")).at("ready", ready=2.0)
    found = merged(seen, mine, now)
    assert found == replace(
        now,
        address="192.0.2.7",
        warnings=("old", "theirs", "mine"),
        timings={"ready": 2.0, "booted": 1.0},
    )
