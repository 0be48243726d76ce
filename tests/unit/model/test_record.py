"""The record survives libvirt's metadata, and counts only in its own domain."""

from __future__ import annotations

import string
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.model import libvirt_xml, record_xml
from saltext.kvmclone.model.record import STAGES, BaseDisk, Minion, Owner, Record, Volume, merged

UUID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
WORD = st.text(string.printable.strip() + " äß<&\"'", max_size=20).map(str.strip)
SECONDS = st.floats(0, 2e9).map(lambda value: round(value, 3))

RECORDS = st.builds(
    Record,
    uuid=st.just(UUID),
    base=WORD,
    base_uuid=WORD,
    strategy=st.sampled_from(["full", "quick"]),
    profile=WORD,
    stage=st.sampled_from(STAGES),
    request=WORD,
    created=SECONDS,
    expires=SECONDS,
    ip_source=st.sampled_from(["auto", "ip-learning"]),
    identity=st.sampled_from(["", "reset"]),
    address=WORD,
    worker=st.builds(Owner, WORD, WORD, st.integers(0, 2**22), st.integers(0, 2**40), WORD),
    minion=st.builds(Minion, WORD.filter(bool), WORD, WORD, WORD),
    base_disks=st.lists(
        st.builds(BaseDisk, WORD, WORD, st.integers(0, 2**50), SECONDS), max_size=3
    ).map(tuple),
    volumes=st.lists(st.builds(Volume, WORD, WORD, WORD, WORD), max_size=3).map(tuple),
    tags=st.lists(WORD.filter(bool), max_size=3).map(tuple),
    warnings=st.lists(WORD.filter(bool), max_size=3).map(tuple),
    timings=st.dictionaries(st.sampled_from(STAGES), SECONDS),
)


@given(record=RECORDS)
def test_a_record_is_read_back_as_it_was_written(record: Record) -> None:
    assert record_xml.from_xml(record_xml.to_xml(record), UUID) == record


@given(record=RECORDS)
def test_a_record_in_a_definition_is_read_back_as_it_was_written(record: Record) -> None:
    root = libvirt_xml.parse(f"<domain><name>x</name><uuid>{UUID}</uuid></domain>")
    record_xml.embed(root, record)
    again = libvirt_xml.parse(libvirt_xml.serialize(root))
    assert record_xml.from_definition(again) == record


def test_a_copied_record_does_not_count_in_the_copy() -> None:
    record = Record(uuid=UUID, base="base", base_uuid="x", strategy="quick")
    other = "00000000-0000-4000-8000-000000000000"
    assert record_xml.from_xml(record_xml.to_xml(record), other) is None
    root = libvirt_xml.parse(f"<domain><name>copy</name><uuid>{other}</uuid></domain>")
    record_xml.embed(root, record)
    assert record_xml.from_definition(root) is None


def test_only_listed_files_are_owned() -> None:
    volume = Volume("vda", "/pool/web1-vda.qcow2", "qcow2", "overlay")
    record = Record(uuid=UUID, base="b", base_uuid="x", strategy="quick", volumes=(volume,))
    assert record.owns("/pool/web1-vda.qcow2")
    assert not record.owns("/pool/base.qcow2")


@given(seen=RECORDS, mine=RECORDS)
def test_where_nobody_else_wrote_a_record_is_simply_written(seen: Record, mine: Record) -> None:
    forward = max(seen.stage, mine.stage, key=STAGES.index)
    found = merged(seen, mine, seen)
    assert replace(found, warnings=(), timings={}, stage="") == replace(
        mine, warnings=(), timings={}, stage=""
    )
    assert found.stage == forward
    assert set(found.warnings) == {*seen.warnings, *mine.warnings}
    assert found.timings == {**seen.timings, **mine.timings}


@given(seen=RECORDS, now=RECORDS)
def test_a_piece_of_work_that_found_nothing_changes_nothing(seen: Record, now: Record) -> None:
    assert merged(seen, seen, now) == now


def test_what_two_wrote_is_both_there() -> None:
    seen = Record(uuid=UUID, base="base", base_uuid="x", strategy="quick", warnings=("old",))
    mine = replace(seen, address="192.0.2.7", warnings=("old", "mine")).at("addressed", booted=1.0)
    now = replace(seen, tags=("new",), warnings=("old", "theirs")).at("ready", ready=2.0)
    found = merged(seen, mine, now)
    assert found == replace(
        now,
        address="192.0.2.7",
        warnings=("old", "theirs", "mine"),
        timings={"ready": 2.0, "booted": 1.0},
    )


@given(said=st.text(st.characters()), cut=st.integers(0, 3))
def test_whatever_a_guest_says_the_record_can_be_written(said: str, cut: int) -> None:
    said += "\x00\x1b[31m\udc80\uffff"[cut:]
    record = Record(
        uuid=UUID, base=said, base_uuid="x", strategy="quick", failed=said, warnings=(said,),
        minion=Minion(id="web1", version=said), host_keys=(said,),
    )  # fmt: skip
    again = record_xml.from_xml(record_xml.to_xml(record), UUID)
    assert again is not None
    assert again.failed == record_xml.written(said)
    assert record_xml.written(again.failed) == again.failed
