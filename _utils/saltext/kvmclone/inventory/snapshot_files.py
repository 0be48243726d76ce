"""
Decide which files of a clone's snapshots can be deleted now.

A file goes under the conditions under which a destroy would delete it, see :mod:`.deletion_plan`,
and only if no image that stays stands on it. Reads only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory.deletion_plan import (
    DeletionPlan,
    FileToDelete,
    FileToKeep,
    Planner,
)
from saltext.kvmclone.inventory.file_usage import FileId, FileUsage
from saltext.kvmclone.model.record import Record, Volume
from saltext.kvmclone.system import images

#: Seconds that a tool which only inspects an image may have it open.
SHORT_OPEN_S = 3.0


def plan_removal(
    host: Host, handle: DomainHandle, record: Record, volumes: Sequence[Volume], usage: FileUsage
) -> DeletionPlan:
    """
    Decide what of some files that the clone no longer needs is deleted.

    :param volumes: The files, the last made first.
    :raises OutOfReach: One may be there and cannot be looked at.
    """
    texts = (handle.definition(), handle.live())
    planner = Planner(host, handle.name, handle.uuid, texts, record, False, usage)
    found = planner.judge(volumes)
    going = {file.key for file in found.files}
    files, kept = [], list(found.kept)
    for file in found.files:
        if why := _why_it_stays(usage, file, going):
            going.discard(file.key)  # so what it stands on stays as well
            kept.append(FileToKeep(file.path, why))
        else:
            files.append(file)
    return DeletionPlan(tuple(files), tuple(kept), found.missing)


def _why_it_stays(usage: FileUsage, file: FileToDelete, going: set[FileId]) -> str:
    """
    Return why a file that the clone does not need stays all the same; empty where it goes.

    :param going: What else goes.
    """
    tower = usage.with_overlays(file.path)
    if above := [path for key, path in tower.items() if key not in going]:
        return f"'{above[0]}' is based on it"
    if users := usage.users(file.path):
        return f"'{users[0]}' uses it"
    deadline = time.monotonic() + SHORT_OPEN_S
    while who := images.holder(file.path):
        if time.monotonic() > deadline:
            return f"{who} has it open, or an image that is based on it"
        time.sleep(0.2)
    return ""


def in_the_way(usage: FileUsage, record: Record, paths: Iterable[str]) -> list[str]:
    """
    Return the images on some of a clone's files that its record does not list.

    :param paths: The files.
    """
    ours = {usage.file_id(volume.path) for volume in record.volumes}
    claims = usage.claimed_by_others(record.uuid)
    return sorted(
        {
            image
            for path in paths
            for key, image in usage.with_overlays(path).items()
            if key not in ours or key in claims
        }
    )
