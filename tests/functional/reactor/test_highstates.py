"""``finish`` is for clones that become ready while it is on: one highstate each, and no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import salt.config

from saltext.kvmclone.model.host_reports import CloneReport
from saltext.kvmclone.reactor import handlers, intake, queries
from saltext.kvmclone.reactor.handlers import RequestHandlers, Retry
from saltext.kvmclone.reactor.highstates import Highstates
from saltext.kvmclone.reactor.policy import START
from saltext.kvmclone.reactor.request_store import RequestStore

WEB1, WEB2 = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222")


class World:
    """A master's configuration and request store; its minions are played."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.clones: dict[str, CloneReport] = {}
        self.jobs: list[tuple[str, str]] = []
        self.fault: BaseException | None = None
        self.finish(True)
        monkeypatch.setattr(intake, "start_worker", lambda _opts: True)
        monkeypatch.setattr(queries, "publish", self._publish)
        monkeypatch.setattr(handlers.progress, "fire", lambda *_about: None)
        monkeypatch.setattr(RequestHandlers, "_clones_of", lambda _self, who: [self.clones[who]])

    def write(self, policy: Any) -> None:
        places = {"root_dir": str(self.folder), "cachedir": str(self.folder / "cache")}
        (self.folder / "master").write_text(
            json.dumps({**places, "kvm_clone": {"reactor": policy}})
        )

    def finish(self, on: bool) -> None:
        """Write the policy, and restart the master: it reads that."""
        self.write({"finish": on})

    @property
    def opts(self) -> dict[str, Any]:
        found: dict[str, Any] = salt.config.master_config(str(self.folder / "master"))
        return found

    def become_ready(self, name: str, uuid: str) -> None:
        intake.expect_highstate(self.opts, name, uuid)
        self.clones[name] = CloneReport(name, uuid, "ready", "", name, "finger")

    def start(self, name: str) -> list[str]:
        """The minion rings and is answered; the clones that have had a highstate so far."""
        opts = self.opts
        rules = intake.read_policy(opts)
        intake._heed_finish(opts, rules.finish)
        if rules.finish:
            RequestHandlers(opts, rules, RequestStore(opts))._handle_started(name)
        return [minion for minion, _job in self.jobs]

    def _publish(self, _opts: Any, minion_id: str, function: str, job: str) -> None:
        assert function == "state.apply"
        self.jobs.append((minion_id, job))
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_clone_made_before_it_was_turned_on_gets_no_highstate(world: World) -> None:
    world.finish(False)
    world.become_ready("web1", WEB1)
    world.finish(True)
    assert world.start("web1") == []


@pytest.mark.parametrize("text", [b"a: [", b"\xff\xfe\x00", b"include: [7]", b"root_dir: 7"])
def test_a_broken_configuration_costs_no_clone_and_is_not_off(world: World, text: bytes) -> None:
    world.become_ready("web1", WEB1)
    opts = world.opts
    (world.folder / "master").write_bytes(text)
    intake.expect_highstate(opts, "web2", WEB2)
    assert intake.written_section(opts["conf_file"]) is intake.UNREADABLE
    world.finish(True)
    world.clones["web2"] = CloneReport("web2", WEB2, "ready", "", "web2", "finger")
    assert world.start("web2") == ["web2"]


def test_a_store_that_fails_in_any_way_costs_no_clone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_given: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(Highstates, "expect", fails)
    intake.expect_highstate(world.opts, "web1", WEB1)


def test_a_clone_that_became_ready_before_there_was_any_store_gets_none(world: World) -> None:
    world.clones["web1"] = CloneReport("web1", WEB1, "ready", "", "web1", "finger")
    assert world.start("web1") == []


def test_a_clone_that_became_ready_since_gets_one_however_often_it_starts(world: World) -> None:
    world.become_ready("web1", WEB1)
    assert world.start("web1") == ["web1"]
    assert world.start("web1") == ["web1"]
    world.become_ready("web1", WEB1)  # noted again, as by a create that was asked for twice
    assert world.start("web1") == ["web1"]


def test_a_clone_whose_create_is_resumed_is_rung_for_when_it_is_ready(world: World) -> None:
    """Its minion started long ago, and does not start again for it."""
    world.become_ready("web1", WEB1)
    assert [
        (notification.bell, notification.about)
        for notification in RequestStore(world.opts).notifications()
    ] == [(START, "web1")]


def test_nobody_is_rung_for_while_it_is_off(world: World) -> None:
    world.finish(False)
    world.become_ready("web1", WEB1)
    assert RequestStore(world.opts).notifications() == []


def test_a_clone_that_is_not_ready_yet_is_waited_for(world: World) -> None:
    world.clones["web1"] = CloneReport("web1", WEB1, "enrolled", "", "web1", "finger")
    with pytest.raises(Retry):
        world.start("web1")


def test_another_machine_of_the_same_name_gets_its_own(world: World) -> None:
    world.become_ready("web1", WEB1)
    world.start("web1")
    world.become_ready("web1", WEB2)
    assert world.start("web1") == ["web1", "web1"]


def test_turned_off_and_on_again_it_is_for_clones_made_since(world: World) -> None:
    world.become_ready("web1", WEB1)
    world.finish(False)
    assert world.start("web1") == []
    world.finish(True)
    assert world.start("web1") == []
    world.become_ready("web2", WEB2)
    assert world.start("web2") == ["web2"]


def test_what_became_ready_while_it_was_off_gets_none_though_it_was_on_before(
    world: World,
) -> None:
    world.become_ready("web2", WEB2)
    world.finish(False)
    world.become_ready("web1", WEB1)
    world.finish(True)
    assert (world.start("web1"), world.start("web2")) == ([], [])


def test_a_policy_that_cannot_be_read_for_a_while_is_not_off(world: World) -> None:
    world.become_ready("web2", WEB2)
    world.write({"finish": "perhaps"})
    world.become_ready("web1", WEB1)
    world.finish(True)
    assert (world.start("web1"), world.start("web2")) == (["web1"], ["web1", "web2"])


def test_a_policy_that_could_never_be_read_is_not_on(world: World) -> None:
    world.write({"finish": "perhaps"})
    world.become_ready("web1", WEB1)
    world.finish(True)
    assert world.start("web1") == []


def test_a_lost_store_brings_nobody_a_second_highstate(world: World) -> None:
    world.become_ready("web1", WEB1)
    world.start("web1")
    shutil.rmtree(world.folder / "cache/kvm_clone/reactor")
    assert world.start("web1") == ["web1"]
    world.become_ready("web2", WEB2)
    assert world.start("web2") == ["web1", "web2"]


def test_what_an_old_store_has_as_done_is_done(world: World) -> None:
    done = world.folder / "cache/kvm_clone/reactor/finished"
    done.mkdir(parents=True)
    (done / WEB1).touch()
    world.become_ready("web1", WEB1)
    assert world.start("web1") == []


def test_a_worker_that_is_killed_in_between_sends_the_same_job_again(world: World) -> None:
    """A minion runs one job number once, however often it is sent."""
    world.become_ready("web1", WEB1)
    world.fault = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        world.start("web1")
    world.fault = None
    world.start("web1")
    (first, second) = world.jobs
    assert first == second
    assert first[1]


def test_a_create_is_none_the_worse_for_a_store_that_cannot_be_written(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    (world.folder / "cache").mkdir()
    (world.folder / "cache/kvm_clone").write_text("in the way")
    world.become_ready("web1", WEB1)
    assert "'web1' will get no highstate" in caplog.text


def test_the_list_of_who_waits_does_not_grow_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saltext.kvmclone.reactor.highstates.MAX_NOTED", 3)
    for number in range(6):
        intake.expect_highstate(world.opts, f"web{number}", f"{number}{WEB1[1:]}")
    waiting = Highstates(RequestStore(world.opts))
    jobs = [waiting.job_for(f"{number}{WEB1[1:]}", world.opts) for number in range(6)]
    assert [bool(job) for job in jobs] == [False] * 3 + [True] * 3
    for number in range(6):
        waiting.done(f"{number}{WEB1[1:]}")
    again = [waiting.expect(f"{number}{WEB1[1:]}") for number in range(6)]
    assert again == [True] * 3 + [False] * 3
