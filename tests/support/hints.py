"""Typing what a hint says, word by word, in a shell that knows our commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lab.common import CHECKOUT, LIBVIRT_URI
from lab.salt import Daemon, SaltWorld
from tests.support.world import minion_config

F = TypeVar("F", bound=Callable[..., Any])

#: How a command begins that a hint may name.
PROGRAMS = (
    "virsh", "salt-run", "salt-call", "salt-key", "salt-cloud", "salt", "rm", "ls", "fuser",
    "losetup", "findmnt", "qemu-img", "kill", "chmod", "journalctl", "systemctl", "df", "mv",
)  # fmt: skip

_COMMAND = re.compile(rf"(?:^|: |\. |, |\()((?:{'|'.join(PROGRAMS)}) .+)$")


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
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    systemctl: Callable[[str], None] | None = None

    def __call__(self, hint: str, *begins: str, exits: int = 0) -> str:
        """
        Type the commands of a hint, in its own order, as it gives them.

        :param begins: Only those that begin so, or end so; by default all of them.
        :param exits: The exit code that each of them must have.
        :return: All that was printed.
        """
        told = commands(hint)
        chosen = [
            one
            for one in told
            if not begins or any(one.startswith(b) or one.endswith(b) for b in begins)
        ]
        assert chosen, f"nothing to type in: {hint}"
        printed = ""
        for command in chosen:
            if command.startswith("systemctl ") and self.systemctl is not None:
                self.systemctl(command)
                continue
            done = subprocess.run(
                ["bash", "-c", command],
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
                env={
                    **os.environ,
                    **self.environment,
                    "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                },
            )
            assert done.returncode == exits, f"{command}: {done.stdout}{done.stderr}"
            printed += done.stdout
        return printed


def typist(folder: Path) -> Typist:
    """A shell for hints; everything that Salt writes stays below ``folder``."""
    programs = Path(sys.executable).parent
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
    call = f'exec {programs}/salt-call -c {minion} --local --out=json -l error "$@"'
    _programs(
        bin_,
        {
            "salt-call": call,
            "salt": f"shift; {call}",  # to the minion of this very machine
            "salt-run": f'exec {programs}/salt-run -c {master} --out=json -l error "$@"',
            "salt-key": f'exec {programs}/salt-key -c {master} -y "$@"',
        },
    )
    return Typist(folder)


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
    bin_, programs = folder / "bin", world.venv / "bin"
    bin_.mkdir(parents=True)
    there = world.minions[minion]
    json_ = "--out=json -l error"
    _programs(
        bin_,
        {
            "salt": f'exec {programs}/salt -c {world.conf} {json_} "$@"',
            "salt-run": f'exec {programs}/salt-run -c {world.conf} {json_} "$@"',
            "salt-key": f'exec {programs}/salt-key -c {world.conf} -y "$@"',
            "salt-call": f'exec {programs}/salt-call -c {there.conf} {json_} "$@"',
            "salt-cloud": f'exec {programs}/salt-cloud -c {world.conf} -y {json_} "$@"',
        },
    )
    return Typist(folder, world.environment("command"), Units(world, minion))


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
