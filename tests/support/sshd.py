"""A real sshd on a free loopback port, with keys of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from saltext.kvmclone.guest import hostkeys
from saltext.kvmclone.guest.channel import PublicKey

USER = "kvmclone-test"
PASSWORD = "canary pass'word $1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Sshd:
    """
    :param folder: Its configuration, keys and log.
    :param port: Where it listens, once started.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    options: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.host_keys: list[PublicKey] = []
        for key in hostkeys.generate():
            path = self.folder / f"host_{key.kind}"
            path.touch(0o600)
            path.write_text(key.private)
            self.host_keys.append(key.public)

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def authorize(self, public: str) -> None:
        with (self.folder / "authorized_keys").open("a") as file:
            file.write(public.strip() + "\n")

    def start(self, *before: str) -> None:
        """
        :param before: Words of a command that executes what follows them.
        """
        settings = {
            "Port": str(self.port),
            "ListenAddress": "127.0.0.1",
            "PidFile": str(self.folder / "pid"),
            "AuthorizedKeysFile": str(self.folder / "authorized_keys"),
            "StrictModes": "no",
            "UsePAM": "yes",
            "PermitRootLogin": "prohibit-password",
            "PasswordAuthentication": "yes",
            "LogLevel": "VERBOSE",
            "Subsystem": "sftp internal-sftp",
            **self.options,
        }
        lines = [f"{key} {value}" for key, value in settings.items()]
        lines += [f"HostKey {self.folder}/host_{kind}" for kind in ("ed25519", "ecdsa", "rsa")]
        (self.folder / "config").write_text("\n".join(lines) + "\n")
        os.makedirs("/run/sshd", exist_ok=True)
        self.process = subprocess.Popen(
            [*before, "/usr/sbin/sshd", "-D", "-f", self.folder / "config"]
            + ["-E", self.folder / "log"]
        )

    @property
    def connections(self) -> int:
        """How many there were so far."""
        return self.log.count("Connection from ")

    def wait(self) -> None:
        for _ in range(100):
            if "Server listening" in self.log:
                return
            time.sleep(0.05)
        raise AssertionError(f"sshd does not listen: {self.log}")

    def sessions(self) -> list[int]:
        """The pids of the processes that serve a connection each."""
        assert self.process is not None
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in path.read_text().split()]

    def stop(self) -> None:
        if self.process is not None:
            for pid in self.sessions():
                with suppress(ProcessLookupError):  # it has just ended by itself
                    os.kill(pid, 9)
            self.process.terminate()
            self.process.wait(10)
            self.process = None


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
