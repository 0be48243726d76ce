"""
Reach a guest by its QEMU guest agent: no network, no password, root from the start.

This file does not know libvirt: the channel is given a callable that takes one agent request
and returns its return value, and raises :class:`AgentError` if the agent answered with an
error.
"""

from __future__ import annotations

import base64
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone import errors, interrupts
from saltext.kvmclone.guest.channel import Channel, Result, first_line, timed_out, with_path

#: Takes one agent request and the seconds it may take; returns its return value. Raises
#: :class:`AgentError`, or :class:`errors.ChannelError` if the agent is not connected.
Command = Callable[[dict[str, Any], float], Any]

#: Bytes per message. 128 KiB works, 256 KiB hung until the timeout; base64 adds a third.
CHUNK = 48 * 1024

#: The agent commands that the channel cannot do without.
NEEDED = (
    "guest-exec",
    "guest-exec-status",
    "guest-file-open",
    "guest-file-write",
    "guest-file-close",
)

#: Seconds for one request: the agent answers within milliseconds, or not at all.
AGENT_MESSAGE_TIMEOUT_S = 15.0
#: Seconds that an agent may be silent while a command runs: that command may restart it, and a
#: busy guest is slow.
AGENT_SILENCE_S = 30.0
#: Seconds between two looks at a command: at first, by how much more each time, and at most.
_FIRST_PAUSE_S, _PAUSE_GROWTH, _LONGEST_PAUSE_S = 0.02, 1.5, 0.25

#: Distributions of the Red Hat family forbid these commands as shipped.
HOW_TO_ALLOW = (
    "Allow them in the base: take them out of BLACKLIST_RPC, or of --block-rpcs, or add them to "
    "--allow-rpcs (/etc/sysconfig/qemu-ga; or block-rpcs, allow-rpcs in /etc/qemu/qemu-ga.conf), "
    "and restart qemu-guest-agent. Or use 'bootstrap: ssh'."
)


class AgentError(Exception):
    """
    The agent answered with an error.

    :param error_class: The agent's error class, for example ``CommandNotFound``.
    :param message: The agent's description of it (``desc``).
    """

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(f"{error_class}: {message}")
        self.error_class = error_class
        self.message = message

    @property
    def disabled(self) -> bool:
        """Return whether this agent does not know the command, or is configured to forbid it."""
        text = self.message.lower()
        return self.error_class in ("CommandNotFound", "CommandDisabled") or (
            "has been disabled" in text or "not allowed" in text
        )


@dataclass(frozen=True)
class Usable:
    """
    Whether an agent lets us do what we need: true if it does.

    :param why_not: One phrase; empty if it does.
    :param hint: What to do about that.
    :param silent: It did not answer at all, so it may do so later.
    """

    why_not: str = ""
    hint: str = HOW_TO_ALLOW
    silent: bool = False

    def __bool__(self) -> bool:
        return not self.why_not


class AgentChannel(Channel):
    """
    A channel through the guest agent. Making it sends nothing.

    :param command: Sends a request to the agent; see :data:`Command`.
    :ivar lost: The agent was lost while a command ran: how far that came is unknown.
    """

    name = "agent"

    def __init__(self, command: Command) -> None:
        self._command = command
        self.lost = False

    def usable(self) -> Usable:
        """Return whether this agent lets us do what we need, and if not, why."""
        try:
            info = self._command({"execute": "guest-info"}, AGENT_MESSAGE_TIMEOUT_S)
        except AgentError as exc:
            return Usable(f"the guest agent refused guest-info: {exc.message}")
        except errors.ChannelError as exc:
            return Usable(exc.message.rstrip("."), exc.hint, silent=True)
        try:
            with self._understood():
                allowed = {
                    entry["name"]
                    for entry in info.get("supported_commands", ())
                    if entry.get("enabled", False)
                }
        except errors.ChannelError as exc:
            return Usable(exc.message, exc.hint)
        missing = [command for command in NEEDED if command not in allowed]
        if missing:
            return Usable("the guest agent's configuration disables " + ", ".join(missing))
        return Usable()

    def run(
        self,
        command: str,
        *,
        timeout: float,
        stdin: bytes | None = None,
        as_root: bool = True,
    ) -> Result:
        """Run a command as root and wait for it; see :meth:`.Channel.run`."""
        deadline = time.monotonic() + timeout
        if stdin is None or len(stdin) <= CHUNK:
            return self._execute(command, stdin or b"", deadline)
        spool = self._spool(stdin, deadline)
        # The shell opens the spool and removes it at once, so nothing is left behind
        # even if the command never ends.
        q = shlex.quote(spool)
        return self._execute(
            f"exec <{q} && rm -f {q} || exit 1\n{command}", b"", deadline, label=command
        )

    def fetch(self, path: str) -> bytes:
        """
        Return the content of a small file, read with the agent's own file commands.

        These may be allowed while ``guest-exec`` is not. At most :data:`CHUNK` bytes are read.

        :raises errors.ChannelError: There is no such file, or they are forbidden too.
        """
        handle = self._ask("guest-file-open", {"path": path, "mode": "r"})
        try:
            told = self._ask("guest-file-read", {"handle": handle, "count": CHUNK})
        finally:
            self._ask("guest-file-close", {"handle": handle})
        with self._understood():
            return base64.b64decode(told["buf-b64"])

    def _spool(self, data: bytes, deadline: float) -> str:
        """
        Write input that is too long for one message to a private file of the guest.

        :return: The file's path.
        """
        # /run is in memory: nothing in it reaches the clone's disk. An agent that died halfway
        # through an earlier attempt may have left a spool there.
        made = self._execute(
            "umask 077; rm -f /run/kvm-clone.*; "
            "mktemp /run/kvm-clone.XXXXXX || mktemp /tmp/kvm-clone.XXXXXX",
            b"",
            deadline,
        )
        spool = made.output.strip()
        if made.status or not spool.startswith("/"):
            raise errors.ChannelError(
                "the guest has no room for a temporary file", "Look at /run and /tmp of the guest."
            )
        try:
            self._fill(spool, data, deadline)
        except BaseException:
            # It may hold a key, and nothing will read it any more.
            with suppress(errors.ChannelError, errors.CommandFailed):
                later = time.monotonic() + AGENT_MESSAGE_TIMEOUT_S
                self._execute(f"rm -f {shlex.quote(spool)}", b"", later)
            raise
        return spool

    def _fill(self, spool: str, data: bytes, deadline: float) -> None:
        handle = self._ask("guest-file-open", {"path": spool, "mode": "w"})
        try:
            sent = 0
            while sent < len(data):
                if time.monotonic() > deadline:
                    raise timed_out(f"sending {len(data)} bytes")
                chunk = base64.b64encode(data[sent : sent + CHUNK]).decode()
                answer = self._ask("guest-file-write", {"handle": handle, "buf-b64": chunk})
                with self._understood():
                    written = int(answer["count"])
                if written <= 0:
                    raise errors.ChannelError(
                        "the guest agent writes no more bytes", "Is the guest's disk full?"
                    )
                sent += written
        finally:
            self._ask("guest-file-close", {"handle": handle})

    def _execute(self, command: str, stdin: bytes, deadline: float, *, label: str = "") -> Result:
        arguments: dict[str, Any] = {
            "path": "/bin/sh",
            "arg": ["-c", with_path(command)],
            "capture-output": True,
        }
        if stdin:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        answer = self._ask("guest-exec", arguments)
        with self._understood():
            pid = int(answer["pid"])
        pause = _FIRST_PAUSE_S
        heard = time.monotonic()
        while True:
            try:
                status = self._ask("guest-exec-status", {"pid": pid})
                heard = time.monotonic()
            except errors.ChannelError as exc:
                refusal = exc.__cause__
                if isinstance(refusal, AgentError):
                    if refusal.disabled:
                        raise
                    raise self._lost(label or command, exc, restarted=True) from exc
                if time.monotonic() > min(heard + AGENT_SILENCE_S, deadline):
                    raise self._lost(label or command, exc, restarted=False) from exc
                status = {"exited": False}
            with self._understood(begun=True):
                if status["exited"]:
                    return _ended(status)
            if time.monotonic() + pause > deadline:
                self._kill(pid)
                raise timed_out(label or command)
            interrupts.pause(pause)
            pause = min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE_S)

    @contextmanager
    def _understood(self, begun: bool = False) -> Iterator[None]:
        """
        Turn what goes wrong in reading an answer, which the guest can forge, into our error.

        :param begun: A command was started, so how far it came will not be known.
        :raises errors.ChannelError: The answer cannot be understood.
        """
        try:
            yield
        except (AttributeError, LookupError, TypeError, ValueError) as exc:
            self.lost = self.lost or begun
            raise errors.ChannelError(
                "the guest agent's answer cannot be understood",
                "Does the guest run qemu-guest-agent? If not, use bootstrap: ssh.",
            ) from exc

    def _lost(
        self, label: str, exc: errors.ChannelError, *, restarted: bool
    ) -> errors.ChannelError:
        """Return the error for a command whose end will never be known."""
        self.lost = True
        what = "was restarted and lost" if restarted else "stopped answering during"
        return errors.ChannelError(
            f"the guest agent {what} a command in the guest: {first_line(label)} ({exc.message})",
            "Did the guest stop, or does the script restart or upgrade qemu-guest-agent? "
            "systemd ends what an agent started together with it; then use 'bootstrap: ssh'.",
        )

    def _kill(self, pid: int) -> None:
        # A shell may handle signals only once its child is gone, so that is killed too; the shell
        # is stopped until then, or it would begin with its next command.
        shell = int(pid)
        script = (
            f"kill -STOP {shell}; kill $(cat /proc/{shell}/task/{shell}/children) {shell}; "
            f"kill -CONT {shell}"
        )
        try:
            self._ask("guest-exec", {"path": "/bin/sh", "arg": ["-c", with_path(script)]})
        except errors.ChannelError:
            pass  # The timeout is reported; that the command cannot be killed adds nothing.

    def _ask(self, execute: str, arguments: dict[str, Any]) -> Any:
        try:
            return self._command(
                {"execute": execute, "arguments": arguments}, AGENT_MESSAGE_TIMEOUT_S
            )
        except AgentError as exc:
            if exc.disabled:
                raise errors.ChannelError(
                    f"the guest agent's configuration disables {execute}",
                    HOW_TO_ALLOW,
                ) from exc
            raise errors.ChannelError(
                f"the guest agent refused {execute}: {exc.message}",
                "Is the guest still up? Otherwise use bootstrap: ssh.",
            ) from exc


def _ended(status: dict[str, Any]) -> Result:
    """Return the result of a command from the agent's answer about it."""
    code = status.get("exitcode")
    return Result(
        status=128 + int(status.get("signal", 0)) if code is None else int(code),
        output=_decoded(status.get("out-data")),
        error=_decoded(status.get("err-data")),
    )


def _decoded(data: str | None) -> str:
    return base64.b64decode(data).decode("utf-8", "replace") if data else ""
