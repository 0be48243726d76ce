"""A host is shown by what it has promised; one that says what nobody understands is named."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.display.page.hosts import hosts
from saltext.kvmclone.display.page.render import page
from tests.support import pictures
from tests.support.pictures import picture


def test_a_host_shows_what_it_promised_of_what_it_has() -> None:
    first, second, third, silent = hosts(picture())
    assert first.memory is not None
    assert (first.memory.words, first.cpus) == ("79 GiB of 128 GiB", "55 for 32")
    assert [(name, pool.words) for name, pool in first.pools] == [
        ("default", "342 GiB free of 900 GiB")
    ]
    assert second.memory is not None
    assert second.memory.share > 1, "more than it has"
    assert (third.maintenance, third.also) == (True, ("qemu+ssh://kvm03/system",))
    assert silent.why == "did not answer"


@pytest.mark.parametrize(
    "told",
    [
        {"memory": 5},
        {"memory": {"total": "much", "free": 0}},
        {"promised": {"memory": float("inf"), "cpus": float("inf")}},
        {"pools": {"default": {}}},
        {"clones": None},
        {"spares": "many"},
    ],
)
def test_a_host_that_says_what_nobody_understands_is_named_and_the_others_are_shown(
    told: dict[str, Any],
) -> None:
    strange, other = hosts(picture(hosts={"a": pictures.host(**told), "b": pictures.host()}))
    assert strange.why == "gave an answer of an unknown form"
    assert not other.why


def test_the_spares_among_its_clones_are_counted() -> None:
    told = picture(hosts={"a": pictures.host(spares=3), "b": pictures.host()})
    assert [row.spares for row in hosts(told)] == [3, 0]
    assert ", 3 spare</td>" in page(told)


def test_an_empty_pool_is_no_division_by_zero() -> None:
    pools = {"iso": {"capacity": 0, "available": 0}}
    (row,) = hosts(picture(hosts={"a": pictures.host(pools=pools)}))
    assert [pool.share for _name, pool in row.pools] == [0.0]
