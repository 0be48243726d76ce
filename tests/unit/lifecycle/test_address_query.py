"""What a wait for an address looks for, as a request asks or as a record says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext.kvmclone.lifecycle.address_query import AddressQuery
from saltext.kvmclone.model.record import Record, Reservation
from saltext.kvmclone.model.request import AddressPick, Request, Wait

UUID = "11111111-2222-3333-4444-555555555555"
RECORD = Record(
    UUID, "base", "", "quick", ip_source="qemu-agent", pick=AddressPick(family="ipv6"), seed="own"
)


def test_a_clone_that_was_left_off_is_waited_for_as_its_record_says() -> None:
    query = AddressQuery.from_record(RECORD)
    assert (query.ip_source, query.pick, query.seed) == (
        "qemu-agent",
        AddressPick(family="ipv6"),
        "own",
    )
    assert query.wait == Wait()


@pytest.mark.parametrize(
    ("identity", "resets", "heard"),
    [("", True, False), ("kept", False, False), ("reset", False, True)],
)
def test_an_identity_is_reset_once_and_only_if_it_was_asked_for(
    identity: str, resets: bool, heard: bool
) -> None:
    record = replace(RECORD, identity=identity)
    request = Request(name="web1", base_domain="base", reset_identity=identity != "kept")
    for query in (AddressQuery.from_record(record), AddressQuery.from_request(request, record)):
        assert (query.resets, query.heard) == (resets, heard)


def test_a_create_waits_for_what_was_reserved() -> None:
    reserved = Reservation("default", "52:54:00:00:00:01", "192.168.122.9", "web1")
    request = Request(name="web1", base_domain="base", ip_source="reserve")
    query = AddressQuery.from_request(request, replace(RECORD, reservations=(reserved,)))
    assert (query.wanted.reserved, query.seed) == ("192.168.122.9", "own")
