"""The reactor's worker and its policy: it outlives the master that started it."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import salt.config

from saltext.kvmclone.reactor.request_store import MAKING, QUEUED, Entry
from saltext.kvmclone.reactor.worker import REREAD, Porter

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
def porter(config: Path) -> Porter:
    write(config, {"allow": [RULE]})
    made = Porter(salt.config.master_config(str(config)))
    with made.ledger.open() as book:
        book.put(Entry("0" * 32, "ci01", "ci01-a", "runner", asked=time.time()))
    return made


def look(porter: Porter) -> None:
    """The next reading of the policy, without the pause before it."""
    porter.read -= REREAD
    porter._read_policy()


def states(porter: Porter) -> list[str]:
    with porter.ledger.open() as book:
        return [entry.state for entry in book.entries]


def test_a_policy_that_is_just_being_written_does_not_count(porter: Porter, config: Path) -> None:
    right = config.read_text()
    config.write_text("")
    look(porter)
    config.write_text(right)
    look(porter)
    look(porter)
    assert porter.policy.rules
    assert [entry.state for entry in porter._begin()] == [MAKING]


def test_a_policy_that_was_changed_counts_soon(porter: Porter, config: Path) -> None:
    write(config, {"allow": [{**RULE, "at_once": 7}]})
    look(porter)
    assert porter.policy.rules[0].at_once == 2
    look(porter)
    assert porter.policy.rules[0].at_once == 7
    assert porter.bells.policy is porter.policy


@pytest.mark.parametrize("wrong", [{"allow": "everybody"}, 7, {"allow": [{}]}, {"alow": []}])
def test_while_a_policy_is_wrong_nothing_begins_and_nothing_is_refused(
    porter: Porter, config: Path, wrong: Any
) -> None:
    write(config, wrong)
    look(porter)
    look(porter)
    assert porter._begin() == []
    assert states(porter) == [QUEUED]
    write(config, {"allow": [RULE]})
    look(porter)
    look(porter)
    assert [entry.name for entry in porter._begin()] == ["ci01-a"]
    assert states(porter) == [MAKING]


@pytest.mark.parametrize("place", ["master", "master.d/kvm_clone.conf"])
def test_while_a_file_of_the_master_is_broken_nothing_begins_and_nothing_is_refused(
    porter: Porter, config: Path, place: str
) -> None:
    broken = config.parent / place
    broken.parent.mkdir(exist_ok=True)
    right = config.read_text()
    if broken != config:  # the policy stands in the included file
        write(config, None)
    broken.write_text("kvm_clone: {reactor: [\n")
    look(porter)
    look(porter)
    assert porter._begin() == []
    assert states(porter) == [QUEUED]
    broken.write_text(right)
    look(porter)
    look(porter)
    assert [entry.name for entry in porter._begin()] == ["ci01-a"]


def test_what_one_minion_wants_is_heard_by_one_bell_at_a_time(
    porter: Porter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bell, who in (("request", "ci01"), ("release", "ci01"), ("release", "ci02")):
        porter.ledger.ring(bell, who)
    heard: list[tuple[str, str]] = []
    monkeypatch.setattr(porter, "_answer", lambda ring: heard.append((ring.bell, ring.about)))
    monkeypatch.setattr(porter, "_begin", list)
    with ThreadPoolExecutor(4) as bells, ThreadPoolExecutor(1) as makers:
        porter._go_on(bells, makers)
    assert sorted(heard) == [("release", "ci02"), ("request", "ci01")]


def test_what_was_begun_and_left_is_begun_again(porter: Porter) -> None:
    (begun,) = porter._begin()
    (again,) = porter._begin()  # nobody is at work on it in this process
    assert again == begun
