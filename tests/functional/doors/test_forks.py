"""A profile of forks makes forks through every door: the stock of spares, salt-cloud, a state."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import salt.cloud
import salt.config
import yaml

from lab.common import CHECKOUT, LIBVIRT_URI
from saltext.kvmclone.guest import fork_identity
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.local_connection import ConnectedOperation
from saltext.kvmclone.inventory import clone_view
from saltext.kvmclone.lifecycle import fork, record_store
from saltext.kvmclone.master import progress, spares_claim, verify
from saltext.kvmclone.master.enrolment import Enroller
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.master.verify import Verified
from saltext.kvmclone.model.base_minion import Foresight
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.record import BY_WORD, Minion
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.reactor import intake, worker
from tests.functional.master.test_spares_fill import master_of
from tests.support.forks import warm_without_an_agent
from tests.support.world import Salt, World

pytestmark = pytest.mark.slow


def _at(host: LocalHost, name: str, stage: str, minion: Minion) -> Clone:
    """The clone at another stage, on record as a host would have it."""
    with ConnectedOperation(host) as opened:
        handle, record = record_store.clone_record(opened, name)
        now = replace(record, minion=minion).at(stage)
        record = record_store.save(handle, record, now)
        return clone_view.describe_running(opened, handle, record, "kvm01")


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """
    Guests that do whatever is asked of them: the tiny one has no agent, but it is restored.

    :return: The words that forks were given.
    """
    given: list[str] = []

    def addressed(host: LocalHost, request: Request, minion: Minion = Minion()) -> Clone:
        return _at(host, request.name, "addressed", minion)

    def bootstrapped(host: LocalHost, request: Request, enrolment: Enrolment) -> Clone:
        given.append(enrolment.word)
        minion = Minion(id=enrolment.minion_id, fingerprint=enrolment.fingerprint)
        return _at(host, request.name, "enrolled", minion)

    warm_without_an_agent(monkeypatch)
    monkeypatch.setattr(fork_identity, "ping", lambda *_: None)
    monkeypatch.setattr(fork_identity, "reseed", lambda *_: None)
    monkeypatch.setattr(fork, "forget_word", lambda *_: ())
    monkeypatch.setattr(LocalHost, "wait_for_address", addressed)
    monkeypatch.setattr(LocalHost, "bootstrap", bootstrapped)
    monkeypatch.setattr(progress, "fire", lambda *_: None)
    return given


@pytest.fixture
def warmed(world: World, host: LocalHost) -> Iterator[str]:
    base = world.base(agent=True, options="tiny.nodhcp")
    host.warm(base)
    yield base


def is_fork(world: World, name: str, base: str) -> bool:
    """Whether it goes on from the saved memory: it stands on that machine's disk, and runs."""
    record = world.record(name)
    assert record is not None
    return (record.strategy, record.warmed, world.state(name)) == (
        "instant",
        f"{base}.warm1",
        "running",
    )


def test_spares_are_forks_known_by_their_word_and_are_claimed_by_their_key(
    world: World,
    warmed: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str | None] = []

    def answers(_self: Any, minion_id: str, _uuid: str, _ask: Any, word: str | None) -> Minion:
        asked.append(word)
        return Minion(id=minion_id, version="3008.1", verified_by=BY_WORD)

    monkeypatch.setattr(Enroller, "foresee", lambda *_: Foresight())
    monkeypatch.setattr(Enroller, "verify", answers)
    monkeypatch.setattr(verify, "start", lambda *_: None)
    monkeypatch.setattr(verify, "silent", lambda *_: set())
    monkeypatch.setattr(intake, "start_worker", lambda *_: False)
    opts = master_of(tmp_path, warmed, world.token, 2)
    path = tmp_path / "master"
    written = json.loads(path.read_text())
    written["kvm_clone"]["profiles"]["ci"]["clone_strategy"] = "instant"
    path.write_text(json.dumps(written))
    opts = dict(salt.config.master_config(str(path)))

    assert worker.work_off(opts) == {"done": 2, "retcode": 0}
    host = LocalHost(LIBVIRT_URI)
    made = [one for one in host.list_clones(spares=True) if world.token in one.name]
    assert [(one.stage, one.strategy, one.in_stock) for one in made] == [
        ("ready", "instant", True)
    ] * 2
    assert all(is_fork(world, one.name, warmed) for one in made)
    assert all(words) and sorted(asked, key=str) == sorted(words) and len(set(words)) == 2
    assert worker.work_off(opts) == {"done": 0, "retcode": 0}, "they are as the profile wants them"

    def verified(*given: Any) -> Verified:
        asked.append(given[-1])
        return Verified("3008.1", "key")

    monkeypatch.setattr(verify, "verify", verified)
    wanted = spares_claim.ClaimRequest("ci", "alice", wait=False)
    claimed = spares_claim.claim(Fleet(opts, lambda *_: None), wanted, lambda *_: None)
    (outcome,) = claimed.outcomes
    assert claimed.error is None and outcome.clone is not None
    record = world.record(outcome.name)
    assert record is not None and record.claim.by == "alice"
    assert record.expires == pytest.approx(time.time() + 3600, abs=60)
    assert asked[-1] == "", "its word is spent: the key says which machine it is"


def test_salt_cloud_makes_a_fork_of_such_a_profile(
    world: World, warmed: str, tmp_path: Path
) -> None:
    name = world.name("cloud")
    paths = {
        "root_dir": str(tmp_path),
        "pki_dir": str(tmp_path / "pki"),
        "cachedir": str(tmp_path / "cache"),
        "sock_dir": str(tmp_path / "run"),
        "log_file": str(tmp_path / "log"),
        "module_dirs": [str(CHECKOUT)],
    }
    (tmp_path / "cache").mkdir()
    (tmp_path / "pki/minions").mkdir(parents=True)
    profile = {
        "provider": "here", "base_domain": warmed, "clone_strategy": "instant", "deploy": False,
    }  # fmt: skip
    here = {"driver": "libvirt", "url": LIBVIRT_URI}
    for file, content in (
        ("master", paths),
        ("cloud", {"log_level": "warning"}),
        ("cloud.providers", {"here": here}),
        ("cloud.profiles", {"forks": profile}),
    ):
        (tmp_path / file).write_text(yaml.safe_dump(content))
    client = salt.cloud.CloudClient(path=str(tmp_path / "cloud"))
    told = client.profile("forks", names=[name])
    assert told[name]["strategy"] == "instant"
    assert is_fork(world, name, warmed)


def test_a_state_makes_a_fork_and_leaves_it_alone_the_next_time(
    world: World, warmed: str, salt_minion: Salt, salt_dry: Salt
) -> None:
    name = world.name("state")
    keys = {"base_domain": warmed, "clone_strategy": "instant"}
    planned = salt_dry.state("kvm_clone.present", name, **keys)
    assert planned["result"] is None and planned["changes"]["clone"]["new"]["strategy"] == "instant"
    made = salt_minion.state("kvm_clone.present", name, **keys)
    assert made["result"] is True, made["comment"]
    assert made["changes"]["clone"]["new"]["strategy"] == "instant"
    assert is_fork(world, name, warmed)
    again = salt_minion.state("kvm_clone.present", name, **keys)
    assert (again["result"], again["changes"]) == (True, {}), again["comment"]
    gone = salt_minion.state("kvm_clone.absent", name)
    assert gone["result"] is True and not world.exists(name)


def test_a_fork_that_a_state_wants_off_is_refused(
    world: World, warmed: str, salt_minion: Salt
) -> None:
    keys = {"base_domain": warmed, "clone_strategy": "instant"}
    answer = salt_minion.state("kvm_clone.present", world.name(), running=False, **keys)
    assert answer["result"] is False
    assert "cannot be left off" in answer["comment"]
