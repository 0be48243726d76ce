"""Of a base it is said where it is, where it is unequal, and what to type for that."""

from __future__ import annotations

from saltext.kvmclone.display.page.bases import matrix, steps
from tests.support.pictures import GIB, picture, state


def test_a_host_that_was_not_asked_has_its_place_all_the_same() -> None:
    told = matrix(picture())
    assert [row for row, _cells in told.rows] == ["kvm01", "kvm02", "kvm03", "kvm04"]
    assert told.rows[-1] == ("kvm04", (("", ""), ("", "")))
    assert [row for row, _cells in matrix(picture(hosts={})).rows] == ["kvm01", "kvm02", "kvm03"]


def test_whatever_there_is_more_of_stands_below_each_other() -> None:
    few = {"kvm01": state("same", GIB)}
    many = matrix(picture(hosts=few, bases={"a": few, "b": few}))
    assert (many.corner, many.columns) == ("Base", ("kvm01",))
    assert many.rows == (("a", (("same", "1 GiB"),)), ("b", (("same", "1 GiB"),)))
    assert matrix(picture()).corner == "Host"


def commands(reached: str = "kvm01 kvm02 kvm03", **states: str) -> list[str]:
    told = {"debian12": {label: state(word) for label, word in states.items()}}
    shown = picture(bases=told, reached=frozenset(reached.split()))
    return [command for _wish, command in steps(shown)]


def test_a_base_that_is_missing_is_copied_and_one_that_was_not_compared_is_compared() -> None:
    missing = commands(kvm01="same", kvm02="missing", kvm03="missing")
    assert missing == ["salt-run kvmclone.push debian12 kvm02 kvm03"]
    assert commands(kvm01="unknown", kvm02="missing") == ["salt-run kvmclone.push debian12 kvm02"]
    unknown = commands(kvm01="same", kvm02="unknown", kvm03="missing")
    assert unknown == ["salt-run kvmclone.bases debian12 hash=True"]


def test_several_that_were_not_compared_are_compared_by_one_command() -> None:
    states = {"kvm01": state("unknown"), "kvm02": state("same")}
    told = steps(picture(bases={"a": states, "b": states}))
    assert told == [("Compare those that were not", "salt-run kvmclone.bases hash=True")]


def test_where_contents_differ_it_is_said_which_is_copied() -> None:
    told = commands(kvm01="same", kvm02="other", kvm03="missing")
    assert told == ["salt-run kvmclone.push debian12 kvm03 source=kvm01"]


def test_nothing_is_to_be_typed_where_it_could_not_work() -> None:
    assert commands(kvm01="same", kvm02="same") == []
    assert commands(kvm01="copying", kvm02="missing") == []
    assert commands("kvm01", kvm01="same", kvm02="missing") == [], "it has no minion"
    assert commands("kvm02", kvm01="same", kvm02="missing") == [], "it can give nothing"
