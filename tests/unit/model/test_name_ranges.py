"""A range of names is what a person would have typed one by one; everything else is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.errors import ConfigError, InvalidName
from saltext.kvmclone.model.name_ranges import MOST_NAMES, expand


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["web[01-03]"], ["web01", "web02", "web03"]),
        (["web[1-3,7]"], ["web1", "web2", "web3", "web7"]),
        (["web[9-11]"], ["web9", "web10", "web11"]),
        (["web[08-11]"], ["web08", "web09", "web10", "web11"]),
        (["web[98-101]"], ["web98", "web99", "web100", "web101"]),
        (["web[099-101]"], ["web099", "web100", "web101"]),
        (["web[0-1]"], ["web0", "web1"]),
        (["web[1-2].example.com"], ["web1.example.com", "web2.example.com"]),
        (["r[1-2]-n[1,3]"], ["r1-n1", "r1-n3", "r2-n1", "r2-n3"]),
        (["[1-2]a"], ["1a", "2a"]),
        (["db", "web[1-2]", "x"], ["db", "web1", "web2", "x"]),
        ([7, None, ["web1"]], [7, None, ["web1"]]),
        (["disks={vda:", "[{network: default}]"], ["disks={vda:", "[{network: default}]"]),
        ([], []),
    ],
)
def test_a_range_stands_for_its_names(words: list[Any], names: list[Any]) -> None:
    assert expand(words) == names


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("web[1-3", "do not match"),
        ("web1-3]", "do not match"),
        ("web[[1-3]]", "do not match"),
        ("web[]", "no range"),
        ("web[a-c]", "no range"),
        ("web[1..3]", "no range"),
        ("web[1-3,]", "no range"),
        ("web[1-9999999999]", "no range"),
        ("web[³]", "no range"),
        ("web[3-1]", "ends before it begins"),
        ("web[001-20]", "different numbers of digits"),
        ("web[1-020]", "different numbers of digits"),
    ],
)
def test_brackets_that_are_no_range_are_refused_with_what_to_write(word: str, message: str) -> None:
    with pytest.raises(InvalidName, match=message) as refused:
        expand([word])
    assert "[" in refused.value.hint


def test_the_number_of_names_is_said_before_any_of_them_is_made() -> None:
    with pytest.raises(ConfigError, match="That is 100,000 names") as refused:
        expand(["web[1-100000]"])
    assert "several commands" in refused.value.hint
    with pytest.raises(ConfigError, match="1,000,000,000,000,000,000 names"):
        expand(["a[0-999999999]b[0-999999999]"])
    assert len(expand([f"web[1-{MOST_NAMES}]"])) == MOST_NAMES
    with pytest.raises(ConfigError, match="1,001 names"):
        expand([f"web[1-{MOST_NAMES}]", "db"])


def test_a_name_that_stands_in_two_ranges_is_found() -> None:
    with pytest.raises(ConfigError, match="Named twice: web2, web3"):
        expand(["web[1-3]", "web[2-4]"])
    with pytest.raises(ConfigError, match="Named twice: web1"):
        expand(["web[1,1]"])
    with pytest.raises(ConfigError, match=r"web4 and 4 more\.|and 4 more"):
        expand(["web[1-9]", "web[1-9]"])


@given(first=st.integers(0, 500), length=st.integers(0, 300), width=st.integers(0, 5))
def test_padding_is_kept_over_the_whole_range(first: int, length: int, width: int) -> None:
    last = first + length
    written = f"web[{first:0{width}}-{last:0{width}}]"
    assert expand([written]) == [f"web{number:0{width}}" for number in range(first, last + 1)]
