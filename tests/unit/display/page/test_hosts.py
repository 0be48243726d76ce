"""A host is shown by what it promised, and of a base it is said where it is missing or unequal."""

from __future__ import annotations

from typing import Any

import pytest

from saltext.kvmclone.display.page.hosts import bases, columns, hosts
from tests.support import pictures
from tests.support.pictures import picture, state


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
    ],
)
def test_a_host_that_says_what_nobody_understands_is_named_and_the_others_are_shown(
    told: dict[str, Any],
) -> None:
    strange, other = hosts(picture(hosts={"a": pictures.host(**told), "b": pictures.host()}))
    assert strange.why == "gave an answer of an unknown form"
    assert not other.why


def test_an_empty_pool_is_no_division_by_zero() -> None:
    pools = {"iso": {"capacity": 0, "available": 0}}
    (row,) = hosts(picture(hosts={"a": pictures.host(pools=pools)}))
    assert [pool.share for _name, pool in row.pools] == [0.0]


def test_a_host_that_was_not_asked_about_bases_has_its_column_all_the_same() -> None:
    assert columns(picture()) == ["kvm01", "kvm02", "kvm03", "kvm04"]
    assert columns(picture(hosts={})) == ["kvm01", "kvm02", "kvm03"]
    assert bases(picture())[0].cells[-1] == ("", "")


def command(reached: str = "kvm01 kvm02 kvm03", **states: str) -> str:
    told = {"debian12": {label: state(word) for label, word in states.items()}}
    (row,) = bases(picture(bases=told, reached=frozenset(reached.split())))
    return row.command


def test_a_base_that_is_missing_is_copied_and_one_that_was_not_compared_is_compared() -> None:
    missing = command(kvm01="same", kvm02="missing", kvm03="missing")
    assert missing == "salt-run kvmclone.push debian12 kvm02 kvm03"
    assert command(kvm01="unknown", kvm02="missing") == "salt-run kvmclone.push debian12 kvm02"
    unknown = command(kvm01="same", kvm02="unknown", kvm03="missing")
    assert unknown == "salt-run kvmclone.bases debian12 hash=True"


def test_where_contents_differ_it_is_said_which_is_copied() -> None:
    told = command(kvm01="same", kvm02="other", kvm03="missing")
    assert told == "salt-run kvmclone.push debian12 kvm03 source=kvm01"


def test_nothing_is_to_be_typed_where_it_could_not_work() -> None:
    assert command(kvm01="same", kvm02="same") == ""
    assert command(kvm01="copying", kvm02="missing") == ""
    assert command("kvm01", kvm01="same", kvm02="missing") == "", "it has no minion"
    assert command("kvm02", kvm01="same", kvm02="missing") == "", "it can give nothing"
