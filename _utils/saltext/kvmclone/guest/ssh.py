"""
SSH as a channel: one connection per guest, many commands over it.

:func:`connect` waits for the guest's sshd and enters; :class:`SshChannel` runs commands.
How a command gets its root rights, and how its input gets past sudo and a terminal, is
in :mod:`saltext.kvmclone.guest.sudo`.
"""

from __future__ import annotations

import base64
import logging
import select
import socket
import time
from collections.abc import Sequence
from typing import Any

from saltext.kvmclone import errors
from saltext.kvmclone.guest import loginkey, sudo
from saltext.kvmclone.guest.channel import PublicKey, Result, ShellFiles, timed_out, with_path
from saltext.kvmclone.request import Login, Secrets

try:
    import paramiko
except ImportError:  # A master that never speaks ssh does without.
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
#: Seconds for output that follows the exit of a command. A daemon that the command
#: started may hold the stream open for ever.
LINGER = 0.3
#: Status of a command that some signal ended; paramiko does not tell which.
_KILLED = 128

_KEY_TYPES = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}


def connect(
    address: str,
    login: Login,
    secrets: Secrets,
    *,
    deadline: float,
    host_keys: Sequence[PublicKey] | None = None,
    passphrase: str = "",
) -> SshChannel:
    """
    Wait for the guest's sshd and log in.

    Tried in this order, as far as given: the private key, the password (also where the
    server asks for it in a dialogue); with neither, the keys of a running ssh agent.

    :param address: IPv4 or IPv6 address of the guest.
    :param login: User, port, sudo, tty.
    :param secrets: Password, sudo password, contents of the private key.
    :param deadline: When to give up waiting, on the clock of ``time.monotonic()``.
    :param host_keys: The keys that the guest is known to have; it must show one of them.
        None: the key seen at first contact is recorded (:attr:`SshChannel.host_key`).
    :param passphrase: Of the private key.
    :raises errors.MissingPackage: No paramiko.
    :raises errors.LoginFailed: The guest answered and refused, or the key is unusable.
    :raises errors.WrongGuest: It showed another host key.
    :raises errors.ChannelError: No sshd until the deadline.
    """
    if paramiko is None:
        raise errors.MissingPackage(
            "the ssh channel needs the Python package paramiko",
            "Install it on the machine that talks to the guest: salt-pip install paramiko",
        )
    where = f"{login.username}@{address} port {login.port}"
    key = loginkey.load(secrets.private_key, passphrase) if secrets.private_key else None
    wanted = None if host_keys is None else list(host_keys)
    patience: dict[type[_NotReady], float] = {}
    while True:
        try:
            transport = _greet(address, login.port, deadline, wanted)
            try:
                seen = _host_key(transport, wanted)
                _log_in(transport, login, secrets, key, where)
            except BaseException:
                transport.close()
                raise
            return SshChannel(transport, seen, login, secrets, where)
        except _NotReady as exc:
            now = time.monotonic()
            last = patience.setdefault(type(exc), now + exc.patience)
            if now > min(last, deadline - exc.pause):
                raise exc.final(where) from exc
            time.sleep(exc.pause)


class _NotReady(Exception):
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


class _HungUp(_NotReady):
    """The server closed the connection during the login."""

    # Each attempt counts against the user.
    pause = 1.0
    patience = STARTING

    def final(self, where: str) -> errors.KvmCloneError:
        """See :meth:`_NotReady.final`."""
        return errors.LoginFailed(
            f"the guest hangs up on the login {where}: {self}",
            "Read the guest's log: journalctl -u ssh.",
        )


class _Booting(_NotReady):
    """The server lets nobody in yet, with the right password neither (pam_nologin)."""

    pause = 1.0


class _OtherKey(_NotReady):
    """The machine shows a host key that is none of the clone's."""

    pause = 0.5
    patience = RELOADING

    def final(self, where: str) -> errors.KvmCloneError:
        """See :meth:`_NotReady.final`."""
        return errors.WrongGuest(
            f"the machine at {where} shows the host key {self}, which is none of the clone's",
            "Another machine holds that address. See who: ip neigh; then try again.",
        )


def _greet(address: str, port: int, deadline: float, wanted: list[PublicKey] | None) -> Any:
    """A transport that has exchanged keys with the server."""
    left = max(deadline - time.monotonic(), 0.1)
    try:
        # Short: a guest that is not up yet swallows the first packets, and a fresh
        # attempt is seen sooner than the kernel's growing retries.
        sock = socket.create_connection((address, port), timeout=min(left, 2.0))
    except OSError as exc:
        raise _NotReady(str(exc) or type(exc).__name__) from exc
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
    except (paramiko.SSHException, EOFError, OSError) as exc:
        if transport is not None:
            transport.close()
        sock.close()
        raise _NotReady(f"no greeting from sshd: {exc or type(exc).__name__}") from exc


def _prefer(transport: Any, wanted: list[PublicKey] | None) -> None:
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


def _host_key(transport: Any, wanted: list[PublicKey] | None) -> PublicKey:
    shown = transport.get_remote_server_key()
    seen = PublicKey(shown.get_name(), base64.b64encode(shown.asbytes()).decode())
    if wanted is not None and seen not in wanted:
        raise _OtherKey(seen.fingerprint)
    return seen


def _log_in(transport: Any, login: Login, secrets: Secrets, key: Any, where: str) -> None:
    attempts: list[tuple[str, Any]] = []
    if key is not None:
        attempts.append(("key", lambda: transport.auth_publickey(login.username, key)))
    if secrets.password:
        attempts.append(
            ("password", lambda: transport.auth_password(login.username, secrets.password))
        )
    if not attempts:
        attempts = [
            ("ssh agent", lambda k=held: transport.auth_publickey(login.username, k))
            for held in paramiko.Agent().get_keys()
        ]
    if not attempts:
        raise errors.LoginFailed(
            f"there is neither a key nor a password to log in as {where}",
            "Set private_key or password in the profile.",
        )
    for _, attempt in attempts:
        try:
            attempt()
        except paramiko.AuthenticationException as exc:
            _not_the_password(transport, exc)
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise _HungUp(str(exc) or type(exc).__name__) from exc
        if transport.is_authenticated():
            return
    tried = " and ".join(dict.fromkeys(name for name, _ in attempts))
    raise errors.LoginFailed(
        f"the guest refused the login {where} (tried: {tried})",
        "Check ssh_username, password and private_key in the profile, and that the base's sshd "
        "allows them (PermitRootLogin, PasswordAuthentication).",
    )


def _not_the_password(transport: Any, exc: Exception) -> None:
    """Whether a refusal has another reason than what we showed; then knock again."""
    handler = getattr(transport, "auth_handler", None)
    said = getattr(handler, "banner", None) or b""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    if "booting up" in text or "not permitted to log in" in text:
        raise _Booting(text.strip()) from exc
    if not transport.is_active():
        raise _HungUp(str(exc)) from exc


class SshChannel(ShellFiles):
    """
    A logged-in connection. Made by :func:`connect`.

    :ivar host_key: The key that the server showed.
    """

    name = "ssh"

    def __init__(
        self, transport: Any, host_key: PublicKey, login: Login, secrets: Secrets, where: str
    ) -> None:
        self.host_key = host_key
        self._transport = transport
        self._login = login
        self._sudo_password = secrets.sudo_password or secrets.password
        self._where = where
        # Without traffic nobody notices that the guest vanished under a silent script.
        transport.set_keepalive(15)

    def __enter__(self) -> SshChannel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """See :meth:`~saltext.kvmclone.guest.channel.Channel.close`."""
        self._transport.close()

    def run(
        self,
        command: str,
        *,
        timeout: float,
        stdin: bytes | None = None,
        as_root: bool = True,
    ) -> Result:
        """See :meth:`~saltext.kvmclone.guest.channel.Channel.run`."""
        deadline = time.monotonic() + timeout
        text, dialogue = with_path(command), None
        if as_root and self._login.sudo:
            dialogue = sudo.Dialogue(text, stdin or b"", self._sudo_password, tty=self._login.tty)
            text = dialogue.command
        try:
            session = self._transport.open_session(timeout=max(timeout, 1.0))
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise self._dead(exc) from exc
        try:
            if dialogue is not None and self._login.tty:
                session.get_pty(term="dumb", width=1000)
            session.exec_command(text)
            result = _converse(session, dialogue or sudo.Plain(stdin or b""), deadline)
        except TimeoutError:
            raise timed_out(command) from None
        except (paramiko.SSHException, EOFError, OSError) as exc:
            raise self._dead(exc) from exc
        finally:
            session.close()
        if result.status == -1:  # The session ended without an exit status.
            if not self._transport.is_active():
                raise self._dead(None)
            return Result(_KILLED, result.output, result.error)
        return result

    def _dead(self, exc: Exception | None) -> errors.ChannelError:
        why = f": {exc}" if exc is not None and str(exc) else ""
        return errors.ChannelError(
            f"the ssh connection to {self._where} broke{why}",
            "Did the guest reboot, or lose its address?",
        )


def _converse(session: Any, dialogue: sudo.Plain | sudo.Dialogue, deadline: float) -> Result:
    """
    Feed a command and read it out, until it has ended.

    :raises TimeoutError: It has not, at the deadline.
    """
    session.setblocking(False)
    output, error = bytearray(), bytearray()
    poll = select.poll()
    poll.register(session.fileno(), select.POLLIN)
    pending, shut = b"", False
    ended_at: float | None = None
    while True:
        pending += dialogue.reply(output, error)
        while pending and session.send_ready():
            pending = pending[session.send(pending[:32768]) :]
        if not pending and dialogue.finished and dialogue.ends_stream and not shut:
            session.shutdown_write()
            shut = True
        read = False
        while session.recv_ready():
            output += session.recv(65536)
            read = True
        while session.recv_stderr_ready():
            error += session.recv_stderr(65536)
            read = True
        if read:
            continue
        now = time.monotonic()
        ended = session.exit_status_ready()
        if ended:
            ended_at = ended_at or now
            if session.eof_received or session.closed or now - ended_at > LINGER:
                status = session.recv_exit_status()
                return dialogue.result(status, bytes(output), bytes(error))
        elif now > deadline:
            raise TimeoutError
        # The descriptor wakes on data and on the end of the stream; the exit status
        # and room to send do not wake it.
        idle = session.eof_received
        if idle:
            session.status_event.wait(0.05)
        else:
            poll.poll(10 if pending else 50)
