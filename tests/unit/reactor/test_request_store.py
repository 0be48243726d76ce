"""The reactor's book: nothing is lost, nothing grows for ever, and damage opens no door."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.reactor import request_store
from saltext.kvmclone.reactor.policy import Rule
from saltext.kvmclone.reactor.request_store import (
    GONE,
    MADE,
    QUEUED,
    REFUSED,
    RequestEntry,
    RequestStore,
)

RULE = Rule(("ci*",), ("runner",), "{minion}-*", at_once=2, per_hour=3)


@pytest.fixture
def store(tmp_path: Path) -> RequestStore:
    return RequestStore({"cachedir": str(tmp_path)})


def entry(number: int, **fields: object) -> RequestEntry:
    made = RequestEntry(f"{number:032x}", "ci01", f"ci01-{number}", "runner", rule=RULE.key)
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


# --- bells ------------------------------------------------------------------------------------


def about(store: RequestStore) -> list[str]:
    return [notification.about for notification in store.notifications()]


def test_who_waited_longest_is_answered_first_however_often_others_ring(
    store: RequestStore,
) -> None:
    for name in ("z", "a", "m"):
        assert store.note("request", name)
    assert store.note("request", "a")
    assert about(store) == ["z", "a", "m"]


def test_who_rings_while_being_answered_or_cannot_be_answered_goes_to_the_end(
    store: RequestStore,
) -> None:
    for name in ("a", "b", "c"):
        store.note("request", name)
    first, second, _third = store.notifications()
    store.note("request", "a")
    store.answered(first)
    assert about(store) == ["b", "c", "a"]
    store.note(second.bell, second.about, after=time.time(), tries=1)
    assert about(store) == ["c", "a", "b"]
    # A new ring makes it due again, and does not bring it forward.
    store.note("request", "b")
    assert about(store) == ["c", "a", "b"]
    assert store.notifications()[2].after == 0


def test_a_bell_that_was_answered_is_gone_and_one_that_rang_again_is_not(
    store: RequestStore,
) -> None:
    store.note("request", "a")
    (notification,) = store.notifications()
    store.answered(notification)
    store.answered(notification)
    assert store.notifications() == []


def test_there_is_an_end_to_the_bells(store: RequestStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_store, "MAX_NOTIFICATIONS", 3)
    rang = [store.note("request", f"ci{number}") for number in range(5)]
    assert rang == [True] * 3 + [False] * 2
    assert store.note("request", "ci0"), "one that waits already may ring again"


@pytest.mark.parametrize("junk", ["", "[]", "{}", '{"bell": 1}', "\x00", '"x"'])
def test_junk_among_the_bells_is_passed_over(store: RequestStore, junk: str) -> None:
    store.note("request", "a")
    (Path(store.bells) / "junk").write_text(junk)
    (Path(store.bells) / ".draft").write_text(
        (next(Path(store.bells).glob("[0-9a-f]*"))).read_text()
    )
    assert about(store) == ["a"]


# --- requests ---------------------------------------------------------------------------------


def test_what_was_written_is_read_by_the_next_process(store: RequestStore, tmp_path: Path) -> None:
    with store.requests() as requests:
        requests.put(entry(1, keys={"cpus": 2}))
    with RequestStore({"cachedir": str(tmp_path)}).requests() as requests:
        assert requests.entries == [entry(1, keys={"cpus": 2})]


@pytest.mark.parametrize(
    "damage", ["", "{", "null", "7", '{"token": 1}', '[{"token": "x"}]', "[7]", '"x"', "[[]]"]
)
def test_a_damaged_book_obeys_nothing_and_says_where_it_lies(
    store: RequestStore, damage: str
) -> None:
    path = Path(store.folder) / "requests.json"
    path.write_text(damage)
    with pytest.raises(HostError, match="damaged") as refused, store.requests():
        pass
    assert str(path) in refused.value.hint
    assert path.read_text() == damage


def test_an_entry_of_the_wrong_types_is_damage(store: RequestStore) -> None:
    right = dataclasses.asdict(entry(1))
    for wrong in ({"keys": 7}, {"uuid": None}, {"begun": "x"}, {"name": ["ci01"]}):
        (Path(store.folder) / "requests.json").write_text(json.dumps([{**right, **wrong}]))
        with pytest.raises(HostError), store.requests():
            pass


def test_an_error_in_the_middle_changes_nothing(store: RequestStore) -> None:
    with pytest.raises(RuntimeError), store.requests() as requests:
        requests.put(entry(1))
        raise RuntimeError
    with store.requests() as requests:
        assert requests.entries == []


WRITER = """
import sys
from saltext.kvmclone.reactor.request_store import RequestEntry, RequestStore
store = RequestStore({"cachedir": sys.argv[1]})
for number in range(10**6):
    with store.requests() as requests:
        requests.put(RequestEntry("t", "ci01", f"n{number}", "runner"))
    store.note("request", f"ci{number % 7}")
    if not number:
        print("begun", flush=True)
"""


def test_a_writer_may_be_killed_at_any_moment(store: RequestStore, tmp_path: Path) -> None:
    last = -1
    for pause in (0.0, 0.003, 0.011, 0.023, 0.037):
        path = os.pathsep.join(sys.path)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        with store.requests() as requests:
            (one,) = requests.entries
        last = int(one.name[1:])
        assert last >= 0
        assert {notification.bell for notification in store.notifications()} == {"request"}
    assert len(os.listdir(store.bells)) <= 8, "seven bells and one draft"
    assert len(os.listdir(store.folder)) <= 5


def test_old_requests_are_forgotten_and_those_that_count_are_not(
    store: RequestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_store, "MAX_ENDED", 2)
    now = time.time()
    with store.requests() as requests:
        requests.put(entry(1, state=MADE, begun=1.0))
        requests.put(entry(2, state=QUEUED))
        requests.put(entry(3, state=GONE, begun=now))
        for number in range(4, 9):
            requests.put(entry(number, state=REFUSED))
    with store.requests() as requests:
        assert [int(one.token, 16) for one in requests.entries] == [1, 2, 3, 7, 8]


def test_whoever_asks_most_is_forgotten_first(
    store: RequestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_store, "MAX_ENDED", 4)
    with store.requests() as requests:
        requests.put(entry(1, state=GONE, minion_id="web1"))
        for number in range(2, 50):
            requests.put(entry(number, state=REFUSED))
    with store.requests() as requests:
        assert [int(one.token, 16) for one in requests.entries] == [1, 47, 48, 49]


def test_an_end_that_could_not_be_told_is_told_once_by_the_next_worker(store: RequestStore) -> None:
    with store.requests() as requests:
        for number, state in enumerate((QUEUED, request_store.MAKING, MADE, GONE)):
            requests.put(entry(number, state=state))
        requests.put(entry(9, state=MADE, told=True))
    with store.requests() as requests:
        assert [one.state for one in requests.take_untold()] == [MADE, GONE]
    with store.requests() as requests:
        assert requests.take_untold() == []


# --- what a rule's limits count ---------------------------------------------------------------


def test_a_rule_that_was_rewritten_still_counts_its_machines(store: RequestStore) -> None:
    wider = dataclasses.replace(RULE, profiles=("runner", "big"))
    other = dataclasses.replace(RULE, minions=("web*",))
    with store.requests() as requests:
        requests.put(entry(1, state=MADE))
        requests.put(entry(2, state=MADE, minion_id="web1", name="web1-a"))
        assert [one.token for one in requests.counted_by(RULE, [RULE, wider])] == [
            one.token for one in requests.entries
        ]
        assert requests.counted_by(wider, [RULE, wider]) == []
        assert [one.name for one in requests.counted_by(wider, [wider])] == ["ci01-1"]
        assert [one.name for one in requests.counted_by(other, [other])] == ["web1-a"]


# --- once, and one worker ---------------------------------------------------------------------


def test_what_is_done_once_is_remembered_for_the_youngest(
    store: RequestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_store, "MAX_DONE", 2)
    for number in range(3):
        assert not store.was_done("finished", f"uuid-{number}")
        store.done("finished", f"uuid-{number}")
        os.utime(Path(store.folder) / "finished" / f"uuid-{number}", (number, number))
    store.done("finished", "uuid-3")
    assert [store.was_done("finished", f"uuid-{number}") for number in range(4)] == [
        False, False, True, True,
    ]  # fmt: skip


def test_there_is_one_worker_and_its_lock_goes_with_its_process(store: RequestStore) -> None:
    assert not store.has_worker()
    lock = store.lock_worker()
    assert lock is not None
    assert store.is_worker_lock(lock)
    assert not store.is_worker_lock(0)
    assert store.has_worker()
    assert store.lock_worker() is None
    os.close(lock)
    assert not store.has_worker()
    again = store.lock_worker()
    assert again is not None
    os.close(again)


def test_the_folder_is_nobody_elses(store: RequestStore) -> None:
    assert Path(store.folder).stat().st_mode & 0o077 == 0
    with store.requests() as requests:
        requests.put(entry(1))
    assert (Path(store.folder) / "requests.json").stat().st_mode & 0o077 == 0


def test_a_process_that_was_forked_meanwhile_does_not_keep_the_book_closed(
    store: RequestStore,
) -> None:
    with store.requests():
        child = os.fork()
        if child == 0:  # Salt forks its jobs, and they live on
            time.sleep(30)
            os._exit(0)
    try:
        lock = request_store._lock(os.path.join(store.folder, "lock"), wait=False)
        assert lock is not None
        os.close(lock)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
