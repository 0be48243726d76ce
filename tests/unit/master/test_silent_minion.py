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
from saltext.kvmclone.master import other_key
from saltext.kvmclone.master.silent_minion import (
    ASK_AGAIN_S,
    LOOK_AGAIN_S,
    SILENCE_S,
    SilentMinion,
)
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.master_ports import CONNECT_TIMEOUT_S, PortCheck

REFUSED = GuestMinion(ports=(PortCheck("192.0.2.1", "master_port", 4507, "ECONNREFUSED"),))
REACHED = GuestMinion(ports=(PortCheck("192.0.2.1", "master_port", 4507, ""),))
OTHER = GuestMinion(minion_id="base1", ports=REACHED.ports)


def judge(told: GuestMinion) -> str:
    """What is wrong with a minion that is called something else."""
    return f"It calls itself '{told.minion_id}'." if told.minion_id else ""


class Guest:
    """A guest that answers as it is told, one answer after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __call__(self) -> GuestMinion:
        self.asked += 1
        self.goes_on.wait(10)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, GuestMinion)
        return answer


def looked(silent: SilentMinion, now: float) -> bool:
    """Look, and once more when what was asked then is answered: whether its minion is coming."""
    silent.look(now)
    deadline = time.monotonic() + 10
    while silent._asking and silent._answers.empty():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return silent.look(now)


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
    silent = SilentMinion("web1", Guest(REFUSED, HostUnreachable("gone")), judge, 0.0)
    looked(silent, SILENCE_S)
    looked(silent, SILENCE_S + LOOK_AGAIN_S)
    assert "refused" in silent.reason
    assert len(said()) == 1


def test_a_minion_that_answers_in_time_costs_its_host_no_question() -> None:
    assert SILENCE_S >= 10
    guest = Guest()
    silent = SilentMinion("web1", guest, judge, 0.0)
    for tenth in range(int(SILENCE_S * 10)):
        silent.look(tenth / 10)
    assert guest.asked == 0
    assert silent.reason == ""


def test_the_wait_goes_on_while_the_guest_is_asked(said: Callable[[], list[str]]) -> None:
    guest = Guest(REFUSED, REFUSED)
    guest.goes_on.clear()
    silent = SilentMinion("web1", guest, judge, 0.0)
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
    silent = SilentMinion("web1", Guest(REFUSED, REFUSED, REACHED), judge, 0.0)
    looked(silent, SILENCE_S)
    assert "connection refused by port 4507" in silent.reason
    looked(silent, SILENCE_S + LOOK_AGAIN_S)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"web1: waiting     {SILENCE_S:.1f} s  {silent.reason}"
    assert len(said()) == 1
    looked(silent, SILENCE_S + 2 * LOOK_AGAIN_S)
    assert silent.reason.startswith("The guest reaches its master"), "somebody opened the port"
    assert len(said()) == 1


def test_a_minion_is_only_slow_where_its_guest_finds_nothing_wrong() -> None:
    answers = {REACHED: True, REFUSED: False, OTHER: False, GuestMinion(): False}
    for answer, is_coming in answers.items():
        silent = SilentMinion("web1", Guest(answer), judge, 0.0)
        assert not silent.look(0.0)
        assert looked(silent, SILENCE_S) is is_coming
        assert not silent.look(SILENCE_S + 1), "that was said before"


@pytest.mark.parametrize("fault", [HostUnreachable("gone"), interrupts.Interrupt(), LookupError()])
def test_a_guest_that_cannot_be_asked_disturbs_nobody(
    said: Callable[[], list[str]], fault: BaseException
) -> None:
    silent = SilentMinion("web1", Guest(fault, REFUSED), judge, 0.0)
    looked(silent, SILENCE_S)
    assert (silent.reason, said()) == ("", [])
    looked(silent, SILENCE_S + ASK_AGAIN_S)
    assert "refused" in silent.reason, "and it is asked again, soon"


def test_a_minion_of_another_name_or_key_is_told_with_what_to_do(
    said: Callable[[], list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    silent = SilentMinion("web1", Guest(OTHER, OTHER), judge, 0.0)
    looked(silent, SILENCE_S)
    looked(silent, SILENCE_S + LOOK_AGAIN_S)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"It calls itself 'base1'. {other_key.HINT}")
    assert len(said()) == 1
    assert silent.misfit == "It calls itself 'base1'."
    assert silent.reason.startswith(f"{silent.misfit} The guest reaches its master")


def test_the_key_is_judged_although_the_guest_cannot_be_asked() -> None:
    def by_the_master(told: GuestMinion) -> str:
        return "" if told.public_key else "Another key was refused."

    silent = SilentMinion("web1", Guest(HostUnreachable("gone")), by_the_master, 0.0)
    looked(silent, SILENCE_S)
    assert silent.reason == "Another key was refused."


def test_a_master_that_cannot_look_at_its_keys_disturbs_nobody() -> None:
    def broken(told: GuestMinion) -> str:
        raise OSError

    silent = SilentMinion("web1", Guest(REFUSED), broken, 0.0)
    looked(silent, SILENCE_S)
    assert "refused" in silent.reason
