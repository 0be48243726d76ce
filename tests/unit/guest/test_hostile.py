"""A guest says what it likes: an error names it, an end is put to it, nothing is believed."""

from __future__ import annotations

import base64
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import paramiko
import pytest
import yaml

from saltext.kvmclone import errors
from saltext.kvmclone.guest import hostkeys, identity, salt_minion, ssh
from saltext.kvmclone.guest.agent import NEEDED, AgentChannel
from saltext.kvmclone.guest.channel import MOST_TOLD, PublicKey, Result, tail
from saltext.kvmclone.master import verify
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.redacted_text import HIDDEN
from saltext.kvmclone.model.request import Login, Secrets
from tests.unit.guest.test_talkative import Talkative

ENROLMENT = Enrolment("web1", private_key_pem="canary", grains={"ours": 1}, inline_script=("x",))


class Says:
    """A channel whose guest answers every command with the same words."""

    name = "agent"

    def __init__(self, output: str, status: int = 0) -> None:
        self.result = Result(status, output, "")

    def run(self, command: str, **_options: Any) -> Result:
        return self.result


# --- its agent -------------------------------------------------------------------------------

WRONG: list[Any] = [
    None,
    [],
    {},
    7,
    "x",
    {"pid": "x"},
    {"pid": None},
    {"exited": True, "signal": "x"},
]


@pytest.mark.parametrize(
    "info", [None, [], 7, "x", {"supported_commands": 5}, {"supported_commands": [{"x": 1}, 2]}]
)
def test_an_agent_that_tells_nonsense_of_itself_is_unusable(info: Any) -> None:
    usable = AgentChannel(lambda _request, _timeout: info).usable()
    assert not usable
    assert usable.why_not


@pytest.mark.parametrize("command", NEEDED[:2])
@pytest.mark.parametrize("wrong", [*WRONG, {"exited": True, "out-data": "A"}])
def test_a_command_whose_agent_answers_nonsense_is_an_error_of_the_channel(
    command: str, wrong: Any
) -> None:
    right = {"guest-exec": {"pid": 7}, "guest-exec-status": {"exited": True, "exitcode": 0}}
    agent = AgentChannel(lambda request, _timeout: {**right, command: wrong}[request["execute"]])
    with pytest.raises(errors.ChannelError, match="cannot be understood"):
        agent.run("true", timeout=1)
    assert agent.lost is (command == "guest-exec-status")


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_whose_agent_answers_nonsense_is_an_error_of_the_channel(wrong: Any) -> None:
    spool = base64.b64encode(b"/run/kvm-clone.x\n").decode()
    told = {
        "guest-exec": {"pid": 7},
        "guest-exec-status": {"exited": True, "exitcode": 0, "out-data": spool},
        "guest-file-open": wrong,
        "guest-file-write": wrong,
        "guest-file-read": wrong,
        "guest-file-close": wrong,
    }
    agent = AgentChannel(lambda request, _timeout: told[request["execute"]])
    with pytest.raises(errors.ChannelError, match="cannot be understood"):
        agent.run("cat", timeout=1, stdin=b"x" * 100_000)
    with pytest.raises(errors.ChannelError, match="cannot be understood"):
        agent.fetch("/etc/hostname")


# --- its sshd --------------------------------------------------------------------------------


class Mute(paramiko.ServerInterface):
    """Lets everybody in, and never says whether it will run a command."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def get_allowed_auths(self, username: str) -> str:
        return "none"

    def check_auth_none(self, username: str) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        self.over.wait(20)
        return False


class Anybody(paramiko.AuthStrategy):
    def get_sources(self) -> Iterator[paramiko.AuthSource]:
        yield paramiko.NoneAuth("root")


@pytest.fixture
def mute() -> Iterator[ssh.SshChannel]:
    near, far = socket.socketpair()
    server, client, face = paramiko.Transport(far), paramiko.SSHClient(), Mute()
    server.add_server_key(paramiko.ECDSAKey.generate())
    server.start_server(event=threading.Event(), server=face)
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect("guest", sock=near, auth_strategy=Anybody(paramiko.SSHConfig()))
    login = Login(sudo=False)
    yield ssh.SshChannel(client, PublicKey("t", ""), "key", login, Secrets(), "root@guest")
    face.over.set()
    client.close()
    server.close()


def test_an_sshd_that_never_says_whether_it_runs_a_command_is_not_waited_for(mute: Any) -> None:
    ended = threading.Event()
    found: list[BaseException] = []

    def ask() -> None:
        try:
            mute.run("true", timeout=0.5)
        except BaseException as error:
            found.append(error)
        ended.set()

    threading.Thread(target=ask, daemon=True).start()
    assert ended.wait(10), "still waits"
    assert isinstance(found[0], errors.CommandFailed)


def packet(payload: bytes) -> bytes:
    padding = 8 - (5 + len(payload)) % 8 + 8
    return struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + b"\0" * padding


def test_a_stranger_s_packets_that_paramiko_cannot_read_are_no_greeting() -> None:
    names = (struct.pack(">I", 2) + b"\xff\xfe") * 10
    words = b"SSH-2.0-x\r\n" + packet(b"\x14" + b"c" * 16 + names + b"\0" * 5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def greet() -> None:
            with suppress(OSError):
                while True:
                    held.append(listener.accept()[0])
                    held[-1].sendall(words)

        threading.Thread(target=greet, daemon=True).start()
        login = Login(port=listener.getsockname()[1])
        with pytest.raises(errors.ChannelError, match="no greeting"):
            ssh.connect("127.0.0.1", login, Secrets("x"), deadline=time.monotonic() + 0.5)
        listener.shutdown(socket.SHUT_RDWR)


def test_a_guest_that_never_stops_to_speak_does_not_fill_its_host(monkeypatch: Any) -> None:
    monkeypatch.setattr(ssh, "MOST", 100)
    with pytest.raises(OverflowError):
        ssh._converse(Talkative(None), ssh.sudo.Plain(b""), time.monotonic() + 60)


# --- what its shell says ---------------------------------------------------------------------


def test_a_message_quotes_little_of_a_line_without_end() -> None:
    said = tail(Result(1, "x" * 10**6 + "canary", ""), ["canary"])
    assert len(said) <= MOST_TOLD
    assert said.endswith("x" + HIDDEN)


@pytest.mark.parametrize(
    "line",
    [
        "failed",
        "failed nonsense",
        "failed inline-x 1",
        "failed inline-7 1",
        "failed inline-0 canary",
        "failed preflight-9 1",
        "started",
    ],
)
def test_what_our_shell_never_says_fails_the_deployment(line: str) -> None:
    said = f"kvm-clone: {line}\nkvm-clone: end\nkvm-clone: output\n"
    with pytest.raises(errors.DeployFailed, match="our scripts never give"):
        salt_minion._report(Result(0, said, ""), ENROLMENT, "/tmp/x", [])


def test_a_reset_that_says_no_end_of_words_leaves_few_warnings() -> None:
    lines = [f"kvm-clone: skipped ssh_other_keys {'x' * 5000}"] * 5000
    with pytest.raises(errors.CommandFailed):
        identity.reset(Says("\n".join(lines)), "web1", keys=())  # type: ignore[arg-type]
    lines = ["kvm-clone: end", *lines]
    done = identity.reset(Says("\n".join(lines)), "web1", keys=())  # type: ignore[arg-type]
    assert sum(map(len, done.warnings)) < 200_000


def test_a_guest_has_no_thousand_host_keys() -> None:
    lines = "\n".join(f"ssh-rsa {base64.b64encode(str(n).encode()).decode()}" for n in range(5000))
    found = hostkeys.of_guest(Says(f"ssh-rsa {'A' * 10**6}\n{lines}\n\n"))  # type: ignore[arg-type]
    assert 0 < len(found) <= hostkeys.MOST


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 6)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 6)
)
DEEP = "a: " + "[" * 200 + "]" * 200


@pytest.mark.parametrize(
    "grains",
    [BOMB, MERGES, DEEP, "a: &a [*a]\n", "a: " + "[" * 5000, "a: 2024-99-99\n", "x" * 10**6],
)
def test_whatever_a_guest_has_for_grains_is_neither_believed_nor_written_out(grains: str) -> None:
    warnings: list[str] = []
    members = salt_minion._members(ENROLMENT, "/tmp/x", grains, warnings)
    written = members["grains"][0]
    assert len(written) < 100_000
    assert yaml.safe_load(written)["ours"] == 1


@pytest.mark.parametrize("version", ["3" * 10**6, "3008.0\nfine", "\x1b[2J"])
def test_a_minion_s_version_is_a_short_word(version: str) -> None:
    with pytest.raises(errors.VerificationFailed):
        verify._judge({"test.version": version, "grains.get": ""}, "web1", "uuid")
