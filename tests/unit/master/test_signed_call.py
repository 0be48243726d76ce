"""Of what arrives on the bus only the asked minion's own answer counts, whole or in parts."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import HostUnreachable
from saltext.kvmclone.master import keys, signed_call
from saltext.kvmclone.system import signed_answers
from saltext.kvmclone.system.signed_answers import Unproven

PAIR = keys.generate(2048)
FUNCTION = "kvm_clone.remote"


class Bus:
    """A master's bus, where jobs are published and events arrive."""

    def __init__(self) -> None:
        self.events: deque[dict[str, Any]] = deque()
        self.jobs: list[tuple[str, dict[str, Any]]] = []
        self.part_tag = ""

    def run_job(self, _minion: str, function: str, kwarg: Any, tgt_type: str) -> dict[str, Any]:
        self.jobs.append((function, kwarg))
        if function == signed_call.WORKING:  # the job that is asked about has ended
            self.returns(False)
        return {"jid": str(len(self.jobs))}

    def get_event(self, **_: Any) -> dict[str, Any] | None:
        return self.events.popleft() if self.events else None

    def signed(self, answer: Any) -> dict[str, str]:
        function, kwarg = self.jobs[-1]
        return signed_answers.sign(PAIR.private, "kvm01", function, kwarg["challenge"], answer)

    def returns(self, answer: Any) -> None:
        tag = f"salt/job/{len(self.jobs)}/ret/kvm01"
        self.events.append({"tag": tag, "data": {"return": self.signed(answer)}})

    def tells(self, part: Any, tag: str) -> None:
        self.events.append({"tag": tag, "data": {"id": "kvm01", "data": part}})


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    made = Bus()

    @contextlib.contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[Bus]:
        yield made

    monkeypatch.setattr(signed_call.salt.client, "get_local_client", opened)
    monkeypatch.setattr(signed_call.salt.utils.event, "get_master_event", opened)
    monkeypatch.setattr(signed_call, "accepted_key", lambda *_: PAIR.public)
    for name in ("JOB_CHECK_INTERVAL_S", "CALL_TIMEOUT_S", "RETURN_DELAY_S"):
        monkeypatch.setattr(signed_call, name, 0.2)
    return made


def ask(bus: Bus, heard: list[Any], last: Any, *parts: Any) -> None:
    """Ask a question to which parts of an answer come, each as ``send`` puts it on the bus."""

    def arguments(word: str) -> dict[str, Any]:
        bus.part_tag = signed_answers.part_tag("kvm01", word)
        return {}

    def check() -> None:
        if not heard and not bus.events:
            for part in parts:
                bus.tells(part(bus.signed), bus.part_tag)
            if last is not None:
                bus.returns(last)

    def take(answer: Any) -> bool:
        heard.append(answer)
        return bool(answer == last)

    signed_call.ask_in_parts({"sock_dir": ""}, "kvm01", FUNCTION, arguments, take, check)


def test_parts_are_heard_as_they_come_and_the_whole_ends_it(bus: Bus) -> None:
    heard: list[Any] = []
    ask(bus, heard, "whole", lambda sign: sign("one"), lambda sign: sign("two"))
    assert heard == ["one", "two", "whole"]
    assert [function for function, _ in bus.jobs] == [FUNCTION]


@pytest.mark.parametrize("forged", ["gone", None, {"sworn": '"gone"', "proof": "0" * 64}, {}])
def test_a_forged_part_is_passed_over(bus: Bus, forged: Any) -> None:
    heard: list[Any] = []
    ask(bus, heard, "whole", lambda _sign: forged)
    assert heard == ["whole"]


def test_a_job_that_ends_without_its_last_word_is_a_host_that_does_not_answer(bus: Bus) -> None:
    heard: list[Any] = []
    with pytest.raises(HostUnreachable, match="'kvm01' does not answer") as caught:
        ask(bus, heard, None, lambda sign: sign("one"))
    assert heard == ["one"] and not isinstance(caught.value, Unproven)
    assert [function for function, _ in bus.jobs] == [FUNCTION, signed_call.WORKING]


def test_what_check_raises_ends_the_wait(bus: Bus) -> None:
    def check() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        signed_call.ask_in_parts(
            {"sock_dir": ""}, "kvm01", FUNCTION, lambda _: {}, lambda _: True, check
        )


def test_a_question_with_one_answer_is_answered_by_its_return(bus: Bus) -> None:
    def get_event(**_: Any) -> dict[str, Any]:
        bus.returns(["it"])
        return bus.events.popleft()

    bus.get_event = get_event  # type: ignore[method-assign, assignment]
    assert signed_call.ask({"sock_dir": ""}, "kvm01", FUNCTION, {}, patient=True) == ["it"]


def test_what_a_minion_sends_under_the_tag_of_a_ctrl_c_interrupts_nobody(bus: Bus) -> None:
    bus.events.append({"tag": signed_call.SWALLOWED, "data": {"_stamp": "2026-01-01", "id": "x"}})
    heard: list[Any] = []
    ask(bus, heard, "the answer")
    assert heard == ["the answer"]


def test_a_ctrl_c_that_salt_has_caught_is_heeded(bus: Bus) -> None:
    bus.events.append({"tag": signed_call.SWALLOWED, "data": {}})
    with pytest.raises(interrupts.Interrupt):
        ask(bus, [], "the answer")
