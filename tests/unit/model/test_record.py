"""The record survives libvirt's metadata, and counts only in its own domain."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.model import libvirt_xml, record_xml
from saltext.kvmclone.model.plain import hints
from saltext.kvmclone.model.record import (
    MADE,
    MAKING,
    BaseDisk,
    FrozenDisk,
    Minion,
    Owner,
    Record,
    Reservation,
    Snapshot,
    Volume,
)
from saltext.kvmclone.model.request import AddressPick
from saltext.kvmclone.model.spares import Claim
from tests.support.forms import digest, form
from tests.support.records import RECORDS, UUID


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


# --- records of other versions ----------------------------------------------------------

#: As version 0.1 wrote it: no name, no goal, and volumes without a state.
FIRST = f"""
<clone schema="1" uuid="{UUID}" stage="STAGE" profile="p" strategy="quick" request="0123"
       created="1.5" ip_source="auto">
  <base name="base" uuid="x"><disk target="vda" path="/p/base" size="7" modified="2.5"/></base>
  <worker host="kvm01" boot="b" pid="7" started="8" token="t"/>
  <minion id="web1" version="" fingerprint="aa:bb" verified_by=""/>
  <volume target="vda" path="/p/web1-vda.qcow2" format="qcow2" strategy="overlay"/>
  <timing stage="cloned" seconds="0.250"/><tag>one</tag>
</clone>"""


@pytest.mark.parametrize(
    ("stage", "goal", "state"),
    [("planned", "cloned", MAKING), ("cloned", "cloned", MADE), ("addressed", "addressed", MADE)],
)
def test_a_create_of_the_first_version_is_gone_on_with(stage: str, goal: str, state: str) -> None:
    record = record_xml.from_xml(FIRST.replace("STAGE", stage), UUID)
    assert record == Record(
        uuid=UUID, base="base", base_uuid="x", strategy="quick", profile="p", stage=stage,
        goal=goal, request="0123", created=1.5, worker=Owner("kvm01", "b", 7, 8, "t"),
        minion=Minion("web1", fingerprint="aa:bb"), tags=("one",), timings={"cloned": 0.25},
        base_disks=(BaseDisk("vda", "/p/base", 7, 2.5),),
        volumes=(Volume("vda", "/p/web1-vda.qcow2", "qcow2", "overlay", state),),
    )  # fmt: skip
    assert record_xml.from_xml(record_xml.to_xml(record), UUID) == record


@pytest.mark.parametrize("schema", ["4", "17"])
def test_a_record_of_a_later_version_is_refused_as_such(schema: str) -> None:
    later = FIRST.replace("STAGE", "booted").replace('schema="1"', f'schema="{schema}" new="x"')
    with pytest.raises(record_xml.LaterRecord, match=rf"a later version .*\(form {schema}\)"):
        record_xml.from_xml(later, UUID)
    root = libvirt_xml.parse(f"<domain><name>x</name><uuid>{UUID}</uuid></domain>")
    record_xml.embed(root, Record(uuid=UUID, base="b", base_uuid="x", strategy="full"))
    element = root.find(f".//{{{record_xml.NAMESPACE}}}clone")
    assert element is not None
    element.set("schema", schema)
    with pytest.raises(record_xml.LaterRecord):
        record_xml.from_definition(root)


@pytest.mark.parametrize("schema", ["", "new", "1.5"])
def test_a_record_with_no_number_for_its_form_is_damaged(schema: str) -> None:
    damaged = FIRST.replace("STAGE", "booted").replace('schema="1"', f'schema="{schema}"')
    with pytest.raises(ValueError) as caught:
        record_xml.from_xml(damaged, UUID)
    assert not isinstance(caught.value, record_xml.LaterRecord)


@pytest.mark.parametrize(
    ("fields", "schema"),
    [
        ({}, "1"),
        ({"volumes": (Volume("vda", "/v", "raw", "copy"),)}, "1"),
        ({"becomes": "base"}, "2"),
        ({"under_way": "snapshot a"}, "2"),
        ({"snapshots": (Snapshot("a", 1.5, "ready"),)}, "2"),
        ({"volumes": (Volume("vda", "/v", "qcow2", "snapshot", label="a"),)}, "2"),
        ({"spare": "0123", "under_way": "snapshot a"}, "3"),
        ({"becomes": "warm"}, "3"),
    ],
)
def test_a_record_is_written_in_the_form_of_the_earliest_version_that_reads_it(
    fields: dict[str, Any], schema: str
) -> None:
    record = Record(uuid=UUID, base="b", base_uuid="x", strategy="full", **fields)
    assert libvirt_xml.element(record_xml.to_xml(record)).get("schema") == schema


def test_every_field_of_a_record_is_stored() -> None:
    record = Record(
        **{name: "text" for name, kind in hints(Record).items() if kind is str} | {"uuid": UUID},
        **{name: 1.5 for name, kind in hints(Record).items() if kind is float},
        worker=Owner("h", "b", 7, 8, "t", "m"), minion=Minion("i", "v", "f", "k"),
        base_disks=(BaseDisk("vda", "/b", 7, 1.5),),
        volumes=(Volume("vda", "/v", "raw", "copy", MAKING, 9, "/", "1:2", "l", "/w"),),
        snapshots=(Snapshot("l", 1.5, "s", "off", (FrozenDisk("vda", "/w", "raw"),), "/n"),),
        reservations=(Reservation("n", "m", "a", "x"),), pick=AddressPick("c", "i", "ipv4"),
        claim=Claim("w", 1.5),
        tags=("a",), warnings=("b",), host_keys=("c",), timings={"cloned": 0.5},
    )  # fmt: skip
    least = Record(UUID, "", "", "")
    names = set(hints(Record)) - {"uuid"}
    assert [name for name in names if getattr(record, name) == getattr(least, name)] == []
    assert record_xml.from_xml(record_xml.to_xml(record), UUID) == record


def test_a_change_of_the_record_is_weighed() -> None:
    """
    Count ``SCHEMA`` up where an earlier version must not touch the new form; write here what this
    test says then, and see that records of the earlier form are still read.
    """
    assert (record_xml.SCHEMA, digest(form(Record))) == (3, "755f442c3c28")
