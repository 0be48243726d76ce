"""Promises about claims: of several on one spare one succeeds, whatever else happens to it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lab.common import CHECKOUT, LIBVIRT_URI
from saltext.kvmclone.errors import NoSpare, PlanRefused, SnapshotRefused
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import doctor
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.hints import AT_HOST
from saltext.kvmclone.model.record import DESTROYING
from saltext.kvmclone.model.spares import Claim
from tests.functional.lifecycle.test_renamed_clones import rename
from tests.functional.lifecycle.test_snapshot_killed import killed_at
from tests.support.hints import Typist, hint, tries
from tests.support.world import CloneOf, World, quick

#: Processes that claim one spare at the same moment.
PROCESSES = 5

#: Claims one spare after the other, all processes each of them at the same moment, and prints which
#: it got. ``far`` is a process on another machine: it sees no lock of the others.
PROGRAM = """
import contextlib, json, sys, time
sys.path[:0] = ['_utils', '.']
from saltext.kvmclone.errors import NoSpare
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.spares import Claim
from saltext.kvmclone.system import processes

url, spares, who, far, begin = json.loads(sys.argv[1])
if far:
    processes.name_lock = lambda name: contextlib.nullcontext()
got = []
for number, (name, uuid) in enumerate(spares):
    time.sleep(max(0, begin + number * 0.5 - time.time()))
    with contextlib.suppress(NoSpare):
        LocalHost(url).claim(name, uuid, Claim(who, time.time()), time.time() + 3600, [who])
        got.append(name)
print(json.dumps(got))
"""


@pytest.fixture
def spare_of(host: LocalHost, clone_of: CloneOf) -> Callable[..., Clone]:
    """Makes a spare in stock; it is shut off, and has no minion."""

    def make(base: str, word: str = "spare", **fields: Any) -> Clone:
        name = clone_of(base, word, profile="ci", tags=("own",))
        with Host(host.url) as opened:
            handle = opened.domain(name)
            record = handle.record()
            assert record is not None
            ready = replace(record.at("ready"), goal="ready", spare="0123", **fields)
            handle.save_record(ready)
        return host.show(name)

    return make


SpareOf = Callable[..., Clone]


def claim(host: LocalHost, spare: Clone, by: str = "alice") -> Clone:
    return host.claim(spare.name, spare.uuid, Claim(by, 1000.5), 2000.5, ["job-7", "own"])


def test_a_claim_is_on_record_and_is_shown(
    world: World, host: LocalHost, base: str, spare_of: SpareOf
) -> None:
    spare = spare_of(base)
    assert (spare.as_dict()["spare"], "claimed" in spare.as_dict()) == (True, False)
    assert host.tree()["bases"][base]["clones"][spare.name]["spare"] is True
    assert host.capacity()["spares"] == 1
    claimed = claim(host, spare)
    told = host.show(spare.name)
    for clone in (claimed, told):
        assert clone.as_dict()["claimed"] == {"by": "alice", "at": 1000.5}
        assert "spare" not in clone.as_dict()
        assert (clone.expires, clone.tags) == (2000.5, ("own", "job-7"))
    branch = host.tree()["bases"][base]["clones"][spare.name]
    assert (branch["spare"], branch["claimed"]) == (False, {"by": "alice", "at": 1000.5})
    assert host.capacity()["spares"] == 0
    assert "urn:saltext:kvmclone:claim" not in world.secure_xml(spare.name)
    host.destroy(spare.name)


def test_a_claim_needs_none_of_the_hosts_files(
    far_host: LocalHost, base: str, spare_of: SpareOf
) -> None:
    spare = spare_of(base)
    assert claim(far_host, spare).claim.by == "alice"
    with pytest.raises(NoSpare):
        claim(far_host, spare, "bob")


def test_of_several_processes_on_several_machines_one_gets_the_spare(
    world: World, host: LocalHost, base: str, spare_of: SpareOf
) -> None:
    spares = [spare_of(base, f"spare{number}") for number in range(4)]
    begin = time.time() + 4
    order = [(spare.name, spare.uuid) for spare in spares]
    running = []
    for number in range(PROCESSES):
        words = json.dumps([LIBVIRT_URI, order, f"user{number}", number > 1, begin])
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, words],
                cwd=CHECKOUT, stdout=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    got = {
        f"user{number}": json.loads(process.communicate(timeout=120)[0])
        for number, process in enumerate(running)
    }
    owned = [name for names in got.values() for name in names]
    assert sorted(owned) == sorted(spare.name for spare in spares)
    for who, names in got.items():
        for name in names:
            record = world.record(name)
            assert record is not None and (record.claim.by, record.tags) == (who, ("own", who))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"claim": Claim("bob", 5.0)}, "bob has claimed it"),
        ({"stage": DESTROYING}, "stage 'destroying'"),
        ({"stage": "enrolled"}, "stage 'enrolled'"),
        ({"failed": "it broke"}, "stage 'ready'"),
        ({"under_way": "rollback a"}, "being changed"),
        ({"becomes": "base"}, "stage 'ready'"),
        ({"spare": ""}, "not made as one"),
    ],
)
def test_what_is_not_in_stock_cannot_be_claimed(
    world: World, host: LocalHost, base: str, spare_of: SpareOf, fields: dict[str, Any], why: str
) -> None:
    spare = spare_of(base)
    with Host(host.url) as opened:
        handle = opened.domain(spare.name)
        record = handle.record()
        assert record is not None
        handle.save_record(replace(record, **fields))
    before = world.record(spare.name)
    with pytest.raises(NoSpare, match=why) as refused:
        claim(host, spare)
    assert "show" in refused.value.hint
    assert world.record(spare.name) == before
    with Host(host.url) as opened:  # so that it can be removed
        opened.domain(spare.name).save_record(record)


def test_another_machine_of_its_name_is_left_alone(
    world: World, host: LocalHost, base: str, spare_of: SpareOf
) -> None:
    spare = spare_of(base)
    other = replace(spare, uuid="00000000-0000-4000-8000-000000000000")
    with pytest.raises(NoSpare, match="another machine"):
        claim(host, other)
    with pytest.raises(NoSpare, match="not there any more"):
        claim(host, replace(spare, name=f"{spare.name}-x"))
    with pytest.raises(NoSpare, match="it is no clone"):
        claim(host, replace(spare, name=base))
    record = world.record(spare.name)
    assert record is not None and record.in_stock


def test_a_spare_that_was_renamed_is_not_handed_out(
    world: World, host: LocalHost, base: str, spare_of: SpareOf
) -> None:
    spare = spare_of(base)
    now = rename(world, spare.name)
    with pytest.raises(NoSpare, match=f"made as '{spare.name}'"):
        claim(host, replace(spare, name=now))
    with Host(host.url) as opened:
        found = [one for one in doctor.examine(opened) if one.name == now]
    assert [one.kind for one in found] == ["spare-unusable"]
    assert "salt-run kvmclone.spares ci" in found[0].hint


def test_a_claim_during_a_destroy_gets_nothing_and_disturbs_nothing(
    world: World, host: LocalHost, base: str, spare_of: SpareOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from another machine, which does not see the lock."""
    spare = spare_of(base)
    refused = []

    real = DomainHandle.power_off

    def power_off(handle: DomainHandle) -> None:
        with pytest.raises(NoSpare) as error:
            claim(host, spare)
        refused.append(error.value.message)
        real(handle)

    monkeypatch.setattr(DomainHandle, "power_off", power_off)
    host.destroy(spare.name)
    assert refused and "destroying" in refused[0]
    assert not world.exists(spare.name)


def test_a_claim_that_is_killed_leaves_the_spare_to_itself_or_in_stock(
    world: World, host: LocalHost, base: str, spare_of: SpareOf
) -> None:
    """Never to two, and never for ever: who died has it until its ttl ends."""
    points = 0
    for point in range(20):
        spare = spare_of(base, f"spare{point}")
        if not killed_at(point, lambda: claim(host, spare)):  # noqa: B023
            break
        points += 1
        got = True
        try:
            claim(host, spare, "bob")
        except NoSpare:
            got = False
        record = world.record(spare.name)
        assert record is not None
        assert record.claim.by == ("bob" if got else "alice")
        assert got is (point == 0)  # nothing was written before the first point
        assert (record.expires, host.show(spare.name).in_stock) == (2000.5, False)
        assert spare.name in host.expired()
    assert points >= 6


def test_an_attempt_that_may_be_under_way_is_not_decided_by_others(
    world: World, host: LocalHost, base: str, spare_of: SpareOf
) -> None:
    spare = spare_of(base)

    def fresh() -> None:
        host.claim(spare.name, spare.uuid, Claim("alice", time.time()), 2000.5)

    assert killed_at(1, fresh)
    with pytest.raises(NoSpare, match="alice has claimed it"):
        claim(host, spare, "bob")
    record = world.record(spare.name)
    assert record is not None and record.in_stock


# --- a spare in stock stays as it is ------------------------------------------------------


def test_a_spare_in_stock_is_neither_adjusted_nor_promoted_nor_a_snapshot_taken_of_it(
    world: World, host: LocalHost, base: str, spare_of: SpareOf
) -> None:
    spare = spare_of(base)
    before = world.record(spare.name)
    for refusal, ask in (
        (PlanRefused, lambda: host.adjust(quick(spare.name, base, tags=("x",)), dry=False)),
        (PlanRefused, lambda: host.adjust(quick(spare.name, base), dry=True)),
        (PlanRefused, lambda: host.promote(spare.name, "golden")),
        (SnapshotRefused, lambda: host.snapshot(spare.name)),
    ):
        with pytest.raises(refusal, match="spare in stock of the profile 'ci'") as refused:
            ask()
        assert "salt-run kvmclone.claim ci" in refused.value.hint
    assert world.record(spare.name) == before


def test_a_claimed_one_is_a_clone_like_any_other(
    world: World, host: LocalHost, base: str, spare_of: SpareOf
) -> None:
    """Its ttl counts from the claim."""
    spare = spare_of(base)
    claim(host, spare)
    same = host.adjust(quick(spare.name, base, ttl=1000.0), dry=True)
    assert "ttl" not in same.changes
    host.adjust(quick(spare.name, base, ttl=5000.0), dry=False)
    record = world.record(spare.name)
    assert record is not None and (record.expires, record.claim.by) == (6000.5, "alice")
    assert host.snapshot(spare.name, "one").label == "one"


@tries("claim_spare._no_spare", "spare_findings.find")
def test_what_cannot_be_claimed_can_be_looked_at_and_a_claim_that_is_over_ended(
    world: World, base: str, spare_of: SpareOf, typist: Typist
) -> None:
    host = LocalHost(LIBVIRT_URI, label="kvm01", ours=AT_HOST)
    spare = spare_of(base)
    claim(host, spare)
    assert "alice" in typist(hint(NoSpare, lambda: claim(host, spare, "bob")))
    (over,) = [one for one in host.doctor() if one["name"] == spare.name and "claim" in one["kind"]]
    typist(over["hint"])
    assert not world.exists(spare.name)


def test_only_a_claimed_spare_expires_and_only_a_claimed_one_is_published_as_in_use(
    world: World, host: LocalHost, base: str, spare_of: SpareOf
) -> None:
    spare = spare_of(base)
    assert spare.name not in host.expired()
    assert host.published()["clones"][spare.name]["spare"] is True
    claim(host, spare)
    assert spare.name in host.expired()
    assert host.published()["clones"][spare.name]["spare"] is False
    with Host(host.url) as opened:
        found = {one.kind: one for one in doctor.examine(opened) if one.name == spare.name}
    assert set(found) == {"claim-over"}
    assert "claimed by alice" in found["claim-over"].message
    assert found["claim-over"].hint == f"salt-run kvmclone.destroy {spare.name}"
