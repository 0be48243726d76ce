"""Only an address that somebody else can reach the guest at is reported."""

from __future__ import annotations

import pytest

from saltext.kvmclone import addresses
from saltext.kvmclone.facts import Lease


@pytest.mark.parametrize("address", ["192.168.122.5", "10.0.0.1", "2001:db8::1", "fd00::5"])
def test_reachable_addresses_count(address: str) -> None:
    assert addresses.usable(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "169.254.3.4", "fe80::5054:ff:fe00:1", "0.0.0.0", "ff02::1"]
)
def test_loopback_and_link_local_addresses_do_not(address: str) -> None:
    assert not addresses.usable(address)


def lease(address: str, expires: float, mac: str = "52:54:00:00:00:01") -> Lease:
    family = "ipv6" if ":" in address else "ipv4"
    return Lease(mac, address, 24, family, expires, "01")


def test_of_several_leases_of_one_card_the_one_that_expires_last_counts() -> None:
    old, new = lease("192.168.122.5", 100), lease("192.168.122.6", 200)
    assert addresses.latest([old, new]) == [new]
    assert addresses.latest([new, old]) == [new]


def test_each_card_and_each_family_has_its_own_lease() -> None:
    rows = [
        lease("192.168.122.5", 100),
        lease("2001:db8::5", 50),
        lease("192.168.122.7", 10, "52:54:00:00:00:02"),
    ]
    assert addresses.latest(rows) == rows
