"""In one place only so many are at work; another place is not kept waiting."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from saltext.kvmclone.master.slots import Slots


def test_no_more_than_allowed_are_at_work_in_one_place() -> None:
    slots, lock = Slots(2), threading.Lock()
    now = most = 0

    def work(_number: int) -> None:
        nonlocal now, most
        with slots.turn(["a"]):
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.01)
            with lock:
                now -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    assert most == 2


def test_a_place_that_is_busy_keeps_no_other_waiting_and_none_needs_no_turn() -> None:
    slots, entered = Slots(1), []

    def work() -> None:
        with slots.turn(["a"]), slots.turn(["b"]), slots.turn([]):
            entered.append("others")
        with slots.turn(["a", "a"]):  # twice the same place is one turn
            entered.append("twice")

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(timeout=20)
    assert entered == ["others", "twice"]


def test_two_that_want_the_same_places_do_not_wait_for_each_other_for_ever() -> None:
    slots = Slots(1)

    def work(places: list[str]) -> None:
        for _ in range(50):
            with slots.turn(places):
                pass

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, [["a", "b"], ["b", "a"]], timeout=20))
