"""One of three hosts is cut off in the middle of a batch: it stops nobody, and keeps its names."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from salt.config import master_config

from lab.common import wait_until
from lab.ear import Ear
from lab.fleet import Fleet
from saltext.kvmclone.master.reservations import Reservations
from tests.support.hints import error_of

pytestmark = pytest.mark.guest

BASE, LOST = "small", "kvm03"
NAMES = [f"many{number}" for number in range(1, 7)]


@pytest.fixture
def profiles(fleet: Fleet) -> Iterator[None]:
    """Profiles of clones that may go to every host; of ``minions`` none is made."""
    for host in fleet.hosts.values():
        host.tiny_base(BASE)
    keys = {
        "provider": "kvm01", "hosts": "kvm*", "base_domain": BASE, "clone_strategy": "quick",
        "reset_identity": False,
    }  # fmt: skip
    many = {"many": {**keys, "deploy": False}, "minions": keys}
    written = fleet.salt.write_cloud("profiles", "many.conf", many)
    told = fleet.salt.run("kvmclone.bases", BASE, "hash=True").data["bases"][BASE]
    assert {cell["state"] for cell in told.values()} == {"same"}
    yield
    written.unlink()
    for host in fleet.hosts.values():
        host.run("virsh", "undefine", BASE)
        host.run("rm", f"/var/lib/libvirt/images/{BASE}.qcow2")


def cut_off(fleet: Fleet, ear: Ear) -> set[str]:
    """
    Cut a host off once its clones are made, and boot.

    :return: Their names, but for one that was complete already.
    """

    def at(stage: str) -> set[str]:
        heard = (ear.heard(f"salt/kvm_clone/{name}/{stage}") for name in NAMES)
        return {data["name"] for some in heard for data in some if data["host"] == LOST}

    wait_until(lambda: len(at("cloned")) == 2, "two clones", 90, 0.02)
    fleet.host(LOST).kill()
    return at("cloned") - at("addressed")


def test_a_host_that_dies_in_a_batch_stops_nobody_and_keeps_its_names(
    fleet: Fleet, profiles: None
) -> None:
    with Ear(fleet.salt) as ear, ThreadPoolExecutor() as pool:
        making = pool.submit(fleet.salt.run, "kvmclone.create", "many", "many[1-6]")
        lost = cut_off(fleet, ear)
        again = {
            word: pool.submit(fleet.salt.run, "kvmclone.create", profile, min(lost))
            for profile, word in (("many", "is not known"), ("minions", "may be under way on"))
        }
        clones = making.result().data["clones"]
        refused = {word: error_of(one.result()) for word, one in again.items()}

    # Each name has a clear result, and whoever was elsewhere has an address.
    assert set(clones) == set(NAMES)
    assert {name for name, one in clones.items() if "error" in one} == lost
    for name in lost:
        error = clones[name]["error"]
        assert error["type"] == "HostUnreachable"
        assert f"kvmclone.gc {name}" in error["hint"]
    assert sorted(one["host"] for one in clones.values()) == sorted(2 * list(fleet.hosts))
    assert {clones[name]["stage"] for name in set(NAMES) - lost} == {"addressed"}

    # No other host gets a name that the silent one may have.
    for word, error in refused.items():
        assert error["type"] == "HostUnreachable" and word in error["message"]
    rows = Reservations(dict(master_config(str(fleet.salt.conf / "master")))).all()
    assert {(row.reserved.name, row.reserved.host) for row in rows} == {
        (name, LOST) for name in lost
    }
    assert all(row.may_begin for row in rows)

    # It comes back, and so does what was begun: one goes on, of the other nothing is left.
    fleet.host(LOST).switch_on()
    kept, *others = sorted(lost)
    told = fleet.salt.run("kvmclone.doctor").stdout
    assert all(name in told for name in lost)
    resumed = fleet.salt.run("kvmclone.resume", kept).data["clones"][kept]
    assert (resumed["host"], resumed["stage"]) == (LOST, "addressed")
    removed = fleet.salt.run("kvmclone.gc", "apply=True").data["leftovers"]
    names = {row["name"] for row in removed if row["kind"] != "reservation"}
    assert names == set(others)
    assert all(row["removed"] for row in removed)
    assert Reservations(dict(master_config(str(fleet.salt.conf / "master")))).all() == []
    told = fleet.salt.run("kvmclone.doctor").stdout
    assert not any(name in told for name in lost)
    listed = fleet.salt.run("kvmclone.list").data["clones"]
    assert set(listed) == set(NAMES) - set(others)
    assert fleet.salt.run("kvmclone.destroy", *listed).retcode == 0
