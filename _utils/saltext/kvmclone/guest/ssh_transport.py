"""
Reach a guest's sshd: connect, check its host key, and only then log in.

Every failure that may pass with time raises :class:`NotReady`;
:func:`saltext.kvmclone.guest.ssh.connect` tries again.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import paramiko
from paramiko.auth_strategy import AuthStrategy  # paramiko 3.2

from saltext.kvmclone import errors
from saltext.kvmclone.guest.channel import PublicKey

#: Seconds for one attempt to connect. A guest that is not up yet swallows the first packets, and
#: a fresh attempt is seen sooner than the kernel's growing retries.
CONNECT_TIMEOUT_S = 2.0
#: Seconds for sshd's banner and the key exchange once the port is open.
KEY_EXCHANGE_TIMEOUT_S = 30.0

#: What paramiko raises when a connection breaks.
CONNECTION_ERRORS = (paramiko.SSHException, EOFError, OSError)

#: Names under which a key exchange asks for a host key, if not by the key's type.
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}

#: paramiko logs each refused connection as an error with a traceback. While a guest boots that
#: is the ordinary case, and what matters is raised.
_LOG = "saltext.kvmclone.guest.ssh.transport"
logging.getLogger(_LOG).setLevel(logging.CRITICAL)


class NotReady(Exception):
    """
    sshd does not answer, or has not finished starting: try again.

    :cvar pause_s: Seconds until the next attempt.
    :cvar grace_s: Seconds for which this may go on.
    :cvar error: The error to raise if it goes on for longer, with ``message`` and ``hint``.
    """

    pause_s, grace_s = 0.1, float("inf")
    error: type[errors.KvmCloneError] = errors.ChannelError
    message = "no ssh login as {where} before the deadline; last: {reason}"
    hint = (
        "Does sshd start in the base, and does a firewall let this machine in? "
        "With qemu-guest-agent in the base, bootstrap: agent needs neither."
    )

    def final(self, where: str) -> errors.KvmCloneError:
        """
        Return the error to raise if it stays like this.

        :param where: USER@ADDRESS, for the message.
        """
        return self.error(self.message.format(where=where, reason=self), self.hint)


class LoginsDisabled(NotReady):
    """The server lets nobody log in yet, not even with the right password (pam_nologin)."""

    pause_s = 1.0


class Disconnected(NotReady):
    """The server closed the connection during the login: it may still be starting."""

    pause_s, grace_s = 1.0, 20.0  # each attempt counts against the user
    error = errors.LoginFailed
    message = "the guest closes the connection at the login {where}: {reason}"
    hint = "In the guest: journalctl -u ssh"


class HostKeyMismatch(NotReady):
    """The machine shows a host key that is not one of the clone's, or not yet."""

    pause_s, grace_s = 0.5, 3.0
    error = errors.WrongGuest
    message = "the machine at {where} shows the host key {reason}, which is not one of the clone's"
    hint = (
        "Another machine holds that address (see who: ip neigh), or the guest's ssh host keys "
        "were changed since they were recorded. Nothing was sent to it."
    )


class HostKeyPolicy(paramiko.MissingHostKeyPolicy):
    """
    A policy that accepts a pinned host key, or, if none is pinned, one that nobody objects to.

    SSHClient's own list of known keys asks only for the type of the first one.

    :param pinned: The keys of which the server must show one; None for any.
    :param vet: Called with the key if none is pinned; it raises an error if it objects.
    :ivar shown: The key that the server showed; None until then.
    """

    def __init__(
        self, pinned: Sequence[PublicKey] | None, vet: Callable[[PublicKey], None] | None
    ) -> None:
        self.pinned = pinned
        self.vet = vet
        self.shown: PublicKey | None = None

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        """
        Check the key that the server shows; SSHClient logs in only after this returns.

        :raises HostKeyMismatch: It is not one of the pinned keys.
        """
        self.shown = PublicKey(key.get_name(), key.get_base64())
        if self.pinned is not None and self.shown not in self.pinned:
            raise HostKeyMismatch(self.shown.fingerprint)
        if self.pinned is None and self.vet is not None:
            self.vet(self.shown)

    def transport(self, sock: Any, **options: Any) -> paramiko.Transport:
        """Return a transport that asks for the pinned keys' types first."""
        transport = paramiko.Transport(sock, **options)
        security = transport.get_security_options()
        wanted = [
            name
            for key in self.pinned or ()
            for name in _ALGORITHMS.get(key.type, (key.type,))
            if name in security.key_types
        ]
        security.key_types = tuple(dict.fromkeys([*wanted, *security.key_types]))
        return transport


def log_in(
    address: str, port: int, policy: HostKeyPolicy, strategy: AuthStrategy, deadline: float
) -> paramiko.SSHClient:
    """
    Try once to log in.

    :param deadline: On the clock of ``time.monotonic()``.
    :raises NotReady: It may work later.
    :raises errors.KvmCloneError: It never will; or what the policy and the strategy raise.
    """
    left = max(deadline - time.monotonic(), 0.1)
    try:
        sock = socket.create_connection((address, port), timeout=min(left, CONNECT_TIMEOUT_S))
    except OSError as exc:
        raise NotReady(str(exc) or type(exc).__name__) from exc
    timeout = min(left, KEY_EXCHANGE_TIMEOUT_S)
    client = paramiko.SSHClient()
    client.set_log_channel(_LOG)
    client.set_missing_host_key_policy(policy)
    policy.shown = None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A guest that vanished is noticed within 30 s, not after the kernel's 15 min.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
        client.connect(
            address,
            port,
            username="",  # the strategy knows it
            sock=sock,
            timeout=timeout,
            banner_timeout=timeout,
            transport_factory=policy.transport,
            auth_strategy=strategy,
        )
        return client
    except BaseException as exc:
        client.close()
        sock.close()
        if policy.shown is not None or not isinstance(exc, Exception):
            raise
        if isinstance(exc, paramiko.ssh_exception.IncompatiblePeer):
            raise errors.ChannelError(
                f"the sshd at {address} port {port} and paramiko share no algorithm: {exc}",
                "Update sshd in the base, or use bootstrap: agent.",
            ) from exc
        # paramiko passes on whatever odd packets raise in it.
        raise NotReady(f"no greeting from sshd: {reason(exc)}") from exc


def reason(exc: Exception) -> str:
    """
    Return in a few words why a connection ended, never the text of an encoding error.

    That text could hold a secret.
    """
    return (str(exc)[:300] if isinstance(exc, CONNECTION_ERRORS) else "") or type(exc).__name__
