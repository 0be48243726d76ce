"""
Log in to a guest's sshd with the private key, the keys of an ssh agent, or the password.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import Literal, NamedTuple

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from paramiko.auth_strategy import (  # paramiko 3.2
    AuthSource,
    AuthStrategy,
    InMemoryPrivateKey,
    Password,
    SourceResult,
)

from saltext.kvmclone import errors
from saltext.kvmclone.guest import login_key
from saltext.kvmclone.guest.ssh_transport import Disconnected, LoginsDisabled, reason
from saltext.kvmclone.model.request import Login, Secrets

#: Keys of an ssh agent that are tried: sshd disconnects after six refusals (MaxAuthTries), and
#: the private key and the password count too.
AGENT_KEYS_TRIED = 4


class AuthMethod(NamedTuple):
    """One way to log in."""

    name: Literal["key", "ssh agent", "password"]
    source: AuthSource


class LoginStrategy(AuthStrategy):
    """
    A login that tries one method after the other.

    Not with the loop of :class:`AuthStrategy`: that takes the first of two factors for a success,
    and goes on to the password after a key was refused only because the guest is still booting.

    :param methods: In the order to try them.
    :param where: USER@ADDRESS, for messages.
    :ivar used: The name of the method that the guest accepted.
    """

    def __init__(self, methods: Sequence[AuthMethod], where: str) -> None:
        super().__init__(paramiko.SSHConfig())
        self.methods = methods
        self.where = where
        self.used = ""

    def get_sources(self) -> Iterator[AuthSource]:
        """Yield what to log in with, in the order to try it."""
        return (method.source for method in self.methods)

    def authenticate(self, transport: paramiko.Transport) -> list[SourceResult]:
        """
        Log in; called by SSHClient once the host key was accepted.

        :raises errors.LoginFailed: The guest refused every method.
        :raises NotReady: The guest lets nobody log in yet.
        """
        for method in self.methods:
            try:
                method.source.authenticate(transport)
            except paramiko.AuthenticationException as exc:
                _require_refusal(transport, exc)
            except Exception as exc:  # paramiko passes on whatever odd packets raise in it
                raise Disconnected(reason(exc)) from exc
            if transport.is_authenticated():
                self.used = method.name
                return [SourceResult(method.source, [])]
        tried = " and ".join(dict.fromkeys(method.name for method in self.methods))
        raise errors.LoginFailed(
            f"the guest refused the login {self.where} (tried: {tried})",
            "Check ssh_username, password and private_key in the profile, and that the base's "
            "sshd allows them (PermitRootLogin, PasswordAuthentication).",
        )


def _require_refusal(transport: paramiko.Transport, exc: Exception) -> None:
    """Raise :class:`NotReady` if a login failed for another reason than wrong credentials."""
    # Not get_banner(), which forgets it together with the connection.
    banner = getattr(transport.auth_handler, "banner", None) or b""
    text = banner.decode("utf-8", "replace") if isinstance(banner, bytes) else str(banner)
    if "booting up" in text or "not permitted to log in" in text:
        raise LoginsDisabled(text.strip()[:300]) from exc
    if not transport.is_active():
        raise Disconnected(str(exc)) from exc


@contextmanager
def strategy(login: Login, secrets: Secrets, where: str) -> Iterator[LoginStrategy]:
    """
    Provide everything that the profile gives to log in with; the ssh agent stays open.

    :param where: USER@ADDRESS, for messages.
    :raises errors.LoginFailed: There is nothing, or it cannot be used.
    """
    user = login.username
    methods: list[AuthMethod] = []
    if secrets.private_key:
        key = _paramiko_key(secrets.private_key, secrets.private_key_passphrase)
        methods.append(AuthMethod("key", InMemoryPrivateKey(user, key)))
    with closing(paramiko.Agent()) if login.ssh_agent else nullcontext() as agent:
        if agent is not None:
            methods += [
                AuthMethod("ssh agent", InMemoryPrivateKey(user, held))
                for held in _agent_keys(agent, optional=bool(methods or secrets.password))
            ]
        if secrets.password:
            methods.append(AuthMethod("password", Password(user, lambda: secrets.password)))
        if not methods:
            raise errors.LoginFailed(
                f"there is neither a key nor a password to log in as {where}",
                "Set private_key, password or ssh_agent: true in the profile.",
            )
        yield LoginStrategy(methods, where)


def _paramiko_key(text: str, passphrase: str) -> paramiko.PKey:
    key = login_key.read(text, passphrase)
    openssh = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    cls: type[paramiko.PKey] = paramiko.Ed25519Key
    if isinstance(key, rsa.RSAPrivateKey):
        cls = paramiko.RSAKey
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        cls = paramiko.ECDSAKey
    return cls.from_private_key(io.StringIO(openssh.decode()))


def _agent_keys(agent: paramiko.Agent, *, optional: bool) -> Sequence[paramiko.AgentKey]:
    """
    Return the ssh agent's keys to try.

    :param optional: Whether there is another method to try.
    :raises errors.LoginFailed: There is none, and no other method.
    """
    held = agent.get_keys()
    if held or optional:
        return held[:AGENT_KEYS_TRIED]
    if not os.environ.get("SSH_AUTH_SOCK"):
        raise errors.LoginFailed(
            "ssh_agent is set, but there is no ssh agent here: SSH_AUTH_SOCK is not set",
            "The agent is that of the process which talks to the guest: the minion on the KVM "
            "host, or salt-run itself where the provider names no host. A daemon has none "
            "unless its unit sets SSH_AUTH_SOCK; otherwise use private_key.",
        )
    raise errors.LoginFailed(
        f"ssh_agent is set, but the ssh agent at {os.environ['SSH_AUTH_SOCK']} holds no key",
        "Add one: ssh-add KEYFILE",
    )
