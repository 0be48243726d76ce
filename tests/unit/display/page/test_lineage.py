"""The page shows which clone was made from which base, to any depth."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.display.page.lineage import lineage
from tests.support import pictures
from tests.support.pictures import picture


def of(**base: Any) -> Any:
    (branch,) = lineage(picture(tree={"debian12": base}))
    return branch


def test_a_base_is_shown_with_what_was_made_from_it_and_from_that() -> None:
    below = pictures.branch(pictures.clone(2, drift=True))
    above = pictures.branch(pictures.clone(1), clones={"web2": below})
    base = of(state="shutoff", source="debian-12.qcow2", clones={"web1": above})
    assert base.words == "shut off, made from debian-12.qcow2, 2 clones"
    assert base.clones[0].clones[0].words == "quick, running, 1 GiB, base changed since"
    assert base.clones[0].clones[0].alarm
    assert base.clones[0].clones[0].changes == ("its disk vda was written after that",)


def test_a_spare_in_stock_and_who_claimed_one_are_said() -> None:
    stock = pictures.branch(pictures.clone(1)) | {"spare": True}
    taken = pictures.branch(pictures.clone(2)) | {"claimed": {"by": "alice", "at": 5.0}}
    base = of(clones={"web1": stock, "web2": taken})
    assert [one.words.split(", ")[-1] for one in base.clones] == ["in stock", "claimed by alice"]


def test_a_base_that_is_gone_says_so() -> None:
    base = of(exists=False, clones={"web1": pictures.branch(pictures.clone(1))})
    assert (base.words, base.alarm) == ("gone, 1 clone", True)


def test_very_many_clones_are_shown_on_demand() -> None:
    many = {f"web{n}": pictures.branch(pictures.clone(n)) for n in range(100)}
    assert not of(clones=many).is_open
    assert of(clones=dict(list(many.items())[:10])).is_open


def endless() -> dict[str, Any]:
    node: dict[str, Any] = {}
    for _ in range(500):
        node = {"clones": {"web1": node}}
    return node


@pytest.mark.parametrize("told", [{"clones": 5}, {"clones": {"a": None}}, endless()])
def test_a_host_that_says_what_nobody_understands_is_named(told: dict[str, Any]) -> None:
    base = of(**told)
    assert base.words == "its host gave an answer of an unknown form"
    assert base.alarm
