"""A fork is only served once its kernel has taken fresh random numbers, and said so."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

from saltext.kvmclone import errors
from saltext.kvmclone.guest import fork_identity, fork_identity_script
from saltext.kvmclone.guest.agent import AgentError
from saltext.kvmclone.guest.channel import Result
from tests.unit.guest.conftest import Guest

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="the kernel takes entropy from root only")


@pytest.fixture
def fork(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> Guest:
    """A guest that does not set this machine's clock; busybox would with a date of its own."""
    guest.tool("date")
    really = guest.run

    def run(command: str, **how: Any) -> Result:
        return really(command.replace("date -u", f"{guest.tools}/date -u"), **how)

    monkeypatch.setattr(guest, "run", run)
    return guest


def test_the_clock_is_set_before_anything_else(fork: Guest) -> None:
    fork.tool("perl", status=1)
    with pytest.raises(errors.CommandFailed):
        fork_identity.reseed(fork)
    called, *_ = fork.services
    assert called.startswith("date -u -s @1")


@root_only
@pytest.mark.parametrize("program", ["perl", "python3"])
def test_the_kernel_takes_fresh_entropy_and_uses_it_at_once(fork: Guest, program: str) -> None:
    if shutil.which(program, path="/usr/bin") is None:
        pytest.skip(f"there is no {program}")
    text = fork_identity_script.reseed(0)
    other = {"perl": "python3", "python3": "perl"}[program]
    text = text.replace(f"command -v {other}", "false")
    said = fork.run(text, timeout=30, stdin=os.urandom(64))
    assert (said.status, said.output) == (0, "kvm-clone: done clock\nkvm-clone: done reseed\n")
    assert fork.run(text, timeout=30, stdin=b"").status != 0


def test_the_entropy_is_in_no_command_line(fork: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(os, "urandom", lambda size: b"\x01canary" * size)

    def run(command: str, **how: Any) -> Result:
        sent.append((command, how["stdin"]))
        return Result(0, "kvm-clone: done reseed\n", "")

    monkeypatch.setattr(fork, "run", run)
    fork_identity.reseed(fork)
    ((command, stdin),) = sent
    assert b"canary" in stdin and "canary" not in command


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Result(0, "", ""), "exit status 0"),
        (Result(1, "kvm-clone: done clock\n", "RNDADDENTROPY: not permitted"), "not permitted"),
        (Result(1, "kvm-clone: done reseed\n", ""), "kvm-clone"),
        (Result(1, "kvm-clone: failed reseed it has neither perl nor python3\n", ""), "neither"),
    ],
)
def test_what_was_not_acknowledged_fails(
    fork: Guest, monkeypatch: pytest.MonkeyPatch, said: Result, why: str
) -> None:
    monkeypatch.setattr(fork, "run", lambda *_, **__: said)
    with pytest.raises(errors.CommandFailed, match=why) as caught:
        fork_identity.reseed(fork)
    assert "quick" in caught.value.hint


def test_timers_that_were_masked_until_a_reboot_run_again(guest: Guest) -> None:
    units = guest.root / "run/systemd/system"
    units.mkdir(parents=True)
    (units / "apt.timer").symlink_to("/dev/null")
    (units / "own.timer").write_text("[Timer]\n")
    fork_identity.wake(guest)
    assert sorted(path.name for path in units.iterdir()) == ["own.timer"]
    assert guest.services == [
        "systemctl daemon-reload",
        "systemctl --no-block start timers.target apt.timer",
    ]


def test_a_guest_without_masked_timers_is_left_alone(guest: Guest) -> None:
    fork_identity.wake(guest)
    assert guest.services == []


def test_timers_that_do_not_start_are_an_error(guest: Guest) -> None:
    units = guest.root / "run/systemd/system"
    units.mkdir(parents=True)
    (units / "apt.timer").symlink_to("/dev/null")
    guest.tool("systemctl", status=1)
    with pytest.raises(errors.CommandFailed, match="timers"):
        fork_identity.wake(guest)


class Agent:
    """An agent that is silent at first."""

    def __init__(self, *answers: BaseException | None) -> None:
        self.answers = list(answers)

    def __call__(self, _request: dict[str, Any], _timeout: float) -> Any:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer


def test_an_agent_that_is_silent_at_first_is_asked_again() -> None:
    agent = Agent(errors.ChannelError("stale"), errors.ChannelError("stale"), None)
    fork_identity.ping(agent)
    assert agent.answers == [None]


def test_an_agent_that_stays_silent_is_given_up_in_time() -> None:
    with pytest.raises(errors.ChannelError, match="within 0 s"):
        fork_identity.ping(Agent(errors.ChannelError("silent", "hint")), 0)


def test_an_agent_that_refuses_is_not_asked_again() -> None:
    with pytest.raises(errors.ChannelError, match="disabled"):
        fork_identity.ping(Agent(AgentError("CommandNotFound", "guest-ping is disabled")))
