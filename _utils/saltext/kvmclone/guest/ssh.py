"""
SSH as a channel: one connection per guest, many commands over it.

:func:`connect` waits for the guest's sshd and enters; :class:`SshChannel` runs commands.
The first words with the server are in :mod:`.greeting`, what opens the door is in
:mod:`.login`. How a command gets its root rights, and how its input gets past sudo and a
terminal, is in :mod:`.sudo`.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from saltext.kvmclone import errors, interrupts
from saltext.kvmclone.guest import greeting, sudo
from saltext.kvmclone.guest import login as entering
from saltext.kvmclone.guest.channel import (
    MOST,
    PublicKey,
    Result,
    ShellFiles,
    says_too_much,
    timed_out,
    with_path,
)
from saltext.kvmclone.request import Login, Secrets

try:
    import paramiko
except ImportError:  # A master that never speaks ssh does without.
    paramiko = None  # type: ignore[assignment]

#: Seconds for output that follows the exit of a command. A daemon that the command
#: started may hold the stream open for ever.
LINGER = 0.3
#: Seconds for what is still under way then; a daemon may go on speaking for ever.
DRAIN = 10.0
#: Status of a command that some signal ended; paramiko does not tell which.
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

    Tried in this order, as far as given: the private key, the keys of the ssh agent, the
    password (also where the server asks for it in a dialogue). A key first, because a
    machine that is not the guest learns nothing from being shown one.

    :param address: IPv4 or IPv6 address of the guest.
    :param login: User, port, sudo, tty, ssh agent.
    :param secrets: Password, sudo password, contents of the private key, its passphrase.
    :param deadline: When to give up waiting, on the clock of ``time.monotonic()``.
    :param host_keys: The keys that the guest is known to have; it must show one of them.
        None: the key seen at first contact is recorded (:attr:`SshChannel.host_key`).
    :param vet: At first contact: asked about the key that is shown, before the login. It
        raises where the machine is known to be another.
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
    wanted = None if host_keys is None else list(host_keys)
    patience: dict[type[greeting.NotReady], float] = {}
    with entering.means(login, secrets, where) as means:
        while True:
            try:
                transport = greeting.greet(address, login.port, deadline, wanted)
                seen, entered_by = _enter(transport, wanted, vet, means, where)
                return SshChannel(transport, seen, entered_by, login, secrets, where)
            except greeting.NotReady as exc:
                now = time.monotonic()
                last = patience.setdefault(type(exc), now + exc.patience)
                if now > min(last, deadline - exc.pause):
                    raise exc.final(where) from exc
                interrupts.pause(exc.pause)


def _enter(
    transport: Any,
    wanted: Sequence[PublicKey] | None,
    vet: Callable[[PublicKey], None] | None,
    means: Sequence[entering.Means],
    where: str,
) -> tuple[PublicKey, str]:
    """
    From the greeting through the login; the connection is closed where that fails.

    :return: The host key that the server showed, and the name of the means that let us in.
    """
    try:
        seen = greeting.host_key(transport, wanted)
        if wanted is None and vet is not None:
            vet(seen)
        return seen, entering.enter(transport, means, where)
    except BaseException:
        transport.close()
        raise


class SshChannel(ShellFiles):
    """
    A logged-in connection. Made by :func:`connect`.

    :ivar host_key: The key that the server showed.
    :ivar entered_by: What let us in: ``key``, ``ssh agent`` or ``password``.
    """

    name = "ssh"

    def __init__(
        self,
        transport: Any,
        host_key: PublicKey,
        entered_by: str,
        login: Login,
        secrets: Secrets,
        where: str,
    ) -> None:
        self.host_key = host_key
        self.entered_by = entered_by
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
        except Exception as exc:  # as in `greet`
            raise self._dead(exc) from exc
        try:
            _begin(session, text, dialogue is not None and self._login.tty, deadline)
            result = _converse(session, dialogue or sudo.Plain(stdin or b""), deadline)
        except TimeoutError:
            raise timed_out(command) from None
        except OverflowError:
            raise says_too_much(command) from None
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
        why = f": {greeting.reason(exc)}" if exc is not None and str(exc) else ""
        return errors.ChannelError(
            f"the ssh connection to {self._where} broke{why}",
            "Did the guest reboot, or lose its address?",
        )


def _begin(session: Any, command: str, tty: bool, deadline: float) -> None:
    """
    Have the server start a command. paramiko waits for its yes without end.

    :raises TimeoutError: It said neither yes nor no until the deadline.
    """

    def hang_up() -> None:
        with suppress(Exception):  # the connection may be gone meanwhile
            session.close()

    alarm = threading.Timer(max(deadline - time.monotonic(), 0.0), hang_up)
    alarm.daemon = True
    alarm.start()
    try:
        if tty:
            session.get_pty(term="dumb", width=1000)
        session.exec_command(command)
    except Exception as exc:  # as in `greet`
        if time.monotonic() >= deadline:
            raise TimeoutError from exc
        raise paramiko.SSHException(greeting.reason(exc)) from exc
    finally:
        alarm.cancel()


def _converse(session: Any, dialogue: sudo.Plain | sudo.Dialogue, deadline: float) -> Result:
    """
    Feed a command and read it out, until it has ended.

    :raises TimeoutError: It has not, at the deadline.
    :raises OverflowError: It said more than anything that is asked of a guest.
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
        # What never stops to speak is not read for ever.
        if read and now <= (ended_at + DRAIN if ended_at else deadline):
            continue
        if ended_at:
            if read or session.eof_received or session.closed or now - ended_at > LINGER:
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
