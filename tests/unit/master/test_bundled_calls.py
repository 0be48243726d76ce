"""What a batch asks of one host at the same moment is one job, and each call has its own answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    ForeignDomain,
    HostUnreachable,
    KvmCloneError,
    NotFound,
    OtherVersion,
)
from saltext.kvmclone.hosts import remote_server
from saltext.kvmclone.hosts.operations import SEVERAL, VERSION
from saltext.kvmclone.master import at_once, bundled_calls, signed_call
from saltext.kvmclone.master.bundled_calls import BundledCalls
from saltext.kvmclone.master.remote import RemoteHost
from saltext.kvmclone.system.signed_answers import Unproven

URL = "test:///default"
WORD = "0" * 32

#: Serves a job: what was asked, and where a part of the answer goes.
Serve = Callable[[Mapping[str, Any], Callable[[Any], bool]], Any]


def honest(asked: Mapping[str, Any], take: Callable[[Any], bool]) -> Any:
    return remote_server.serve({"id": "kvm01"}, **asked, tell=lambda _tag, part: take(part))


class Jobs:
    """The jobs of a master; each way to its bus takes a moment, in which other calls may come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, serve: Serve = honest) -> None:
        self.published: list[tuple[str, Mapping[str, Any]]] = []
        self.listened: list[str] = []
        self.serve = serve
        monkeypatch.setattr(signed_call, "ask_in_parts", self._ask_in_parts)
        monkeypatch.setattr(signed_call, "ask", self._ask)

    def _ask(self, _opts: Any, minion: str, _function: str, asked: Any, patient: bool) -> Any:
        assert patient
        self.published.append((minion, asked))
        return self.serve(asked, lambda _part: True)

    def _ask_in_parts(
        self, _opts: Any, minion: str, _function: str, arguments: Any, take: Any, check: Any
    ) -> None:
        time.sleep(0.05)
        asked = arguments(WORD)
        self.published.append((minion, asked))
        answer = self.serve(asked, take)
        check()
        if not take(answer):
            raise HostUnreachable(f"The minion '{minion}' does not answer.")

    @property
    def sizes(self) -> list[int]:
        """How many calls each job carried, in order of size."""
        several = [asked for _minion, asked in self.published if asked["operation"] == SEVERAL]
        sizes = [len(asked["arguments"]["calls"]) for asked in several]
        return sorted([1] * (len(self.published) - len(several)) + sizes)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    return Jobs(monkeypatch)


def batch(work: Callable[[RemoteHost, Any], Any], wanted: Any, minion: str = "kvm01") -> list[Any]:
    """Do work with a host for each of these, all at once; an error is returned."""
    calls = BundledCalls({})

    def one(item: Any) -> Any:
        try:
            return work(RemoteHost({}, minion, URL, calls), item)
        except (KvmCloneError, interrupts.Interrupt) as error:
            return error

    return calls.each(one, list(wanted), len(list(wanted)))


def test_twenty_clones_at_one_stage_are_one_job_and_each_has_its_own_answer(jobs: Jobs) -> None:
    names = ["test", *(f"web{number}" for number in range(19))]
    told = batch(lambda host, name: host.show(name), names)
    assert jobs.sizes == [20]
    assert isinstance(told[0], ForeignDomain) and "'test'" in told[0].message
    for name, error in zip(names[1:], told[1:], strict=True):
        assert isinstance(error, NotFound) and f"'{name}'" in error.message


def test_different_operations_may_share_a_job(jobs: Jobs) -> None:
    told = batch(lambda host, operation: getattr(host, operation)(), ["list_clones", "daemon"])
    assert jobs.sizes == [2]
    assert told[0] == [] and told[1].driver == "TEST"


def test_a_lone_call_is_the_job_that_it_was_before(jobs: Jobs) -> None:
    assert RemoteHost({}, "kvm01", URL).list_clones() == []
    assert batch(lambda host, _: host.list_clones(), [1]) == [[]]
    assert jobs.published[0] == jobs.published[1]
    assert jobs.published[0][1]["operation"] == f"list_clones@{VERSION}"


def test_each_host_has_a_job_of_its_own(jobs: Jobs) -> None:
    calls = BundledCalls({})
    hosts = [("kvm01", URL), ("kvm02", URL), ("kvm01", "test+unix:///none")] * 2

    def ask(place: tuple[str, str]) -> Any:
        try:
            return RemoteHost({}, *place, calls).list_clones()
        except HostUnreachable:
            return place[1]

    assert calls.each(ask, hosts, len(hosts)) == [[], [], "test+unix:///none"] * 2
    assert jobs.sizes == [2, 2, 2]
    places = [(minion, asked["url"]) for minion, asked in jobs.published]
    assert sorted(places) == sorted(set(hosts))


def test_a_job_has_an_end_and_the_next_call_begins_another(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled_calls, "MOST_CALLS", 3)
    assert batch(lambda host, _: host.list_clones(), range(7)) == [[]] * 7
    assert jobs.sizes == [1, 3, 3]
    jobs.published.clear()
    monkeypatch.setattr(bundled_calls, "MOST_CALLS", 32)

    def late(host: RemoteHost, seconds: float) -> Any:
        time.sleep(seconds)
        return host.list_clones()

    batch(late, [0, 0, 0.4, 0.4])
    assert jobs.sizes == [2, 2]


def test_a_slow_clone_holds_nobody_back(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = threading.Event()

    def serve(asked: Mapping[str, Any], take: Callable[[Any], bool]) -> Any:
        answers = {str(n): {"version": VERSION, "answer": []} for n in range(3)}
        assert not take({"version": VERSION, "answers": {"0": answers["0"], "2": answers["2"]}})
        assert slow.wait(10)
        return {"version": VERSION, "answers": answers}

    jobs, ended = Jobs(monkeypatch, serve), []

    def ask(host: RemoteHost, number: int) -> Any:
        host.list_clones()
        ended.append(number)
        if len(ended) == 2:
            slow.set()

    batch(ask, range(3))
    assert (jobs.sizes, len(ended)) == ([3], 3)


@pytest.mark.parametrize(("version", "age"), [(1, "an older"), (VERSION + 1, "a newer")])
def test_a_host_of_another_version_is_refused_by_name_for_each(
    monkeypatch: pytest.MonkeyPatch, version: int, age: str
) -> None:
    error = HostUnreachable("They speak other versions.").as_dict()
    told = {"version": version, "error": error} if version > 1 else {"error": error}
    Jobs(monkeypatch, lambda _asked, _take: told)
    for one in batch(lambda host, _: host.list_clones(), range(3)):
        assert isinstance(one, OtherVersion) and f"'kvm01' has {age} version" in one.message


@pytest.mark.parametrize("kind", [HostUnreachable, Unproven])
def test_a_host_that_does_not_answer_fails_each_call_with_an_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch, kind: type[KvmCloneError]
) -> None:
    def serve(_asked: Any, _take: Any) -> Any:
        raise kind("Nobody there.", "Start it.")

    Jobs(monkeypatch, serve)
    first, second = batch(lambda host, _: host.list_clones(), range(2))
    assert type(first) is type(second) is kind and first is not second
    assert (first.message, first.hint) == ("Nobody there.", "Start it.")


def test_an_interrupt_of_the_job_ends_every_call_that_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def serve(_asked: Any, _take: Any) -> Any:
        raise interrupts.Interrupt

    Jobs(monkeypatch, serve)
    told: list[Any] = []
    waiting = threading.Thread(
        target=lambda: told.extend(batch(lambda host, _: host.list_clones(), range(2))),
        daemon=True,
    )
    waiting.start()
    waiting.join(10)
    assert [type(one) for one in told] == [interrupts.Interrupt] * 2


def test_what_was_answered_counts_where_the_job_dies_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(_asked: Any, take: Callable[[Any], bool]) -> Any:
        take({"version": VERSION, "answers": {"0": {"version": VERSION, "answer": []}}})
        raise HostUnreachable("The job died.")

    Jobs(monkeypatch, serve)
    told = batch(lambda host, _: host.list_clones(), range(2))
    assert sorted(map(str, told)) == ["HostUnreachable: The job died.", "[]"]


@pytest.mark.parametrize("answers", [None, [], {"0": None, "1": 7}, {}, {"2": {}}, {"00": {}}])
def test_an_answer_of_another_form_is_none(monkeypatch: pytest.MonkeyPatch, answers: Any) -> None:
    Jobs(monkeypatch, lambda _asked, _take: {"version": VERSION, "answers": answers})
    told = batch(lambda host, _: host.list_clones(), range(2))
    assert [isinstance(one, HostUnreachable) for one in told] == [True, True]


def test_ctrl_c_ends_the_wait_and_then_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    pressed, over = threading.Event(), threading.Event()

    def serve(_asked: Any, _take: Any) -> Any:
        pressed.set()
        assert over.wait(10)

    jobs = Jobs(monkeypatch, serve)
    told: list[str] = []

    def check() -> None:
        if pressed.is_set():
            raise interrupts.Interrupt

    whole = jobs._ask_in_parts

    def ask_in_parts(*args: Any) -> None:
        try:
            whole(*args)
        except BaseException as error:
            told.append(type(error).__name__)
            raise

    monkeypatch.setattr(signed_call, "ask_in_parts", ask_in_parts)
    monkeypatch.setattr(interrupts, "check", check)
    ended = batch(lambda host, _: host.list_clones(), range(3))
    assert [type(one) for one in ended] == [interrupts.Interrupt] * 3
    over.set()
    deadline = time.monotonic() + 5
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    assert told == ["_Unwanted"]


def test_outside_of_a_batch_every_call_is_a_job(jobs: Jobs) -> None:
    host = RemoteHost({}, "kvm01", URL, BundledCalls({}))
    at_once.each(lambda _: host.list_clones(), range(3), 3)
    assert jobs.sizes == [1, 1, 1]
