"""The record of a saved memory: read as it was written, and every difference is told by name."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.model.base_content import FileState
from saltext.kvmclone.model.warm_record import (
    Circumstances,
    WarmRecord,
    from_xml,
    generation_of,
    name_of,
    to_xml,
)

UUID = "11111111-2222-3333-4444-555555555555"
NUMBERS = st.integers(0, 2**63)
FILES = st.lists(
    st.builds(FileState, st.from_regex(r"/[a-z]+", fullmatch=True), NUMBERS, NUMBERS, NUMBERS)
)
WORDS = st.from_regex(r"[ -~]*", fullmatch=True)
MADE = st.builds(Circumstances, *[WORDS] * len(fields(Circumstances)))

RECORD = WarmRecord(
    UUID, 1.5, "00ff", Circumstances("7.2.22", "9.0.0", "/usr/bin/qemu", "pc-q35-7.2"),
    (FileState("/pool/a", 1, 2, 3), FileState("/pool/b", 4, 5, 6)),
)  # fmt: skip


@given(MADE, FILES, st.floats(0, 4e9))
def test_every_record_is_read_as_it_was_written(
    depends: Circumstances, files: list[FileState], made: float
) -> None:
    record = WarmRecord(UUID, made, "head", depends, tuple(files))
    assert from_xml(to_xml(record), UUID) == record


@pytest.mark.parametrize(
    ("part", "other"),
    [
        (UUID, UUID[::-1]),
        ('size="1"', ""),
        ('inode="3"', 'inode="x"'),
        ('qemu="7.2.22"', 'kemu="7.2.22"'),
        ("<circumstances", "<others"),
        ('made="1.5"', 'made="then"'),
    ],
)
def test_a_record_of_another_machine_or_that_cannot_be_read_does_not_count(
    part: str, other: str
) -> None:
    text = to_xml(RECORD)
    assert part in text
    assert from_xml(text.replace(part, other), UUID) is None


def test_a_record_without_a_machine_does_not_count() -> None:
    assert from_xml(to_xml(replace(RECORD, uuid="")), "") is None
    assert from_xml("<warm/>", UUID) is None


@pytest.mark.parametrize("field", [field.name for field in fields(Circumstances)])
def test_every_difference_is_told(field: str) -> None:
    assert RECORD.circumstances.against(RECORD.circumstances) == ""
    told = RECORD.circumstances.against(replace(RECORD.circumstances, **{field: "other"}))
    assert told
    words = {"qemu": "QEMU is other now, and was 7.2.22", "cpu": "the CPU in the definition"}
    assert words.get(field, "") in told


def test_a_file_that_is_gone_or_another_is_told_and_one_more_is_not() -> None:
    one, two = RECORD.files
    assert RECORD.changed([two, one, FileState("/pool/c", 0, 0, 0)]) == ""
    assert RECORD.changed([one]) == "/pool/b"
    for field in ("size", "modified", "inode"):
        assert RECORD.changed([replace(one, **{field: 99}), two]) == "/pool/a"


@given(st.text(min_size=1), st.integers(1, 10**6))
def test_the_generation_stands_in_the_name(base: str, number: int) -> None:
    assert generation_of(name_of(base, number)) == number


@pytest.mark.parametrize("name", ["debian12", "debian12.warm", "debian12.warm0", ".warm1", ""])
def test_any_other_name_has_no_generation(name: str) -> None:
    assert generation_of(name) == 0
