"""A minion that names no machine gets a spare, within the policy, and the worker refills."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.master import progress, spares_notes, verify
from saltext.kvmclone.master.verify import Verified
from saltext.kvmclone.model.spares import Claim
from saltext.kvmclone.reactor import intake, policy_section, queries, worker
from saltext.kvmclone.reactor.handlers import RequestHandlers
from saltext.kvmclone.reactor.policy import REQUEST, STOCK, Ask, Refused
from saltext.kvmclone.reactor.request_entry import FAILED, GONE, MADE, MAKING, QUEUED, RequestEntry
from saltext.kvmclone.reactor.request_store import RequestStore
from saltext.kvmclone.reactor.worker import Worker
from tests.support import stock
from tests.support.hints import tries
from tests.support.stock import Master

POLICY = policy_section.read(
    {
        "allow": [
            {
                "minions": ["ci*"], "profiles": ["ci"], "names": "{minion}-*",
                "at_once": 2, "per_hour": 5, "overrides": {"ttl": "2h"},
            }
        ]
    }
)  # fmt: skip


@pytest.fixture
def told() -> dict[str, Any]:
    """What the minion was told last, by token."""
    return {}


@pytest.fixture
def master(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any]
) -> Iterator[Master]:
    monkeypatch.setattr(verify, "verify", lambda *_: Verified("3008.1", "uuid"))
    monkeypatch.setattr(verify, "start", lambda *_: None)
    monkeypatch.setattr(verify, "silent", lambda *_: set())
    monkeypatch.setattr(progress, "fire", lambda *_: None)
    monkeypatch.setattr(queries, "tell", lambda _opts, _minion, answers: told.update(answers))
    monkeypatch.setattr(intake, "start_worker", lambda *_: False)
    with stock.master(tmp_path) as made:
        yield made


def ask(token: str = "0" * 32, **keys: Any) -> Ask:
    return Ask(token, "ci01", "request", "", "ci", keys)


def handlers(master: Master) -> RequestHandlers:
    return RequestHandlers(master.opts, POLICY, RequestStore(master.opts))


def made_of(master: Master, what: Ask) -> RequestEntry:
    """What a worker makes of a request that it was told of."""
    handlers(master)._request(what)
    one = Worker(master.opts)
    one.policy = POLICY
    (begun,) = one._begin()
    one._make(begun)
    with one.store.requests() as requests:
        found = requests.find("ci01", what.token)
    assert found is not None
    return found


def test_a_request_without_a_name_is_answered_with_the_spare_that_was_claimed(
    master: Master, told: dict[str, Any]
) -> None:
    uuid = master.add("ci-000001")
    entry = made_of(master, ask(ttl="1h"))
    assert (entry.state, entry.name, entry.uuid) == (MADE, "ci-000001", uuid)
    record = master.record("ci-000001")
    assert record.claim.by == "ci01"
    assert record.expires == record.claim.at + 3600
    answer = told["0" * 32]
    assert (answer["verdict"], answer["name"], answer["uuid"]) == ("made", "ci-000001", uuid)
    assert [one.bell for one in RequestStore(master.opts).notifications()] == [STOCK]


def test_two_requests_without_a_name_are_two_machines(master: Master) -> None:
    master.add("ci-000001")
    master.add("ci-000002")
    first, second = (made_of(master, ask(token * 32)) for token in "12")
    assert {first.name, second.name} == {"ci-000001", "ci-000002"}


def test_claims_count_for_the_limits_also_once_the_rule_is_another(master: Master) -> None:
    made_of(master, ask())
    wider = policy_section.read(
        {"allow": [{"minions": ["*"], "profiles": ["ci"], "names": "x", "at_once": 1,
                    "per_hour": 9}]}
    )  # fmt: skip
    master.add("ci-000001")
    made_of(master, ask("1" * 32))
    with RequestStore(master.opts).requests() as requests:
        assert {one.name for one in requests.counted_by(wider.rules[0], wider.rules)} == {
            "ci-000001", "",
        }  # fmt: skip


def test_what_cannot_be_claimed_fails_with_the_reason(master: Master) -> None:
    master.write(ci={key: value for key, value in stock.PROFILE.items() if key != "ttl"})
    entry = made_of(master, ask())
    assert entry.state == FAILED
    assert entry.reason.startswith("ConfigError: How long is the machine wanted?")


def test_a_longer_time_than_the_policy_allows_is_refused(master: Master) -> None:
    with pytest.raises(Refused, match="more than the rule allows"):
        handlers(master)._request(ask(ttl="3h"))


def test_a_minion_gives_back_what_it_was_given(master: Master) -> None:
    master.add("ci-000001")
    made_of(master, ask())
    back = Ask("f" * 32, "ci01", "release", "ci-000001")
    assert handlers(master)._release(back, list)["verdict"] == GONE  # type: ignore[index]
    assert master.names() == set()


def test_the_worker_keeps_the_stock_without_any_policy(master: Master) -> None:
    master.write(ci={**stock.PROFILE, "spares": 0})
    master.add("ci-000001")
    master.add("ci-000002", claim=Claim("alice", 1.0), expires=time.time() - 1)
    master.add("ci-000003", claim=Claim("alice", 1.0), expires=time.time() + 600)
    assert worker.work_off(master.opts) == {"done": 2, "retcode": 0}
    assert master.names() == {"ci-000003"}
    assert spares_notes.read(master.opts).looked > time.time() - 60


def with_policy(master: Master, section: Any) -> None:
    """Write a policy into the configuration, beside what is there."""
    path = master.folder / "master"
    written = json.loads(path.read_text())
    written["kvm_clone"]["reactor"] = section
    path.write_text(json.dumps(written))


@pytest.mark.parametrize("wrong", [7, {"alow": []}, {"allow": [{}], "workers": 3}])
def test_the_worker_keeps_the_stock_while_the_policy_is_wrong_and_says_so(
    master: Master,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Any,
) -> None:
    monkeypatch.setattr(worker, "FAULT_TIMEOUT_S", 0.0)
    master.write(ci={**stock.PROFILE, "spares": 0})
    master.add("ci-000001")
    with_policy(master, wrong)
    store = RequestStore(master.opts)
    store.note(REQUEST, "ci01")
    store.note(STOCK, "ci")
    with store.requests() as requests:
        requests.put(RequestEntry("0" * 32, "ci01", "ci01-a", "ci", asked=time.time() - 7200))
    told = worker.work_off(master.opts)
    assert (told["done"], told["retcode"], told["error"]["type"]) == (2, 1, "ConfigError")
    assert master.names() == set()
    assert "The policy for events" in caplog.text and "is wrong" in caplog.text
    assert [one.bell for one in store.notifications()] == [REQUEST], "it waits"
    with store.requests() as requests:
        assert [one.name for one in requests.in_state(QUEUED)] == ["ci01-a"], "it waits, too"


@tries("intake.findings")
def test_doctor_names_a_policy_that_is_wrong(master: Master) -> None:
    with_policy(master, {"alow": []})
    told = master.run("doctor")
    (found,) = [one for one in told["findings"] if one["name"] == "kvm_clone: reactor"]
    assert (found["kind"], found["level"]) == ("configuration", "problem")
    assert "'alow' is not known" in found["message"]
    assert "'alow' is not known" in master.typist()(found["hint"], exits=1)


def test_a_worker_that_was_killed_in_a_claim_leaves_a_machine_that_goes_at_its_time(
    master: Master,
) -> None:
    """The next one claims another: whether the first answer was heard, nobody knows."""
    master.add("ci-000001", claim=Claim("ci01", time.time()), expires=time.time() + 60)
    master.add("ci-000002")
    handlers(master)._request(ask())
    killed, following = Worker(master.opts), Worker(master.opts)
    killed.policy = following.policy = POLICY
    (begun,) = killed._begin()
    assert begun.state == MAKING
    (again,) = following._begin()
    following._make(again)
    with following.store.requests() as requests:
        assert [one.name for one in requests.all()] == ["ci-000002"]
    assert master.record("ci-000001").claim.by == "ci01"


def test_a_claim_that_comes_while_a_worker_ends_is_not_forgotten(master: Master) -> None:
    running = Worker(master.opts)
    assert not running._is_work_left()
    intake.refill(master.opts, "ci")
    assert running._is_work_left()


def test_no_event_can_wake_the_refill(master: Master) -> None:
    assert "refused" in intake.answer(master.opts, STOCK, "ci")
