"""The agent channel: long inputs in pieces, patience with limits, and clear refusals."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import threading
import time
from typing import Any

import pytest

from saltext.kvmclone import errors
from saltext.kvmclone.guest import agent
from saltext.kvmclone.guest.agent import AgentChannel, AgentError


class LocalAgent:
    """
    Speaks as the guest agent does and runs the commands here, with faults to order.

    :ivar disabled: Commands that its configuration forbids.
    :ivar longest: Bytes of the longest request so far.
    :ivar silent_until: Until then it does not answer, on the clock of ``time.monotonic()``.
    """

    def __init__(self) -> None:
        self.disabled: set[str] = set()
        self.names: list[str] = []
        self.longest = 0
        self.silent_until = 0.0
        self.running: dict[int, tuple[subprocess.Popen[bytes], io.BytesIO]] = {}
        self.files: dict[int, Any] = {}

    def __call__(self, request: dict[str, Any], timeout: float) -> Any:
        name = request["execute"]
        self.names.append(name)
        self.longest = max(self.longest, len(json.dumps(request)))
        if time.monotonic() < self.silent_until:
            raise errors.ChannelError("the guest agent does not answer")
        if name in self.disabled:
            raise AgentError("CommandNotFound", f"Command {name} has been disabled")
        return getattr(self, name.replace("-", "_"))(**_words(request.get("arguments", {})))

    def guest_info(self) -> Any:
        commands = [*agent.NEEDED, "guest-ping"]
        return {
            "supported_commands": [
                {"name": name, "enabled": name not in self.disabled} for name in commands
            ]
        }

    def guest_exec(
        self, path: str, arg: list[str], input_data: str = "", capture_output: bool = False
    ) -> Any:
        process = subprocess.Popen(
            [path, *arg], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.running[process.pid] = process, io.BytesIO(base64.b64decode(input_data))
        return {"pid": process.pid}

    def guest_exec_status(self, pid: int) -> Any:
        if pid not in self.running:
            raise AgentError("GenericError", f"Invalid parameter 'pid': PID {pid} does not exist")
        process, data = self.running[pid]
        try:
            out, err = process.communicate(data.read() or None, timeout=0.01)
        except subprocess.TimeoutExpired:
            return {"exited": False}
        answer: dict[str, Any] = {"exited": True}
        if process.returncode < 0:
            answer["signal"] = -process.returncode
        else:
            answer["exitcode"] = process.returncode
        for key, stream in (("out-data", out), ("err-data", err)):
            if stream:
                answer[key] = base64.b64encode(stream).decode()
        return answer

    def guest_file_open(self, path: str, mode: str) -> int:
        file = open(path, mode + "b")
        self.files[file.fileno()] = file
        return file.fileno()

    def guest_file_write(self, handle: int, buf_b64: str) -> Any:
        return {"count": self.files[handle].write(base64.b64decode(buf_b64)), "eof": False}

    def guest_file_read(self, handle: int, count: int) -> Any:
        return {"buf-b64": base64.b64encode(self.files[handle].read(count)).decode()}

    def guest_file_close(self, handle: int) -> Any:
        self.files.pop(handle).close()
        return {}


def _words(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in arguments.items()}


@pytest.fixture
def local() -> LocalAgent:
    return LocalAgent()


@pytest.fixture
def channel(local: LocalAgent) -> AgentChannel:
    return AgentChannel(local)


def test_a_command_gives_its_status_output_and_error(channel):
    result = channel.run("echo out; echo err >&2; exit 3", timeout=10)
    assert (result.status, result.output, result.error) == (3, "out\n", "err\n")


def test_a_command_that_a_signal_ends_says_which(channel):
    assert channel.run("kill -9 $$", timeout=10).status == 128 + 9


@pytest.mark.parametrize("size", [0, 5, agent.CHUNK, agent.CHUNK + 1, 400_000])
def test_input_of_any_length_arrives_in_messages_that_the_agent_survives(channel, local, size):
    data = os.urandom(size)
    result = channel.run("base64", timeout=20, stdin=data)
    assert base64.b64decode(result.output) == data
    assert local.longest < 128 * 1024


def test_nothing_of_a_long_input_is_left_behind_even_by_a_command_that_fails(channel):
    def spools() -> set[str]:
        return {name for name in os.listdir("/run") if name.startswith("kvm-clone.")}

    before = spools()
    assert channel.run("head -c 1 >/dev/null; exit 1", timeout=10, stdin=b"x" * 200_000).status == 1
    assert spools() == before


def test_a_file_arrives_with_its_mode_and_comes_back(channel, tmp_path):
    path, data = tmp_path / "it's", os.urandom(200_000)
    channel.write(str(path), data, 0o640)
    assert path.read_bytes() == data == channel.read(str(path))
    assert path.stat().st_mode & 0o7777 == 0o640
    assert os.listdir(tmp_path) == ["it's"]


def test_a_command_that_hangs_ends_in_time_and_is_killed(channel, local, tmp_path):
    started = time.monotonic()
    command = f"sleep 77; touch {tmp_path}/went-on; true"
    with pytest.raises(errors.CommandFailed, match=r"did not end in time: sleep 77; "):
        channel.run(command, timeout=0.5)
    assert time.monotonic() - started < 10
    first = next(iter(local.running.values()))[0]
    assert first.wait(5) != 0
    assert not (tmp_path / "went-on").exists(), "its next command was begun meanwhile"


def test_a_short_command_does_not_wait_for_a_long_pause(channel, monkeypatch):
    pauses, sleep = [], time.sleep
    monkeypatch.setattr(agent.time, "sleep", lambda pause: (pauses.append(pause), sleep(pause)))
    channel.run("sleep 0.1", timeout=10)
    assert pauses[0] < 0.05
    assert pauses == sorted(pauses), "and a long one is not asked after all the time"


def test_an_agent_that_allows_everything_is_usable(channel):
    assert channel.usable()


@pytest.mark.parametrize("command", agent.NEEDED)
def test_a_forbidden_command_is_named(channel, local, command):
    local.disabled = {command}
    usable = channel.usable()
    assert not usable
    assert not usable.silent
    assert usable.why_not.endswith(f"disables {command}")
    assert "block-rpcs" in usable.hint
    with pytest.raises(errors.ChannelError, match=f"disables {command} ") as caught:
        channel.run("cat", timeout=5, stdin=b"x" * 100_000)
    assert "ssh" in caught.value.hint


@pytest.mark.parametrize(
    ("error_class", "message", "disabled"),
    [
        ("CommandNotFound", "The command guest-exec has not been found", True),
        (
            "CommandDisabled",
            "Command guest-exec has been disabled: the command is not allowed",
            True,
        ),
        ("GenericError", "The command guest-exec has been disabled for this instance", True),
        ("GenericError", "Invalid parameter 'pid'", False),
    ],
)
def test_a_forbidden_command_is_recognised_from_old_and_new_agents(error_class, message, disabled):
    assert AgentError(error_class, message).disabled is disabled


def test_the_way_to_allow_forbidden_commands_is_told(channel, local):
    local.disabled = {"guest-exec"}
    with pytest.raises(errors.ChannelError) as caught:
        channel.run("true", timeout=5)
    for word in ("BLACKLIST_RPC", "--block-rpcs", "--allow-rpcs", "bootstrap: ssh"):
        assert word in caught.value.hint


# --- an agent that goes away --------------------------------------------------------------


def later(seconds: float, action) -> None:
    threading.Timer(seconds, action).start()


def test_an_agent_that_is_silent_for_a_moment_is_waited_for(channel, local):
    later(0.2, lambda: setattr(local, "silent_until", time.monotonic() + 0.6))
    assert channel.run("sleep 0.4; echo done", timeout=10).output == "done\n"
    assert not channel.lost


def test_an_agent_that_falls_silent_for_good_ends_the_wait(channel, local, monkeypatch):
    monkeypatch.setattr(agent, "AGENT_SILENCE_S", 0.5)
    later(0.2, lambda: setattr(local, "silent_until", time.monotonic() + 60))
    started = time.monotonic()
    with pytest.raises(errors.ChannelError, match=r"stopped answering during .*sleep 50") as caught:
        channel.run("sleep 50", timeout=30)
    assert time.monotonic() - started < 10
    assert channel.lost
    assert "bootstrap: ssh" in caught.value.hint


def test_an_agent_that_is_restarted_in_the_middle_is_recognised(channel, local):
    later(0.3, lambda: local.running.clear())
    with pytest.raises(errors.ChannelError, match="was restarted and lost") as caught:
        channel.run("sleep 5", timeout=30)
    assert channel.lost
    assert "upgrade qemu-guest-agent" in caught.value.hint


def test_what_an_agent_that_died_left_in_memory_goes_with_the_next_long_input(channel):
    stale = "/run/kvm-clone.stale0"
    with open(stale, "w", encoding="ascii") as file:
        file.write("secret")
    channel.run("cat >/dev/null", timeout=10, stdin=b"x" * 100_000)
    assert not os.path.exists(stale)


def test_a_file_is_fetched_where_commands_are_forbidden(channel, local, tmp_path):
    local.disabled = {"guest-exec", "guest-exec-status"}
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA\n")
    assert channel.fetch(str(tmp_path / "key.pub")) == b"ssh-ed25519 AAAA\n"
    assert local.files == {}


def test_an_agent_that_is_not_there_is_unusable_and_says_why():
    def nobody(request: dict[str, Any], timeout: float) -> Any:
        raise errors.ChannelError("the guest agent is not connected.", "Start it.")

    usable = AgentChannel(nobody).usable()
    assert not usable
    assert usable.silent, "it may yet come"
    assert (usable.why_not, usable.hint) == ("the guest agent is not connected", "Start it.")


def spools() -> set[str]:
    return {name for name in os.listdir("/run") if name.startswith("kvm-clone.")}


@pytest.mark.parametrize("at", ["refused", "full"])
def test_a_long_input_that_does_not_arrive_whole_leaves_nothing_behind(channel, local, at):
    before = spools()
    if at == "refused":
        local.disabled.add("guest-file-write")
    else:
        local.guest_file_write = lambda handle, buf_b64: {"count": 0}
    with pytest.raises(errors.ChannelError):
        channel.run("cat", timeout=10, stdin=b"x" * 100_000)
    assert spools() <= before
