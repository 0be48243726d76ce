"""A minion that does not answer: its guest is asked why, beside the wait, and it is said once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import HostUnreachable
from saltext.kvmclone.guest.master_ports import COMMAND_TIMEOUT_S
from saltext.kvmclone.lifecycle.master_ports import SSH_TIMEOUT_S
from saltext.kvmclone.master.silent_minion import LOOK_AGAIN_S, SILENCE_S, SilentMinion
from saltext.kvmclone.model.master_ports import CONNECT_TIMEOUT_S, PortCheck

REFUSED = [PortCheck("192.0.2.1", "master_port", 4507, "ECONNREFUSED")]
REACHED = [PortCheck("192.0.2.1", "master_port", 4507, "")]


class Guest:
    """A guest that answers as it is told, one answer after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __call__(self) -> list[PortCheck]:
        self.asked += 1
        self.goes_on.wait(10)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return list(answer)


def looked(silent: SilentMinion, now: float) -> None:
    """Look, and once more when what was asked then is answered."""
    silent.look(now)
    deadline = time.monotonic() + 10
    while silent._asking and silent._answers.empty():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    silent.look(now)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "saltext.kvmclone.master.silent_minion")
    return lambda: [record.getMessage() for record in caplog.records]


def test_what_the_guest_says_is_there_within_half_a_minute() -> None:
    over_agent = 2 * COMMAND_TIMEOUT_S + CONNECT_TIMEOUT_S
    over_ssh = SSH_TIMEOUT_S + over_agent
    assert SILENCE_S + max(over_agent, over_ssh) <= 30


def test_why_it_is_silent_stays_known_where_the_guest_no_longer_answers(
    said: Callable[[], list[str]],
) -> None:
    silent = SilentMinion("web1", Guest(REFUSED, HostUnreachable("gone")), 0.0)
    looked(silent, SILENCE_S)
    looked(silent, SILENCE_S + LOOK_AGAIN_S)
    assert "refused" in silent.reason
    assert len(said()) == 1


def test_a_minion_that_answers_in_time_costs_its_host_no_question() -> None:
    assert SILENCE_S >= 10
    guest = Guest()
    silent = SilentMinion("web1", guest, 0.0)
    for tenth in range(int(SILENCE_S * 10)):
        silent.look(tenth / 10)
    assert guest.asked == 0
    assert silent.reason == ""


def test_the_wait_goes_on_while_the_guest_is_asked(said: Callable[[], list[str]]) -> None:
    guest = Guest(REFUSED, REFUSED)
    guest.goes_on.clear()
    silent = SilentMinion("web1", guest, 0.0)
    for second in range(200):
        silent.look(float(second))
    assert guest.asked == 1
    assert said() == []
    guest.goes_on.set()
    looked(silent, 200.0)
    assert "port 4507 (master_port)" in said()[0]


def test_a_reason_is_said_once_and_known_to_the_end(
    said: Callable[[], list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    silent = SilentMinion("web1", Guest(REFUSED, REFUSED, REACHED), 0.0)
    looked(silent, SILENCE_S)
    assert "connection refused by port 4507" in silent.reason
    looked(silent, SILENCE_S + LOOK_AGAIN_S)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"web1: waiting     {SILENCE_S:.1f} s  {silent.reason}"
    assert len(said()) == 1
    looked(silent, SILENCE_S + 2 * LOOK_AGAIN_S)
    assert silent.reason.startswith("The guest reaches its master"), "somebody opened the port"
    assert len(said()) == 1


@pytest.mark.parametrize("fault", [HostUnreachable("gone"), interrupts.Interrupt(), LookupError()])
def test_a_guest_that_cannot_be_asked_disturbs_nobody(
    said: Callable[[], list[str]], fault: BaseException
) -> None:
    silent = SilentMinion("web1", Guest(fault, REFUSED), 0.0)
    looked(silent, SILENCE_S)
    assert (silent.reason, said()) == ("", [])
    looked(silent, SILENCE_S + LOOK_AGAIN_S)
    assert "refused" in silent.reason, "and it is asked again"
