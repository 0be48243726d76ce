"""A request is recognized when it is repeated, also after an upgrade."""

from __future__ import annotations

import copy
import dataclasses
import datetime

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


def test_no_two_requests_have_one_digest() -> None:
    """Also those that differ in a part only that earlier versions did not have."""
    network = dataclasses.replace(REQUEST, networks=(InterfaceChanges(network="lan"),))
    requests = [
        *REQUESTS,
        network,
        dataclasses.replace(network, networks=(InterfaceChanges("lan", portgroup=""),)),
        dataclasses.replace(network, networks=(InterfaceChanges("lan", portgroup="a"),)),
        dataclasses.replace(REQUEST, leave_out=("serial0",)),
        dataclasses.replace(REQUEST, disks={"vdb": DiskChanges()}),
        dataclasses.replace(REQUEST, disks={"vdb": DiskChanges(format="raw")}),
    ]
    assert len({request.digest() for request in requests}) == len(requests)
    assert copy.deepcopy(REQUESTS[-1]).digest() == REQUESTS[-1].digest()


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
