"""The page shows how long the stages took, for each way to copy on one scale."""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.display.page.times import bars, stages
from tests.support.pictures import clone, picture


def of(*timings: tuple[str, dict[str, float]]) -> Any:
    made = [clone(n, strategy=way, timings=took) for n, (way, took) in enumerate(timings)]
    return picture(clones={one.name: one for one in made})


def test_a_bar_shows_the_usual_seconds_and_the_longest_fills_the_width() -> None:
    full, quick = bars(
        of(
            ("quick", {"cloned": 1.0, "booted": 1.0}),
            ("quick", {"cloned": 1.0, "booted": 3.0}),
            ("quick", {"cloned": 4.0, "booted": 1.0}),
            ("full", {"cloned": 8.0}),
        )
    )
    assert (full.strategy, full.count, full.total) == ("full", 1, "8.0 s")
    assert [(part.begin, part.width) for part in full.parts] == [(0.0, 1000.0)]
    assert [(part.stage, part.begin, part.width) for part in quick.parts] == [
        ("cloned", 0.0, 125.0),
        ("booted", 125.0, 125.0),
    ]
    assert quick.count == 3


def test_every_stage_names_the_clone_that_took_longest() -> None:
    rows = stages(of(("quick", {"ready": 1.0, "cloned": 2.0}), ("full", {"ready": 120.0})))
    assert [(row.stage, row.usual, row.slowest, row.name) for row in rows] == [
        ("cloned", "2.0 s", "2.0 s", "web0"),
        ("ready", "60.5 s", "2m", "web1"),
    ]


def test_where_nothing_was_timed_there_is_no_bar() -> None:
    assert bars(of(("quick", {}))) == []
    assert stages(of(("quick", {}))) == []
    assert [bar.total for bar in bars(of(("quick", {"cloned": 0.0})))] == ["0.0 s"]
