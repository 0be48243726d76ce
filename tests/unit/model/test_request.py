"""A request is recognized when it is repeated, also after an upgrade."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json

import pytest

from saltext.kvmclone.model.request import (
    AddressPick,
    DiskChanges,
    InterfaceChanges,
    Request,
    Secrets,
)

REQUEST = Request("web1", "base", clone_strategy="quick", tags=("a",))
REQUESTS = [
    REQUEST,
    dataclasses.replace(REQUEST, cpus=2),
    Request(
        name="web1",
        base_domain="base",
        disks={"vdb": DiskChanges(serial="data"), "vda": DiskChanges(size=2**30)},
        networks=(InterfaceChanges(network="lan"), InterfaceChanges(bridge="br0")),
        pick=AddressPick(cidr="10.0.0.0/8"),
        tags=("a", "b"),
        overrides={"since": datetime.date(2026, 1, 1), "ports": {22: (1, 2)}},
    ),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_the_digest_is_that_of_the_plain_data(request_: Request) -> None:
    text = json.dumps(dataclasses.asdict(request_), sort_keys=True, default=str)
    assert request_.digest() == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_request_keeps_its_digest_over_versions() -> None:
    """
    A create that an earlier version began is gone on with only where the digest is the same: leave
    a new field out of the digest while it has its default.
    """
    assert REQUEST.digest() == "7622b1d2869ca612"
    assert Secrets(seed=(("user-data", "x"),)).digest_of(REQUEST) == "2387c480d5148da4"


def test_another_request_has_another_digest() -> None:
    assert len({request.digest() for request in REQUESTS}) == len(REQUESTS)
    assert Secrets(seed=(("user-data", "y"),)).digest_of(REQUEST) != Secrets().digest_of(REQUEST)
