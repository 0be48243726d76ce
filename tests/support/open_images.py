"""An image in the hands of somebody else, for the tests of every layer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_in_a_tool(path: Path, form: str = "qcow2") -> Iterator[None]:
    """A tool of QEMU has the image open, as a machine of another libvirt would."""
    words = ["qemu-io", "-f", form, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tool:
        assert tool.stdin is not None
        assert tool.stdout is not None
        tool.stdin.write(b"length\n")
        tool.stdin.flush()
        tool.stdout.readline()  # it has answered, so it is open
        try:
            yield
        finally:
            tool.stdin.close()
