"""A command over ssh that never stops to speak: heard out, and not for ever."""

from __future__ import annotations

import os
import threading
import time

import pytest

from saltext.kvmclone.guest import ssh, sudo


class Talkative:
    """
    A session whose other end always has another word.

    :param status: How its command ended; None for not yet.
    """

    eof_received = closed = False

    def __init__(self, status: int | None) -> None:
        self.status = status
        self.reader, writer = os.pipe()
        os.write(writer, b"!")
        os.close(writer)
        self.words = 1

    def setblocking(self, blocking: bool) -> None: ...

    def fileno(self) -> int:
        return self.reader

    def send_ready(self) -> bool:
        return False

    def shutdown_write(self) -> None: ...

    def recv_ready(self) -> bool:
        self.words += 1
        return self.words % 2 == 0

    def recv(self, count: int) -> bytes:
        time.sleep(0.001)
        return b"word\n"

    def recv_stderr_ready(self) -> bool:
        return False

    def exit_status_ready(self) -> bool:
        return self.status is not None

    def recv_exit_status(self) -> int | None:
        return self.status


def test_a_command_that_never_stops_to_speak_ends_at_its_deadline():
    with pytest.raises(TimeoutError):
        ssh._converse(Talkative(None), sudo.Plain(b""), time.monotonic() + 0.3)


def test_a_daemon_that_never_stops_to_speak_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(ssh, "OUTPUT_DRAIN_S", 0.3)
    result = ssh._converse(Talkative(3), sudo.Plain(b""), time.monotonic() + 60)
    assert result.status == 3
    assert result.output.startswith("word\nword\n")


class Late(Talkative):
    """A session whose last words, end and status arrive just after it was asked for words."""

    def __init__(self) -> None:
        super().__init__(None)
        self.left: list[bytes] = []
        self.status_event = threading.Event()

    def recv_ready(self) -> bool:
        if self.status is None:
            self.left, self.status, self.eof_received = [b"last words\n"], 7, True
            return False
        return bool(self.left)

    def recv(self, count: int) -> bytes:
        return self.left.pop()


def test_the_last_words_of_a_command_are_not_lost_with_its_end():
    result = ssh._converse(Late(), sudo.Plain(b""), time.monotonic() + 60)
    assert (result.status, result.output) == (7, "last words\n")
