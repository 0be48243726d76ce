"""
Fetch files that another machine offers (see :mod:`.export_folder`), by rsync over ssh.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from saltext.kvmclone import interrupts
from saltext.kvmclone.system import copy_folder, export_folder
from saltext.kvmclone.system.copying import die_with_parent

#: The name under which the other machine's host keys are known here, whatever its address.
_ALIAS = "kvm_clone-source"

_KEY, _KNOWN = "key", "known_hosts"

#: Seconds to wait for a connection; and how often to go on with a copy that was cut off, with
#: seconds in between.
CONNECT_TIMEOUT_S, TRIES, PAUSE_S = 10, 4, 10.0

#: What each program is part of, on Debian and on others.
PROGRAMS = {
    "rsync": ("rsync", "rsync"),
    "setpriv": ("util-linux", "util-linux"),
    "ssh": ("openssh-client", "openssh-clients"),
    "ssh-keygen": ("openssh-client", "openssh"),
}

#: Exit codes of rsync after which the same again may do: a broken connection, a timeout.
_CUT_OFF = (10, 12, 30, 35, 255)


class FetchFailed(Exception):
    """A file could not be fetched; the text says why."""


@dataclass(frozen=True)
class Source:
    """
    The machine to fetch from.

    :param copy: Id of the copy, whose folder here has its key.
    :param port: Of its ssh server.
    """

    copy: str
    user: str
    address: str
    port: int


def missing() -> list[str]:
    """Return the programs that fetching needs and this machine lacks."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def make_key(copy: str) -> str:
    """
    Make the key pair of a copy, and return its public half as ``TYPE BASE64``.

    :raises FetchFailed: It cannot be made.
    """
    path = copy_folder.path(copy, _KEY)
    for old in (path, f"{path}.pub"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(old)
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kvm_clone", "-f", path]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise FetchFailed(f"ssh-keygen failed: {_first(done.stderr)}")
    with open(f"{path}.pub", encoding="utf-8") as source:
        return " ".join(source.read().split()[:2])


def know(copy: str, host_keys: Iterable[str]) -> None:
    """
    Know the other machine by these keys alone.

    :raises OSError: They cannot be written.
    """
    with open(copy_folder.path(copy, _KNOWN), "w", encoding="utf-8") as target:
        target.writelines(f"{_ALIAS} {key}\n" for key in host_keys)


def answers(address: str, port: int) -> bool:
    """Return whether something takes connections at an address."""
    try:
        socket.create_connection((address, port), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def fetch(source: Source, name: str, path: str) -> None:
    """
    Fetch a file, or what is still missing of it; go on by itself after a broken connection.

    :param name: Under which it is offered.
    :param path: Where it goes; what is there is part of it, or is overwritten.
    :raises FetchFailed: It could not be fetched whole.
    """
    for attempt in range(1, TRIES + 1):
        code, said = _fetch_once(source, name, path)
        if code == 0:
            return
        given_up = not os.path.isdir(copy_folder.path(source.copy))  # somebody ended the copy
        if given_up or attempt == TRIES or code not in _CUT_OFF:
            raise FetchFailed(said or f"rsync ended with code {code}")
        interrupts.pause(PAUSE_S)


def try_out(source: Source, name: str, path: str) -> None:
    """
    Fetch a small file, once; see :func:`fetch`.

    :raises FetchFailed: It could not be fetched: this is another machine, or lets us not in.
    """
    code, said = _fetch_once(source, name, path)
    if code:
        raise FetchFailed(said or f"rsync ended with code {code}")


def _fetch_once(source: Source, name: str, path: str) -> tuple[int, str]:
    host = f"[{source.address}]" if ":" in source.address else source.address
    remote = f"{source.user}@{host}:{name}"
    words = ["rsync", *export_folder.OPTIONS, "-e", " ".join(_ssh(source)), remote, path]
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - one call of the C library, no lock
    ) as process:
        try:
            while True:
                interrupts.check()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    said = process.communicate(timeout=0.2)[1]
                    break
        except BaseException:
            process.kill()
            raise
    return process.returncode, _first(said)


def _ssh(source: Source) -> list[str]:
    folder = copy_folder.path(source.copy)
    options = {
        "IdentityFile": f"{folder}/{_KEY}",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": f"{folder}/{_KNOWN}",
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": _ALIAS,
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "BatchMode": "yes",
        "Port": str(source.port),
        "ConnectTimeout": str(CONNECT_TIMEOUT_S),
        "ServerAliveInterval": "15",
    }
    words = [
        "ssh",
        "-F",
        "/dev/null",
        "-x",
        *(f"-o{key}={value}" for key, value in options.items()),
    ]
    # rsync is two processes here. Where the first is killed, the other goes on as long as ssh does.
    return ["setpriv", "--pdeathsig", "KILL", *words]


def _first(said: bytes) -> str:
    """Return the line of a program's complaints that says why, which is the first as a rule."""
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    return lines[0].strip()[:300] if lines else ""
