"""Typing what a hint says, word by word, in a shell that knows our commands."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lab import programs
from lab.common import CHECKOUT, LIBVIRT_URI
from lab.programs import Programs
from lab.salt import Answer, Daemon, SaltWorld
from saltext.kvmclone.errors import KvmCloneError
from tests.support.world import minion_config

#: The variable with the number of the socket from which :data:`TYPED` has its programs.
FORKS = "KVMCLONE_FORKS"
TYPED = CHECKOUT / "lab/typed.py"

F = TypeVar("F", bound=Callable[..., Any])

#: How a command begins that a hint may name.
PROGRAMS = (
    "virsh", "salt-run", "salt-call", "salt-key", "salt-cloud", "salt", "rm", "ls", "fuser",
    "losetup", "findmnt", "qemu-img", "kill", "chmod", "journalctl", "systemctl", "df", "mv",
    "libvirtd", "mkdir", "tail", "ssh", "ip",
)  # fmt: skip

#: A program, or the ssh of a url that names one of its own.
_COMMAND = re.compile(rf"(?:^|: |[.?] |, |\()((?:{'|'.join(PROGRAMS)}|/\S+/ssh) .+)$")


def commands(hint: str) -> list[str]:
    """The commands in a hint: each stands at the end of a part, and three spaces end a part."""
    parts = re.split(r" {3,}", hint)
    return [found[1] for part in parts if (found := _COMMAND.search(part))]


@dataclass(frozen=True)
class Typist:
    """
    Runs commands with our doors on the path: a masterless minion and a master.

    :param environment: More variables for the commands.
    :param systemctl: What carries out ``systemctl``.
    :param forks: What Salt's programs are forked from; None where each starts by itself.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    systemctl: Callable[[str], None] | None = None
    forks: Programs | None = None

    def __call__(self, hint: str, *begins: str, exits: int = 0) -> str:
        """
        Type the commands of a hint, in its own order, as it gives them.

        :param begins: Only those that begin so, or end so, or have it in a job on the KVM host; by
            default all of them.
        :param exits: The exit code that each of them must have.
        :return: All that was printed.
        """
        return "".join(self._type(command, exits) for command in self._chosen(hint, begins))

    def _chosen(self, hint: str, begins: tuple[str, ...]) -> list[str]:
        chosen = [
            one
            for one in commands(hint)
            if not begins
            or any(
                re.search(rf"(^|'|cmd.run ){re.escape(b)}|{re.escape(b)}'?$", one) for b in begins
            )
        ]
        assert chosen, f"nothing to type in: {hint}"
        return chosen

    def _type(self, command: str, exits: int) -> str:
        if command.startswith("systemctl ") and self.systemctl is not None:
            self.systemctl(command)
            return ""
        done = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=self._environment(),
            pass_fds=[self.forks.number] if self.forks else [],
        )
        assert done.returncode == exits, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def _environment(self) -> dict[str, str]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        forks = {FORKS: str(self.forks.number)} if self.forks else {}
        return {**os.environ, **self.environment, **forks, "PATH": path}

    def edit(self, hint: str, change: str) -> None:
        """
        Type a command that opens an editor, and change the text there.

        :param change: What ``sed`` makes of it.
        """
        editor = self.folder / "editor"
        editor.write_text(f'#!/bin/sh\nexec sed -i -E {shlex.quote(change)} "$1"\n')
        editor.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EDITOR", str(editor))
            patch.setenv("VISUAL", str(editor))
            printed = self(hint)
        assert "edited" in printed, printed

    def console(self, hint: str, begins: str) -> str:
        """Type a command that opens a console, on a terminal, and leave it as virsh says."""
        (command,) = self._chosen(hint, (begins,))
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvpe("bash", ["bash", "-c", command], self._environment())
        seen, typed, deadline = b"", 0.0, time.monotonic() + 60
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                try:
                    seen += os.read(terminal, 4096)
                except OSError:  # the program has ended
                    break
            # Until virsh has taken the terminal over, what is typed is only echoed.
            if b"Escape character" in seen and time.monotonic() > typed + 1:
                typed = time.monotonic()
                os.write(terminal, b"\x1d")
        else:
            os.kill(pid, signal.SIGKILL)
        os.close(terminal)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert (status, b"Connected to domain" in seen) == (0, True), f"{command}: {seen!r}"
        return seen.decode(errors="replace")


def typist(folder: Path) -> Typist:
    """A shell for hints; everything that Salt writes stays below ``folder``."""
    venv = Path(sys.prefix)
    minion, master, bin_ = folder / "minion.d", folder / "master.d", folder / "bin"
    for one in (minion, master, bin_, master / "cache/proc"):
        one.mkdir(parents=True)
    config = minion_config(minion)
    (minion / "minion").write_text(json.dumps(config))
    (master / "master").write_text(
        json.dumps(
            {
                **{
                    key: value.replace(str(minion), str(master))
                    if isinstance(value, str)
                    else value
                    for key, value in config.items()
                    if key not in ("id", "file_client")
                },
                "conf_file": str(master / "master"),
                "sock_dir": str(master / "sock"),
                "module_dirs": [str(CHECKOUT)],
                "kvm_clone": {"providers": {"here": {"driver": "libvirt", "url": LIBVIRT_URI}}},
            }
        )
    )
    call = line(venv, "salt-call", f"-c {minion} --local --out=json -l error")
    # The exit code is that of the command, as it is salt's own.
    passed = '--local --id="$id" --retcode-passthrough'
    _programs(
        bin_,
        {
            "salt-call": call,
            # To the minion of this very machine, whatever it is called.
            "salt": f"id=$1; shift; {call.replace('--local', passed)}",
            # A host that has the minion's name.
            "ssh": 'test "$1" = -t || exec /usr/bin/ssh "$@"; shift 2; exec sh -c "$*"',
            "salt-run": line(venv, "salt-run", f"-c {master} --out=json -l error"),
            "salt-key": line(venv, "salt-key", f"-c {master} -y"),
        },
    )
    return Typist(folder, forks=programs.of(venv, CHECKOUT / "_utils"))


@dataclass(frozen=True)
class Units:
    """
    Salt's units of a machine, which systemd would start; here nothing but the lab does.

    :param minion: The minion that is ``salt-minion`` there.
    """

    world: SaltWorld
    minion: str

    def __call__(self, command: str) -> None:
        """Carry out ``systemctl start|restart salt-master|salt-minion``."""
        _, verb, unit = command.split()
        daemon = {"salt-master": self.world.master, "salt-minion": self._minion}[unit]
        if verb == "restart":
            self.world.stop(daemon)
        if daemon.process is not None:
            return
        if unit == "salt-master":
            self.world.start_master()
        else:
            accepted = self.world.folder / "pki/master/minions" / self.minion
            self.world.start_minion(self.minion, accepted.exists())

    @property
    def _minion(self) -> Daemon:
        return self.world.minions[self.minion]


def typist_of(world: SaltWorld, folder: Path, minion: str = "kvm01") -> Typist:
    """
    A shell on the machine of a master and one of its minions.

    :param minion: The one that ``salt-call`` is for, and systemd's ``salt-minion``.
    """
    bin_, venv = folder / "bin", world.venv
    bin_.mkdir(parents=True)
    there = world.minions[minion]
    json_ = "--out=json -l error"
    _programs(
        bin_,
        {
            "salt": line(venv, "salt", f"-c {world.conf} {json_}"),
            "salt-run": line(venv, "salt-run", f"-c {world.conf} {json_}"),
            "salt-key": line(venv, "salt-key", f"-c {world.conf} -y"),
            "salt-call": line(venv, "salt-call", f"-c {there.conf} {json_}"),
            "salt-cloud": line(venv, "salt-cloud", f"-c {world.conf} -y {json_}"),
        },
    )
    units = Units(world, minion)
    return Typist(folder, world.environment("command"), units, world.forks)


def line(venv: Path, program: str, words: str) -> str:
    """
    A line of the shell that is a program of Salt with the words that the line is given.

    :param words: Words that stand before those.
    """
    forked = f"${{{FORKS}:+{venv}/bin/python -IS {TYPED} ${FORKS}}}"
    return f'exec {forked} {venv}/bin/{program} {words} "$@"'


def _programs(folder: Path, lines: dict[str, str]) -> None:
    for name, line in lines.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)


def tries(*_sites: str) -> Callable[[F], F]:
    """
    Mark the test that types the commands of these hints; ``tests/unit/test_hints.py`` reads it.

    :param _sites: ``FILE.FUNCTION`` of the library, where the hint is written.
    """
    return lambda test: test


def hint(kind: type[KvmCloneError], work: Callable[[], object], words: str | None = None) -> str:
    """What the error says to do; with ``words`` it has to be the one that says these."""
    with pytest.raises(kind, match=words) as info:
        work()
    return str(info.value.hint)


def before(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, happens: Callable[[], object]
) -> None:
    """Let somebody do something just before a step of the create, once."""
    real = getattr(module, name)

    def step(*arguments: Any) -> Any:
        monkeypatch.setattr(module, name, real)
        happens()
        return real(*arguments)

    monkeypatch.setattr(module, name, step)


def error_of(answer: Answer) -> dict[str, str]:
    """The one error of a runner's answer."""
    assert answer.retcode == 1, answer
    (told,) = answer.data["clones"].values() if "clones" in answer.data else [answer.data]
    error: dict[str, str] = told["error"]
    return error
