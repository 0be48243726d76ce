"""The reactor's worker and its policy: it outlives the master that started it."""

from __future__ import annotations

import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import salt.config

from saltext.kvmclone.master import progress
from saltext.kvmclone.reactor import intake, queries
from saltext.kvmclone.reactor.request_entry import (
    FAILED,
    MADE,
    MAKING,
    QUEUED,
    REFUSED,
    RequestEntry,
)
from saltext.kvmclone.reactor.worker import FAULT_TIMEOUT_S, POLICY_READ_INTERVAL_S, Worker

RULE: dict[str, Any] = {
    "minions": ["ci*"], "profiles": ["runner"], "names": "{minion}-*", "at_once": 2, "per_hour": 3,
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "master"


def write(config: Path, policy: Any) -> None:
    places = {"root_dir": str(config.parent), "cachedir": str(config.parent / "cache")}
    config.write_text(json.dumps({**places, "kvm_clone": {"reactor": policy}}))


@pytest.fixture
def worker(config: Path) -> Worker:
    write(config, {"allow": [RULE]})
    made = Worker(salt.config.master_config(str(config)))
    with made.store.requests() as requests:
        requests.put(RequestEntry("0" * 32, "ci01", "ci01-a", "runner", asked=time.time()))
    return made


def look(worker: Worker) -> None:
    """The next reading of the policy, without the pause before it."""
    worker.policy_read_at -= POLICY_READ_INTERVAL_S
    worker._read_policy()


def states(worker: Worker) -> list[str]:
    with worker.store.requests() as requests:
        return [entry.state for entry in requests.all()]


def test_a_policy_that_is_just_being_written_does_not_count(worker: Worker, config: Path) -> None:
    right = config.read_text()
    config.write_text("")
    look(worker)
    config.write_text(right)
    look(worker)
    look(worker)
    assert worker.policy.rules
    assert [entry.state for entry in worker._begin()] == [MAKING]


def test_a_policy_that_was_changed_counts_soon(worker: Worker, config: Path) -> None:
    write(config, {"allow": [{**RULE, "at_once": 7}]})
    look(worker)
    assert worker.policy.rules[0].at_once == 2
    look(worker)
    assert worker.policy.rules[0].at_once == 7
    assert worker.handlers.policy is worker.policy


@pytest.mark.parametrize("wrong", [{"allow": "everybody"}, 7, {"allow": [{}]}, {"alow": []}])
def test_while_a_policy_is_wrong_nothing_begins_and_nothing_is_refused(
    worker: Worker, config: Path, wrong: Any
) -> None:
    write(config, wrong)
    look(worker)
    look(worker)
    assert worker._begin() == []
    assert states(worker) == [QUEUED]
    write(config, {"allow": [RULE]})
    look(worker)
    look(worker)
    assert [entry.name for entry in worker._begin()] == ["ci01-a"]
    assert states(worker) == [MAKING]


@pytest.mark.parametrize("place", ["master", "master.d/kvm_clone.conf"])
def test_while_a_file_of_the_master_is_broken_nothing_begins_and_nothing_is_refused(
    worker: Worker, config: Path, place: str
) -> None:
    broken = config.parent / place
    broken.parent.mkdir(exist_ok=True)
    right = config.read_text()
    if broken != config:  # the policy stands in the included file
        write(config, None)
    broken.write_text("kvm_clone: {reactor: [\n")
    look(worker)
    look(worker)
    assert worker._begin() == []
    assert states(worker) == [QUEUED]
    broken.write_text(right)
    look(worker)
    look(worker)
    assert [entry.name for entry in worker._begin()] == ["ci01-a"]


@pytest.fixture
def wrong_from_the_start(worker: Worker, config: Path) -> Worker:
    """A worker that was started with a policy that is wrong, while a request waits."""
    write(config, {"alow": [RULE], "patience": "12h"})
    return Worker(salt.config.master_config(str(config)))


def test_while_a_policy_is_wrong_no_request_is_refused_as_too_late(
    wrong_from_the_start: Worker,
) -> None:
    # The policy would say how long it may wait.
    with wrong_from_the_start.store.requests() as requests:
        (waiting,) = requests.in_state(QUEUED)
        requests.put(dataclasses.replace(waiting, asked=time.time() - 2 * 3600))
    assert wrong_from_the_start._begin() == []
    assert states(wrong_from_the_start) == [QUEUED]


def test_a_worker_does_not_stay_for_requests_that_no_policy_can_judge(
    wrong_from_the_start: Worker,
) -> None:
    assert wrong_from_the_start._is_work_left(), "it may be being mended"
    wrong_from_the_start.fault_since -= FAULT_TIMEOUT_S
    assert not wrong_from_the_start._is_work_left()
    assert states(wrong_from_the_start) == [QUEUED]


def test_a_request_waits_for_a_policy_that_is_mended(
    wrong_from_the_start: Worker, config: Path
) -> None:
    write(config, {"allow": [RULE], "patience": "12h"})
    look(wrong_from_the_start)
    look(wrong_from_the_start)
    assert wrong_from_the_start._is_work_left()
    assert [entry.name for entry in wrong_from_the_start._begin()] == ["ci01-a"]


def test_what_one_minion_wants_is_heard_by_one_bell_at_a_time(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bell, who in (("request", "ci01"), ("release", "ci01"), ("release", "ci02")):
        worker.store.note(bell, who)
    heard: list[tuple[str, str]] = []
    monkeypatch.setattr(
        worker,
        "_answer",
        lambda notification: heard.append((notification.bell, notification.about)),
    )
    monkeypatch.setattr(worker, "_begin", list)
    with ThreadPoolExecutor(4) as bells, ThreadPoolExecutor(1) as makers:
        worker._go_on(bells, makers, bells)
    assert sorted(heard) == [("release", "ci02"), ("request", "ci01")]


def test_what_was_begun_and_left_is_begun_again(worker: Worker) -> None:
    (begun,) = worker._begin()
    (again,) = worker._begin()  # nobody is at work on it in this process
    assert again == begun


def upgraded(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process works with another library than there is."""
    monkeypatch.setattr(intake, "_LOADED", {**intake._LOADED, "gone.py": 1})


def test_after_an_upgrade_nothing_is_begun_and_nothing_fails(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (begun,) = worker._begin()
    upgraded(monkeypatch)
    # A create that an old library cannot go on with; no profile of that name is there.
    worker._make(begun)
    assert states(worker) == [QUEUED]
    with ThreadPoolExecutor(1) as bells, ThreadPoolExecutor(1) as makers:
        assert not worker._go_on(bells, makers, bells), "it ends, although a request waits"
    assert states(worker) == [QUEUED]


def test_a_create_that_was_under_way_stays_begun_for_the_next_worker(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (begun,) = worker._begin()
    with worker.store.requests() as requests:
        requests.put(dataclasses.replace(begun, digest="0" * 64))
    upgraded(monkeypatch)
    worker._make(begun)
    assert states(worker) == [MAKING]


def test_without_an_upgrade_a_request_that_cannot_be_made_fails(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    fired: list[str] = []
    monkeypatch.setattr(progress, "fire", lambda _opts, word, _data: fired.append(word))
    monkeypatch.setattr(queries, "tell", lambda *_: None)
    (begun,) = worker._begin()
    worker._make(begun)
    assert (states(worker), fired) == ([FAILED], ["failed"])


def test_a_request_that_waited_too_long_is_told_which_limit_it_waited_for(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "fire", lambda *_: None)
    monkeypatch.setattr(queries, "tell", lambda *_: None)
    with worker.store.requests() as requests:
        for number in range(2):
            made = RequestEntry(f"{number + 1:032x}", "ci01", f"ci01-{number}", "runner")
            requests.put(dataclasses.replace(made, state=MADE))
        (waiting,) = requests.in_state(QUEUED)
        requests.put(dataclasses.replace(waiting, asked=time.time() - 3601))
    assert worker._begin() == []
    with worker.store.requests() as requests:
        (refused,) = requests.in_state(REFUSED)
    assert refused.reason == (
        "It waited longer than 1h for its turn: at most 2 machines of its rule may exist at once."
    )
