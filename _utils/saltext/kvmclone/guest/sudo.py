"""
Run a command through sudo: the password first, then the input, and clean output.

sudo reads its password from the same stream as the command reads its input, and only sometimes
asks for one. Guessing would put a password into a command's input, or a key into sudo's prompt.
So nothing is sent before it is asked for: sudo's prompt is a word of ours (``-p``), and the
command's shell prints another word as soon as it runs as root.

A terminal (``tty``, for ``requiretty``) adds that input is echoed, cut into lines of 4096 bytes
and searched for control characters, and has no end. Hence ``stty raw -echo`` before sudo, and
``head -c``, which is told how many bytes will come.
"""

from __future__ import annotations

import shlex
from secrets import token_hex

from saltext.kvmclone import errors
from saltext.kvmclone.guest.channel import Result


class Plain:
    """
    A command without sudo: its input is sent at once.

    :param stdin: What the command reads.
    :ivar finished: Nothing more will be sent.
    :ivar ends_stream: Whether to shut down the stream then.
    """

    ends_stream = True

    def __init__(self, stdin: bytes) -> None:
        self._stdin = stdin
        self.finished = False

    def reply(self, output: bytearray, error: bytearray) -> bytes:
        """Return what to send now."""
        if self.finished:
            return b""
        self.finished = True
        return self._stdin

    def result(self, status: int, output: bytes, error: bytes) -> Result:
        """Return the command's result, from all that was read."""
        return Result(status, output.decode("utf-8", "replace"), error.decode("utf-8", "replace"))


class Dialogue:
    """
    A command through sudo.

    :param command: Shell text to run as root.
    :param stdin: What it reads.
    :param password: For sudo, if it asks; empty for none.
    :param tty: Whether there will be a terminal.
    :ivar command: What to execute instead.
    :ivar finished: Nothing more will be sent.
    :ivar ends_stream: Whether to shut down the stream then.
    """

    def __init__(self, command: str, stdin: bytes, password: str, *, tty: bool) -> None:
        word = token_hex(8)
        self._prompt, self._root = f"kvm-clone-asks-{word}:", f"kvm-clone-root-{word}"
        self._stdin, self._password = stdin, password
        self._asked = False
        self.finished = False
        script = f"printf '%s\\n' {self._root}; "
        if tty:
            feed = f"head -c {len(stdin)} |" if stdin else "</dev/null"
            script += f"{feed} /bin/sh -c {shlex.quote(command)}"
        else:
            script += command
        self.command = f"exec sudo -S -p {self._prompt} -- /bin/sh -c {shlex.quote(script)}"
        if tty:
            self.command = f"stty raw -echo && {self.command}"
        # Shutting down a terminal's stream would end the session; `head` ends the input instead.
        self.ends_stream = not tty

    def reply(self, output: bytearray, error: bytearray) -> bytes:
        """
        Return what to send now: the password, the input or nothing.

        :param output: Standard output so far.
        :param error: Standard error so far.
        :raises errors.LoginFailed: sudo asks for a password that we do not have, or asks again.
        """
        if self.finished:
            return b""
        if self._root.encode() in output:
            self.finished = True
            return self._stdin
        prompt = self._prompt.encode()
        asked = error.count(prompt) + output.count(prompt)
        if asked > (1 if self._asked else 0):
            if self._asked:
                raise errors.LoginFailed(
                    "sudo in the guest refused the password",
                    "Check sudo_password (without one, password is tried) in the profile.",
                )
            if not self._password:
                raise errors.LoginFailed(
                    "sudo in the guest asks for a password and there is none",
                    "Set sudo_password in the profile, or allow NOPASSWD in the base.",
                )
            self._asked = True
            return self._password.encode() + b"\n"
        return b""

    def result(self, status: int, output: bytes, error: bytes) -> Result:
        """
        Return the command's own result, without the output of sudo and of our shell before it.

        :raises errors.LoginFailed: sudo did not run the command.
        """
        root, prompt = self._root.encode(), self._prompt.encode()
        before, found, after = output.partition(root)
        if not found:
            said = (before + error).replace(prompt, b"").decode("utf-8", "replace").strip()
            raise errors.LoginFailed(
                f"sudo in the guest did not run the command: {said[-300:] or 'no reason given'}",
                "May the user run everything by sudo? With requiretty in sudoers set tty: true.",
            )
        after = after.lstrip(b"\r").removeprefix(b"\n")
        error = error.replace(prompt, b"")
        return Result(status, after.decode("utf-8", "replace"), error.decode("utf-8", "replace"))
