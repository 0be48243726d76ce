"""A user of this machine and an sshd for it, for the time of the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from saltext.kvmclone.guest import ssh
from saltext.kvmclone.model.request import Login, Secrets
from tests.support.sshd import PASSWORD, USER, Sshd, key_text


@pytest.fixture(scope="session")
def account() -> Iterator[str]:
    """An ordinary user of this machine, for the time of the tests."""
    if os.geteuid() != 0 or not shutil.which("sudo") or not os.path.exists("/usr/sbin/sshd"):
        pytest.skip("needs root, sudo and sshd")
    try:
        pwd.getpwnam(USER)
    except KeyError:
        subprocess.run(["useradd", "-m", "-s", "/bin/sh", USER], check=True)
    subprocess.run(["chpasswd"], input=f"{USER}:{PASSWORD}\n", text=True, check=True)
    yield USER
    # sshd's last session of the user may still be closing.
    for _ in range(50):
        done = subprocess.run(["userdel", "-r", USER], capture_output=True, check=False)
        if done.returncode != 8:
            break
        time.sleep(0.1)


@pytest.fixture
def sshd(tmp_path: Path, account: str) -> Iterator[Sshd]:
    server = Sshd(tmp_path)
    tmp_path.chmod(0o755)
    yield server
    server.stop()


@pytest.fixture
def sudoers() -> Iterator[Callable[[str], None]]:
    """Sets what sudo lets the account do, until the test is over."""
    path = Path("/etc/sudoers.d/kvmclone-test")

    def rule(text: str) -> None:
        path.touch(0o440)
        path.write_text(text)
        subprocess.run(["visudo", "-cqf", path], check=True)

    yield rule
    path.unlink(missing_ok=True)


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
