"""Of several calls each goes its own way, and what has ended is told at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from saltext.kvmclone.hosts import side_by_side


def test_what_ends_together_is_told_together_and_nothing_is_told_twice() -> None:
    parts: list[Any] = []
    told = side_by_side.carry_out(str.upper, ["a", "b", "c"], parts.append)
    assert told == {"0": "A", "1": "B", "2": "C"}
    assert parts == [], "the whole answer is there"
    assert side_by_side.carry_out(str.upper, [], parts.append) == {}


def test_a_slow_call_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "GATHER_S", 0.05)
    others_told = threading.Event()
    parts: list[Any] = []

    def work(call: str) -> str:
        if call == "slow":
            assert others_told.wait(10)
        return call

    def tell(part: side_by_side.Told) -> None:
        parts.append(part)
        others_told.set()

    told = side_by_side.carry_out(work, ["slow", "b", "c"], tell)
    assert told == {"0": "slow", "1": "b", "2": "c"}
    assert {number for part in parts for number in part} == {"1", "2"}


def test_all_of_them_are_at_work_at_the_same_time() -> None:
    together = threading.Barrier(32, timeout=10)
    calls = range(32)
    told = side_by_side.carry_out(lambda call: (together.wait(), call)[1], calls, lambda _: None)
    assert told == {str(number): number for number in calls}


def test_no_call_keeps_a_process_alive_that_is_to_end() -> None:
    seen: list[bool] = []
    side_by_side.carry_out(
        lambda _: seen.append(threading.current_thread().daemon), [1], lambda _: None
    )
    assert seen == [True]
