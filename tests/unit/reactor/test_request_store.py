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
from saltext.kvmclone.reactor.request_store import GONE, MADE, QUEUED, REFUSED, Entry, Ledger

RULE = Rule(("ci*",), ("runner",), "{minion}-*", at_once=2, per_hour=3)


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    return Ledger({"cachedir": str(tmp_path)})


def entry(number: int, **fields: object) -> Entry:
    made = Entry(f"{number:032x}", "ci01", f"ci01-{number}", "runner", rule=RULE.key)
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


# --- bells ------------------------------------------------------------------------------------


def about(book: Ledger) -> list[str]:
    return [ring.about for ring in book.rung()]


def test_who_waited_longest_is_answered_first_however_often_others_ring(book: Ledger) -> None:
    for name in ("z", "a", "m"):
        assert book.ring("request", name)
    assert book.ring("request", "a")
    assert about(book) == ["z", "a", "m"]


def test_who_rings_while_being_answered_or_cannot_be_answered_goes_to_the_end(
    book: Ledger,
) -> None:
    for name in ("a", "b", "c"):
        book.ring("request", name)
    first, second, _third = book.rung()
    book.ring("request", "a")
    book.answered(first)
    assert about(book) == ["b", "c", "a"]
    book.ring(second.bell, second.about, after=time.time(), tries=1)
    assert about(book) == ["c", "a", "b"]
    # A new ring makes it due again, and does not bring it forward.
    book.ring("request", "b")
    assert about(book) == ["c", "a", "b"]
    assert book.rung()[2].after == 0


def test_a_bell_that_was_answered_is_gone_and_one_that_rang_again_is_not(book: Ledger) -> None:
    book.ring("request", "a")
    (ring,) = book.rung()
    book.answered(ring)
    book.answered(ring)
    assert book.rung() == []


def test_there_is_an_end_to_the_bells(book: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_store, "MOST_BELLS", 3)
    rang = [book.ring("request", f"ci{number}") for number in range(5)]
    assert rang == [True] * 3 + [False] * 2
    assert book.ring("request", "ci0"), "one that waits already may ring again"


@pytest.mark.parametrize("junk", ["", "[]", "{}", '{"bell": 1}', "\x00", '"x"'])
def test_junk_among_the_bells_is_passed_over(book: Ledger, junk: str) -> None:
    book.ring("request", "a")
    (Path(book.bells) / "junk").write_text(junk)
    (Path(book.bells) / ".draft").write_text((next(Path(book.bells).glob("[0-9a-f]*"))).read_text())
    assert about(book) == ["a"]


# --- requests ---------------------------------------------------------------------------------


def test_what_was_written_is_read_by_the_next_process(book: Ledger, tmp_path: Path) -> None:
    with book.open() as entries:
        entries.put(entry(1, keys={"cpus": 2}))
    with Ledger({"cachedir": str(tmp_path)}).open() as entries:
        assert entries.entries == [entry(1, keys={"cpus": 2})]


@pytest.mark.parametrize(
    "damage", ["", "{", "null", "7", '{"token": 1}', '[{"token": "x"}]', "[7]", '"x"', "[[]]"]
)
def test_a_damaged_book_obeys_nothing_and_says_where_it_lies(book: Ledger, damage: str) -> None:
    path = Path(book.folder) / "requests.json"
    path.write_text(damage)
    with pytest.raises(HostError, match="damaged") as refused, book.open():
        pass
    assert str(path) in refused.value.hint
    assert path.read_text() == damage


def test_an_entry_of_the_wrong_types_is_damage(book: Ledger) -> None:
    right = dataclasses.asdict(entry(1))
    for wrong in ({"keys": 7}, {"uuid": None}, {"begun": "x"}, {"name": ["ci01"]}):
        (Path(book.folder) / "requests.json").write_text(json.dumps([{**right, **wrong}]))
        with pytest.raises(HostError), book.open():
            pass


def test_an_error_in_the_middle_changes_nothing(book: Ledger) -> None:
    with pytest.raises(RuntimeError), book.open() as entries:
        entries.put(entry(1))
        raise RuntimeError
    with book.open() as entries:
        assert entries.entries == []


WRITER = """
import sys
from saltext.kvmclone.reactor.request_store import Entry, Ledger
book = Ledger({"cachedir": sys.argv[1]})
for number in range(10**6):
    with book.open() as entries:
        entries.put(Entry("t", "ci01", f"n{number}", "runner"))
    book.ring("request", f"ci{number % 7}")
    if not number:
        print("begun", flush=True)
"""


def test_a_writer_may_be_killed_at_any_moment(book: Ledger, tmp_path: Path) -> None:
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
        with book.open() as entries:
            (one,) = entries.entries
        last = int(one.name[1:])
        assert last >= 0
        assert {ring.bell for ring in book.rung()} == {"request"}
    assert len(os.listdir(book.bells)) <= 8, "seven bells and one draft"
    assert len(os.listdir(book.folder)) <= 5


def test_old_requests_are_forgotten_and_those_that_count_are_not(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_store, "KEPT", 2)
    now = time.time()
    with book.open() as entries:
        entries.put(entry(1, state=MADE, begun=1.0))
        entries.put(entry(2, state=QUEUED))
        entries.put(entry(3, state=GONE, begun=now))
        for number in range(4, 9):
            entries.put(entry(number, state=REFUSED))
    with book.open() as entries:
        assert [int(one.token, 16) for one in entries.entries] == [1, 2, 3, 7, 8]


def test_whoever_asks_most_is_forgotten_first(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_store, "KEPT", 4)
    with book.open() as entries:
        entries.put(entry(1, state=GONE, minion_id="web1"))
        for number in range(2, 50):
            entries.put(entry(number, state=REFUSED))
    with book.open() as entries:
        assert [int(one.token, 16) for one in entries.entries] == [1, 47, 48, 49]


def test_an_end_that_could_not_be_told_is_told_once_by_the_next_worker(book: Ledger) -> None:
    with book.open() as entries:
        for number, state in enumerate((QUEUED, request_store.MAKING, MADE, GONE)):
            entries.put(entry(number, state=state))
        entries.put(entry(9, state=MADE, told=True))
    with book.open() as entries:
        assert [one.state for one in entries.untold()] == [MADE, GONE]
    with book.open() as entries:
        assert entries.untold() == []


# --- what a rule's limits count ---------------------------------------------------------------


def test_a_rule_that_was_rewritten_still_counts_its_machines(book: Ledger) -> None:
    wider = dataclasses.replace(RULE, profiles=("runner", "big"))
    other = dataclasses.replace(RULE, minions=("web*",))
    with book.open() as entries:
        entries.put(entry(1, state=MADE))
        entries.put(entry(2, state=MADE, minion_id="web1", name="web1-a"))
        assert [one.token for one in entries.under(RULE, [RULE, wider])] == [
            one.token for one in entries.entries
        ]
        assert entries.under(wider, [RULE, wider]) == []
        assert [one.name for one in entries.under(wider, [wider])] == ["ci01-1"]
        assert [one.name for one in entries.under(other, [other])] == ["web1-a"]


# --- once, and one worker ---------------------------------------------------------------------


def test_what_is_done_once_is_remembered_for_the_youngest(
    book: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_store, "KEPT_ONCE", 2)
    for number in range(3):
        assert not book.was_done("finished", f"uuid-{number}")
        book.done("finished", f"uuid-{number}")
        os.utime(Path(book.folder) / "finished" / f"uuid-{number}", (number, number))
    book.done("finished", "uuid-3")
    assert [book.was_done("finished", f"uuid-{number}") for number in range(4)] == [
        False, False, True, True,
    ]  # fmt: skip


def test_there_is_one_worker_and_its_lock_goes_with_its_process(book: Ledger) -> None:
    assert not book.is_worked_at()
    lock = book.hire()
    assert lock is not None
    assert book.is_lock(lock)
    assert not book.is_lock(0)
    assert book.is_worked_at()
    assert book.hire() is None
    os.close(lock)
    assert not book.is_worked_at()
    again = book.hire()
    assert again is not None
    os.close(again)


def test_the_folder_is_nobody_elses(book: Ledger) -> None:
    assert Path(book.folder).stat().st_mode & 0o077 == 0
    with book.open() as entries:
        entries.put(entry(1))
    assert (Path(book.folder) / "requests.json").stat().st_mode & 0o077 == 0


def test_a_process_that_was_forked_meanwhile_does_not_keep_the_book_closed(book: Ledger) -> None:
    with book.open():
        child = os.fork()
        if child == 0:  # Salt forks its jobs, and they live on
            time.sleep(30)
            os._exit(0)
    try:
        lock = request_store._lock(os.path.join(book.folder, "lock"), wait=False)
        assert lock is not None
        os.close(lock)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
