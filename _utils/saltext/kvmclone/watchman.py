"""
What a beacon sees: how the clones of this host are now, held against the look before.

The look itself is a program of its own (:func:`.publishing.main`), with a deadline. What was
seen is kept in a file, so that a minion that was restarted misses nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from saltext.kvmclone import publishing
from saltext.kvmclone.errors import HostUnreachable

#: Seconds that one look may take; the minion does nothing else meanwhile.
DEADLINE = 15

_LOOK = "import sys; sys.path.insert(0, sys.argv[1]); from saltext.kvmclone import publishing; "


def news(opts: Mapping[str, Any], url: str, ignore_shutdown: bool) -> list[dict[str, str]]:
    """
    What changed since the last look; at the first one nothing did.

    :param opts: The minion's configuration.
    :param ignore_shutdown: A guest that was shut down in the ordinary way is no news.
    :raises HostUnreachable: libvirt does not answer.
    """
    path = os.path.join(str(opts["cachedir"]), "kvm_clone", "seen.json")
    before = _seen(path, url)
    now = look(url)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    draft = f"{path}.{os.getpid()}"
    with open(draft, "w", encoding="utf-8") as target:
        json.dump({"url": url, "clones": now}, target)
    os.replace(draft, path)
    if before is None:
        return []
    return publishing.changed(before, now, ignore_shutdown)


def look(url: str) -> dict[str, Any]:
    """
    How every clone is now; see :func:`.publishing.snapshot`.

    :raises HostUnreachable: The look failed, or took too long.
    """
    library = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    command = [sys.executable, "-c", _LOOK + "publishing.main(sys.argv[2])", library, url]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE, cwd="/", check=False
        )
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout)
            return found
        reason = done.stderr.strip().splitlines()[-1:] or ["no word"]
    except subprocess.TimeoutExpired:
        reason = [f"no answer within {DEADLINE} s"]
    raise HostUnreachable(
        f"The clones at '{url}' cannot be looked at: {reason[0]}",
        f"Try it by hand: virsh -c '{url}' list",
    )


def _seen(path: str, url: str) -> dict[str, Any] | None:
    """What was seen at the last look; None at the first one."""
    try:
        with open(path, encoding="utf-8") as source:
            told = json.load(source)
        return dict(told["clones"]) if told["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
