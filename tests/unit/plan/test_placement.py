"""A host is chosen by what it promised; every host has a reason, and none is promised too much."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext.kvmclone.errors import BaseDiffers, BaseMissing, NoHostFits
from saltext.kvmclone.model.placement import (
    FEWEST,
    FIRST,
    ORDERS,
    PACK,
    ROUND_ROBIN,
    SPREAD,
    Decision,
    HostLimits,
    HostOffer,
    Need,
    Placement,
    PoolRoom,
    Reserved,
)
from saltext.kvmclone.plan import placement
from saltext.kvmclone.plan.placement import Asked

GIB = 2**30
NEED = Need(memory=2 * GIB, cpus=1, growth={"pool": 10 * GIB})
POOL = PoolRoom(1000 * GIB, 500 * GIB)
OFFER = HostOffer(64 * GIB, 8, pools={"pool": POOL}, need=NEED, base="vda qcow2 10", digest="1")


def offer(memory: int = 0, **changes: Any) -> HostOffer:
    return replace(OFFER, promised=Need(memory * GIB, 1), **changes)


LACKING = offer(has_base=False, base="", digest="", need=Need())


def reserve(host: str, name: str = "x", tags: tuple[str, ...] = (), need: Need = NEED) -> Reserved:
    return Reserved(name, host, need, tags)


def decide(asked: dict[str, Any], order: str = SPREAD, **more: Any) -> Decision:
    limits = more.pop("limits", {})
    wish = more.pop("wish", Placement(tuple(asked), order=order))
    return placement.choose(asked, limits, wish, **{"base": "base", **more})


def reasons(decision: Decision) -> dict[str, str]:
    return {one.host: one.reason for one in decision.verdicts if not one.fits}


# --- filters --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "limits", "reason"),
    [
        ("does not answer", HostLimits(), "does not answer"),
        (offer(), HostLimits(maintenance=True), "in maintenance"),
        (LACKING, HostLimits(), "the base is missing: salt-run kvmclone.push base bad"),
        (
            offer(conflicts=("There is no network 'dmz'.", "And more.")),
            HostLimits(),
            "There is no network 'dmz'. And more",
        ),
        (offer(63), HostLimits(), "memory: 63 GiB of 64 GiB are promised, and it takes 2 GiB"),
        (
            offer(31),
            HostLimits(reserve_memory=32 * GIB),
            "memory: 31 GiB of 32 GiB are promised, and it takes 2 GiB",
        ),
        (
            offer(31),
            HostLimits(memory_ratio=0.5),
            "memory: 31 GiB of 32 GiB are promised, and it takes 2 GiB",
        ),
        (
            replace(offer(), promised=Need(0, 16)),
            HostLimits(cpu_ratio=2),
            "CPUs: 16 of 16 are promised, and it takes 1",
        ),
        (offer(pools={}), HostLimits(), "the storage pool 'pool' is not active"),
        (
            offer(pools={"pool": replace(POOL, growth=495 * GIB)}),
            HostLimits(disk_ratio=1),
            "pool 'pool': with this one, volumes may still grow by 505 GiB, and at most 500 GiB "
            "are allowed (500 GiB free, disk_ratio 1)",
        ),
        (
            offer(need=replace(NEED, copies={"pool": 10 * GIB})),
            HostLimits(reserve_disk=495 * GIB),
            "pool 'pool': 5 GiB are free, and copies take 10 GiB",
        ),
    ],
)
def test_a_host_that_cannot_take_it_says_why(bad: Any, limits: HostLimits, reason: str) -> None:
    found = decide({"bad": bad, "good": offer()}, limits={"bad": limits})
    assert found.order == ("good",)
    assert reasons(found) == {"bad": reason}
    assert found.verdicts[1].reason == "0 B of 64 GiB memory are promised"
    asked = {"bad": bad}
    with pytest.raises((NoHostFits, BaseMissing)):
        placement.require_host(decide(asked, limits={"bad": limits}), asked, "base", "web1")


def test_free_memory_does_not_matter_only_what_is_promised() -> None:
    """HostOffer has no free memory at all."""
    assert "free" not in " ".join(HostOffer.__dataclass_fields__)


def test_pools_on_one_file_system_share_its_room() -> None:
    one = PoolRoom(1000 * GIB, 20 * GIB, growth=15 * GIB, filesystem="8:1")
    both = offer(pools={"pool": one, "fast": one})
    apart = offer(pools={"pool": one, "fast": replace(one, filesystem="8:2")})
    strict = {"a": HostLimits(disk_ratio=1.5)}
    assert not decide({"a": both}, limits=strict).order
    assert decide({"a": apart}, limits=strict).order


def test_what_is_under_way_counts_until_the_host_knows_of_it() -> None:
    asked: dict[str, Any] = {"a": offer(60)}
    reserved = [reserve("a", "web1"), reserve("b", "web2")]
    assert decide(asked, reserved=reserved).chosen == "a"
    assert not decide(asked, reserved=[*reserved, reserve("a", "web3")]).order
    known = {"a": offer(60, there=("web3",))}
    assert decide(known, reserved=[*reserved, reserve("a", "web3")]).chosen == "a"


# --- the base -------------------------------------------------------------------------


def test_a_base_of_other_content_is_refused_with_who_has_which() -> None:
    with pytest.raises(BaseDiffers, match=r"a, b: vda qcow2 10; c: vda qcow2 20") as refused:
        decide({"a": offer(), "b": offer(), "c": offer(base="vda qcow2 20")})
    assert "maintenance" in refused.value.hint
    with pytest.raises(BaseDiffers, match="a: 1234; c: 5678"):
        decide({"a": offer(digest="1234"), "b": offer(digest=""), "c": offer(digest="5678")})


def test_a_host_in_maintenance_or_without_the_base_may_differ() -> None:
    asked = {"a": offer(), "b": offer(base="other"), "c": LACKING}
    assert decide(asked, limits={"b": HostLimits(maintenance=True)}).order == ("a",)


def test_of_several_hosts_only_those_are_taken_whose_base_was_read() -> None:
    asked = {"a": offer(digest=""), "b": offer(30), "c": offer(63)}
    found = decide(asked, base="gold")
    assert found.order == ("b",) and found.unread
    assert reasons(found)["a"] == (
        "it is not known whether its base is that of b, c: salt-run kvmclone.bases gold hash=True"
    )
    drained = {"b": HostLimits(maintenance=True), "c": HostLimits(maintenance=True)}
    assert decide(asked, limits=drained).order == ("a",)


def test_where_none_was_read_the_error_says_how_to_have_that_done() -> None:
    asked: dict[str, Asked] = {"a": offer(digest=""), "b": offer(digest="")}
    with pytest.raises(NoHostFits, match=r"its base is that of b: .*; b: it is not known") as error:
        placement.require_host(decide(asked, base="gold"), asked, "gold", "web1")
    assert error.value.hint.endswith("salt-run kvmclone.bases gold hash=True")
    full: dict[str, Asked] = {"a": offer(64, digest=""), "b": offer(64)}
    with pytest.raises(NoHostFits) as error:
        placement.require_host(decide(full, base="gold"), full, "gold", "web1")
    assert "hash=True" not in error.value.hint


def test_a_base_that_one_host_alone_has_need_not_be_read() -> None:
    for other in ("down", LACKING):
        assert decide({"a": offer(digest=""), "b": other}).order == ("a",)


def test_no_host_with_the_base_is_an_error_of_its_own() -> None:
    asked: dict[str, Asked] = {"a": LACKING, "b": LACKING}
    with pytest.raises(
        BaseMissing, match=r"the base 'base' is on none of its hosts \(a, b\)"
    ) as missing:
        placement.require_host(decide(asked), asked, "base", "web1")
    assert "salt-run kvmclone.push base a " in missing.value.hint
    silent: dict[str, Asked] = {**asked, "c": "does not answer"}
    with pytest.raises(
        NoHostFits,
        match=r"a: the base is missing: .*; b: the base is missing: .*; c: does not answer",
    ):
        placement.require_host(decide(silent), silent, "base", "web1")


# --- a base that is to be copied ------------------------------------------------------


def test_a_host_without_the_base_counts_like_others_if_it_is_copied_there() -> None:
    source = offer(20, base_disks={"pool": 5 * GIB})
    asked = placement.with_base({"a": LACKING, "b": source, "c": "down"}, source)
    found = decide(asked)
    assert found.order == ("a", "b")
    assert found.verdicts[0].reason == (
        "the base is copied there first; 0 B of 64 GiB memory are promised"
    )
    need = asked["a"].need  # type: ignore[union-attr]
    assert need == Need(2 * GIB, 1, {"pool": 5 * GIB}, {"pool": 15 * GIB})


@pytest.mark.parametrize(
    ("short", "limits", "reason"),
    [
        ({"memory": GIB}, HostLimits(), "memory: "),
        ({"pools": {}}, HostLimits(), "the storage pool 'pool' is not active"),
        ({}, HostLimits(reserve_disk=496 * GIB), "pool 'pool': 4 GiB are free, and copies take"),
        ({"conflicts": ("It is being made.",)}, HostLimits(), "It is being made"),
    ],
)
def test_a_base_is_not_copied_to_a_host_that_has_no_room_for_the_clone(
    short: dict[str, Any], limits: HostLimits, reason: str
) -> None:
    source = offer(63, base_disks={"pool": 5 * GIB})
    asked = placement.with_base({"a": replace(LACKING, **short), "b": source}, source)
    found = decide(asked, limits={"a": limits})
    assert found.verdicts[0].reason.startswith(reason)
    with pytest.raises(NoHostFits, match="a: "):
        full = {"a": asked["a"]}
        placement.require_host(decide(full, limits={"a": limits}), full, "base", "web1")


def test_of_equal_hosts_the_one_that_has_the_base_is_taken() -> None:
    source = offer(base_disks={"pool": GIB})
    asked = placement.with_base({"a": LACKING, "b": source}, source)
    assert {decide(asked, seed=str(n)).chosen for n in range(20)} == {"b"}


def test_a_base_is_copied_from_one_host_or_from_several_that_have_the_same() -> None:
    assert placement.sources({"a": LACKING, "b": offer(digest=""), "c": "down"}) == ("b",)
    assert placement.sources({"a": offer(), "b": offer(digest=""), "c": offer()}) == ("a", "c")
    assert placement.sources({"a": offer(digest=""), "b": offer(digest="")}) == ()
    assert placement.sources({"a": offer(), "b": offer(digest="2")}) == ()


# --- order ----------------------------------------------------------------------------

THREE = {"a": offer(10, clones=1), "b": offer(4, clones=3), "c": offer(6, clones=2)}


@pytest.mark.parametrize(
    ("order", "last", "expected"),
    [
        (SPREAD, "", ("b", "c", "a")),
        (PACK, "", ("a", "c", "b")),
        (FEWEST, "", ("a", "c", "b")),
        (FIRST, "", ("a", "b", "c")),
        (ROUND_ROBIN, "", ("a", "b", "c")),
        (ROUND_ROBIN, "a", ("b", "c", "a")),
        (ROUND_ROBIN, "c", ("a", "b", "c")),
        (ROUND_ROBIN, "gone", ("a", "b", "c")),
    ],
)
def test_each_order_is_what_it_is_called(order: str, last: str, expected: tuple[str, ...]) -> None:
    assert decide(dict(THREE), order, last=last).order == expected


def test_the_first_is_the_one_that_the_profile_names_first() -> None:
    assert decide({"c": offer(9), "a": offer(), "b": offer()}, FIRST).chosen == "c"


def test_spread_goes_by_the_share_that_is_promised() -> None:
    big, small = replace(offer(20), memory=128 * GIB), offer(12)
    assert decide({"small": small, "big": big}).chosen == "big"
    assert decide({"small": small, "big": big}, PACK).chosen == "small"


def test_ties_do_not_always_go_to_the_first_and_a_seed_decides_alike() -> None:
    asked: dict[str, Any] = {"a": offer(), "b": offer(), "c": offer()}
    chosen = {decide(asked, seed=f"web{number}").chosen for number in range(50)}
    assert chosen == {"a", "b", "c"}
    assert decide(asked, seed="web1") == decide(asked, seed="web1")


def test_clones_of_one_tag_go_apart_as_far_as_that_is_possible() -> None:
    asked: dict[str, Any] = {"a": offer(tags={"db": 1}), "b": offer(40), "c": offer(20)}
    wish = Placement(tuple(asked), apart="db")
    assert decide(asked, wish=wish).order == ("c", "b", "a")
    under_way = [reserve("c", tags=("db",))]
    assert decide(asked, wish=wish, reserved=under_way).order == ("b", "a", "c")


def test_required_apartness_leaves_no_host_and_names_each() -> None:
    asked: dict[str, Any] = {"a": offer(tags={"db": 1}), "b": offer()}
    wish = Placement(tuple(asked), apart="db", required=True)
    assert decide(asked, wish=wish).order == ("b",)
    found = decide(asked, wish=wish, reserved=[reserve("b", tags=("db",))])
    with pytest.raises(NoHostFits, match=r"a: has a clone with the tag 'db' already; b: has a"):
        placement.require_host(found, asked, "base", "db3")


# --- for all hosts --------------------------------------------------------------------

SIZES = st.integers(0, 64)
OFFERS = st.builds(
    lambda total, promised, cpus, free, growth, has_base, bad: replace(
        OFFER,
        memory=total * GIB,
        cpus=cpus,
        promised=Need(promised * GIB, promised),
        pools={"pool": PoolRoom(1000 * GIB, free * GIB, growth * GIB)},
        has_base=has_base,
        need=NEED if has_base else Need(),
        conflicts=("no network",) if bad else (),
    ),
    SIZES, SIZES, st.integers(1, 8), SIZES, SIZES, st.booleans(), st.booleans(),
)  # fmt: skip
LIMITS = st.builds(
    HostLimits,
    reserve_memory=SIZES.map(lambda value: value * GIB),
    reserve_disk=SIZES.map(lambda value: value * GIB),
    cpu_ratio=st.floats(0.1, 20),
    memory_ratio=st.floats(0.1, 3),
    disk_ratio=st.floats(0.1, 10),
    maintenance=st.booleans(),
)
HOSTS = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.one_of(st.just("down"), OFFERS), LIMITS), max_size=6
)


@given(hosts=HOSTS, order=st.sampled_from(ORDERS), names=st.integers(1, 12), seed=st.text())
def test_whatever_is_placed_no_promise_is_broken_and_no_filtered_host_is_taken(
    hosts: dict[str, tuple[Any, HostLimits]], order: str, names: int, seed: str
) -> None:
    asked = {host: told for host, (told, _) in hosts.items()}
    limits = {host: own for host, (_, own) in hosts.items()}
    reserved: list[Reserved] = []
    last = ""
    for number in range(names):
        found = decide(asked, order, limits=limits, reserved=reserved, seed=seed, last=last)
        assert [one.host for one in found.verdicts] == list(asked)
        assert all(one.reason for one in found.verdicts)
        assert set(found.order) == {one.host for one in found.verdicts if one.fits}
        if not found.chosen:
            break
        last = found.chosen
        reserved.append(reserve(last, f"web{number}"))
    for host in {one.host for one in reserved}:
        told, own = hosts[host]
        count = sum(one.host == host for one in reserved)
        assert isinstance(told, HostOffer)
        assert told.has_base and not told.conflicts and not own.maintenance
        memory = told.promised.memory + count * NEED.memory
        assert memory <= told.memory * own.memory_ratio - own.reserve_memory
        assert told.promised.cpus + count * NEED.cpus <= told.cpus * own.cpu_ratio
        pool = told.pools["pool"]
        growth = pool.growth + count * NEED.growth["pool"]
        assert growth <= (pool.available - own.reserve_disk) * own.disk_ratio


@given(hosts=st.integers(1, 6), names=st.integers(1, 40), order=st.sampled_from([SPREAD, FEWEST]))
def test_equal_hosts_get_equally_many(hosts: int, names: int, order: str) -> None:
    asked: dict[str, Any] = {
        f"kvm{n}": replace(OFFER, memory=1000 * GIB, cpus=100) for n in range(hosts)
    }
    reserved: list[Reserved] = []
    for number in range(names):
        chosen = decide(asked, order, reserved=reserved, seed=f"web{number}").chosen
        reserved.append(reserve(chosen, f"web{number}"))
    counts = Counter(one.host for one in reserved)
    assert max(counts.values()) - min(counts[host] for host in asked) <= 1
