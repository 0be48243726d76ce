"""
Reach a guest over ssh: one connection, many commands over it.

:func:`connect` waits for the guest's sshd and logs in (:mod:`.ssh_transport`,
    :mod:`.ssh_auth`); :class:`SshChannel` runs commands. How a command becomes root, and how
    its input gets past sudo and a terminal, is in :mod:`.sudo`.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Any

from saltext.kvmclone import errors, interrupts
from saltext.kvmclone.guest import sudo
from saltext.kvmclone.guest.channel import (
    MOST,
    Channel,
    PublicKey,
    Result,
    says_too_much,
    timed_out,
    with_path,
)
from saltext.kvmclone.model.request import Login, Secrets

_IMPORT_ERROR: Exception | None = None
try:
    from saltext.kvmclone.guest import ssh_auth, ssh_transport
# An old paramiko may lack a module, or fail on what a new cryptography no longer has.
except (ImportError, AttributeError) as error:
    if (error.name or "").startswith("saltext"):
        raise
    _IMPORT_ERROR = error  # Only ssh needs paramiko: `connect` reports it.

#: Seconds for output that follows the exit of a command: a guest under load is slow to send it, and
#: a daemon that the command started may hold the stream open for ever.
OUTPUT_LINGER_S = 1.0
#: Seconds for output that still arrives then; a daemon may go on writing for ever.
OUTPUT_DRAIN_S = 10.0
#: Status of a command that a signal ended; paramiko does not report which.
_KILLED = 128


def connect(
    address: str,
    login: Login,
    secrets: Secrets,
    *,
    deadline: float,
    host_keys: Sequence[PublicKey] | None = None,
    vet: Callable[[PublicKey], None] | None = None,
) -> SshChannel:
    """
    Wait for the guest's sshd and log in.

    Tried in this order, as far as given: the private key, the keys of the ssh agent, the password
    (also if the server asks for it interactively). A key first, because a machine that is not the
    guest learns nothing from being shown one.

    :param address: IPv4 or IPv6 address of the guest.
    :param login: User, port, sudo, tty, ssh agent.
    :param secrets: Password, sudo password, contents of the private key, its passphrase.
    :param deadline: When to give up waiting, on the clock of ``time.monotonic()``.
    :param host_keys: The keys that the guest is known to have; it must show one of them. None: the
        key seen at first contact is recorded (:attr:`SshChannel.host_key`).
    :param vet: Called at first contact with the key that is shown, before the login. It raises an
        error if the machine is known to be another.
    :raises errors.MissingPackage: No paramiko, or one that is too old.
    :raises errors.LoginFailed: The guest answered and refused, or the key is unusable.
    :raises errors.WrongGuest: It showed another host key.
    :raises errors.ChannelError: No sshd until the deadline.
    """
    if _IMPORT_ERROR is not None:
        raise _missing_paramiko(_IMPORT_ERROR) from _IMPORT_ERROR
    where = f"{login.username}@{address} port {login.port}"
    policy = ssh_transport.HostKeyPolicy(host_keys, vet)
    give_up: dict[type[ssh_transport.NotReady], float] = {}
    with ssh_auth.strategy(login, secrets, where) as strategy:
        while True:
            try:
                client = ssh_transport.log_in(address, login.port, policy, strategy, deadline)
                assert policy.shown is not None, "SSHClient asks the policy first"
                return SshChannel(client, policy.shown, strategy.used, login, secrets, where)
            except ssh_transport.NotReady as exc:
                now = time.monotonic()
                last = give_up.setdefault(type(exc), now + exc.grace_s)
                if now > min(last, deadline - exc.pause_s):
                    raise exc.final(where) from exc
                interrupts.pause(exc.pause_s)


def _missing_paramiko(error: Exception) -> errors.MissingPackage:
    """Return the error for a paramiko that is missing or too old."""
    try:
        installed = metadata.version("paramiko")
    except metadata.PackageNotFoundError:
        installed = "none"
    return errors.MissingPackage(
        "ssh to a guest needs the Python package paramiko, 3.2 or newer "
        f"(installed: {installed}; {error})",
        "Install it on the machine that talks to the guest: salt-pip install 'paramiko>=3.2'",
    )


class SshChannel(Channel):
    """
    A logged-in connection. Made by :func:`connect`.

    :ivar host_key: The key that the server showed.
    :ivar auth_method: What the guest accepted: ``key``, ``ssh agent`` or ``password``.
    """

    name = "ssh"

    def __init__(
        self,
        client: Any,
        host_key: PublicKey,
        auth_method: str,
        login: Login,
        secrets: Secrets,
        where: str,
    ) -> None:
        self.host_key = host_key
        self.auth_method = auth_method
        self._client = client
        self._transport = client.get_transport()
        self._login = login
        self._sudo_password = secrets.sudo_password or secrets.password
        self._where = where
        # Without traffic it would go unnoticed that the guest vanished during a silent script.
        self._transport.set_keepalive(15)

    def close(self) -> None:
        """Close the connection; see :meth:`.Channel.close`."""
        self._client.close()

    def run(
        self,
        command: str,
        *,
        timeout: float,
        stdin: bytes | None = None,
        as_root: bool = True,
    ) -> Result:
        """Run a command and wait for it; see :meth:`.Channel.run`."""
        deadline = time.monotonic() + timeout
        text, dialogue = with_path(command), None
        if as_root and self._login.sudo:
            dialogue = sudo.Dialogue(text, stdin or b"", self._sudo_password, tty=self._login.tty)
            text = dialogue.command
        try:
            session = self._transport.open_session(timeout=max(timeout, 1.0))
        except Exception as exc:  # as in `log_in`
            raise self._broken(exc) from exc
        try:
            _begin(session, text, dialogue is not None and self._login.tty, deadline)
            result = _converse(session, dialogue or sudo.Plain(stdin or b""), deadline)
        except TimeoutError:
            raise timed_out(command) from None
        except OverflowError:
            raise says_too_much(command) from None
        except ssh_transport.CONNECTION_ERRORS as exc:
            raise self._broken(exc) from exc
        finally:
            session.close()
        if result.status == -1:  # The session ended without an exit status.
            if not self._transport.is_active():
                raise self._broken(None)
            return Result(_KILLED, result.output, result.error)
        return result

    def _broken(self, exc: Exception | None) -> errors.ChannelError:
        why = f": {ssh_transport.reason(exc)}" if exc is not None and str(exc) else ""
        return errors.ChannelError(
            f"the ssh connection to {self._where} broke{why}",
            "Did the guest reboot, or lose its address?",
        )


def _begin(session: Any, command: str, tty: bool, deadline: float) -> None:
    """
    Start a command, with a deadline: paramiko waits for the server's answer for ever.

    :raises TimeoutError: The server neither agreed nor refused until the deadline.
    :raises ConnectionError: The server refused, or the connection broke.
    """

    def hang_up() -> None:
        with suppress(Exception):  # the connection may be gone already
            session.close()

    alarm = threading.Timer(max(deadline - time.monotonic(), 0.0), hang_up)
    alarm.daemon = True
    alarm.start()
    try:
        if tty:
            session.get_pty(term="dumb", width=1000)
        session.exec_command(command)
    except Exception as exc:  # as in `log_in`
        if time.monotonic() >= deadline:
            raise TimeoutError from exc
        raise ConnectionError(ssh_transport.reason(exc)) from exc
    finally:
        alarm.cancel()


def _converse(session: Any, dialogue: sudo.Plain | sudo.Dialogue, deadline: float) -> Result:
    """
    Send a command's input and read its output until it has ended.

    :raises TimeoutError: It has not ended at the deadline.
    :raises OverflowError: It wrote more than :data:`.channel.MOST`.
    """
    session.setblocking(False)
    output, error = bytearray(), bytearray()
    poll = select.poll()
    poll.register(session.fileno(), select.POLLIN)
    pending, shut = b"", False
    ended_at: float | None = None
    while True:
        interrupts.check()
        pending += dialogue.reply(output, error)
        while pending and session.send_ready():
            pending = pending[session.send(pending[:32768]) :]
        if not pending and dialogue.finished and dialogue.ends_stream and not shut:
            session.shutdown_write()
            shut = True
        # Asked before the output is read: what comes together with the end is read below.
        over = session.eof_received or session.closed
        read = False
        while session.recv_ready() and len(output) <= MOST:
            output += session.recv(65536)
            read = True
        while session.recv_stderr_ready() and len(error) <= MOST:
            error += session.recv_stderr(65536)
            read = True
        if max(len(output), len(error)) > MOST:
            raise OverflowError
        now = time.monotonic()
        ended = session.exit_status_ready()
        if ended:
            ended_at = ended_at or now
        # Endless output is not read for ever.
        if read and now <= (ended_at + OUTPUT_DRAIN_S if ended_at else deadline):
            continue
        if ended_at:
            if read or over or now - ended_at > OUTPUT_LINGER_S:
                status = session.recv_exit_status()
                return dialogue.result(status, bytes(output), bytes(error))
        elif now > deadline:
            raise TimeoutError
        # The descriptor wakes on data and the stream's end, not on the exit status or room to send.
        if session.eof_received:
            session.status_event.wait(0.05)
        else:
            poll.poll(10 if pending else 50)
