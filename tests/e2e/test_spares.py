"""A spare that is a real minion: out of the way while it waits, handed out once, verified."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest

from lab.common import wait_until
from lab.ear import Ear
from lab.lab import Lab
from lab.salt import SaltWorld
from tests.e2e.conftest import BASE, Machines
from tests.support.hints import error_of

pytestmark = [pytest.mark.guest, pytest.mark.long]

#: What docs/spares.md gives to keep commands off spares, and to mean them alone.
OTHERS, SPARES = "* and not G@kvm_clone_spare:*", "G@kvm_clone_spare:*"


class Stock:
    """The profile ``ci`` of the master, which wants as many spares as is written."""

    def __init__(self, world: SaltWorld) -> None:
        self.world = world

    def write(self, number: int) -> None:
        minion = {"master": self.world.address, "master_port": self.world.ret_port}
        keys = {
            "provider": "local-kvm", "base_domain": BASE, "clone_strategy": "quick",
            "minion": minion, "ttl": "2h", "spares": number, "spare_names": "e2e-{id}",
        }  # fmt: skip
        self.world.write_cloud("profiles", "spares.conf", {"ci": keys})

    def seen(self, *words: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.world.run("kvmclone.spares", "ci").data["spares"]["ci"]
        return found


@pytest.fixture
def stock(salt_world: SaltWorld) -> Iterator[Stock]:
    made = Stock(salt_world)
    made.write(1)
    yield made
    for name in salt_world.run("kvmclone.list", "profile=ci").data["clones"]:
        salt_world.run("kvmclone.destroy", name)
    (salt_world.conf / "cloud.profiles.d/spares.conf").unlink()


def meant(world: SaltWorld, target: str) -> set[str]:
    """The minions that answer to a compound target."""
    return set(world.salt("-C", target, "test.ping").data or {})


def jobs(ear: Ear, since: int) -> list[str]:
    """The functions of the jobs that were published since so many events."""
    new = [data for tag, data in ear.events[since:] if tag.endswith("/new")]
    return [str(data["fun"]) for data in new if "minions" in data]


def test_a_spare_waits_aside_and_is_handed_out_to_one(
    salt_world: SaltWorld, machines: Machines, lab: Lab, ear: Ear, stock: Stock
) -> None:
    before = machines.left()
    filled = salt_world.run("kvmclone.work_off")
    assert filled.retcode == 0, filled.stdout
    (name,) = stock.seen()["stock"]
    assert salt_world.run("kvmclone.work_off").data["done"] == 0, "it is full"
    assert meant(salt_world, SPARES) == {name}
    assert name not in meant(salt_world, OTHERS)

    stock.write(0)  # a claim wakes the worker, and this test needs no other guest
    since = len(ear.events)
    claimed = salt_world.run("kvmclone.claim", "ci", "tag=build")
    assert claimed.retcode == 0, claimed.stdout
    clone = claimed.data["clones"][name]
    assert clone["claimed"]["by"] == "root"
    assert (clone["stage"], clone["minion"]["verified_by"]) == ("ready", "uuid")
    ear.wait_for(f"salt/kvm_clone/{name}/claimed", lambda data: data["by"] == "root")
    # More jobs would make a claim slower: who has what, the record, the minion; and one that is not
    # waited for.
    asks = "['test.version', 'grains.get']"  # again after seconds, if its guest is slow
    first, second, *others = jobs(ear, since)
    assert (first, second) == ("kvm_clone.remote", "kvm_clone.remote")
    assert [job for job, _again in groupby(others)][:2] == [asks, "grains.setval"]

    refused = error_of(salt_world.run("kvmclone.claim", "ci", "wait=False"))
    assert refused["type"] == "NoSpare"
    assert list(stock.seen()["claimed"]) == [name]
    wait_until(lambda: name in meant(salt_world, OTHERS), "the master hears of its grains", 60)
    assert salt_world.salt(name, "grains.get", "kvm_clone_spare").data == {name: ""}

    assert salt_world.run("kvmclone.release", name).retcode == 0
    assert machines.left() == before
