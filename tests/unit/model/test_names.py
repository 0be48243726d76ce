"""Promises about the names of clones."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.errors import InvalidName
from saltext.kvmclone.model.names import LONGEST_NAME, check

LABEL = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=3).map(".".join)


@given(NAME)
def test_every_name_of_well_formed_labels_is_returned_unchanged(name: str) -> None:
    assert check(name) == name


@given(st.text(max_size=300))
def test_no_accepted_name_breaks_the_rule_of_the_contract(name: str) -> None:
    try:
        check(name)
    except InvalidName:
        return
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", name)
    assert len(name) <= 253
    assert all(0 < len(label) <= 63 for label in name.split("."))


@given(NAME, st.sampled_from("/\\\n\r\t\0 _<>&\"'$;|%*é\u2028"), st.integers(0, 190))
def test_one_foreign_character_anywhere_is_enough_to_refuse(
    name: str, character: str, position: int
) -> None:
    with pytest.raises(InvalidName):
        check(name[:position] + character + name[position:])


@pytest.mark.parametrize("name", ["007", "0", "a", "A.b-c", "1.2", "x-", "true", "null"])
def test_text_that_only_looks_like_something_else_is_a_name(name: str) -> None:
    assert check(name) == name


@pytest.mark.parametrize("value", [7, 7.5, True, False, None, ["a"], {"a": 1}, b"a"])
def test_what_is_not_text_is_refused_with_the_advice_to_quote_it(value: object) -> None:
    with pytest.raises(InvalidName) as caught:
        check(value)
    assert "Quote it" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "typed"), [(7, '"7"'), (1, '"1"'), (True, '"yes"'), (None, '"null"')]
)
def test_the_advice_quotes_the_very_name(value: object, typed: str) -> None:
    with pytest.raises(InvalidName) as caught:
        check(value)
    assert f"name='{typed}'" in caught.value.hint


def test_a_name_near_to_a_refused_one_is_offered() -> None:
    with pytest.raises(InvalidName) as caught:
        check("web_1")
    assert caught.value.hint.endswith("For example: web-1")
    assert check("web-1")


@pytest.mark.parametrize("name", ["web[1-100000]", "web[1,3].example.com"])
def test_a_range_where_one_name_is_taken_is_called_one(name: str) -> None:
    with pytest.raises(InvalidName) as caught:
        check(name)
    assert "one name at a time" in caught.value.hint


@pytest.mark.parametrize("word", ["{size:", "20GiB}}", "[a,"])
def test_what_a_shell_cut_out_of_a_value_is_told_to_be_quoted(word: str) -> None:
    with pytest.raises(InvalidName) as caught:
        check(word)
    assert "disks='{vda: {size: 20GiB}}'" in caught.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        "a.-b",
        ".a",
        "a.",
        "a..b",
        "..",
        "a\n",
        "\na",
        "a/b",
        "../a",
        "a b",
        "a_b",
        "<name>a</name>",
        "x" * 64,
        "x" * 300,
        ".".join(["x" * 63] * 4),
    ],
)
def test_a_bad_name_is_refused_with_the_rule_as_hint(name: str) -> None:
    with pytest.raises(InvalidName) as caught:
        check(name)
    assert "letters, digits, dots and hyphens" in caught.value.hint


def test_the_longest_names_are_accepted() -> None:
    assert check("x" * 63)
    assert len(check(".".join(["x" * 63] * 3 + ["y" * 61]))) == LONGEST_NAME


def test_a_refused_name_is_not_repeated_at_full_length() -> None:
    with pytest.raises(InvalidName) as caught:
        check("x" * 5000)
    assert len(str(caught.value)) < 400
