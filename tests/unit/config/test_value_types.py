"""Promises about single values: which are accepted, and what they mean."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.config import value_types
from saltext.kvmclone.config.schema import KEYS

EVERY_KIND = [
    value_types.TEXT,
    value_types.WORD,
    value_types.BOOLEAN,
    value_types.PORT,
    value_types.MEMORY,
    value_types.DISK_SIZE,
    value_types.DURATION,
    value_types.FACTOR,
    value_types.MAPPING,
    value_types.PATHS,
    value_types.ENVIRONMENT,
    value_types.TEXTS,
    value_types.ADDRESS,
    value_types.CIDR,
    value_types.MAC,
    value_types.choice("full", "quick"),
    value_types.record("{size: 20GiB}", size=value_types.DISK_SIZE),
    value_types.mapping_of("vda", value_types.WORD),
    value_types.list_of(value_types.WORD),
]

YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: kind.expected[:30])
@given(value=YAML)
def test_whatever_yaml_holds_a_kind_answers_or_refuses_with_a_value_error(
    kind: value_types.ValueType[Any], value: Any
) -> None:
    with contextlib.suppress(ValueError):
        kind.parse(value)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("2GiB", 2 * 1024**3),
        ("2 GiB", 2 * 1024**3),
        ("2G", 2 * 1024**3),
        ("512MiB", 512 * 1024**2),
        ("1.5GiB", 3 * 1024**3 // 2),
        ("64k", 65536),
        ("1048576B", 1048576),
    ],
)
def test_a_size_with_a_unit_means_the_same_for_memory_and_disks(written: str, size: int) -> None:
    assert value_types.MEMORY.parse(written) == size
    assert value_types.DISK_SIZE.parse(written) == size


@given(st.integers(1, 2**40))
def test_a_bare_number_is_mebibytes_of_memory_and_bytes_of_disk(number: int) -> None:
    assert value_types.MEMORY.parse(number) == number * 1024**2
    assert value_types.DISK_SIZE.parse(number) == number


@pytest.mark.parametrize("value", [10**400, "9" * 400, 1e300])
@pytest.mark.parametrize("kind", [value_types.MEMORY, value_types.DURATION, value_types.FACTOR])
def test_an_absurdly_large_number_is_refused(kind: value_types.ValueType[Any], value: Any) -> None:
    with pytest.raises(ValueError):
        kind.parse(value)


@pytest.mark.parametrize("value", [0, -1, True, "", "GiB", "-2GiB", "2 GB of", "2iB", None, []])
def test_what_is_no_size_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        value_types.MEMORY.parse(value)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("12h", 43200.0),
        ("90s", 90.0),
        ("15m", 900.0),
        ("1d", 86400.0),
        ("2w", 1209600.0),
        ("30", 30.0),
        (30, 30.0),
        (0.5, 0.5),
    ],
)
def test_a_duration_is_given_in_seconds(written: Any, seconds: float) -> None:
    assert value_types.DURATION.parse(written) == seconds


@pytest.mark.parametrize(
    "value",
    [0, -1, True, float("nan"), float("inf"), "soon", "1y", 1e17, "9999999999999d", "1\u017f"],
)
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        value_types.DURATION.parse(value)


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [
        (value_types.MEMORY, 640 * 2**20, "640MiB"),
        (value_types.DISK_SIZE, 2 * 2**30, "2GiB"),
        (value_types.MEMORY, 1000, "1000B"),
        (value_types.DURATION, 43200.0, "12h"),
        (value_types.DURATION, 5400.0, "90m"),
        (value_types.DURATION, 0.5, "0.5s"),
        (value_types.integer(1, 9, 2), 4, "4"),
    ],
)
def test_a_value_is_written_as_people_write_it(kind: Any, value: Any, written: str) -> None:
    assert kind.write(value) == written


@given(st.integers(1, 10**15), st.integers(1, 10**9))
def test_what_is_written_is_read_as_the_same_value(size: int, seconds: int) -> None:
    for kind in (value_types.MEMORY, value_types.DISK_SIZE):
        assert kind.parse(kind.write(size)) == size
    assert value_types.DURATION.parse(value_types.DURATION.write(seconds)) == seconds


@pytest.mark.parametrize("value", ["yes", "no", "true", 1, 0, None])
def test_a_boolean_is_only_what_yaml_itself_calls_one(value: Any) -> None:
    with pytest.raises(ValueError):
        value_types.BOOLEAN.parse(value)


@pytest.mark.parametrize("value", [12345, True, None, 1.5, ["a"]])
def test_text_that_yaml_made_a_number_is_refused_with_the_advice_to_quote_it(value: Any) -> None:
    with pytest.raises(ValueError):
        value_types.TEXT.parse(value)
    assert "quotes" in value_types.TEXT.fault(value)


def test_a_boolean_is_no_whole_number() -> None:
    with pytest.raises(ValueError):
        value_types.integer(0, 5, 1).parse(True)


@pytest.mark.parametrize("value", ["", " ", "a\nb", " a", "a ", "a\0"])
def test_a_word_stands_on_one_line_without_blanks_around_it(value: str) -> None:
    with pytest.raises(ValueError):
        value_types.WORD.parse(value)


def test_a_single_text_counts_as_a_list_of_one() -> None:
    assert value_types.TEXTS.parse("apt update") == ("apt update",)
    assert value_types.TEXTS.parse(["a", "b"]) == ("a", "b")


def test_a_number_in_an_environment_becomes_text_but_a_boolean_does_not() -> None:
    assert value_types.ENVIRONMENT.parse({"PORT": 80}) == {"PORT": "80"}
    with pytest.raises(ValueError):
        value_types.ENVIRONMENT.parse({"DEBUG": True})


def test_a_record_refuses_an_unknown_key_and_a_wrong_value_inside_it() -> None:
    disk = value_types.record(
        "{size: 20GiB}", size=value_types.DISK_SIZE, strategy=value_types.choice("full", "quick")
    )
    assert disk.parse({"size": "1GiB"}) == {"size": 1024**3}
    for wrong in ({"sise": "1GiB"}, {"strategy": "quik"}, "1GiB"):
        with pytest.raises(ValueError):
            disk.parse(wrong)


def test_addresses_and_networks_are_written_in_one_way() -> None:
    assert value_types.ADDRESS.parse("FE80::0001") == "fe80::1"
    assert value_types.CIDR.parse("192.168.122.7/24") == "192.168.122.0/24"
    assert value_types.MAC.parse("52:54:00:AB:CD:EF") == "52:54:00:ab:cd:ef"


@pytest.mark.parametrize(
    "kind",
    [key.kind for key in KEYS.values() if key.kind is not value_types.ANYTHING],
    ids=lambda kind: kind.example,
)
def test_the_example_of_a_kind_is_right(kind: value_types.ValueType[Any]) -> None:
    assert kind.fault(yaml.safe_load(kind.example)) == ""
    assert "\n" not in kind.example


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("disks", {"vda": {"size": "lots"}}, "vda: size: 'lots' is not a size"),
        ("disks", {"vda": {"sise": 1}}, "vda: 'sise' is not known here; did you mean 'size'?"),
        ("networks", [{}, {"mac": 5}], "item 2: mac: 5 is not a MAC address in quotes"),
        (
            "networks",
            [{"network": "a", "bridge": "b"}],
            "item 1: network and bridge exclude each other",
        ),
    ],
)
def test_a_fault_inside_a_value_says_where_it_is(key: str, value: Any, fault: str) -> None:
    assert KEYS[key].kind.fault(value) == fault


def test_the_example_for_a_word_is_the_nearest_one() -> None:
    assert KEYS["ip_source"].kind.example_for("agent") == "qemu-agent"
    assert KEYS["clone_strategy"].kind.example_for("quik") == "quick"
