"""
Compare how the clones of this host are now with how they were at the last look, for a beacon.

The look itself is a program of its own (:func:`main`), with a deadline, so nothing in here
imports Salt. What was seen is kept in a file, so that a minion that was restarted misses nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from saltext.kvmclone.errors import HostUnreachable
from saltext.kvmclone.hosts import reports
from saltext.kvmclone.hypervisor.constants import (
    OFF_CRASHED,
    OFF_DESTROYED,
    OFF_FAILED,
    OFF_FROM_SNAPSHOT,
    OFF_MIGRATED,
    OFF_SAVED,
    OFF_SHUTDOWN,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_changes
from saltext.kvmclone.model.hints import AT_HOST, Commands
from saltext.kvmclone.model.record import DESTROYING, Record
from saltext.kvmclone.system import files

#: Seconds that one look may take; the minion does nothing else during that time.
BEACON_TIMEOUT_S = 15

_LOOK = (
    "import sys; sys.path.insert(0, sys.argv[1]); from saltext.kvmclone.hosts import beacon; "
    "beacon.main(sys.argv[2])"
)

#: Why a domain is off, in words for the operator.
_HOW = {
    OFF_SHUTDOWN: "it was shut down, by its guest or on request",
    OFF_DESTROYED: "it was switched off",
    OFF_CRASHED: "it crashed",
    OFF_MIGRATED: "it was migrated away",
    OFF_SAVED: "its memory was saved",
    OFF_FAILED: "it could not be started",
    OFF_FROM_SNAPSHOT: "it was reverted to a snapshot",
}

#: Reasons that are always intended. An ordinary shutdown *may* be intended, so the beacon's
#: configuration says whether it counts.
_MEANT = (OFF_MIGRATED, OFF_SAVED, OFF_FROM_SNAPSHOT)


def news(opts: Mapping[str, Any], url: str, ignore_shutdown: bool) -> list[dict[str, str]]:
    """
    Return what changed since the last look; nothing at the first one.

    :param opts: The minion's configuration.
    :param url: libvirt URI.
    :param ignore_shutdown: Leave out guests that were shut down in the ordinary way.
    :return: See :func:`changed`.
    :raises HostUnreachable: libvirt does not answer.
    """
    # One file for each daemon: two beacons must not take each other's news.
    name = f"seen-{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"
    path = os.path.join(str(opts["cachedir"]), "kvm_clone", name)
    before = _seen(path, url)
    now = look(url)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    files.write(path, json.dumps({"url": url, "clones": now}))
    if before is None:
        return []
    return changed(before, now, ignore_shutdown)


def look(url: str) -> dict[str, Any]:
    """
    Return how every clone is now; see :func:`snapshot`.

    :param url: libvirt URI.
    :raises HostUnreachable: The look failed, or took longer than :data:`BEACON_TIMEOUT_S`.
    """
    library = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))
    command = [sys.executable, "-c", _LOOK, library, url]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=BEACON_TIMEOUT_S, cwd="/", check=False
        )
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout)
            return found
        reason = done.stderr.strip().splitlines()[-1:] or ["no word"]
    except subprocess.TimeoutExpired:
        reason = [f"no answer within {BEACON_TIMEOUT_S} s"]
    raise HostUnreachable(
        f"The clones at '{url}' cannot be looked at: {reason[0]}",
        f"Try it by hand: {Commands(url, AT_HOST).virsh('list')}",
    )


def _seen(path: str, url: str) -> dict[str, Any] | None:
    """Return what was seen at the last look; None if there was none."""
    try:
        with open(path, encoding="utf-8") as source:
            told = json.load(source)
        return dict(told["clones"]) if told["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


# --- the look itself ----------------------------------------------------------------


def main(url: str) -> None:
    """
    Print a snapshot as JSON, for the beacon.

    :param url: libvirt URI.
    """
    json.dump(snapshot(url), sys.stdout)


def snapshot(url: str) -> dict[str, dict[str, Any]]:
    """
    Return how every complete clone is, by uuid, as :func:`changed` compares it.

    :param url: libvirt URI.
    """
    with Host(url) as host:
        return {
            record.uuid: _snapped(host, handle, record)
            for handle, record in reports.clones(host)
            if record.complete and record.stage != DESTROYING
        }


def _snapped(host: Host, handle: DomainHandle, record: Record) -> dict[str, Any]:
    state = handle.state()
    # A base that merely runs for a moment counts too: it writes to the clone's backing file.
    changes = base_changes.changes(host, record)
    why = int(host.call(handle.raw.state, 0)[1]) if state == "shutoff" else 0
    return {"name": handle.name, "state": state, "why": why, "base": record.base, "drift": changes}


def changed(
    before: Mapping[str, Any], now: Mapping[str, Any], ignore_shutdown: bool = False
) -> list[dict[str, str]]:
    """
    Return what happened between two snapshots that an operator wants to know. Pure.

    :param before: The earlier snapshot, see :func:`snapshot`.
    :param now: The later one.
    :param ignore_shutdown: Leave out guests that were shut down in the ordinary way.
    :return: ``{"name", "what", "detail"}`` each; ``what`` is ``base`` or ``stopped``.
    """
    found = []
    meant = (*_MEANT, OFF_SHUTDOWN) if ignore_shutdown else _MEANT
    for uuid, clone in now.items():
        old = before.get(uuid)
        # Reported once: a base that goes on changing is not news.
        if clone["drift"] and not (old and old["drift"]):
            told = "   ".join(clone["drift"])
            found.append({"name": clone["name"], "what": "base", "detail": told})
        if old is None or old["state"] not in ("running", "paused"):
            continue
        if clone["state"] == "crashed" or (
            clone["state"] == "shutoff" and clone["why"] not in meant
        ):
            detail = _HOW.get(clone["why"], "it crashed" if clone["state"] == "crashed" else "?")
            found.append({"name": clone["name"], "what": "stopped", "detail": detail})
    return found
