"""
Define the interface to a guest, whichever way it is reached.

A channel runs commands and moves small files; the ssh and the agent channel differ in how, not
in what they do. Under emulation each command costs 50 to 100 ms, so steps send one script that
does much rather than many that do little.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saltext.kvmclone import errors
from saltext.kvmclone.model import redacted_text

if TYPE_CHECKING:
    from typing_extensions import Self  # Python 3.11 has it

#: sshd and the agent start commands with very different, sometimes empty, PATHs.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Bytes that a command may write to each of its streams. The agent's own limit is the same, and
#: endless output of a guest must not fill its host's memory.
MOST = 16 * 1024**2

#: Characters of a command's output that a message quotes.
MOST_TOLD = 16 * 1024

#: Seconds for moving one small file.
FILE_TRANSFER_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Result:
    """
    How a command ended.

    :param status: Exit status; 128 + N if signal N ended it.
    :param output: Standard output, decoded (undecodable bytes replaced).
    :param error: Standard error; empty if a terminal merged both into ``output``.
    """

    status: int
    output: str
    error: str


@dataclass(frozen=True)
class PublicKey:
    """
    The public half of an ssh host key.

    :param type: As in a known_hosts line, for example ``ssh-ed25519``.
    :param blob: The key, base64.
    """

    type: str
    blob: str

    @classmethod
    def from_line(cls, line: str) -> PublicKey:
        """
        Read ``TYPE BLOB [COMMENT]``, as in ``ssh_host_*_key.pub``.

        :raises ValueError: The line is not a public key.
        """
        words = line.split()
        if len(words) < 2:
            raise ValueError(f"not a public key: {line!r}")
        try:
            base64.b64decode(words[1], validate=True)
        except binascii.Error as exc:
            raise ValueError(f"not a public key: {line!r}") from exc
        return cls(words[0], words[1])

    @property
    def line(self) -> str:
        """Return ``TYPE BLOB``, which follows the host's name in a known_hosts line."""
        return f"{self.type} {self.blob}"

    @property
    def fingerprint(self) -> str:
        """Return ``SHA256:…``, as ``ssh-keygen -l`` prints it."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


class Channel(ABC):
    """
    A way into one guest. Use it as a context manager, or call :meth:`close`.

    Every operation ends within its timeout. Common errors: :class:`~errors.ChannelError` if the
    guest cannot be talked to (any more), :class:`~errors.CommandFailed` if it can but the operation
    did not succeed.

    :cvar name: ``ssh`` or ``agent``.
    """

    name: str

    @abstractmethod
    def run(
        self,
        command: str,
        *,
        timeout: float,
        stdin: bytes | None = None,
        as_root: bool = True,
    ) -> Result:
        """
        Run a command with ``/bin/sh`` and wait for it.

        :param command: Shell text. Must not hold a secret: it shows in the process list.
        :param timeout: Seconds until the command counts as hanging.
        :param stdin: What it reads; secrets travel here. None: nothing.
        :param as_root: Run it as root, through sudo if the login needs it.
        :return: How it ended. Any exit status is a :class:`Result`, not an error; see
            :func:`check`.
        :raises errors.CommandFailed: It did not end in time.
        :raises errors.ChannelError: The guest cannot be talked to.
        """

    def write(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """
        Put a file in place atomically, as root; its mode is set before its content is written.

        :param path: Absolute path in the guest; its folder exists.
        :param mode: Permission bits of the file.
        :raises errors.CommandFailed: It cannot be written.
        """
        result = self.run(
            f"p={shlex.quote(path)}; umask 077; "
            '[ ! -d "$p" ] && t=$(mktemp "$p.XXXXXX") || exit 1; '
            f'chmod {mode:04o} "$t" && cat >"$t" && mv -f "$t" "$p" || '
            '{ s=$?; rm -f "$t"; exit $s; }',
            timeout=FILE_TRANSFER_TIMEOUT_S,
            stdin=data,
        )
        check(result, f"writing {path}")

    def read(self, path: str) -> bytes:
        """
        Return the content of a file, read as root.

        :raises errors.CommandFailed: It cannot be read.
        """
        # base64, because a channel's output is text and may have crossed a terminal.
        result = self.run(f"base64 < {shlex.quote(path)}", timeout=FILE_TRANSFER_TIMEOUT_S)
        check(result, f"reading {path}")
        return base64.b64decode(result.output)

    def close(self) -> None:  # noqa: B027 - an agent's channel holds nothing
        """Release what the channel holds; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def check(result: Result, what: str, hint: str = "", secrets: Iterable[str] = ()) -> Result:
    """
    Return the result if the command succeeded.

    :param what: What was being done, for the message: ``writing /etc/hostname``.
    :param hint: What to do about a failure.
    :param secrets: Values to strike out of the output that the message quotes.
    :raises errors.CommandFailed: It did not; the message ends with its last output.
    """
    if result.status == 0:
        return result
    said = tail(result, secrets)
    raise errors.CommandFailed(
        f"{what} in the guest failed with exit status {result.status}"
        + (f": {said}" if said else ""),
        hint or "Log in to the guest and try the same by hand.",
    )


def tail(result: Result, secrets: Iterable[str] = (), lines: int = 20) -> str:
    """
    Return the last lines of a command's output, standard error last, without the secrets.

    :param secrets: Values to strike out.
    :param lines: How many lines at most.
    """
    said = [
        line.rstrip()
        for stream in (result.output, result.error)
        for line in stream.splitlines()
        if line.strip()
    ]
    return redacted_text.without_secrets("\n".join(said[-lines:]), secrets)[-MOST_TOLD:]


def first_line(command: str) -> str:
    """Return the first line of a command, to name it in a message."""
    return next(iter(command.strip().splitlines()), "a command")[:60]


def timed_out(command: str) -> errors.CommandFailed:
    """Return the error for a command that did not end within its timeout."""
    return errors.CommandFailed(
        f"a command in the guest did not end in time: {first_line(command)}",
        "Look at the guest's load and console.",
    )


def says_too_much(command: str) -> errors.ChannelError:
    """Return the error for a command that writes more than :data:`MOST`."""
    return errors.ChannelError(
        f"a command in the guest never stops writing output: {first_line(command)}",
        f"It may say {MOST // 1024**2} MiB. Log in to the guest and see what answers there.",
    )


def with_path(command: str) -> str:
    """Return the command with a PATH on which the system's own tools are found."""
    return f"PATH={PATH}; export PATH; {command}"
