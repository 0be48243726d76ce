"""A fork is only served once its kernel has taken fresh random numbers, and said so."""

from __future__ import annotations

import os
import shutil
import time
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


UUID = "6c1e0000-0000-4000-8000-000000000001"
FIXED = fork_identity_script.FixedAddress(
    "52:54:00:00:00:01", "192.168.122.5/24", "192.168.122.1", True
)


@pytest.fixture
def restored(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> Guest:
    """A guest that shows the uuid of the warmed machine, with a card and a masked timer."""
    units = guest.root / "run/systemd/system"
    units.mkdir(parents=True)
    (units / "apt.timer").symlink_to("/dev/null")
    (units / "own.timer").write_text("[Timer]\n")
    guest.put("/sys/class/dmi/id/product_uuid", "of the warmed machine\n")
    guest.put("/sys/class/net/lo/address", "00:00:00:00:00:00\n")
    guest.put("/sys/class/net/eth0/address", f"{FIXED.mac}\n")
    for tool in ("mount", "ip", "perl"):
        guest.tool(tool)
    really = guest.run

    def run(command: str, **how: Any) -> Result:
        for tool in ("mount --bind", "ip link", "ip address", "ip route"):
            command = command.replace(tool, f"{guest.tools}/{tool}")
        return really(command, **how)

    monkeypatch.setattr(guest, "run", run)  # busybox has commands of its own
    return guest


def test_timers_that_were_masked_until_a_reboot_run_again(restored: Guest) -> None:
    assert fork_identity.settle(restored, UUID) == ()
    units = restored.root / "run/systemd/system"
    assert sorted(path.name for path in units.iterdir()) == ["own.timer"]
    called = [line for line in restored.services if line.startswith("systemctl")]
    of_timers = [line for line in called if "journald" not in line]
    assert of_timers == [
        "systemctl daemon-reload",
        "systemctl --no-block start timers.target apt.timer",
    ]


def test_the_journal_goes_on_under_the_new_machine_id(restored: Guest) -> None:
    fork_identity.settle(restored, UUID)
    restart = "systemctl --no-block restart systemd-journald.service"
    deadline = time.monotonic() + 10
    while restart not in restored.services:  # nobody waits for it
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_word_is_for_root_alone_and_replaces_an_older_one(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = guest.put("/run/kvm-clone-word", "older, and longer than the other\n", 0o400)
    monkeypatch.setattr(fork_identity_script, "WORD", str(word))
    for _boot in range(2):
        fork_identity.give_word(guest, "canary")
        assert word.read_text() == "canary\n"
        assert word.stat().st_mode & 0o777 == 0o400
        word.unlink()


def test_timers_that_do_not_start_are_an_error(restored: Guest) -> None:
    restored.tool("systemctl", status=1)
    with pytest.raises(errors.CommandFailed, match="timers"):
        fork_identity.settle(restored, UUID)


def test_a_guest_with_nothing_to_settle_is_left_alone(guest: Guest) -> None:
    assert fork_identity.settle(guest, UUID) == ()
    assert guest.services == []


def test_the_uuid_of_the_warmed_machine_is_covered_until_the_next_boot(restored: Guest) -> None:
    fork_identity.settle(restored, UUID)
    own = restored.root / "run/kvm-clone-uuid"
    assert own.read_text() == f"{UUID}\n"
    shown = restored.root / "sys/class/dmi/id/product_uuid"
    assert f"mount --bind {own} {shown}" in restored.services


def test_a_guest_in_which_it_cannot_be_covered_gets_a_word_about_it(restored: Guest) -> None:
    restored.tool("mount", status=1)
    assert fork_identity.settle(restored, UUID) == (fork_identity.OTHER_UUID,)


def test_a_known_address_is_set_on_its_card_and_made_known(restored: Guest) -> None:
    commands = fork_identity_script.settle(UUID, [FIXED])
    said = restored.run(commands, timeout=30)
    assert "kvm-clone: done address" in said.output
    called = "\n".join(restored.services)
    assert "ip address add 192.168.122.5/24 dev eth0" in called
    assert "ip route add default via 192.168.122.1 dev eth0" in called
    assert "perl -MSocket" in called and "192.168.122.1" in called


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


def test_the_word_is_removed_and_need_not_be_there(guest: Guest) -> None:
    path = guest.root / fork_identity_script.WORD[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("word\n")
    path.chmod(0o400)
    fork_identity.forget_word(guest)
    assert not path.exists()
    fork_identity.forget_word(guest)


def test_a_word_that_stays_is_told(guest: Guest) -> None:
    (guest.root / fork_identity_script.WORD[1:]).mkdir(parents=True)
    with pytest.raises(errors.CommandFailed, match=fork_identity_script.WORD):
        fork_identity.forget_word(guest)
