"""Channels into this machine: the scripts really run, with a folder in place of ``/``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from saltext.kvmclone.guest.channel import Channel, Result, with_path

SHELLS = {
    name: command
    for name, command in {
        "dash": ["dash"],
        "bash": ["bash", "--posix"],
        "busybox": ["busybox", "sh"],
    }.items()
    if shutil.which(command[0])
}


class Guest(Channel):
    """
    A channel whose guest is a folder.

    :param root: The folder.
    :param shell: The command of the shell that plays ``/bin/sh``.
    """

    name = "agent"

    def __init__(self, root: Path, shell: list[str]) -> None:
        self.root = root
        self.shell = shell
        self.calls = 0
        self.tools = root / ".tools"
        self.tools.mkdir()
        self.environment = {**os.environ, "KVM_CLONE_ROOT": str(root)}

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held."""

    def run(
        self,
        command: str,
        *,
        timeout: float,
        stdin: bytes | None = None,
        as_root: bool = True,
    ) -> Result:
        self.calls += 1
        shell = " ".join(self.shell)
        # Our tools before the system's: they record what would reach this machine.
        text = with_path(command.replace("/bin/sh", shell)).replace("PATH=", f"PATH={self.tools}:")
        done = subprocess.run(
            [*self.shell, "-c", text],
            input=stdin or b"",
            capture_output=True,
            timeout=timeout,
            env=self.environment,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def tool(self, name: str, status: int = 0) -> None:
        """Put a command in place that only notes how it was called."""
        path = self.tools / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.root}/.called\nexit {status}\n')
        path.chmod(0o755)

    @property
    def services(self) -> list[str]:
        """What the service manager was asked for."""
        path = self.root / ".called"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if not line.startswith("restorecon")]

    def put(self, path: str, text: str = "", mode: int = 0o644) -> Path:
        """A file of the guest."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def text(self, path: str) -> str:
        """What a file of the guest holds."""
        return (self.root / path.lstrip("/")).read_text()

    def has(self, path: str) -> bool:
        """Whether the guest has that file."""
        return os.path.lexists(self.root / path.lstrip("/"))


@pytest.fixture(params=SHELLS)
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Guest:
    """An empty guest, once per shell; nothing of it reaches this machine's systemd."""
    made = Guest(tmp_path, SHELLS[request.param])
    for name in ("systemctl", "restorecon", "salt-minion"):
        made.tool(name)
    (tmp_path / "etc").mkdir()
    made.put("/proc/sys/kernel/hostname", "old-name\n")
    return made
