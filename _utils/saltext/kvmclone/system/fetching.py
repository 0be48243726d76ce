"""
Fetch files that another machine offers (see :mod:`.export_folder`), by rsync over ssh.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from saltext.kvmclone import interrupts
from saltext.kvmclone.model.base_copy import Relay
from saltext.kvmclone.system import copy_folder, export_folder, programs

#: The names under which the host keys of the other machine, and of one that leads there, are known
#: here, whatever their addresses.
_ALIAS, _RELAY = "kvm_clone-source", "kvm_clone-relay"

_KEY, _KNOWN, _SETTINGS = "key", "known_hosts", "ssh_config"

#: Seconds in which a machine answers that is reached at all.
_REACH_TIMEOUT_S = 3.0

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
    :param through: The one that leads there, at the first of its addresses; None for none.
    """

    copy: str
    user: str
    address: str
    port: int
    through: Relay | None = None


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


def know(copy: str, host_keys: Iterable[str], relay: Relay | None = None) -> None:
    """
    Know the other machine by these keys alone, and the one that leads there by its own.

    :raises OSError: They cannot be written.
    """
    with open(copy_folder.path(copy, _KNOWN), "w", encoding="utf-8") as target:
        target.writelines(f"{_ALIAS} {key}\n" for key in host_keys)
        target.writelines(f"{_RELAY} {key}\n" for key in (relay.host_keys if relay else ()))


def reached(addresses: Iterable[str], port: int, own: Collection[str]) -> tuple[str, ...]:
    """
    Return at which of another machine's addresses its port takes connections from here.

    :param own: This machine's addresses: where two machines have the same, it is this one that
        answers.
    """
    others = [address for address in addresses if address not in own]
    if not others:
        return ()
    with ThreadPoolExecutor(len(others)) as pool:
        found = pool.map(lambda address: answers(address, port, _REACH_TIMEOUT_S), others)
        return tuple(address for address, answered in zip(others, found, strict=True) if answered)


def answers(address: str, port: int, timeout: float = CONNECT_TIMEOUT_S) -> bool:
    """
    Return whether something takes connections at an address.

    :param timeout: Seconds.
    """
    try:
        socket.create_connection((address, port), timeout).close()
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
    code, said = programs.run(words)
    return code, _first(said)


def _ssh(source: Source) -> list[str]:
    options = _options(source.copy, _ALIAS, source.port)
    settings = "/dev/null"
    if source.through is not None:
        # What is said on the command line does not count for the machine on the way.
        settings = _settings(source.copy, source.through)
        options["ProxyJump"] = _RELAY
    words = [
        "ssh",
        "-F",
        settings,
        "-x",
        *(f"-o{key}={value}" for key, value in options.items()),
    ]
    # rsync is two processes here. Where the first is killed, the other goes on as long as ssh does.
    return ["setpriv", "--pdeathsig", "KILL", *words]


def _options(copy: str, alias: str, port: int) -> dict[str, str]:
    """
    Return the options of ssh for one machine.

    :param alias: The name under which its host keys are known.
    """
    return {
        "IdentityFile": copy_folder.path(copy, _KEY),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": copy_folder.path(copy, _KNOWN),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": alias,
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "BatchMode": "yes",
        "Port": str(port),
        "ConnectTimeout": str(CONNECT_TIMEOUT_S),
        "ServerAliveInterval": "15",
    }


def _settings(copy: str, relay: Relay) -> str:
    """Write the settings of ssh for the machine on the way; return the path."""
    options = {"HostName": relay.addresses[0], "User": relay.user}
    options |= _options(copy, _RELAY, relay.port)
    path = copy_folder.path(copy, _SETTINGS)
    with open(path, "w", encoding="utf-8") as target:
        target.write(f"Host {_RELAY}\n")
        target.writelines(f"  {key} {value}\n" for key, value in options.items())
    return path


def _first(said: bytes) -> str:
    """Return the line of a program's complaints that says why, which is the first as a rule."""
    # ssh puts its loudest warnings into frames.
    lines = [line.strip("@ \t") for line in said.decode(errors="replace").splitlines()]
    return next((line[:300] for line in lines if line), "")
