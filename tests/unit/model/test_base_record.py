"""The record of a base: what it was made from, and only where it counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.base_record import (
    NAMESPACE,
    BaseRecord,
    embed,
    from_definition,
    from_xml,
)

UUID = "11111111-2222-3333-4444-555555555555"
RECORD = BaseRecord(UUID, "https://images.test/a.qcow2", "sha256:00ff", 1796000000.5, "abc")
DOMAIN = f"<domain><name>base</name><uuid>{UUID}</uuid></domain>"


def again(record: BaseRecord) -> BaseRecord | None:
    """Return a record as it is read in the definition that it was written into."""
    root = libvirt_xml.parse(DOMAIN)
    embed(root, record)
    return from_definition(libvirt_xml.parse(libvirt_xml.serialize(root)))


@given(st.text(min_size=1), st.floats(0, 4e9))
def test_every_record_is_read_as_it_was_written(source: str, made: float) -> None:
    told = again(BaseRecord(UUID, source, made=made))
    assert told is not None and told.made == made
    assert again(told) == told


def test_a_definition_keeps_one_record_the_latest() -> None:
    root = libvirt_xml.parse(DOMAIN)
    embed(root, BaseRecord(UUID, "older"))
    embed(root, RECORD)
    written = libvirt_xml.parse(libvirt_xml.serialize(root))
    assert from_definition(written) == RECORD
    assert len(written.findall(f"./metadata/{{{NAMESPACE}}}base")) == 1


def test_a_definition_without_one_has_none() -> None:
    assert from_definition(libvirt_xml.parse(DOMAIN)) is None


def test_a_record_that_was_copied_into_another_machine_does_not_count() -> None:
    told = f"<base uuid='{UUID}' source='a.qcow2'/>"  # as libvirt returns it
    assert from_xml(told, UUID) == BaseRecord(UUID, "a.qcow2")
    assert from_xml(told, "another") is None
    root = libvirt_xml.parse(DOMAIN.replace(UUID, UUID[::-1]))
    embed(root, RECORD)
    assert from_definition(root) is None


@pytest.mark.parametrize("text", ["<base uuid='UUID' made='then'/>", "<base/>"])
def test_a_record_that_cannot_be_read_does_not_count(text: str) -> None:
    assert from_xml(text.replace("UUID", UUID), UUID) is None
    assert from_xml(text, "") is None
