"""Sizes and times are written as people write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.config.value_types import DISK_SIZE, DURATION
from saltext.kvmclone.model import units


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (64 * 2**20, "64 MiB"),
        (int(123.4 * 2**30), "123 GiB"),
        (5 * 2**50, "5120 TiB"),
    ],
)
def test_sizes_for_a_person(size: int, text: str) -> None:
    assert units.size(size) == text


@given(st.integers(1, 2**50))
def test_an_exact_size_is_what_a_profile_would_say(size: int) -> None:
    assert DISK_SIZE.parse(units.exact_size(size)) == size


@given(st.integers(1, 10**8))
def test_an_exact_span_is_what_a_profile_would_say(seconds: int) -> None:
    assert DURATION.parse(units.exact_span(seconds)) == seconds


def test_memory_is_written_as_it_was_in_the_profile() -> None:
    assert units.exact_size(671088640) == "640MiB"
    assert units.exact_span(12 * 3600) == "12h"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.4, "0s"),
        (42, "42s"),
        (60, "1m"),
        (249, "4m9s"),
        (3600, "1h"),
        (86400 + 59, "1d"),
        (3 * 86400 + 4 * 3600 + 59 * 60, "3d4h"),
    ],
)
def test_a_span_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert units.span(seconds) == text


def test_a_piece_of_work_took_seconds_or_longer() -> None:
    assert (units.took(27.24), units.took(240)) == ("27.2 s", "4m")


def test_a_moment_is_in_iso_form_with_its_zone() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", units.moment(1795936320.5))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", units.short_moment(1795936320.5))


def test_addresses_are_sorted_by_number_and_those_without_come_last() -> None:
    told = ["", "fd00::1", "192.168.1.10", "192.168.1.9"]
    assert sorted(told, key=units.address_key) == ["192.168.1.9", "192.168.1.10", "fd00::1", ""]
