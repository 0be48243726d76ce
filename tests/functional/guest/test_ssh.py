"""The ssh channel against a real sshd and a real sudo."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from saltext.kvmclone import errors
from saltext.kvmclone.guest import hostkeys, ssh, ssh_transport
from saltext.kvmclone.guest.channel import check
from saltext.kvmclone.model.request import Login, Secrets
from tests.support.sshd import PASSWORD, USER, Sshd, free_port

pytestmark = pytest.mark.slow

pytest.importorskip("paramiko")


def key_text(key, style: str = "openssh", passphrase: str = "") -> tuple[str, str]:
    """A private key as text, and its authorized_keys line."""
    formats = {
        "openssh": serialization.PrivateFormat.OpenSSH,
        "pkcs1": serialization.PrivateFormat.TraditionalOpenSSL,
        "pkcs8": serialization.PrivateFormat.PKCS8,
    }
    lock = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    private = key.private_bytes(serialization.Encoding.PEM, formats[style], lock)
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return private.decode(), public.decode()


@pytest.fixture
def root(sshd: Sshd) -> Iterator[ssh.SshChannel]:
    """A channel as root, by key."""
    private, public = key_text(ed25519.Ed25519PrivateKey.generate())
    sshd.authorize(public)
    sshd.start()
    with ssh.connect(
        "127.0.0.1",
        Login("root", sshd.port),
        Secrets(private_key=private),
        deadline=time.monotonic() + 20,
    ) as channel:
        yield channel


@pytest.fixture
def enter(sshd: Sshd) -> Callable[..., ssh.SshChannel]:
    """Log in with a password as the ordinary user."""

    def enter(password: str = PASSWORD, wait: float = 15, **options) -> ssh.SshChannel:
        keywords = {k: options.pop(k) for k in ("host_keys", "vet") if k in options}
        secrets = Secrets(password=password, sudo_password=options.pop("sudo_password", ""))
        return ssh.connect(
            "127.0.0.1",
            Login(USER, sshd.port, **options),
            secrets,
            deadline=time.monotonic() + wait,
            **keywords,
        )

    return enter


# --- getting in -------------------------------------------------------------------------


def test_a_password_opens_the_door(sshd, enter):
    sshd.start()
    with enter() as channel:
        assert channel.run("id -un", timeout=10, as_root=False).output.strip() == USER


def test_a_password_opens_the_door_in_a_dialogue_too(sshd, enter):
    sshd.options |= {"PasswordAuthentication": "no", "KbdInteractiveAuthentication": "yes"}
    sshd.start()
    with enter() as channel:
        assert channel.run("true", timeout=10).status == 0


@pytest.mark.parametrize(
    ("make", "style"),
    [
        (lambda: rsa.generate_private_key(65537, 2048), "openssh"),
        (lambda: rsa.generate_private_key(65537, 2048), "pkcs1"),
        (lambda: rsa.generate_private_key(65537, 2048), "pkcs8"),
        (lambda: ec.generate_private_key(ec.SECP256R1()), "pkcs1"),
        (lambda: ec.generate_private_key(ec.SECP384R1()), "pkcs8"),
        (ed25519.Ed25519PrivateKey.generate, "openssh"),
        (ed25519.Ed25519PrivateKey.generate, "pkcs8"),
    ],
    ids=["rsa", "rsa-pem", "rsa-pkcs8", "ecdsa-pem", "ecdsa384-pkcs8", "ed25519", "ed25519-pkcs8"],
)
def test_every_kind_of_key_opens_the_door(sshd, make, style):
    private, public = key_text(make(), style)
    sshd.authorize(public)
    sshd.start()
    login, deadline = Login("root", sshd.port), time.monotonic() + 15
    with ssh.connect(
        "127.0.0.1", login, Secrets(private_key=private), deadline=deadline
    ) as channel:
        assert channel.run("id -u", timeout=10).output.strip() == "0"


@pytest.mark.parametrize("style", ["openssh", "pkcs8", "pkcs1"])
def test_a_key_with_a_passphrase_needs_it(sshd, style):
    private, public = key_text(rsa.generate_private_key(65537, 2048), style, "open sesame")
    sshd.authorize(public)
    sshd.start()
    login, deadline = Login("root", sshd.port), time.monotonic() + 15

    def enter(passphrase: str) -> ssh.SshChannel:
        secrets = Secrets(private_key=private, private_key_passphrase=passphrase)
        return ssh.connect("127.0.0.1", login, secrets, deadline=deadline)

    with enter("open sesame") as channel:
        assert channel.run("true", timeout=10).status == 0
        assert channel.auth_method == "key"
    for wrong in ("", "canary"):
        with pytest.raises(errors.LoginFailed, match="passphrase") as caught:
            enter(wrong)
        assert "private_key_passphrase" in caught.value.hint
        assert "canary" not in str(caught.value)


def test_a_passphrase_that_a_key_does_not_need_is_passed_over(sshd):
    private, public = key_text(ed25519.Ed25519PrivateKey.generate())
    sshd.authorize(public)
    sshd.start()
    secrets = Secrets(private_key=private, private_key_passphrase="none needed")
    login, deadline = Login("root", sshd.port), time.monotonic() + 15
    ssh.connect("127.0.0.1", login, secrets, deadline=deadline).close()


@pytest.fixture
def agent(tmp_path, monkeypatch) -> Iterator[Callable[..., list[str]]]:
    """A real ssh agent; fill it with keys, it answers with their public halves."""
    socket_path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket_path], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket_path))
    for _ in range(100):
        if socket_path.exists():
            break
        time.sleep(0.02)

    def hold(*keys) -> list[str]:
        texts = [key_text(key) for key in keys]
        for private, _public in texts:
            subprocess.run(["ssh-add", "-q", "-"], input=private, text=True, check=True)
        return [public for _private, public in texts]

    yield hold
    process.terminate()
    process.wait(5)


def test_the_ssh_agent_opens_the_door_where_it_is_asked_for(sshd, agent):
    held = agent(rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate())
    sshd.authorize(held[1])
    sshd.start()
    login = Login("root", sshd.port, ssh_agent=True)
    with ssh.connect("127.0.0.1", login, Secrets(), deadline=time.monotonic() + 15) as channel:
        assert channel.run("id -u", timeout=10).output == "0\n"
        assert channel.auth_method == "ssh agent"
    with pytest.raises(errors.LoginFailed, match="neither a key nor a password") as caught:
        ssh.connect(
            "127.0.0.1", Login("root", sshd.port), Secrets(), deadline=time.monotonic() + 15
        )
    assert "ssh_agent: true" in caught.value.hint


def test_an_agent_with_many_keys_leaves_the_password_its_turn(sshd, agent):
    agent(*(ed25519.Ed25519PrivateKey.generate() for _ in range(8)))
    sshd.start()
    login = Login(USER, sshd.port, ssh_agent=True)
    secrets = Secrets(password=PASSWORD)
    with ssh.connect("127.0.0.1", login, secrets, deadline=time.monotonic() + 15) as channel:
        assert channel.auth_method == "password"


@pytest.mark.parametrize("kind", ["no agent", "no key"])
def test_an_agent_that_cannot_help_says_why(sshd, agent, monkeypatch, kind):
    if kind == "no agent":
        monkeypatch.delenv("SSH_AUTH_SOCK")
    login = Login("root", sshd.port, ssh_agent=True)
    with pytest.raises(errors.LoginFailed) as caught:
        ssh.connect("127.0.0.1", login, Secrets(), deadline=time.monotonic() + 15)
    assert ("SSH_AUTH_SOCK" if kind == "no agent" else "ssh-add") in str(caught.value)


def test_a_refused_key_leaves_the_password(sshd, enter):
    sshd.start()
    private, _ = key_text(ed25519.Ed25519PrivateKey.generate())
    with ssh.connect(
        "127.0.0.1",
        Login(USER, sshd.port),
        Secrets(password=PASSWORD, private_key=private),
        deadline=time.monotonic() + 15,
    ) as channel:
        assert channel.run("true", timeout=10).status == 0


def test_a_wrong_password_fails_at_once_and_is_not_repeated(sshd, enter):
    sshd.start()
    started = time.monotonic()
    with pytest.raises(errors.LoginFailed) as caught:
        enter(password="wrong canary")
    assert time.monotonic() - started < 8
    assert sshd.log.count("Failed password") == 1
    assert "wrong canary" not in str(caught.value)


def keys_for_all(sshd: Sshd) -> dict[str, str]:
    """Options under which the keys are the ordinary user's too, who cannot read that file."""
    command = f"/bin/cat {sshd.folder}/authorized_keys"
    return {"AuthorizedKeysCommand": command, "AuthorizedKeysCommandUser": "root"}


def test_two_factors_are_both_shown(sshd, agent):
    (public,) = agent(ed25519.Ed25519PrivateKey.generate())
    sshd.authorize(public)
    sshd.options |= {**keys_for_all(sshd), "AuthenticationMethods": "publickey,password"}
    sshd.start()
    login, secrets = Login(USER, sshd.port, ssh_agent=True), Secrets(password=PASSWORD)
    with ssh.connect("127.0.0.1", login, secrets, deadline=time.monotonic() + 15) as channel:
        assert channel.auth_method == "password"
        assert channel.run("id -un", timeout=10).output == f"{USER}\n"


#: Starts sshd with a /run of its own, in which a machine is still booting.
BOOTING = (
    "unshare", "--mount", "sh", "-c",
    "mount -t tmpfs none /run && mkdir -m 755 /run/sshd && "
    "echo 'System is booting up. See pam_nologin(8)' >/run/nologin && exec \"$@\"", "sh",
)  # fmt: skip


@pytest.mark.parametrize("by", ["key", "password"])
def test_a_guest_that_still_boots_lets_in_once_it_has(sshd, enter, by):
    private, public = key_text(ed25519.Ed25519PrivateKey.generate())
    sshd.authorize(public)
    sshd.options |= keys_for_all(sshd)
    sshd.start(*BOOTING)
    sshd.wait()
    booted = threading.Timer(1.5, os.unlink, [f"/proc/{sshd.process.pid}/root/run/nologin"])
    booted.start()
    started = time.monotonic()
    secrets = Secrets(private_key=private) if by == "key" else Secrets(password=PASSWORD)
    login = Login(USER, sshd.port)
    with ssh.connect("127.0.0.1", login, secrets, deadline=started + 20) as channel:
        assert channel.auth_method == by
    assert time.monotonic() - started > 1.5
    assert sshd.connections > 1
    booted.join()


def test_a_guest_that_boots_without_end_is_named_at_the_deadline(sshd, enter):
    sshd.start(*BOOTING)
    sshd.wait()
    with pytest.raises(errors.ChannelError, match="booting up"):
        enter(wait=2)


def test_an_sshd_that_disconnects_at_the_login_may_be_starting(sshd, enter, monkeypatch):
    monkeypatch.setattr(ssh_transport.Disconnected, "grace_s", 1.5)
    sshd.options |= {"MaxAuthTries": "1"}
    sshd.start()
    private, _ = key_text(ed25519.Ed25519PrivateKey.generate())
    secrets = Secrets(password=PASSWORD, private_key=private)
    with pytest.raises(errors.LoginFailed, match="closes the connection") as caught:
        ssh.connect("127.0.0.1", Login(USER, sshd.port), secrets, deadline=time.monotonic() + 20)
    assert "journalctl" in caught.value.hint
    assert sshd.connections > 1
    assert "password" not in sshd.log, "one that has disconnected is not shown more"


def test_a_login_logs_no_secret(sshd, enter, caplog):
    caplog.set_level("DEBUG")
    private, _ = key_text(ed25519.Ed25519PrivateKey.generate())
    sshd.start()
    secrets = Secrets(password=PASSWORD, private_key=private)
    login, deadline = Login(USER, sshd.port), time.monotonic() + 15
    with ssh.connect("127.0.0.1", login, secrets, deadline=deadline) as channel:
        channel.run("true", timeout=10)
    with pytest.raises(errors.LoginFailed):
        enter(password="wrong canary")
    for secret in (PASSWORD, "wrong canary", *private.splitlines()[1:-1]):
        assert secret not in caplog.text


def test_neither_key_nor_password_is_an_error_that_says_so(sshd, enter, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    sshd.start()
    with pytest.raises(errors.LoginFailed, match="neither a key nor a password"):
        enter(password="")


def test_an_sshd_that_comes_up_later_is_noticed_soon(sshd, enter):
    ready: list[float] = []

    def later() -> None:
        time.sleep(1.5)
        sshd.start()
        sshd.wait()
        ready.append(time.monotonic())

    starter = threading.Thread(target=later)
    starter.start()
    with enter() as channel:
        connected = time.monotonic()
        channel.close()
    starter.join()
    assert connected - ready[0] < 4


@pytest.mark.parametrize("kind", ["nobody listens", "somebody listens and says nothing"])
def test_waiting_ends_at_the_deadline(kind):
    port = free_port()
    listener = socket.create_server(("127.0.0.1", port)) if "somebody" in kind else None
    started = time.monotonic()
    with pytest.raises(errors.ChannelError, match="before the deadline"):
        ssh.connect("127.0.0.1", Login("root", port), Secrets(password="x"), deadline=started + 1.5)
    assert 1.2 < time.monotonic() - started < 10
    if listener:
        listener.close()


# --- whose door it is -------------------------------------------------------------------


def test_the_host_key_seen_at_first_contact_is_recorded(sshd, enter):
    sshd.start()
    with enter() as channel:
        assert channel.host_key in sshd.host_keys
        shown = subprocess.run(
            ["ssh-keygen", "-lf", "-"],
            input=channel.host_key.line,
            text=True,
            capture_output=True,
            check=True,
        ).stdout
        assert channel.host_key.fingerprint in shown


@pytest.mark.parametrize("index", [0, 1, 2], ids=["ed25519", "ecdsa", "rsa"])
def test_an_expected_host_key_of_any_kind_is_asked_for(sshd, enter, index):
    sshd.start()
    with enter(host_keys=[sshd.host_keys[index]]) as channel:
        assert channel.host_key == sshd.host_keys[index]


def test_one_of_several_expected_host_keys_is_asked_for(sshd, enter):
    sshd.start()
    _, ecdsa, rsa_key = sshd.host_keys
    stale = hostkeys.generate()[1].public
    with enter(host_keys=[stale, rsa_key, ecdsa]) as channel:
        assert channel.host_key == ecdsa


def test_another_host_key_is_refused_before_the_password_is_sent(sshd, enter):
    sshd.start()
    with pytest.raises(errors.WrongGuest) as caught:
        enter(host_keys=[key.public for key in hostkeys.generate()])
    assert "ip neigh" in caught.value.hint
    assert "password" not in sshd.log


def test_an_sshd_that_is_just_being_given_its_new_keys_is_waited_for(sshd, enter):
    fresh = hostkeys.generate()
    sshd.start()
    sshd.wait()

    def replace() -> None:
        for key in fresh:
            (sshd.folder / f"host_{key.kind}").write_text(key.private)
        sshd.process.send_signal(signal.SIGHUP)

    later = threading.Timer(1.0, replace)
    later.start()
    with enter(host_keys=[key.public for key in fresh]) as channel:
        assert channel.host_key == fresh[0].public
    later.join()


def test_whoever_is_met_first_is_vetted_before_the_login(sshd, enter):
    sshd.start()
    asked = []

    def refuse(key) -> None:
        asked.append(key)
        raise errors.WrongGuest("it is another")

    with pytest.raises(errors.WrongGuest):
        enter(vet=refuse)
    assert asked[0] in sshd.host_keys
    assert "for kvmclone-test" not in sshd.log, "nobody tried to log in"
    with enter(vet=refuse, host_keys=sshd.host_keys):
        assert len(asked) == 1, "who is known needs no vetting"


def test_a_key_that_opens_the_door_spares_the_password(sshd, enter):
    private, public = key_text(ed25519.Ed25519PrivateKey.generate())
    sshd.authorize(public)
    sshd.start()
    secrets = Secrets(password=PASSWORD, private_key=private)
    with ssh.connect(
        "127.0.0.1", Login("root", sshd.port), secrets, deadline=time.monotonic() + 15
    ) as channel:
        assert channel.auth_method == "key"
    assert "password" not in sshd.log


def test_the_host_keys_that_sshd_uses_are_read_in_the_guest(root, sshd, monkeypatch):
    # `sshd -T` reads the machine's own configuration, so this one is given a voice.
    tool = sshd.folder / "sshd"
    tool.write_text(
        f"#!/bin/sh\nfor k in ed25519 rsa; do echo hostkey {sshd.folder}/host_$k; done\n"
    )
    tool.chmod(0o755)
    told = root.run(f"PATH={sshd.folder}:$PATH\n" + hostkeys._READ, timeout=20)
    used, _, _ = told.output.partition("\n\n")
    assert hostkeys._keys(used) == (sshd.host_keys[0], sshd.host_keys[2])


# --- commands ---------------------------------------------------------------------------


def test_a_command_gives_its_status_output_and_error(root):
    result = root.run("echo out; echo err >&2; exit 3", timeout=10)
    assert (result.status, result.output, result.error) == (3, "out\n", "err\n")


def test_many_commands_need_one_connection(root, sshd):
    for _ in range(12):
        root.run("true", timeout=10)
    root.write(f"{sshd.folder}/file", b"x")
    assert sshd.log.count("Accepted publickey") == 1


def test_input_and_output_may_both_be_large(root):
    data = os.urandom(1_500_000).hex().encode()
    result = root.run("tee /dev/stderr", timeout=60, stdin=data)
    assert result.output.encode() == data
    assert result.error.encode() == data


def test_no_input_means_the_end_of_input(root):
    assert root.run("cat; echo end", timeout=10).output == "end\n"


def test_a_command_that_hangs_ends_in_time(root):
    started = time.monotonic()
    with pytest.raises(errors.CommandFailed, match="did not end in time: sleep 60"):
        root.run("sleep 60", timeout=0.7)
    assert time.monotonic() - started < 20
    assert root.run("echo still here", timeout=10).output == "still here\n"


def test_a_daemon_that_keeps_the_stream_open_holds_nobody_up(root):
    started = time.monotonic()
    result = root.run("sleep 30 & echo started", timeout=60)
    assert result.output == "started\n"
    assert time.monotonic() - started < 20


def test_a_command_that_a_signal_ends_is_a_failure_of_the_command(root):
    assert root.run("kill -9 $$", timeout=10).status >= 128


def test_a_lost_connection_is_a_channel_error(root, sshd):
    killer = threading.Timer(0.5, lambda: [os.kill(pid, 9) for pid in sshd.sessions()])
    killer.start()
    with pytest.raises(errors.ChannelError):
        root.run("sleep 20", timeout=15)
    with pytest.raises(errors.ChannelError):
        root.run("true", timeout=5)


# --- files ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_a_file_arrives_as_it_was_sent_and_comes_back(root, tmp_path, size):
    data = os.urandom(size)
    path = tmp_path / "it's a file"
    root.write(str(path), data, 0o640)
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o7777 == 0o640
    assert root.read(str(path)) == data
    assert [entry.name for entry in tmp_path.iterdir() if "it's a file." in entry.name] == []


def test_a_file_that_cannot_be_written_is_an_error(root, tmp_path):
    with pytest.raises(errors.CommandFailed, match="writing"):
        root.write(f"{tmp_path}/absent/file", b"x")
    with pytest.raises(errors.CommandFailed, match="reading"):
        root.read(f"{tmp_path}/absent")


# --- sudo -------------------------------------------------------------------------------

RULES = {
    "nopasswd": f"{USER} ALL=(ALL) NOPASSWD: ALL\n",
    "password": f"{USER} ALL=(ALL) ALL\nDefaults:{USER} timestamp_timeout=0\n",
    "remembered": f"{USER} ALL=(ALL) ALL\nDefaults:{USER} timestamp_type=global\n",
}
TERMINALS = {
    "plain": "",
    "use_pty": f"Defaults:{USER} use_pty\n",
    "requiretty": f"Defaults:{USER} requiretty\n",
}


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("tty", [True, False], ids=["tty", "notty"])
@pytest.mark.parametrize("rule", RULES)
def test_sudo_runs_commands_and_moves_files(sshd, enter, sudoers, tmp_path, rule, tty, terminal):
    if terminal == "requiretty" and not tty:
        pytest.skip("has a test of its own")
    sudoers(RULES[rule] + TERMINALS[terminal])
    sshd.start()
    with enter(sudo=True, tty=tty) as channel:
        assert channel.run("id -u", timeout=20).output == "0\n"
        assert channel.run("id -un", timeout=20, as_root=False).output == f"{USER}\n"
        assert channel.run("cat; exit 7", timeout=20).status == 7
        # Bytes that a terminal would echo, cut or take as a command.
        data = bytes(range(256)) * 40 + b"x" * 300_000 + b"\x03\x04\r\n"
        path = tmp_path / "file"
        channel.write(str(path), data, 0o600)
        assert path.read_bytes() == data
        assert path.stat().st_uid == 0
        assert channel.read(str(path)) == data
        result = channel.run("cat; echo after", timeout=20, stdin=b"line one\nline two\n")
        assert result.output == "line one\nline two\nafter\n"


@pytest.mark.parametrize("tty", [True, False], ids=["tty", "notty"])
@pytest.mark.parametrize("rule", RULES)
def test_the_sudo_password_shows_nowhere(sshd, enter, sudoers, rule, tty):
    sudoers(RULES[rule])
    sshd.start()
    with enter(sudo=True, tty=tty) as channel:
        result = channel.run(
            "cat; env; cat /proc/[0-9]*/cmdline | tr '\\0' ' '", timeout=20, stdin=b"payload\n"
        )
    assert result.output.startswith("payload\n")
    assert PASSWORD not in result.output + result.error + sshd.log


def test_a_sudo_password_of_its_own_is_used(sshd, enter, sudoers):
    sudoers(RULES["password"])
    sshd.start()
    with (
        enter(sudo=True, tty=False, sudo_password="wrong canary") as channel,
        pytest.raises(errors.LoginFailed, match="refused the password") as caught,
    ):
        channel.run("true", timeout=20)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("tty", [True, False], ids=["tty", "notty"])
def test_sudo_that_is_not_allowed_says_so(sshd, enter, sudoers, tty):
    sudoers("# nothing\n")
    sshd.start()
    with enter(sudo=True, tty=tty) as channel, pytest.raises(errors.LoginFailed) as caught:
        channel.run("true", timeout=20)
    assert "sudo" in caught.value.message


def test_requiretty_without_a_terminal_names_the_way_out(sshd, enter, sudoers):
    sudoers(RULES["nopasswd"] + TERMINALS["requiretty"])
    sshd.start()
    with enter(sudo=True, tty=False) as channel, pytest.raises(errors.LoginFailed) as caught:
        channel.run("true", timeout=20)
    assert re.search("tty: true", caught.value.hint)


def test_a_failing_command_is_quoted_without_its_secrets(root):
    result = root.run("echo some words; echo the hunter2secret >&2; exit 4", timeout=10)
    with pytest.raises(errors.CommandFailed, match="exit status 4") as caught:
        check(result, "trying", secrets=["hunter2secret"])
    assert "some words" in caught.value.message
    assert "hunter2secret" not in caught.value.message


def test_a_command_that_never_stops_to_speak_ends_in_time(root):
    started = time.monotonic()
    with pytest.raises(errors.CommandFailed, match="did not end in time"):
        root.run("while :; do echo word; sleep 0.001; done", timeout=1)
    assert time.monotonic() - started < 20


def test_a_daemon_that_goes_on_speaking_holds_nobody_up_for_ever(root, monkeypatch):
    monkeypatch.setattr(ssh, "OUTPUT_DRAIN_S", 1.0)
    started = time.monotonic()
    result = root.run(
        "( i=0; while [ $i -lt 15000 ]; do i=$((i+1)); echo word; sleep 0.001; done ) & exit 3",
        timeout=60,
    )
    assert result.status == 3
    assert time.monotonic() - started < 12
