"""Clones can be sorted by every column, and those whose time is over are named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.display.page.clones import TITLES, data, endings, remarks, rows
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.spares import Claim
from tests.support.pictures import DAY, NOW, clone, picture


def of(*clones: Clone) -> Any:
    return picture(clones={one.name: one for one in clones})


def test_names_stand_in_the_order_in_which_people_count() -> None:
    told = of(clone(10), clone(2), clone(1))
    assert [row.name for row in rows(told)] == ["web1", "web2", "web10"]


@pytest.mark.parametrize(
    ("title", "field", "values"),
    [
        ("Address", "address", ["10.0.0.9", "10.0.0.10", "fe80::1", ""]),
        ("Host", "host", ["kvm2", "kvm10"]),
        ("State", "state", ["running", "shutoff", ""]),
        ("Age", "created", [NOW - 1, NOW - 2, 0.0]),
        ("Ends in", "expires", [NOW + 1, NOW + 2, 0.0]),
    ],
)
def test_a_column_is_sorted_by_what_it_means_and_what_is_empty_comes_last(
    title: str, field: str, values: list[Any]
) -> None:
    told = of(*(clone(n, **{field: value}) for n, value in enumerate(values, 1)))
    column = [one for one, _style in TITLES].index(title)
    ranks = [one["ranks"][column] for one in data(told)["clones"]]
    last = [None] * (len(values) - len([value for value in values if value]))
    assert ranks == [*range(len(values) - len(last)), *last]


def test_equal_clones_share_their_place() -> None:
    told = data(of(clone(1, host="a"), clone(2, host="a"), clone(3, host="b")))
    assert [one["ranks"][1] for one in told["clones"]] == [0, 0, 2]


def test_a_row_says_what_to_look_at() -> None:
    marks = [
        row.cells[-1][0]
        for row in rows(
            of(
                clone(1, failed="no address"),
                clone(2, drift=True),
                clone(3, warnings=("Its agent is silent.",)),
                clone(4, warnings=("Its ttl ends at 2026-12-01 00:00:00 UTC.",)),
            )
        )
    ]
    assert marks == ["failed", "base changed", "remark", ""]


def test_what_is_shown_on_demand_has_every_warning() -> None:
    one = clone(1, failed="no address", drift=True, warnings=("Its agent is silent.",))
    assert remarks(one) == [
        "Its create failed: no address",
        "Its base changed since it was made.",
        "Its agent is silent.",
    ]
    assert ("Tags", "web") in data(of(one))["clones"][0]["more"]


def test_the_clones_that_end_first_are_named_with_what_removes_them() -> None:
    told = of(
        clone(1, expires=NOW + 2 * DAY),
        clone(2, expires=NOW - 1),
        clone(3, expires=NOW + 9 * DAY),
        clone(4, expires=0.0),
    )
    soon, later = endings(told)
    assert [(one.name, one.left) for one in soon] == [("web2", "over"), ("web1", "2d")]
    assert soon[0].command == "salt-run kvmclone.destroy web2"
    assert later == 1


def test_a_spare_in_stock_and_who_claimed_one_are_said() -> None:
    stock = replace(clone(1), spare="0123")
    taken = replace(clone(2), spare="0123", claim=Claim("alice", NOW))
    more = [dict(one["more"]) for one in data(of(stock, taken, clone(3)))["clones"]]
    assert more[0]["Spare"] == "in stock"
    assert more[1]["Claimed"].startswith("by alice, 2026-")
    assert not {"Spare", "Claimed"} & set(more[2])
