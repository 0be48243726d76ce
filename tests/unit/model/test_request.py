"""The digest of a request is equal for equal requests, also in records of earlier versions."""

from __future__ import annotations

import datetime
import hashlib
import json

import pytest

from saltext.kvmclone.model.request import AddressPick, DiskChanges, InterfaceChanges, Request

REQUESTS = [
    Request(name="web1", base_domain="base"),
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
    text = json.dumps(request_.as_dict(), sort_keys=True, default=str)
    assert request_.digest() == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_another_request_has_another_digest() -> None:
    assert len({request.digest() for request in REQUESTS}) == len(REQUESTS)
