"""A host counts what it promised, and refuses what it has no room for, whoever asks it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from lab.common import LIBVIRT_URI
from saltext.kvmclone.errors import HostFull, KvmCloneError, TooLate
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.rollback import REFUSALS
from saltext.kvmclone.model.placement import HostLimits, Need, Placed, Placement
from saltext.kvmclone.model.request import Request
from tests.support.world import World, full, quick

pytestmark = pytest.mark.slow

MIB = 2**20


def placed(request: Request, not_after: float = 0.0, **limits: Any) -> Request:
    return replace(request, placed=Placed(HostLimits(**limits), not_after))


def test_a_clone_counts_with_all_that_it_may_take_although_it_is_off(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name("a")
    request = quick(name, base, memory=300 * MIB, cpus=2, tags=("db", "x"))
    before = host.offer(request, [name, "nobody"])
    assert before.has_base and before.conflicts == () and before.there == ()
    assert (before.need.memory, before.need.cpus) == (300 * MIB, 2)
    ((pool, growth),) = before.need.growth.items()
    assert growth > 0 and before.need.copies == {pool: 0}
    host.clone(request)
    after = host.offer(request, [name, "nobody"])
    assert after.promised == Need(before.promised.memory + 300 * MIB, before.promised.cpus + 2)
    assert after.there == (name,)
    assert after.clones == before.clones + 1
    assert after.tags["db"] == before.tags.get("db", 0) + 1
    grown = after.pools[pool].growth - before.pools[pool].growth
    assert 0 < grown <= growth
    host.destroy(name)
    assert host.offer(request, []).promised == before.promised


def test_a_base_that_is_off_takes_nothing_and_one_that_is_missing_is_no_error(
    world: World, host: LocalHost, base: str
) -> None:
    before = host.offer(quick("any", base), [])
    world.base("second")
    assert host.offer(quick("any", base), []).promised == before.promised
    assert not host.offer(quick("any", "no-such-base"), []).has_base
    assert before.base_disks == {}
    pushed = replace(quick("any", base), placement=Placement(("kvm01", "kvm02"), push=True))
    ((pool, taken),) = host.offer(pushed, []).base_disks.items()
    assert pool == world.lab.pool and taken > 0


def test_what_the_plan_says_against_it_is_in_the_offer(host: LocalHost, base: str) -> None:
    request = quick("any", base, pool="no-such-pool")
    assert any("no-such-pool" in one for one in host.offer(request, []).conflicts)
    copied = host.offer(full("any", base), [])
    assert sum(copied.need.copies.values()) > 0
    assert copied.base and copied.base == host.offer(quick("any", base), []).base


def test_a_host_that_is_full_refuses_and_leaves_nothing(
    world: World, host: LocalHost, base: str
) -> None:
    name = world.name("a")
    outcome = provision.create(host, placed(quick(name, base), memory_ratio=1e-9), start=False)
    assert isinstance(outcome.error, HostFull)
    assert "memory" in outcome.error.message and name in outcome.error.message
    assert not host.exists(name)
    late = provision.create(host, placed(quick(name, base), time.time() - 5), start=False)
    assert isinstance(late.error, TooLate)
    assert not host.exists(name)
    in_time = placed(quick(name, base), time.time() + 60)
    assert provision.create(host, in_time, start=False).error is None
    # It is there, so it is not asked whether it fits.
    again = provision.create(host, placed(quick(name, base), 1.0, memory_ratio=1e-9), start=False)
    assert again.error is not None and again.error.type == "AlreadyExists"


def test_of_two_at_the_same_moment_one_gets_the_last_room(
    world: World, host: LocalHost, base: str
) -> None:
    names = [world.name(f"n{number}") for number in range(4)]
    offer = host.offer(quick("any", base), [])
    room = offer.promised.memory + offer.need.memory * 3 // 2
    ratio = room / offer.memory

    def make(name: str) -> KvmCloneError | None:
        request = placed(quick(name, base), memory_ratio=ratio)
        return provision.create(LocalHost(LIBVIRT_URI, "kvm01"), request, start=False).error

    with ThreadPoolExecutor(4) as pool:
        errors = list(pool.map(make, names))
    assert errors.count(None) == 1
    assert [type(one) for one in errors if one] == [HostFull] * 3
    assert sum(host.exists(name) for name in names) == 1


def test_a_refusal_is_known_to_have_made_nothing() -> None:
    assert {HostFull, TooLate} <= set(REFUSALS)
