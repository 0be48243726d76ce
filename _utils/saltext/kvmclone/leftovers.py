"""
What interrupted work left behind on one host, from the records alone.

A create or destroy that has not come to its end is somebody's work in progress, or a
leftover where that somebody is dead. Reads only; :mod:`.collect` removes.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone import dismantle, networks, ownership, workers
from saltext.kvmclone.host import DomainHandle, Host
from saltext.kvmclone.ownership import DESTROYING, Minion, Work


@dataclass(frozen=True)
class Leftover:
    """
    One thing that may be removed; see ``gc`` in CONTRACT.md.

    :param name: The clone that it belongs to.
    :param kind: ``domain``, ``volume``, ``nvram``, ``dhcp host`` or ``key``.
    :param path: Its file; for a key the minion id, for a DHCP host entry its network, MAC and
        address, for a domain nothing.
    :param reason: Why it is one.
    """

    name: str
    kind: str
    path: str
    reason: str
    removed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As CONTRACT.md fixes it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Unfinished:
    """
    A clone that is being made or destroyed, or was when its worker died.

    :param work: Whose work it is, seen from the KVM host.
    :param minion: The minion that it would have become.
    :param pieces: What exists of it: the domain, then its files.
    :param base: What it was made from, ``profile`` by which profile, and ``overrides`` with
        which arguments.
    :param failed: Why it failed, where it was kept.
    """

    name: str
    work: Work
    minion: Minion
    pieces: tuple[Leftover, ...]
    base: str = ""
    profile: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    failed: str = ""
    running: bool = False


def from_dict(data: dict[str, Any]) -> Unfinished:
    """What ``dataclasses.asdict`` made plain, on the other side of a job."""
    return Unfinished(
        name=data["name"],
        work=ownership.work_from_dict(data["work"]),
        minion=Minion(**data["minion"]),
        pieces=tuple(Leftover(**piece) for piece in data["pieces"]),
        **{key: data[key] for key in ("base", "profile", "overrides", "failed", "running")},
    )


def find(host: Host, name: str = "") -> list[Unfinished]:
    """
    Every unfinished piece of work on a host, by name.

    :param name: Only this one; also where it failed and was kept.
    """

    def look(handle: DomainHandle) -> Unfinished | None:
        record = handle.record()
        if record is None or (record.complete and record.stage != DESTROYING):
            return None
        kept = record.failed and record.stage != DESTROYING and not name
        if kept:
            return None
        running = handle.state() != "shutoff" or handle.is_saved()
        return dataclasses.replace(_unfinished(host, handle.name, record), running=running)

    if name:
        handle = host.find(name)
        found = [look(handle)] if handle else []
    else:
        found = host.each_domain(look)
    return sorted((item for item in found if item), key=lambda item: item.name)


def _unfinished(host: Host, name: str, record: ownership.Record) -> Unfinished:
    life = workers.life(record.worker)
    doing = "destroyed" if record.stage == DESTROYING else "made"
    worker = record.worker
    reason = {
        ownership.DEAD: f"it was being {doing} when {workers.end_of(worker)}",
        ownership.ALIVE: f"process {worker.pid} is at work: it is being {doing}",
        ownership.ELSEWHERE: f"being {doing} from '{worker.host}', or was; not known here",
    }[life] + f" (stage '{record.stage}')"
    nvram = {volume.path for volume in record.volumes if volume.target == "nvram"}
    drafts = {dismantle.draft_of(path, record) for path in nvram}
    files = [
        Leftover(name, "nvram" if path in nvram | drafts else "volume", path, reason)
        for path in dismantle.files_of(host, record)
    ]
    entries = [
        Leftover(name, "dhcp host", f"{made.network} {made.mac} {made.address}", reason)
        for made in record.reservations
        if networks.holds(host, made)
    ]
    return Unfinished(
        name=name,
        work=ownership.Work(worker, life, record.stage, record.goal, record.request),
        minion=record.minion,
        pieces=(Leftover(name, "domain", "", reason), *files, *entries),
        base=record.base,
        profile=record.profile,
        overrides=json.loads(record.overrides or "{}"),
        failed=record.failed,
    )
