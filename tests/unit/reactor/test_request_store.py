"""The reactor's requests: nothing is lost, nothing grows for ever, and damage opens no door."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.reactor import request_entry, request_store
from saltext.kvmclone.reactor.policy import Rule
from saltext.kvmclone.reactor.request_entry import (
    GONE,
    MADE,
    MAKING,
    QUEUED,
    REFUSED,
    RequestEntry,
)
from saltext.kvmclone.reactor.request_store import RequestStore
from tests.support.hints import Typist, tries

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


# --- requests ---------------------------------------------------------------------------------


def test_what_was_written_is_read_by_the_next_process(store: RequestStore, tmp_path: Path) -> None:
    with store.requests() as requests:
        requests.put(entry(1, keys={"cpus": 2}))
    with RequestStore({"cachedir": str(tmp_path)}).requests() as requests:
        assert requests.all() == [entry(1, keys={"cpus": 2})]


def sql(store: RequestStore, *statements: str) -> None:
    """What somebody does to the database by hand."""
    with closing(sqlite3.connect(store.path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def filled(store: RequestStore) -> bytes:
    with store.requests() as requests:
        for number in range(300):
            requests.put(entry(number))
    return Path(store.path).read_bytes()


@tries("request_entry.damaged")
@pytest.mark.parametrize(
    "damage",
    [
        lambda _text: b"",
        lambda _text: b"{",
        lambda _text: b"[]" * 9000,
        lambda text: text[: len(text) // 2],
        lambda text: text[:1],
        lambda text: b"x" * 200 + text[200:],
        lambda text: text[:4096] + os.urandom(len(text) - 4096),
    ],
)
def test_a_damaged_store_obeys_nothing_says_where_it_lies_and_is_left_alone(
    store: RequestStore, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = Path(store.path)
    harmed = damage(filled(store))
    path.write_bytes(harmed)
    with pytest.raises(HostError, match="damaged") as refused, store.requests() as requests:
        requests.all()
        requests.put(entry(1))
    assert path.read_bytes() == harmed
    Typist(tmp_path)(refused.value.hint, "rm ")
    with store.requests() as requests:
        assert requests.all() == []


def test_a_store_without_its_tables_is_damaged(store: RequestStore) -> None:
    filled(store)
    sql(store, "ALTER TABLE requests RENAME TO others")
    with pytest.raises(HostError, match="damaged"), store.requests() as requests:
        requests.all()


def test_what_a_killed_writer_left_is_not_played_into_a_new_store(store: RequestStore) -> None:
    filled(store)
    os.unlink(store.path)
    Path(f"{store.path}-journal").write_bytes(os.urandom(9000))
    with store.requests() as requests:
        assert requests.all() == []
    assert not os.path.exists(f"{store.path}-journal")


@pytest.mark.parametrize(
    "wrong", ["keys = '7'", "uuid = NULL", "begun = 'x'", "asked = NULL", "state = 'soon'"]
)
def test_values_of_another_form_cannot_be_written_by_hand(store: RequestStore, wrong: str) -> None:
    filled(store)
    with pytest.raises(sqlite3.IntegrityError):
        sql(store, f"UPDATE requests SET {wrong}")


def test_keys_that_were_edited_into_nonsense_are_damage(store: RequestStore) -> None:
    filled(store)
    sql(store, "UPDATE requests SET keys = '{oops}'")
    with pytest.raises(HostError, match="damaged"), store.requests() as requests:
        requests.all()


def test_a_store_of_a_later_version_is_refused_and_left_alone(store: RequestStore) -> None:
    filled(store)
    sql(store, "ALTER TABLE requests ADD COLUMN more TEXT", "PRAGMA user_version = 2")
    before = Path(store.path).read_bytes()
    with pytest.raises(HostError, match="later version") as refused:
        store.note("request", "ci01")
    assert "salt-run saltutil.sync_all" in refused.value.hint
    assert Path(store.path).read_bytes() == before


@tries("request_store.RequestStore._failure")
def test_a_store_that_another_process_does_not_let_go_says_who_to_look_for(
    store: RequestStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(store)
    monkeypatch.setattr(request_store, "BUSY_TIMEOUT_S", 0.1)
    with closing(sqlite3.connect(store.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(HostError, match="locked") as refused:
            store.notifications()
        assert str(os.getpid()) in Typist(tmp_path)(refused.value.hint)
    assert store.notifications() == []


FILLER = """
import resource, signal, sys
from saltext.kvmclone.errors import HostError
from saltext.kvmclone.reactor.request_entry import RequestEntry
from saltext.kvmclone.reactor.request_store import RequestStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = RequestStore({"cachedir": sys.argv[1]})
with store.requests() as requests:
    requests.put(RequestEntry("t", "ci01", "n", "runner"))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with store.requests() as requests:
        for number in range(10_000):
            requests.put(RequestEntry(f"{number}", "ci01", f"n{number}", "runner"))
except HostError as error:
    print(error)
"""


def test_a_full_disk_is_said_and_costs_nothing_that_was_written(
    store: RequestStore, tmp_path: Path
) -> None:
    said = subprocess.run(
        [sys.executable, "-c", FILLER, tmp_path],
        capture_output=True, text=True, check=True, env=ENVIRONMENT,
    ).stdout  # fmt: skip
    assert "cannot be used" in said
    Typist(tmp_path)(said.strip())
    with store.requests() as requests:
        assert [one.name for one in requests.all()] == ["n"]


def test_an_error_in_the_middle_changes_nothing(store: RequestStore) -> None:
    with pytest.raises(RuntimeError), store.requests() as requests:
        requests.put(entry(1))
        raise RuntimeError
    with store.requests() as requests:
        assert requests.all() == []


ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

WRITER = """
import sys
from saltext.kvmclone.reactor.request_entry import RequestEntry
from saltext.kvmclone.reactor.request_store import RequestStore
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
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        with store.requests() as requests:
            (one,) = requests.all()
        last = int(one.name[1:])
        assert last >= 0
        assert {notification.bell for notification in store.notifications()} == {"request"}
    assert len(store.notifications()) <= 7
    assert len(os.listdir(store.folder)) <= 4


ADDER = """
import sys
from saltext.kvmclone.reactor.request_entry import RequestEntry
from saltext.kvmclone.reactor.request_store import RequestStore
store = RequestStore({"cachedir": sys.argv[1]})
for number in range(20):
    with store.requests() as requests:
        requests.put(RequestEntry(f"{sys.argv[2]}-{number}", "ci01", "n", "runner"))
    store.note("request", sys.argv[2])
    for one in store.notifications()[:1]:
        store.answered(one)
"""


def test_many_processes_write_at_once_and_none_is_turned_away(
    store: RequestStore, tmp_path: Path
) -> None:
    """From the first: they also make the database together."""
    adders = [
        subprocess.Popen([sys.executable, "-c", ADDER, tmp_path, str(number)], env=ENVIRONMENT)
        for number in range(5)
    ]
    assert [adder.wait() for adder in adders] == [0] * 5
    with store.requests() as requests:
        assert len(requests.all()) == 5 * 20


def test_old_requests_are_forgotten_and_those_that_count_are_not(
    store: RequestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_entry, "MAX_ENDED", 2)
    now = time.time()
    with store.requests() as requests:
        requests.put(entry(1, state=MADE, begun=1.0))
        requests.put(entry(2, state=QUEUED))
        requests.put(entry(3, state=GONE, begun=now))
        for number in range(4, 9):
            requests.put(entry(number, state=REFUSED))
    with store.requests() as requests:
        assert [int(one.token, 16) for one in requests.all()] == [1, 2, 3, 7, 8]


def test_whoever_asks_most_is_forgotten_first(
    store: RequestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_entry, "MAX_ENDED", 4)
    with store.requests() as requests:
        requests.put(entry(1, state=GONE, minion_id="web1"))
        for number in range(2, 50):
            requests.put(entry(number, state=REFUSED))
    with store.requests() as requests:
        assert [int(one.token, 16) for one in requests.all()] == [1, 47, 48, 49]


def test_an_end_that_could_not_be_told_is_told_once_by_the_next_worker(store: RequestStore) -> None:
    with store.requests() as requests:
        for number, state in enumerate((QUEUED, MAKING, MADE, GONE)):
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
            one.token for one in requests.all()
        ]
        assert requests.counted_by(wider, [RULE, wider]) == []
        assert [one.name for one in requests.counted_by(wider, [wider])] == ["ci01-1"]
        assert [one.name for one in requests.counted_by(other, [other])] == ["web1-a"]


# --- one worker ---------------------------------------------------------------------------


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
        assert Path(f"{store.path}-journal").stat().st_mode & 0o077 == 0
    assert Path(store.path).stat().st_mode & 0o077 == 0


def test_a_process_that_was_forked_meanwhile_does_not_keep_the_store_closed(
    store: RequestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.requests() as requests:
        requests.put(entry(1))
        child = os.fork()
        if child == 0:  # Salt forks its jobs, and they live on
            time.sleep(30)
            os._exit(0)
    try:
        monkeypatch.setattr(request_store, "BUSY_TIMEOUT_S", 0.1)
        with store.requests() as requests:
            assert requests.all() == [entry(1)]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
