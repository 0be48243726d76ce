"""What a version before the database stored is read over once, whole, and is kept for people."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.reactor import request_store
from saltext.kvmclone.reactor.highstates import Highstates
from saltext.kvmclone.reactor.policy import START
from saltext.kvmclone.reactor.request_entry import GONE, MADE, MAKING, RequestEntry
from saltext.kvmclone.reactor.request_store import RequestStore
from tests.support.hints import Typist

WEB1, WEB2, WEB3 = (f"{number}1111111-1111-4111-8111-111111111111" for number in range(3))


def entry(number: int, **fields: Any) -> RequestEntry:
    made = RequestEntry(f"{number:032x}", "ci01", f"ci01-{number}", "runner", {"cpus": 2})
    return dataclasses.replace(made, asked=float(number), **fields)


ENTRIES = [entry(1, state=MADE, uuid=WEB1), entry(2, state=MAKING, begun=7.5), entry(3)]


@pytest.fixture
def opts(tmp_path: Path) -> dict[str, Any]:
    return {"cachedir": str(tmp_path)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder as the version before wrote it."""
    made = tmp_path / "kvm_clone/reactor"
    (made / "bells").mkdir(parents=True, mode=0o700)
    write(made, [dataclasses.asdict(one) for one in ENTRIES])
    for number, about in enumerate(("ci01", "ci02")):
        ring(made, "request", about, 10.0 - number)
    for name in (".draft", "junk"):
        (made / "bells" / name).write_text('{"bell": "request", "about"')
    (made / "finished").mkdir()
    (made / "finished" / WEB1).write_text("")
    (made / "awaited").mkdir()
    (made / "awaited" / WEB2).write_text("20261129")
    (made / "awaited" / WEB3).write_text("")
    for name in ("lock", "worker"):
        (made / name).write_text("")
    return made


def write(folder: Path, entries: Any) -> None:
    (folder / "requests.json").write_text(json.dumps(entries))


def ring(folder: Path, bell: str, about: str, since: float) -> None:
    said = {"bell": bell, "about": about, "after": 0, "tries": 1, "since": since, "stamp": "s"}
    name = hashlib.sha256(f"{bell} {about}".encode()).hexdigest()
    (folder / "bells" / name).write_text(json.dumps(said))


def requests(store: RequestStore) -> list[RequestEntry]:
    with store.requests() as found:
        return found.all()


def test_everything_is_read_over_and_kept(opts: dict[str, Any], folder: Path) -> None:
    old = (folder / "requests.json").read_text()
    store = RequestStore(opts)
    assert requests(store) == ENTRIES
    assert [(one.about, one.tries) for one in store.notifications()] == [("ci02", 1), ("ci01", 1)]
    highstates = Highstates(store)
    assert highstates.is_on
    assert not highstates.expect(WEB1), "it had its highstate"
    assert highstates.job_for(WEB2, {}) == "20261129"
    assert highstates.job_for(WEB3, {})
    assert sorted(os.listdir(folder)) == [
        "awaited.old", "bells.old", "finished.old", "lock", "requests.db", "requests.db.lock",
        "requests.json.old", "worker",
    ]  # fmt: skip
    assert (folder / "requests.json.old").read_text() == old


def test_finish_that_was_off_stays_off(opts: dict[str, Any], folder: Path) -> None:
    for uuid in (WEB2, WEB3):
        (folder / "awaited" / uuid).unlink()
    (folder / "awaited").rmdir()
    highstates = Highstates(RequestStore(opts))
    assert not highstates.is_on
    assert not highstates.expect(WEB2)


def test_what_was_done_since_counts_for_more(opts: dict[str, Any], folder: Path) -> None:
    """As where it was interrupted after the copy, or an older version ran in between."""
    store = RequestStore(opts)
    with store.requests() as found:
        found.put(entry(2, state=GONE))
    Highstates(store).switch(False)
    for name in ("requests.json", "awaited", "bells"):
        (folder / f"{name}.old").rename(folder / name)
    write(folder, [dataclasses.asdict(one) for one in [*ENTRIES, entry(4)]])
    again = RequestStore(opts)
    assert requests(again) == [ENTRIES[0], entry(2, state=GONE), ENTRIES[2], entry(4)]
    assert len(again.notifications()) == 2
    assert not Highstates(again).is_on
    assert Highstates(again).job_for(WEB2, {}) == ""


READER = """
import sys
from saltext.kvmclone.reactor.request_store import RequestStore
print("begun", flush=True)
RequestStore({"cachedir": sys.argv[1]})
"""


def test_a_reader_may_be_killed_at_any_moment(opts: dict[str, Any], folder: Path) -> None:
    many = [entry(number) for number in range(900)]
    write(folder, [dataclasses.asdict(one) for one in many])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = 0
    for pause in range(12):
        reader = subprocess.Popen(
            [sys.executable, "-c", READER, opts["cachedir"]],
            stdout=subprocess.PIPE, env=environment,
        )  # fmt: skip
        assert reader.stdout is not None
        reader.stdout.readline()
        time.sleep(pause * 0.004)
        reader.send_signal(signal.SIGKILL)
        killed += reader.wait() == -signal.SIGKILL
    assert killed, "none was killed before its end"
    store = RequestStore(opts)
    assert requests(store) == many
    assert len(store.notifications()) == 2
    assert Highstates(store).job_for(WEB2, {}) == "20261129"


@pytest.mark.parametrize("fails", range(4))
def test_what_was_cut_off_between_two_files_is_repeated(
    opts: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    real, left = os.replace, [fails]

    def replace(source: str, target: str) -> None:
        if not source.endswith(".draft"):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        RequestStore(opts)
    monkeypatch.setattr(os, "replace", real)
    store = RequestStore(opts)
    assert requests(store) == ENTRIES
    assert len(store.notifications()) == 2
    assert Highstates(store).job_for(WEB2, {}) == "20261129"


def test_a_worker_of_the_version_before_is_waited_for(opts: dict[str, Any], folder: Path) -> None:
    """It has the requests in hand, and writes them into the file that it knows."""
    lock = request_store._lock(str(folder / "worker"), wait=False)
    store = RequestStore(opts)
    assert store.lock_worker() is None
    assert store.note(START, "web1"), "meanwhile nothing is lost"
    assert requests(store) == []
    with pytest.raises(HostError, match="before the update"):
        store.asked()
    write(folder, [dataclasses.asdict(entry(5))])
    request_store._unlock(lock)
    mine = store.lock_worker()
    assert mine is not None
    os.close(mine)
    assert [one["name"] for one in store.asked()["requests"]] == ["ci01-5"]
    assert {one.about for one in store.notifications()} == {"ci01", "ci02", "web1"}


def test_a_worker_that_inherits_the_lock_reads_over_as_well(
    opts: dict[str, Any], folder: Path
) -> None:
    lock = request_store._lock(str(folder / "worker"), wait=False)
    assert lock is not None
    store = RequestStore(opts)
    assert requests(store) == []
    assert store.lock_worker(lock) == lock
    assert requests(store) == ENTRIES
    os.close(lock)


@pytest.mark.parametrize(
    "damage", ["", "{", "null", "7", '{"token": 1}', '[{"token": "x"}]', "[7]", '"x"', "[[]]"]
)
def test_damaged_requests_obey_nothing_and_stay(
    opts: dict[str, Any], folder: Path, tmp_path: Path, damage: str
) -> None:
    path = folder / "requests.json"
    path.write_text(damage)
    for _twice in range(2):
        with pytest.raises(HostError, match="damaged") as refused:
            RequestStore(opts)
    assert path.read_text() == damage
    Typist(tmp_path)(refused.value.hint, "rm ")
    assert len(RequestStore(opts).notifications()) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"keys": 7},
        {"uuid": None},
        {"begun": "x"},
        {"name": ["ci01"]},
        {"state": "?"},
        {"asked": {}},
    ],
)
def test_an_entry_of_the_wrong_types_is_damage(
    opts: dict[str, Any], folder: Path, wrong: dict[str, Any]
) -> None:
    write(folder, [dataclasses.asdict(one) for one in ENTRIES] + [vars(entry(4)) | wrong])
    with pytest.raises(HostError, match="damaged"):
        RequestStore(opts)
    lock = request_store._lock(str(folder / "worker"), wait=False)
    assert lock is not None, "no lock is left behind"
    os.close(lock)
