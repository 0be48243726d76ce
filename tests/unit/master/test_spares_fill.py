"""The stock comes back, whatever happened to it: never too many, never a claimed one lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import salt.config

from saltext.kvmclone.master import (
    placing,
    progress,
    spares_fill,
    spares_make,
    spares_notes,
    verify,
)
from saltext.kvmclone.master.fleet import Fleet
from saltext.kvmclone.master.spares_fill import Refill
from saltext.kvmclone.model.clone import Clone
from saltext.kvmclone.model.spares import Claim
from tests.support import stock_hosts
from tests.support.stock_hosts import FakeHost

HOSTS = ("kvm01", "kvm02")
PROFILE = {
    "provider": "kvm", "base_domain": "base", "clone_strategy": "quick",
    "spares": 4, "spare_names": "ci-{id}", "ttl": "1h",
}  # fmt: skip


class Master:
    """A master with two hosts, and workers that refill the stock one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts = {name: FakeHost(name) for name in HOSTS}
        #: The hosts that are in maintenance.
        self.maintained: set[str] = set()
        self.profile({})

    def profile(self, changes: dict[str, Any] | None, **others: Any) -> None:
        """Write the profile with changes, None for no profile, and others beside it."""
        profiles = {"ci": changes, **others}
        profiles = {
            name: {**PROFILE, **keys} for name, keys in profiles.items() if keys is not None
        }
        for place in ("cache", "pki/minions"):
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        configuration = {
            "root_dir": str(self.folder),
            "cachedir": str(self.folder / "cache"),
            "pki_dir": str(self.folder / "pki"),
            "kvm_clone": {
                "providers": {"kvm": {"driver": "libvirt", "hosts": list(HOSTS)}},
                "profiles": profiles,
                "hosts": {name: {"maintenance": True} for name in sorted(self.maintained)},
            },
        }
        (self.folder / "master").write_text(json.dumps(configuration))

    @property
    def opts(self) -> dict[str, Any]:
        return dict(salt.config.master_config(str(self.folder / "master")))

    def fleet(self) -> Fleet:
        made = Fleet(self.opts, lambda *_: None)
        made.host = lambda minion, _url: self.hosts.get(minion)  # type: ignore[assignment,return-value]
        return made

    def worker(self) -> Refill:
        made = Refill(self.opts, self.fleet)
        made.want_look(soon=True)
        return made

    def refill(
        self, worker: Refill | None = None, room: int = 8, each: Callable[[], object] = int
    ) -> Refill:
        """One worker, from its first look to its end."""
        made = worker or self.worker()
        with ThreadPoolExecutor(8) as pool:
            while made.go_on(pool, room - made.making):
                each()
                time.sleep(0.01)
        return made

    def clones(self) -> list[Clone]:
        return [one for host in self.hosts.values() for one in host.clones.values()]

    def stock(self) -> list[Clone]:
        return [one for one in self.clones() if one.in_stock]

    def put(self, name: str, host: str = "kvm01", **keys: Any) -> Clone:
        request, secrets = spares_make.of_profile(self.fleet(), "ci")
        digest = secrets.profile_digest_of(request)
        return self.hosts[host].put(name, **{"spare": digest, **keys})


@pytest.fixture(autouse=True)
def answering(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The minions that do not answer."""
    silent: set[str] = set()

    def ask(_opts: Any, ids: Any, _timeout: float) -> set[str]:
        return set(ids) & silent

    monkeypatch.setattr(verify, "silent", ask)
    monkeypatch.setattr(progress, "fire", lambda *_: None)
    monkeypatch.setattr(placing.provision, "create", stock_hosts.create)
    monkeypatch.setattr(spares_fill, "LOOK_INTERVAL_S", 0.0)
    return silent


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    yield Master(tmp_path)


def test_an_empty_stock_is_filled_over_the_hosts_and_then_nothing_more_is_done(
    master: Master,
) -> None:
    worker = master.refill(room=1)
    assert len(master.stock()) == 4
    assert {len(host.clones) for host in master.hosts.values()} == {2}
    assert all(one.name.startswith("ci-") and not one.expires for one in master.stock())
    assert worker.done == 4
    assert master.refill().done == 0


def test_as_many_are_made_at_once_as_there_is_room_for(master: Master) -> None:
    busy: list[int] = []
    for host in master.hosts.values():
        host.takes = 0.05
    worker = master.worker()
    master.refill(worker, room=2, each=lambda: busy.append(worker.making))
    assert max(busy) == 2
    assert len(master.stock()) == 4


def test_without_profiles_that_want_spares_no_host_is_asked(master: Master) -> None:
    master.profile({"spares": None})
    master.refill()
    assert [host.looks for host in master.hosts.values()] == [0, 0]


def test_what_is_claimed_meanwhile_is_made_again_and_the_claimed_stay(master: Master) -> None:
    master.refill()
    taken = master.stock()[0]
    host = master.hosts[taken.host]
    host.claim(taken.name, taken.uuid, Claim("alice", 1.0), time.time() + 60)
    master.refill()
    assert len(master.stock()) == 4
    assert host.clones[taken.name].claim.by == "alice"


def test_what_a_killed_worker_left_is_not_doubled(master: Master) -> None:
    """It was killed while it made two; another two were finished."""
    for number in range(2):
        master.put(f"ci-00000{number}")
        master.put(f"ci-10000{number}", "kvm02", stage="booted")
    master.refill()
    names = {one.name for one in master.stock()}
    assert len(names) == 4
    assert {"ci-000000", "ci-000001"} < names
    assert not {"ci-100000", "ci-100001"} & names
    assert max(host.most for host in master.hosts.values()) <= 4


def test_a_worker_that_was_killed_between_claiming_and_destroying_is_made_up_for(
    master: Master,
) -> None:
    claim = Claim(spares_fill.REMOVER, time.time() - 5)
    master.put("ci-000001", claim=claim, expires=claim.at, spare="old")
    master.refill()
    assert "ci-000001" not in {one.name for one in master.clones()}
    assert len(master.stock()) == 4


def test_a_host_that_dies_with_half_the_stock_is_made_up_for_and_its_spares_go_when_it_is_back(
    master: Master,
) -> None:
    master.refill()
    lost = master.hosts["kvm02"]
    lost.is_down = True
    worker = master.refill()
    assert len(master.hosts["kvm01"].clones) == 4
    assert worker.notes.silent == ("kvm02",)
    lost.is_down = False
    worker = master.refill()
    assert len(master.stock()) == 4
    assert worker.notes.silent == ()


def test_while_no_host_answers_nothing_is_made_or_destroyed(master: Master) -> None:
    master.refill()
    for host in master.hosts.values():
        host.is_down = True
    master.refill()
    for host in master.hosts.values():
        host.is_down = False
    assert len(master.clones()) == 4


def test_a_full_host_gets_no_more_and_is_not_asked_again_at_once(master: Master) -> None:
    for host in master.hosts.values():
        host.room = 1
    worker = master.refill()
    assert len(master.stock()) == 2
    failure = worker.notes.failures["ci"]
    assert "NoHostFits" in failure.error or "HostFull" in failure.error
    assert failure.until > time.time()
    looks = master.hosts["kvm01"].looks
    assert master.refill().done == 0, "it is too early"
    assert master.hosts["kvm01"].looks == looks + 1


def test_each_failure_doubles_the_pause_and_a_success_ends_it(master: Master) -> None:
    notes = spares_notes.Notes()
    pauses = []
    for _ in range(20):
        notes = notes.failed("ci", "x", 0.0)
        pauses.append(notes.failures["ci"].until)
    assert pauses[:3] == [30.0, 60.0, 120.0]
    assert pauses[-1] == 3600.0
    master.profile({"spares": 1})
    past = spares_notes.Failure(3, time.time() - 1, "x")
    spares_notes.write(master.opts, replace(notes, failures={"ci": past}))
    assert master.refill().notes.failures == {}
    assert spares_notes.read(master.opts).failures == {}


def test_the_stock_of_a_host_in_maintenance_moves_to_another(master: Master) -> None:
    held = master.put("ci-aaaaaa", claim=Claim("alice", time.time()))
    for number in range(4):
        master.put(f"ci-00000{number}")
    master.maintained.add("kvm01")
    master.profile({})
    master.refill()
    assert list(master.hosts["kvm01"].clones.values()) == [held]
    assert len(master.hosts["kvm02"].clones) == len(master.stock()) == 4


def test_a_clock_that_was_ahead_keeps_nothing_from_being_made(master: Master) -> None:
    ahead = time.time() + 10**6
    failure = spares_notes.Failure(3, ahead, "x")
    wrong = spares_notes.Notes(looked=ahead, asked=ahead, holds=True, failures={"ci": failure})
    spares_notes.write(master.opts, wrong)
    read = spares_notes.read(master.opts)
    assert (read.looked, read.asked, read.holds) == (0.0, 0.0, True)
    assert read.failures["ci"].until <= time.time() + spares_notes.LONGEST_PAUSE_S


def test_a_profile_that_fails_keeps_no_other_from_its_spares(master: Master) -> None:
    small = {"spares": 2, "spare_names": "web-{id}"}
    master.profile({}, web=small)
    for host in master.hosts.values():
        host.failing.add("ci")
    worker = master.refill()
    assert set(worker.notes.failures) == {"ci"}
    assert [one.profile for one in master.stock()] == ["web", "web"]


def test_a_changed_profile_replaces_the_stock_but_not_what_was_claimed(master: Master) -> None:
    master.refill()
    taken, *others = master.stock()
    until = time.time() + 60
    master.hosts[taken.host].claim(taken.name, taken.uuid, Claim("alice", 1.0), until)
    master.profile({"cpus": 2, "spares": 3})
    master.refill()
    names = {one.name for one in master.clones()}
    assert not names & {one.name for one in others}
    assert taken.name in names
    assert len(master.stock()) == 3


@pytest.mark.parametrize("changes", [{"spares": 0}, {"spares": None}, None])
def test_no_spares_any_more_drains_the_stock(
    master: Master, changes: dict[str, Any] | None
) -> None:
    master.refill()
    taken = master.stock()[0]
    until = time.time() + 60
    master.hosts[taken.host].claim(taken.name, taken.uuid, Claim("alice", 1.0), until)
    master.profile(changes)
    master.refill()
    assert [one.name for one in master.clones()] == [taken.name]


def test_claimed_machines_go_at_the_end_of_their_time(master: Master) -> None:
    master.profile({"spares": 0})
    master.put("ci-000001", claim=Claim("alice", 1.0), expires=time.time() - 1)
    master.put("ci-000002", claim=Claim("alice", 1.0), expires=time.time() + 60)
    master.refill()
    assert [one.name for one in master.clones()] == ["ci-000002"]


def test_a_silent_one_is_replaced_and_they_are_asked_only_from_time_to_time(
    master: Master, answering: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        master.put(f"ci-00000{number}")
    answering.add("ci-000002")
    master.refill()
    assert "ci-000002" not in {one.name for one in master.clones()}
    assert len(master.stock()) == 4
    monkeypatch.setattr(verify, "silent", lambda *_: pytest.fail("it is too early"))
    master.refill()


def test_where_none_of_several_answers_it_is_the_network_and_none_is_destroyed(
    master: Master, answering: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        master.put(f"ci-00000{number}")
        answering.add(f"ci-00000{number}")
    master.refill()
    assert len(master.clones()) == 4
    assert "none of the spares of any host answers" in caplog.text


def test_one_that_is_claimed_before_it_is_removed_stays(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    master.put("ci-000001", drift=True)
    host, real = master.hosts["kvm01"], FakeHost.claim

    def claimed_first(self: FakeHost, name: str, uuid: str, *more: Any) -> Clone:
        real(self, name, uuid, Claim("alice", 1.0), time.time() + 60)
        return real(self, name, uuid, *more)

    monkeypatch.setattr(FakeHost, "claim", claimed_first)
    master.refill()
    assert host.clones["ci-000001"].claim.by == "alice"
    assert len(master.stock()) == 4


def test_a_profile_that_cannot_be_read_loses_no_spare(master: Master) -> None:
    master.refill()
    master.profile({"memory": "much"})
    master.refill()
    assert len(master.stock()) == 4
