"""Two creates never count on the same room; what a killed one reserved ends by itself."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from saltext.kvmclone.errors import CreateInProgress, HostError, NoHostFits
from saltext.kvmclone.master import reservations
from saltext.kvmclone.master.reservations import Reservations, Row
from saltext.kvmclone.model.placement import Need, Reserved
from saltext.kvmclone.system import processes

URL = "qemu:///system"
NEED = Need(2, 1, {"pool": 3}, {"pool": 4})


@pytest.fixture
def store(tmp_path: Path) -> Reservations:
    return Reservations({"cachedir": str(tmp_path)})


def on(host: str, name: str = "web1") -> reservations.Chooser:
    return lambda _rows, _last: Reserved(name, host, NEED, ("db",))


def test_a_reservation_is_read_as_it_was_written_until_it_is_freed(store: Reservations) -> None:
    row = store.reserve("web1", "small", URL, on("kvm01"))
    assert Reservations({"cachedir": store.folder + "/../.."}).all() == [row]
    assert row.reserved == Reserved("web1", "kvm01", NEED, ("db",))
    assert (store.last("small"), store.last("other")) == ("kvm01", "")
    store.hold(row, 7e9)
    assert store.all()[0].not_after == 7e9
    store.free(row)
    assert store.all() == []
    assert store.last("small") == "kvm01"


def test_a_later_choice_takes_the_place_of_an_earlier_one_and_is_not_freed_by_it(
    store: Reservations,
) -> None:
    first = store.reserve("web1", "small", URL, on("kvm01"))
    second = store.reserve("web1", "small", URL, on("kvm02"))
    store.free(first)
    assert store.all() == [second]


def test_two_creates_of_one_name_on_one_host_use_one_reservation(store: Reservations) -> None:
    first = store.reserve("web1", "small", URL, on("kvm01"))
    second = store.reserve("web1", "small", URL, on("kvm01"))
    assert first == second
    store.free(second)
    assert store.all() == [first]
    store.free(first)
    assert store.all() == []


def test_who_waits_keeps_its_reservation_unless_another_has_it_by_now(
    store: Reservations, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = store.reserve("web1", "small", URL, on("kvm01"))
    now = reservations.time.time()
    for lifetimes in (0.9, 1.8):
        later = now + reservations.LIFETIME_S * lifetimes
        monkeypatch.setattr(reservations.time, "time", lambda later=later: later)
        store.hold(row)
    assert store.all() == [row]
    later = now + reservations.LIFETIME_S * 3
    monkeypatch.setattr(reservations.time, "time", lambda: later)
    assert store.all() == []
    store.hold(row)
    assert store.all() == [row]
    other = store.reserve("web1", "small", URL, on("kvm02"))
    with pytest.raises(CreateInProgress, match="on 'kvm02'") as refused:
        store.hold(row)
    assert "kvmclone.show web1" in refused.value.hint
    assert store.all() == [other]


def test_what_a_killed_process_reserved_ends_by_itself(
    store: Reservations, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.reserve("web1", "small", URL, on("kvm01"))
    later = reservations.time.time() + reservations.LIFETIME_S + 1
    monkeypatch.setattr(reservations.time, "time", lambda: later)
    assert store.all() == []


@pytest.fixture
def killed(store: Reservations, monkeypatch: pytest.MonkeyPatch) -> Row:
    """What a create reserved whose process is gone."""
    with monkeypatch.context() as other:
        gone = replace(processes.this_process(), started=1, token="")
        other.setattr(reservations, "_user", lambda: gone)
        return store.reserve("web1", "small", URL, on("kvm01"))


def test_gc_lists_and_ends_what_a_killed_create_reserved(store: Reservations, killed: Row) -> None:
    store.reserve("web2", "small", URL, on("kvm01", "web2"))
    assert store.left("web2", True) == []
    for name, apply in (("", False), ("web1", True)):
        (row,) = store.left(name, apply)
        assert (row.name, row.kind, row.path, row.removed) == (
            "web1", "reservation", "kvm01", apply,
        )  # fmt: skip
        assert "died" in row.reason
    assert [row.reserved.name for row in store.all()] == ["web2"]


@pytest.mark.parametrize("not_after", [1e4, reservations.BEGUN])
def test_gc_waits_for_a_host_that_may_begin_yet(
    store: Reservations, killed: Row, monkeypatch: pytest.MonkeyPatch, not_after: float
) -> None:
    with monkeypatch.context() as before:
        before.setattr(reservations.time, "time", lambda: 9e3)
        store.hold(killed, not_after)
        (row,) = store.left("", True)
        # One that has begun is asked like all others before anything is removed.
        assert row.removed == (not_after == reservations.BEGUN)
        assert ("within 1000 seconds" in row.reason) != row.removed
        before.setattr(reservations.time, "time", lambda: not_after + 1)
        assert [one.removed for one in store.left("", True)] in ([True], [])
        assert store.all() == []


def test_who_shared_it_with_a_killed_create_ends_it_alone(store: Reservations, killed: Row) -> None:
    assert store.reserve("web1", "small", URL, on("kvm01")) == killed
    assert store.left("", True) == [], "one of them lives"
    store.free(killed)
    assert store.all() == []


def test_without_any_reservation_gc_makes_no_store(store: Reservations) -> None:
    assert store.left("", True) == []
    assert not Path(store.folder).exists()


def test_where_no_host_fits_nothing_is_noted(store: Reservations) -> None:
    def none(_rows: Sequence[Row], _last: str) -> Reserved:
        raise NoHostFits("none")

    with pytest.raises(NoHostFits):
        store.reserve("web1", "small", URL, none)
    assert (store.all(), store.last("small")) == ([], "")


def test_of_many_at_the_same_moment_only_as_many_as_fit_are_reserved(store: Reservations) -> None:
    start = threading.Barrier(8)

    def one(number: int) -> bool:
        def choose(rows: Sequence[Row], _last: str) -> Reserved:
            if len(rows) >= 3:
                raise NoHostFits("full")
            return Reserved(f"web{number}", "kvm01", NEED)

        start.wait()
        try:
            store.reserve(f"web{number}", "small", URL, choose)
        except NoHostFits:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(8))) == 3
    assert len(store.all()) == 3


def test_only_its_owner_may_look_into_it(store: Reservations) -> None:
    store.all()
    assert Path(store.folder).stat().st_mode & 0o077 == 0


def test_a_damaged_store_is_an_error_that_says_what_to_do(store: Reservations) -> None:
    store.reserve("web1", "small", URL, on("kvm01"))
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE reservations_3 SET need = '{'")
    with pytest.raises(HostError, match="'web1' is damaged"):
        store.all()
    Path(store.path).write_bytes(b"no database at all" * 100)
    with pytest.raises(HostError) as refused:
        store.reserve("web1", "small", URL, on("kvm01"))
    assert "may be removed" in refused.value.hint
