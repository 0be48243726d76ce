"""
Let one key into this machine's ssh server, for some time and one command, and take it out again.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import pwd
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass

from saltext.kvmclone.system import processes

#: Where the server is, which is in no user's ``PATH`` as a rule.
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin"

#: The values of ``PermitRootLogin`` that let a key with a command of its own in.
_LETS_ROOT_IN = ("yes", "without-password", "prohibit-password", "forced-commands-only")

#: Seconds for which a key is let in at least. It counts when a connection begins, not while that
#: lasts; but one begins for each file, after the one before was fetched and read.
KEY_LASTS_S = 1800

#: Bytes in a second that both take together on slow hosts.
_SLOWEST = 5 * 2**20


#: The server's keys where its configuration names none that we are told of.
_HOST_KEYS = [f"/etc/ssh/ssh_host_{kind}_key" for kind in ("ed25519", "ecdsa", "rsa")]

#: The only keys that are let in: those that :func:`.fetching.make_key` makes.
_PUBLIC = re.compile("ssh-ed25519 [A-Za-z0-9+/]+=*")


#: The word before the mark in the lines of a file of keys that was made for the first of them.
_MADE = "new-file"


class BadKey(Exception):
    """What another machine sent cannot be let in; the text says why."""


class NoAccess(Exception):
    """The server would let nobody in by a key; the text says why."""


@dataclass(frozen=True)
class Server:
    """
    This machine's ssh server, as it is configured.

    :param keys: The file of keys that log the user in.
    :param host_keys: The server's own public keys, ``TYPE BASE64``.
    :param limits_listening: It knows the option of a key that limits listening for others.
    :param makes_sockets: Whoever may forward ports can also have it make UNIX sockets.
    """

    user: str
    port: int
    keys: str
    host_keys: tuple[str, ...]
    limits_listening: bool = False
    makes_sockets: bool = False


def is_installed() -> bool:
    """Return whether this machine has an ssh server."""
    return shutil.which("sshd", path=_PATH) is not None


def look() -> Server:
    """
    Return how the user that this process runs as can be reached here.

    :raises NoAccess: The server cannot be asked, or lets no key of that user in.
    """
    user = pwd.getpwuid(os.geteuid())
    if not is_installed():
        raise NoAccess("no ssh server is installed")
    settings = _settings(user.pw_name)
    if "no" in settings.get("pubkeyauthentication", ["yes"]):
        raise NoAccess("its ssh server takes no keys (PubkeyAuthentication no)")
    permit = settings.get("permitrootlogin", ["no"])[0]
    if user.pw_uid == 0 and permit not in _LETS_ROOT_IN:
        raise NoAccess("its ssh server does not let root in (PermitRootLogin no)")
    named = " ".join(settings.get("authorizedkeysfile", [])).split()
    if not named or named[0] == "none":
        raise NoAccess("its ssh server reads no file of keys (AuthorizedKeysFile none)")
    tokens = {"%h": user.pw_dir, "%u": user.pw_name, "%U": str(user.pw_uid), "%%": "%"}
    keys = named[0]
    for token, value in tokens.items():
        keys = keys.replace(token, value)
    found = [_public(f"{path}.pub") for path in settings.get("hostkey", _HOST_KEYS)]
    if not any(found):
        raise NoAccess("its ssh server has no host key")
    return Server(
        user.pw_name,
        int(settings.get("port", ["22"])[0]),
        os.path.realpath(os.path.join(user.pw_dir, keys)),
        tuple(filter(None, found)),
        "permitlisten" in settings,
        settings.get("allowstreamlocalforwarding", ["yes"])[0] in ("yes", "all", "remote"),
    )


def look_as_relay() -> Server:
    """
    Return the same of a machine that others are to go through.

    :raises NoAccess: Likewise; or the server forwards no connections.
    """
    server = look()
    settings = _settings(server.user)
    if "yes" in settings.get("disableforwarding", []) or not (
        {"yes", "all", "local"} & set(settings.get("allowtcpforwarding", ["yes"]))
    ):
        raise NoAccess("its ssh server forwards no connections (AllowTcpForwarding)")
    if settings.get("permitopen", ["any"]) != ["any"]:
        raise NoAccess("its ssh server forwards only some connections (PermitOpen)")
    return server


def _settings(user: str) -> dict[str, list[str]]:
    """Return the server's settings for a user, by their names in lower case."""
    program = shutil.which("sshd", path=_PATH) or "sshd"
    words = [program, "-T", "-C", f"user={user},host=localhost,addr=127.0.0.1"]
    with tempfile.TemporaryDirectory() as folder:
        own = os.path.join(folder, "key")
        if os.geteuid():
            # Whoever may not read the server's private keys is told nothing without another one.
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own]
            subprocess.run(make, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            words += ["-h", own]
        settings = _told(words)
    others = [path for path in settings.pop("hostkey", []) if path != own]
    return {**settings, "hostkey": others} if others else settings


def _told(words: list[str]) -> dict[str, list[str]]:
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise NoAccess(f"its ssh server cannot be used: {said[-1] if said else 'it fails'}")
    settings: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _space, value = line.partition(" ")
        settings.setdefault(name.lower(), []).append(value.strip())
    return settings


def _public(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as source:
            return " ".join(source.read().split()[:2])
    except (OSError, UnicodeDecodeError):
        return ""


def addresses() -> tuple[str, ...]:
    """
    Return the addresses of this machine that others may reach.

    :raises NoAccess: They cannot be listed.
    """
    try:
        done = subprocess.run(
            ["ip", "-json", "address", "show", "up", "scope", "global"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )
        links = json.loads(done.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise NoAccess(f"its addresses cannot be listed (ip address): {error}") from error
    return tuple(
        address["local"]
        for link in links
        for address in link.get("addr_info", [])
        if address.get("local")
    )


def key_lasts(length: int) -> int:
    """
    Return the seconds for which a key must be let in.

    :param length: Bytes that are fetched with it.
    """
    return KEY_LASTS_S + length // _SLOWEST


def let_in(
    server: Server,
    public: str,
    mark: str,
    addresses: Iterable[str],
    command: str,
    seconds: float = KEY_LASTS_S,
    beyond: tuple[str, int] | None = None,
) -> None:
    """
    Let a key in for some seconds, from some addresses and for one command alone.

    Its line is the first, so that all others stay as they are, byte for byte.

    :param public: ``TYPE BASE64``; like the addresses another machine's word, and not trusted.
    :param mark: A word that ends the line, and by which :func:`shut_out` finds it.
    :param beyond: Address and port that its holder may connect to through this server.
    :raises BadKey: The key, or an address, is none; nothing was written.
    :raises OSError: The file cannot be written.
    """
    if not _PUBLIC.fullmatch(public):
        raise BadKey("it is no public key of the type ssh-ed25519")
    sources = ",".join(map(_address, addresses))
    if not sources:
        raise BadKey("it names no address to come from")
    forward = ""
    if beyond is not None:
        address = _address(beyond[0])
        host = f"[{address}]" if ":" in address else address
        forward = f'port-forwarding,permitopen="{host}:{beyond[1]}",'
        # Without a limit it might listen here, for whatever else connects to this machine.
        forward += 'permitlisten="localhost:1",' if server.limits_listening else ""
    until = time.strftime("%Y%m%d%H%M%S", time.localtime(time.time() + seconds))
    os.makedirs(os.path.dirname(server.keys), mode=0o700, exist_ok=True)
    with processes.name_lock(server.keys):
        there = _read(server.keys)
        ours = there is None or _has_made(there.splitlines())
        word = f"{_MADE} " if ours else ""
        line = (
            f'restrict,{forward}from="{sources}",expiry-time="{until}",'
            f'command="{command}" {public} {word}{mark}\n'
        )
        _write(server.keys, line.encode() + (there or b""))


def _address(text: str) -> str:
    """Return an address as it may stand in the line of a key."""
    try:
        # Behind a "%" Python takes anything for the name of a network card.
        return str(ipaddress.ip_address("" if "%" in text else text))
    except ValueError:
        raise BadKey(f"{text[:60]!r} is no address to come from") from None


def shut_out(keys: str, mark: str) -> bool:
    """
    Take the key with that mark out of a file of keys; return False where it is not in there.

    :raises OSError: The file cannot be written.
    """
    with processes.name_lock(keys):
        there = (_read(keys) or b"").splitlines(keepends=True)
        others = [line for line in there if not _has(line, mark)]
        if len(others) == len(there):
            return False
        if others or not _has_made(there):
            _write(keys, b"".join(others))
        else:
            os.unlink(keys)
    return True


def _has_made(lines: Iterable[bytes]) -> bool:
    """Return whether a line says that there was no such file before it."""
    return any(line.split()[-2:-1] == [_MADE.encode()] for line in lines)


def is_let_in(keys: str, mark: str) -> bool:
    """Return whether a file of keys has one with that mark."""
    return any(_has(line, mark) for line in (_read(keys) or b"").splitlines())


def _has(line: bytes, mark: str) -> bool:
    return line.split()[-1:] == [mark.encode()]


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as source:
            return source.read()
    except FileNotFoundError:
        return None


def _write(path: str, data: bytes) -> None:
    """Write the file whole or not at all, and leave it to whom it belongs."""
    draft = os.path.join(os.path.dirname(path), f".kvm_clone.{secrets.token_hex(8)}")
    try:
        with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as target:
            with contextlib.suppress(FileNotFoundError):  # it is a new file
                status = os.stat(path)
                os.fchown(target.fileno(), status.st_uid, status.st_gid)
                os.fchmod(target.fileno(), status.st_mode & 0o7777)
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
        os.replace(draft, path)
    finally:
        with contextlib.suppress(FileNotFoundError):  # it has the file's name now
            os.unlink(draft)
