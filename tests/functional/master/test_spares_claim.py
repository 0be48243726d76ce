"""Spares are handed out by the runner: each to one, verified, marked before anybody is told."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.errors import MinionTimeout
from saltext.kvmclone.master import progress, spares_claim, verify
from saltext.kvmclone.master.verify import Verified
from saltext.kvmclone.model.spares import GRAIN, Claim
from saltext.kvmclone.reactor import intake
from saltext.kvmclone.reactor.request_store import RequestStore
from tests.support import stock
from tests.support.hints import commands, tries
from tests.support.stock import TTL_S, Master
from tests.support.world import at_once


@pytest.fixture
def asked() -> list[str]:
    """The minions that were asked, in order."""
    return []


@pytest.fixture
def silent() -> set[str]:
    """The minions that do not answer."""
    return set()


@pytest.fixture
def master(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str], silent: set[str]
) -> Iterator[Master]:
    """A master; its spares have no guests, so what these would say is said here."""

    def answer(_opts: Any, minion_id: str, *_: Any) -> Verified:
        asked.append(minion_id)
        if minion_id in silent:
            raise MinionTimeout(f"'{minion_id}' is silent.")
        return Verified("3008.1", "uuid")

    def start(_opts: Any, minion_id: str, *call: Any) -> None:
        assert minion_id in asked, "only a machine that has answered is touched"
        assert call == ("grains.setval", GRAIN, None, True)

    monkeypatch.setattr(verify, "verify", answer)
    monkeypatch.setattr(verify, "start", start)
    monkeypatch.setattr(progress, "fire", lambda *_: None)
    monkeypatch.setattr(intake, "refill", lambda *_: None)
    with stock.master(tmp_path) as made:
        yield made


def error_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    assert answer["retcode"] == 1
    found: dict[str, Any] = answer["error"]
    return found


def test_fifty_claims_at_once_on_five_spares_give_each_machine_one_owner(
    master: Master, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        master.add(f"ci-00000{number}")
    fleets = [master.fleet() for _ in range(50)]

    def one(number: int) -> list[str]:
        wanted = spares_claim.ClaimRequest("ci", f"user{number}", wait=False)
        try:
            found = spares_claim.claim(fleets[number], wanted, lambda *_: None)
        except spares_claim.NoSpare:
            return []
        return [outcome.name for outcome in found.outcomes]

    def claim(number: int) -> Any:
        return lambda: one(number)

    got = at_once(*(claim(number) for number in range(50)))
    owners = {name: f"user{number}" for number, names in enumerate(got) for name in names}
    assert sorted(len(names) for names in got) == [0] * 45 + [1] * 5
    assert set(owners) == master.names()
    assert {name: master.record(name).claim.by for name in owners} == owners
    assert sorted(asked) == sorted(owners), "nobody but its owner asks a machine"


def test_a_claim_is_on_record_with_its_time_and_tag_before_it_is_answered(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    master.add("ci-000001")
    seen: list[Claim] = []

    def answer(*_: Any) -> Verified:
        seen.append(master.record("ci-000001").claim)
        return Verified("3008.1", "uuid")

    monkeypatch.setattr(verify, "verify", answer)
    monkeypatch.setattr(verify, "start", lambda *_: None)
    before = time.time()
    told = master.run("claim", "ci", ttl="2h", tag="build")
    assert told["retcode"] == 0
    clone = told["clones"]["ci-000001"]
    assert (clone["stage"], clone["minion"]["version"]) == ("ready", "3008.1")
    assert clone["claimed"]["at"] == seen[0].at >= before
    assert clone["claimed"]["by"] == seen[0].by != ""
    assert "spare" not in clone
    record = master.record("ci-000001")
    assert (record.expires, record.tags) == (record.claim.at + 7200, ("build",))


def test_the_time_of_the_profile_counts_from_the_claim(master: Master) -> None:
    master.add("ci-000001", created=time.time() - 10 * TTL_S)
    told = master.run("claim", "ci")
    record = master.record(next(iter(told["clones"])))
    assert record.expires == record.claim.at + TTL_S


def test_what_cannot_be_handed_out_is_passed_over(master: Master) -> None:
    master.add("ci-000001", spare="of an older profile")
    master.add("ci-000002", running=False)
    master.add("ci-000003", stage="enrolled")
    master.add("ci-000004", claim=Claim("bob", 1.0))
    master.add("other-1", spare="")
    error = error_of(master.run("claim", "ci", wait=False))
    assert error["type"] == "NoSpare"
    assert error["hint"] == "See the stock: salt-run kvmclone.spares ci"


def test_too_few_are_left_alone_where_none_is_to_be_made(master: Master) -> None:
    master.add("ci-000001")
    error = error_of(master.run("claim", "ci", count=2, wait=False))
    assert "'ci' has 1 spare in stock; wanted: 2." in error["message"]
    assert not master.record("ci-000001").claim.at


def test_one_that_does_not_answer_is_destroyed_and_the_next_one_is_handed_out(
    master: Master, asked: list[str], silent: set[str]
) -> None:
    silent |= {"ci-000000", "ci-000001"}
    for name in ("ci-000000", "ci-000001", "ci-000002"):
        master.add(name)
    assert list(master.run("claim", "ci")["clones"]) == ["ci-000002"]
    assert master.names() == {"ci-000000", "ci-000001", "ci-000002"} - (set(asked) & silent)
    assert error_of(master.run("claim", "ci", wait=False))["type"] == "NoSpare"
    assert master.names() == {"ci-000002"}


@tries("spares_claim._Taking.ran_short")
def test_where_the_stock_runs_short_on_the_way_what_was_claimed_is_named_and_can_be_given_back(
    master: Master, silent: set[str]
) -> None:
    silent |= {"ci-000000"}
    for name in ("ci-000000", "ci-000001", "ci-000002"):
        master.add(name)
    told = master.run("claim", "ci", count=3, wait=False)
    error = error_of(told)
    assert error["type"] == "NoSpare"
    assert "2 machines of the 3 that were wanted" in error["message"]
    assert set(told["clones"]) == {"ci-000001", "ci-000002"}
    for name, clone in told["clones"].items():
        assert "error" not in clone and name in error["message"]
        assert master.record(name).claim.at == clone["claimed"]["at"]
    give_back = error["hint"].partition("give it back: salt-run kvmclone.")[2]
    verb, *names = give_back.partition("   ")[0].split()
    assert master.run(verb, *names)["retcode"] == 0
    assert master.names() == set()


def test_claims_of_several_at_once_take_no_machine_that_nobody_is_told_of(
    master: Master,
) -> None:
    for number in range(5):
        master.add(f"ci-00000{number}")
    fleets = [master.fleet() for _ in range(4)]

    def claim(number: int) -> Any:
        wanted = spares_claim.ClaimRequest("ci", f"user{number}", count=3, wait=False)

        def one() -> Any:
            try:
                return spares_claim.claim(fleets[number], wanted, lambda *_: None)
            except spares_claim.NoSpare as error:
                return spares_claim.Claimed((), error)

        return one

    told = at_once(*map(claim, range(4)))
    names = [one.name for claimed in told for one in claimed.outcomes]
    taken = {name for name in master.names() if master.record(name).claim.at}
    assert sorted(names) == sorted(taken), "each has one owner, who knows of it"
    for claimed in told:
        short = len(claimed.outcomes) < 3
        assert (claimed.error is not None) is short
        assert not short or all(one.name in str(claimed.error) for one in claimed.outcomes)


def test_one_whose_key_is_another_than_on_its_record_is_not_even_asked(
    master: Master, asked: list[str]
) -> None:
    master.add("ci-000001")
    (master.folder / "pki/minions/ci-000001").write_text(stock.generate(2048).public)
    assert error_of(master.run("claim", "ci", wait=False))["type"] == "NoSpare"
    assert asked == []
    assert (master.folder / "pki/minions/ci-000001").exists(), "it is somebody else's"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"count": 0}, "count: 0 is not a number from 1 to 100"),
        ({"count": 1000}, "count: 1000 is not a number from 1 to 100"),
        ({"count": True}, "count: True"),
        ({"ttl": "soon"}, "ttl: 'soon' is not a time"),
        ({"ttl": 0}, "ttl: 0 is not a time"),
        ({"tag": 7}, "tag: 7 is not"),
        ({"wait": "no"}, "wait: 'no' is neither true nor false"),
        ({"cpus": 4}, "cpus"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_claimed(
    master: Master, keys: dict[str, Any], words: str
) -> None:
    master.add("ci-000001")
    error = error_of(master.run("claim", "ci", **keys))
    assert words in error["message"] and error["hint"]
    assert not master.record("ci-000001").claim.at


def test_a_profile_that_is_not_there_has_no_time_or_no_minions_is_refused(master: Master) -> None:
    master.write(
        endless={key: value for key, value in stock.PROFILE.items() if key != "ttl"},
        bare={"provider": "here", "base_domain": "base", "ttl": 60, "deploy": False},
    )
    unknown = error_of(master.run("claim", "ci1"))
    assert "Did you mean 'ci'?" in unknown["message"]
    assert unknown["hint"] == "salt-run kvmclone.claim ci"
    endless = error_of(master.run("claim", "endless"))
    assert endless["hint"] == "salt-run kvmclone.claim endless ttl=8h"
    assert "become no minions" in error_of(master.run("claim", "bare"))["message"]


def test_what_was_claimed_is_destroyed_by_release_and_nothing_else_is(master: Master) -> None:
    master.add("ci-000001")
    master.add("ci-000002")
    master.add("web1", spare="")
    (name,) = master.run("claim", "ci")["clones"]
    assert master.run("release", name)["retcode"] == 0
    (other,) = {"ci-000001", "ci-000002"} - {name}
    told = master.run("release", other, "web1")
    refused = {key: one["error"] for key, one in told["clones"].items()}
    assert "nobody has claimed it" in refused[other]["message"]
    assert "was no spare" in refused["web1"]["message"]
    assert refused["web1"]["hint"].endswith("salt-run kvmclone.destroy web1")
    assert master.names() == {other, "web1"}


def test_the_overview_tells_what_waits_what_is_made_and_who_has_which(master: Master) -> None:
    master.add("ci-000001")
    master.add("ci-000002", stage="booted")
    master.add("ci-000003", spare="of an older profile")
    master.add("ci-000004", stage="booted", failed="no address")
    master.add("ci-000005", claim=Claim("bob", 7.0), expires=9.0)
    told = master.run("spares")
    ci = told["spares"]["ci"]
    assert ci["wanted"] == 5
    kinds = ("stock", "making", "unusable", "failed", "claimed")
    assert [list(ci[kind]) for kind in kinds] == [[f"ci-00000{n}"] for n in range(1, 6)]
    taken = ci["claimed"]["ci-000005"]
    assert (taken["by"], taken["since"], taken["until"]) == ("bob", 7.0, 9.0)
    assert told["clones"]["ci-000005"]["claimed"] == {"by": "bob", "at": 7.0}
    assert "Nothing has refilled the stock of spares so far" in told["warnings"][0]
    assert error_of(master.run("spares", "nobody"))["type"] == "ConfigError"


def test_where_nothing_refills_doctor_and_profiles_say_so(master: Master) -> None:
    assert "kvmclone.work_off" in master.run("profiles")["warnings"][-1]
    kinds = {one["kind"]: one for one in master.run("doctor")["findings"]}
    assert kinds["spares-not-refilled"]["hint"] == "salt-run kvmclone.work_off"
    master.write(ci=None)
    assert not master.run("profiles")["warnings"]


@tries(
    "spares_claim._Taking.__init__",
    "spares_claim._Taking.too_few",
    "spares_claim._release",
    "spares_overview.-",
    "spares_overview.findings",
)
def test_what_the_hints_say_can_be_typed(master: Master) -> None:
    typist = master.typist()
    master.write(endless={key: value for key, value in stock.PROFILE.items() if key != "ttl"})
    lock = RequestStore(master.opts).lock_worker()  # so that none is started
    assert lock is not None
    typist(error_of(master.run("claim", "ci", wait=False))["hint"])
    typist(error_of(master.run("claim", "endless"))["hint"], exits=1)
    master.add("ci-000001")
    refused = master.run("release", "ci-000001")["clones"]["ci-000001"]["error"]
    (master.folder / "pki/minions/ci-000001").unlink()
    typist(refused["hint"], exits=1)
    (warning,) = master.run("spares")["warnings"]
    assert "busy" in typist(warning, "salt-run")
    kinds = {one["kind"]: one for one in master.run("doctor")["findings"]}
    assert commands(kinds["spares-not-refilled"]["hint"]) == commands(warning)
    os.close(lock)
