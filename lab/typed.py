"""
``python -IS typed.py NUMBER PROGRAM WORDS…``: a program of Salt that is forked, for a shell.

It asks the interpreter behind the socket of that number for the program, see ``preloaded.py``, with
its own standard streams, folder and environment, waits for it, and ends with its exit code. Where
there is no such socket it becomes the program.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence


def request(
    requests: socket.socket,
    words: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
    streams: Sequence[int],
) -> socket.socket:
    """
    Ask the interpreter for a program; return the socket with its process id and its exit code.

    :param requests: The socket of that interpreter.
    :param words: The program's path and its arguments.
    :param streams: The numbers of its standard input, output and error.
    """
    message = {"words": list(words), "environment": dict(environment), "folder": folder}
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(requests, [json.dumps(message).encode()], [theirs.fileno(), *streams])
    return ours


def main(number: int, words: list[str]) -> int:
    """Run the program to its end, and return its exit code."""
    try:
        requests = socket.socket(fileno=number)
    except OSError:  # somebody passed the words on without the socket
        os.execv(words[0], words)
    answers = request(requests, words, os.environ, os.getcwd(), [0, 1, 2])
    with answers, answers.makefile() as lines:
        lines.readline()  # its process id
        return int(lines.readline() or 1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
