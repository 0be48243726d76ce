"""What is typed after ``list`` chooses and sorts clones; what does not exist is named."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.errors import ConfigError
from saltext.kvmclone.master.clone_list import selection
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.plain import from_plain
from tests.unit.display.examples import clone

NOTHING: dict[str, Any] = dict.fromkeys(("host", "base", "profile", "tag", "state"))


def made(**keys: Any) -> Clone:
    return from_plain(Clone, clone(**keys))


@pytest.mark.parametrize(
    ("only", "taken"),
    [
        ({}, True),
        ({"host": "kvm01"}, True),
        ({"host": "qemu:///system"}, True),
        ({"host": "kvm02"}, False),
        ({"base": "debian12", "state": "running", "tag": "front"}, True),
        ({"base": "debian12", "state": "shutoff"}, False),
        ({"tag": "back"}, False),
        ({"profile": "db"}, False),
    ],
)
def test_only_clones_that_fit_everything_are_listed(only: dict[str, str], taken: bool) -> None:
    wanted = selection(None, None, {**NOTHING, **only})
    assert wanted.takes("qemu:///system", made(tags=["front"])) is taken


@pytest.mark.parametrize("kind", ["clone", "spare", "claimed"])
def test_spares_in_stock_and_claimed_ones_are_told_from_others(kind: str) -> None:
    told = {"clone": {}, "spare": {"spare": "0123"},
            "claimed": {"spare": "0123", "claim": {"by": "alice", "at": 5.0}}}  # fmt: skip
    one = made(**told[kind])
    for key in ("spare", "claimed"):
        for wanted in (True, False):
            chosen = selection(None, None, {**NOTHING, key: wanted})
            assert chosen.takes("", one) is ((kind == key) is wanted)


def test_sorting_is_by_number_where_there_is_one() -> None:
    clones = {
        name: clone(name, address=address)
        for name, address in (("a", "192.168.1.10"), ("b", "192.168.1.9"), ("c", ""))
    }
    assert list(selection(None, "address", NOTHING).in_order(clones)) == ["b", "a", "c"]
    assert list(selection(None, None, NOTHING).in_order(clones)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("columns", "sort", "only", "said"),
    [
        ("name,nmae", None, {}, "no column 'nmae'"),
        (1, None, {}, "no column '1'"),
        (None, "size", {}, "no column 'size'"),
        (None, "name,age", {}, "sorted by one column"),
        (None, None, {"state": "runing"}, "no state 'runing'"),
        (None, None, {"spare": "yes"}, "spare=yes is neither True nor False"),
        (None, None, {"claimed": 1}, "claimed=1 is neither True nor False"),
    ],
)
def test_what_does_not_exist_is_named(
    columns: Any, sort: Any, only: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        selection(columns, sort, {**NOTHING, **only})


def test_a_host_that_is_not_configured_is_no_empty_list() -> None:
    wanted = selection(None, None, {**NOTHING, "host": "kvm03"})
    with pytest.raises(ConfigError, match="no host 'kvm03'") as caught:
        wanted.require_host(["kvm01", "kvm02"])
    assert "Did you mean 'kvm0" in caught.value.hint
