"""Every way into a real sshd."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from saltext.kvmclone import errors
from saltext.kvmclone.guest import ssh, ssh_transport
from saltext.kvmclone.model.request import Login, Secrets
from tests.support.sshd import PASSWORD, USER, Sshd, free_port, key_text

pytestmark = pytest.mark.slow

pytest.importorskip("paramiko")


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
