"""
The first words with a guest's sshd: whether it is there, and whose door it is.

Nothing secret is said here. Everything that may pass with time raises :class:`NotReady`,
which :func:`saltext.kvmclone.guest.ssh.connect` answers by knocking again.
"""

from __future__ import annotations

import base64
import logging
import socket
import time
from collections.abc import Sequence
from typing import Any

from saltext.kvmclone import errors
from saltext.kvmclone.guest.channel import PublicKey

try:
    import paramiko
except ImportError:  # A master that never speaks ssh does without; `connect` says so.
    paramiko = None  # type: ignore[assignment]

#: paramiko logs each refused connection as an error with a traceback; while a guest
#: boots that is the ordinary case, and what matters we raise.
_TRANSPORT_LOG = "saltext.kvmclone.guest.ssh.transport"

#: Seconds between two knocks at a port that refuses.
KNOCK = 0.1
#: Seconds for sshd's greeting and key exchange once the port is open.
GREETING_TIMEOUT = 30.0
#: Seconds for the answer to a login.
LOGIN_TIMEOUT = 30.0
#: Seconds during which an sshd that hangs up on a login may still be starting.
STARTING = 20.0
#: Seconds during which an sshd may still show the keys that it is just being told to drop.
RELOADING = 3.0

_KEY_TYPES = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}


class NotReady(Exception):
    """
    sshd is not there, or not done starting: knock again.

    :cvar pause: Seconds until then.
    :cvar patience: Seconds for which this may go on.
    """

    pause = KNOCK
    patience = float("inf")

    def final(self, where: str) -> errors.KvmCloneError:
        """The error, if it stays like this."""
        return errors.ChannelError(
            f"no ssh login as {where} before the deadline; last: {self}",
            "Does sshd start in the base, and does a firewall let this machine in? "
            "With qemu-guest-agent in the base, bootstrap: agent needs neither.",
        )


class HungUp(NotReady):
    """The server closed the connection during the login."""

    # Each attempt counts against the user.
    pause = 1.0
    patience = STARTING

    def final(self, where: str) -> errors.KvmCloneError:
        """See :meth:`NotReady.final`."""
        return errors.LoginFailed(
            f"the guest hangs up on the login {where}: {self}",
            "Read the guest's log: journalctl -u ssh.",
        )


class Booting(NotReady):
    """The server lets nobody in yet, with the right password neither (pam_nologin)."""

    pause = 1.0


class OtherKey(NotReady):
    """The machine shows a host key that is none of the clone's."""

    pause = 0.5
    patience = RELOADING

    def final(self, where: str) -> errors.KvmCloneError:
        """See :meth:`NotReady.final`."""
        return errors.WrongGuest(
            f"the machine at {where} shows the host key {self}, which is none of the clone's",
            "Another machine holds that address (see who: ip neigh), or the guest's ssh host keys "
            "were changed since they were recorded. Nothing was sent to it.",
        )


def greet(address: str, port: int, deadline: float, wanted: Sequence[PublicKey] | None) -> Any:
    """A transport that has exchanged keys with the server."""
    left = max(deadline - time.monotonic(), 0.1)
    try:
        # Short: a guest that is not up yet swallows the first packets, and a fresh
        # attempt is seen sooner than the kernel's growing retries.
        sock = socket.create_connection((address, port), timeout=min(left, 2.0))
    except OSError as exc:
        raise NotReady(str(exc) or type(exc).__name__) from exc
    transport = None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A guest that vanished is noticed within this, not after the kernel's 15 min.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
        transport = paramiko.Transport(sock)
        logging.getLogger(_TRANSPORT_LOG).setLevel(logging.CRITICAL)
        transport.set_log_channel(_TRANSPORT_LOG)
        transport.banner_timeout = min(left, GREETING_TIMEOUT)
        transport.auth_timeout = LOGIN_TIMEOUT
        _prefer(transport, wanted)
        transport.start_client(timeout=min(left, GREETING_TIMEOUT))
        transport.get_remote_server_key()  # Raises where the time ran out silently.
        return transport
    except paramiko.ssh_exception.IncompatiblePeer as exc:
        sock.close()
        raise errors.ChannelError(
            f"the sshd at {address} port {port} and paramiko share no algorithm: {exc}",
            "Update sshd in the base, or use bootstrap: agent.",
        ) from exc
    except Exception as exc:  # paramiko hands on whatever a stranger's packets raise in it
        if transport is not None:
            transport.close()
        sock.close()
        raise NotReady(f"no greeting from sshd: {reason(exc)}") from exc


def reason(exc: Exception) -> str:
    """Why a connection ended, in a few words; those of an error of encoding may be secret."""
    expected = isinstance(exc, (paramiko.SSHException, EOFError, OSError))
    return (str(exc)[:300] if expected else "") or type(exc).__name__


def _prefer(transport: Any, wanted: Sequence[PublicKey] | None) -> None:
    """Ask for a key of a type that we can compare."""
    options = transport.get_security_options()
    first = [
        name
        for key in wanted or ()
        for name in _KEY_TYPES.get(key.type, ())
        if name in options.key_types
    ]
    if first:
        options.key_types = first + [name for name in options.key_types if name not in first]


def host_key(transport: Any, wanted: Sequence[PublicKey] | None) -> PublicKey:
    """
    The key that the server showed.

    :raises OtherKey: It is none of those wanted.
    """
    shown = transport.get_remote_server_key()
    seen = PublicKey(shown.get_name(), base64.b64encode(shown.asbytes()).decode())
    if wanted is not None and seen not in wanted:
        raise OtherKey(seen.fingerprint)
    return seen
