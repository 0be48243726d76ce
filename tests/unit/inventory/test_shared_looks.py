"""Threads that look at the same moment share one look, and none gets an older one than its own."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from saltext.kvmclone.inventory.shared_looks import SharedLooks


class World:
    """A thing to look at, which changes; the first look goes on for as long as it is told to."""

    def __init__(self) -> None:
        self.state = "before"
        self.count = itertools.count(1)
        self.looked = 0
        self.is_under_way, self.may_end = threading.Event(), threading.Event()
        self.looks: SharedLooks[str] = SharedLooks()

    def look(self, url: str = "kvm01") -> str:
        def work() -> str:
            seen = self.state
            self.looked = next(self.count)
            if self.looked == 1:
                self.is_under_way.set()
                assert self.may_end.wait(10)
            return seen

        return self.looks.look(url, work)


@pytest.fixture
def pool() -> Callable[..., Future[str]]:
    return ThreadPoolExecutor(32).submit


def test_one_after_the_other_looks_for_itself() -> None:
    world = World()
    world.may_end.set()
    assert [world.look() for _ in range(3)] == ["before"] * 3
    assert world.looked == 3


def test_whoever_asks_while_a_look_is_under_way_gets_the_next_one(
    pool: Callable[..., Future[str]],
) -> None:
    world = World()
    first = pool(world.look)
    assert world.is_under_way.wait(10)
    world.state = "after"  # the first look has not seen that
    others = [pool(world.look) for _ in range(19)]
    time.sleep(0.2)
    assert world.looked == 1
    world.may_end.set()
    assert first.result(10) == "before"
    assert [one.result(10) for one in others] == ["after"] * 19
    assert world.looked == 2


def test_another_host_is_not_waited_for(pool: Callable[..., Future[str]]) -> None:
    world = World()
    first = pool(world.look)
    assert world.is_under_way.wait(10)
    assert world.look("kvm02") == "before"
    world.may_end.set()
    assert first.result(10) == "before"


def test_a_look_that_fails_is_the_failure_of_one_thread_alone(
    pool: Callable[..., Future[str]],
) -> None:
    looks: SharedLooks[int] = SharedLooks()
    is_under_way, may_end = threading.Event(), threading.Event()

    def fail() -> int:
        is_under_way.set()
        assert may_end.wait(10)
        raise ZeroDivisionError

    failing = pool(looks.look, "kvm01", fail)
    assert is_under_way.wait(10)
    well = [pool(looks.look, "kvm01", lambda: 7) for _ in range(3)]
    time.sleep(0.1)
    may_end.set()
    with pytest.raises(ZeroDivisionError):
        failing.result(10)
    assert [one.result(10) for one in well] == [7] * 3


def test_nothing_is_kept_once_nobody_waits(pool: Callable[..., Future[str]]) -> None:
    world = World()
    first = pool(world.look)
    assert world.is_under_way.wait(10)
    others = [pool(world.look) for _ in range(3)]
    time.sleep(0.1)
    world.may_end.set()
    for one in (first, *others):
        one.result(10)
    (place,) = world.looks._places.values()
    assert place._last == []
