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


def main(number: int, words: list[str]) -> int:
    """Run the program to its end, and return its exit code."""
    try:
        requests = socket.socket(fileno=number)
    except OSError:  # somebody passed the words on without the socket
        os.execv(words[0], words)
    request = {"words": words, "environment": dict(os.environ), "folder": os.getcwd()}
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(requests, [json.dumps(request).encode()], [theirs.fileno(), 0, 1, 2])
    with ours.makefile() as lines:
        lines.readline()  # its process id
        return int(lines.readline() or 1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
