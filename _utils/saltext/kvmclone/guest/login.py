"""
Getting past a guest's sshd: the private key, the ssh agent's keys, the password.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from saltext.kvmclone import errors
from saltext.kvmclone.guest import loginkey
from saltext.kvmclone.guest.greeting import Booting, HungUp, reason
from saltext.kvmclone.request import Login, Secrets

try:
    import paramiko
except ImportError:  # :func:`.ssh.connect` says so before it comes here.
    paramiko = None  # type: ignore[assignment]

#: Keys of an agent that are tried: sshd hangs up after six refusals (MaxAuthTries), and the
#: private key and the password want their turn too.
AGENT_KEYS_TRIED = 4

KEY, AGENT, PASSWORD = "key", "ssh agent", "password"


@dataclass(frozen=True, repr=False)
class Means:
    """
    One way to open the door.

    :param name: :data:`KEY`, :data:`AGENT` or :data:`PASSWORD`.
    :param show: Shows it to the server of a transport.
    """

    name: str
    show: Callable[[Any], object]


@contextmanager
def means(login: Login, secrets: Secrets, where: str) -> Iterator[list[Means]]:
    """
    Everything that the profile gives to open the door with, in the order to try it.

    :raises errors.LoginFailed: There is nothing, or it cannot be used.
    """
    found: list[Means] = []
    user = login.username
    agent = None
    if secrets.private_key:
        key = loginkey.load(secrets.private_key, secrets.private_key_passphrase)
        found.append(Means(KEY, partial(_show_key, user, key)))
    try:
        if login.ssh_agent:
            agent = paramiko.Agent()
            found += [
                Means(AGENT, partial(_show_key, user, held))
                for held in _agent_keys(agent, bool(found or secrets.password))
            ]
        if secrets.password:
            found.append(Means(PASSWORD, lambda to: to.auth_password(user, secrets.password)))
        if not found:
            raise errors.LoginFailed(
                f"there is neither a key nor a password to log in as {where}",
                "Set private_key, password or ssh_agent: true in the profile.",
            )
        yield found
    finally:
        if agent is not None:
            agent.close()


def _show_key(user: str, key: Any, transport: Any) -> None:
    transport.auth_publickey(user, key)


def _agent_keys(agent: Any, dispensable: bool) -> Sequence[Any]:
    """
    :param dispensable: There is something else to try.
    """
    held: Sequence[Any] = agent.get_keys()
    if held or dispensable:
        return held[:AGENT_KEYS_TRIED]
    if not os.environ.get("SSH_AUTH_SOCK"):
        raise errors.LoginFailed(
            "ssh_agent is set, and no ssh agent is known here: SSH_AUTH_SOCK is not set",
            "The agent is that of the process which talks to the guest: the minion on the KVM "
            "host, or salt-run itself where the provider names no host. A daemon has none "
            "unless its unit sets SSH_AUTH_SOCK; else use private_key.",
        )
    raise errors.LoginFailed(
        f"ssh_agent is set, and the ssh agent at {os.environ['SSH_AUTH_SOCK']} holds no key",
        "Add one: ssh-add KEYFILE",
    )


def enter(transport: Any, ways: Sequence[Means], where: str) -> str:
    """
    Log in.

    :returns: The name of the means that opened the door.
    :raises errors.LoginFailed: None did.
    :raises NotReady: The server lets nobody in yet.
    """
    for way in ways:
        try:
            way.show(transport)
        except paramiko.AuthenticationException as exc:
            _not_the_login(transport, exc)
        except Exception as exc:  # as in `greet`
            raise HungUp(reason(exc)) from exc
        if transport.is_authenticated():
            return way.name
    tried = " and ".join(dict.fromkeys(way.name for way in ways))
    raise errors.LoginFailed(
        f"the guest refused the login {where} (tried: {tried})",
        "Check ssh_username, password and private_key in the profile, and that the base's sshd "
        "allows them (PermitRootLogin, PasswordAuthentication).",
    )


def _not_the_login(transport: Any, exc: Exception) -> None:
    """Whether a refusal has another reason than what we showed; then knock again."""
    handler = getattr(transport, "auth_handler", None)
    said = getattr(handler, "banner", None) or b""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    if "booting up" in text or "not permitted to log in" in text:
        raise Booting(text.strip()[:300]) from exc
    if not transport.is_active():
        raise HungUp(str(exc)) from exc
