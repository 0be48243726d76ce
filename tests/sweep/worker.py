"""
One create or destroy in a process of its own, which a fault hits at a chosen point.

A point is the end of the Nth call of one kind: of a libvirt function, or of a system call
that puts a file in place. ``trace`` only lists the points that a run passes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from lab import libvirtd
from saltext.kvmclone import copying, pipeline, request
from saltext.kvmclone.host import Host
from saltext.kvmclone.operations import LocalHost

#: What a point may be besides a libvirt call.
SYSTEM_CALLS = ("link", "unlink", "ftruncate", "copy_file_range")
COPYING = ("share_blocks", "copy", "convert", "grow")


def main() -> None:
    order: dict[str, Any] = json.loads(sys.argv[1])
    seen: Counter[str] = Counter()

    def passed(word: str) -> None:
        seen[word] += 1
        point = f"{word}:{seen[word]}"
        if order["fault"] == "trace":
            print(point, flush=True)
        elif point == order["point"]:
            FAULTS[order["fault"]]()

    _watch(Host, "call", passed, lambda call: call[1].__name__)
    for name in SYSTEM_CALLS:
        _watch(os, name, passed)
    for name in COPYING:
        _watch(copying, name, passed)

    host = LocalHost(order["url"], label="kvm01")
    if order["action"] == "destroy":
        host.destroy(order["name"])
        return
    wanted = request.from_dict(order["request"])
    outcome = pipeline.create(host, wanted, start=order["start"])
    if outcome.error is not None:
        print(outcome.error, file=sys.stderr)
        sys.exit(1)


def _watch(
    where: Any,
    name: str,
    passed: Callable[[str], None],
    word_of: Callable[[tuple[Any, ...]], str] | None = None,
) -> None:
    """Tell of every end of a function, by its name or by what its arguments say."""
    real = getattr(where, name)

    def watched(*arguments: Any, **keys: Any) -> Any:
        answer = real(*arguments, **keys)
        passed(word_of(arguments) if word_of else name)
        return answer

    setattr(where, name, watched)


def _kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS = {"kill": _kill_myself, "libvirtd": libvirtd.crash}


if __name__ == "__main__":
    main()
