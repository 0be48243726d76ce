"""
Decide where the files of a base go that is copied from another host, and whether they can.

Reads only; :mod:`.fetch_base` acts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from dataclasses import replace

from saltext.kvmclone.errors import PlanRefused, PoolFull
from saltext.kvmclone.hypervisor import pools, volumes
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import clone_view, deletion_plan
from saltext.kvmclone.model import base_copy
from saltext.kvmclone.model.base_copy import NVRAM, BaseOffer, OfferedFile
from saltext.kvmclone.model.record import BASE, DEAD, DESTROYING, MADE, WANTED, Record, Volume
from saltext.kvmclone.system import filesystems, guest_content, processes


def require_sound(offer: BaseOffer) -> None:
    """Refuse an offer with words in it that no source of ours writes."""
    if wrong := "; ".join(base_copy.faults(offer)):
        raise PlanRefused(
            f"The offer of a base that came from the source is refused: {wrong}.",
            "That host's minion sent it: look at that one, then repeat the push.",
        )


def left_behind(host: Host, handle: DomainHandle) -> Record:
    """
    Return the record of a copy that was interrupted.

    :raises CreateInProgress: It is not interrupted, or may not be.
    :raises PlanRefused: It is something else; ForeignDomain: it is the saved memory of a base.
    """
    record = handle.record()
    clone_view.require_no_saved_memory(record, handle.name, host.commands)
    if record is not None and record.becomes == BASE and record.stage == DESTROYING:
        if processes.owner_state(record.worker) != DEAD:
            raise clone_view.in_progress(record, handle.name, host.commands)
        raise PlanRefused(
            f"'{handle.name}' was being removed on this host when that was interrupted.",
            f"Remove what there is of it: {host.commands.clone('gc', handle.name, 'apply=True')}",
        )
    if record is None or record.becomes != BASE or record.stage != "planned":
        raise PlanRefused(
            f"'{handle.name}' is a clone on this host, so no base can be copied to that name.",
            f"Look at it: {host.commands.clone('show', handle.name)}",
        )
    if processes.owner_state(record.worker) != DEAD:
        raise clone_view.in_progress(record, handle.name, host.commands)
    return record


def path_now(volume: Volume, record: Record) -> str:
    """Return where a file is, or is to be, at this moment: its own path, or that of its draft."""
    in_place = volume.state == MADE and filesystems.is_same_file(volume.path, volume.inode)
    exists = os.path.exists(volume.path)
    return volume.path if in_place and exists else deletion_plan.draft_path(volume.path, record)


def planned_volumes(
    host: Host, offer: BaseOffer, known: Record | None, going: Collection[str] = ()
) -> tuple[Volume, ...]:
    """
    Return the files that are to come.

    :param known: The record of an interrupted copy; it goes on with what that has.
    :param going: Paths of files that are removed before.
    :raises PlanRefused: There is no pool for one, or something stands where it is to be.
    """
    planned = []
    removed = {os.path.realpath(path) for path in going}
    for file in offer.files:
        path = _destination(host, offer, file)
        volume = Volume(file.name, path, file.format or "raw", "copy", WANTED, file.size)
        old = next((one for one in (known.volumes if known else ()) if one.path == path), None)
        if old is not None and old.state == MADE:
            volume = replace(volume, state=MADE, inode=old.inode, mount=old.mount)
        elif os.path.lexists(path) and os.path.realpath(path) not in removed:
            raise PlanRefused(
                f"'{path}' exists already on this host, and it is no disk of a base "
                f"'{offer.base}'; it is not ours to overwrite.",
                f"See what it is: {host.commands.there('ls', '-l', path)}",
            )
        planned.append(volume)
    if known is not None and {one.path for one in known.volumes} != {one.path for one in planned}:
        raise PlanRefused(
            f"What an interrupted copy of '{offer.base}' left here is another base.",
            f"Remove it first: {host.commands.clone('gc', offer.base, 'apply=True')}",
        )
    return tuple(planned)


def _destination(host: Host, offer: BaseOffer, file: OfferedFile) -> str:
    if file.name == NVRAM:
        return store(host, offer, file.folder)
    name = f"{offer.base}-{file.name}.{file.format}"
    raw = volumes.pool_named(host, file.pool) if file.pool else None
    if raw is not None and host.call(raw.isActive):
        pool = pools.described(host, raw, active=True)
        if pool.is_folder and os.path.isdir(pool.path):
            return os.path.join(pool.path, name)
    elif not file.pool and os.path.isdir(file.folder) and pools.is_inside(host, file.folder):
        return os.path.join(file.folder, name)
    wanted = (
        f"storage pool '{file.pool}'"
        if file.pool
        else f"folder '{file.folder}', which must be in a storage pool"
    )
    make = host.commands.virsh(
        "pool-define-as", file.pool or "bases", "dir", "--target", file.folder
    )
    raise PlanRefused(
        f"The disk '{file.name}' of '{offer.base}' is in the {wanted}, which this host does not "
        "have, or which is not started here.",
        f"Make it, and start it: {make}"
        if raw is None
        else f"Start it: {host.commands.virsh('pool-start', file.pool)}",
    )


def store(host: Host, offer: BaseOffer, folder: str) -> str:
    """
    Return the path of the copy's variable store: libvirt's folder, or that one if it is in a pool.
    """
    usable = os.path.isabs(folder) and os.path.isdir(folder) and pools.is_inside(host, folder)
    return os.path.join(folder if usable else host.folders.stores, f"{offer.base}_VARS.fd")


def require_needs(offer: BaseOffer) -> None:
    """Refuse a base that starts from files which this host has not, or has others of."""
    wrong = []
    for path, digest in offer.needs.items():
        if not os.path.isfile(path):
            wrong.append(f"'{path}' is not there")
        elif digest and guest_content.file_digest(path) != digest:
            wrong.append(f"'{path}' is another file")
    if wrong:
        raise PlanRefused(
            f"'{offer.base}' starts from files that this host would need, too: {', '.join(wrong)}.",
            "Bring them there first; they belong to the host, and are not copied with a base.",
        )


def require_room(
    host: Host,
    offer: BaseOffer,
    planned: tuple[Volume, ...],
    known: Record | None,
    going: Collection[str] = (),
) -> None:
    """
    Refuse a base that some folder has too little room for.

    :param going: Paths of files that are removed before, whose room counts as free.
    :raises PoolFull: There is too little.
    """
    wanted = {volume.target: os.path.dirname(volume.path) for volume in planned}
    here = {volume.target: allocated(volume, known) for volume in planned}
    needed: dict[int, int] = {}
    for file in offer.files:
        folder = wanted[file.name]
        device = os.stat(folder).st_dev
        more = max(file.allocation - here[file.name], 0)
        needed[device] = needed.get(device, 2**20) + more
        room = os.statvfs(folder)
        free = room.f_bavail * room.f_frsize + _freed(going, device)
        if free < needed[device]:
            raise PoolFull(
                f"'{folder}' has too little room for '{offer.base}': {free} bytes are free, and "
                f"{needed[device]} are needed.",
                f"Make room there. See: {host.commands.there('df', '-h', folder)}",
            )


def _freed(going: Collection[str], device: int) -> int:
    """Return the bytes that become free on a file system when some files are removed."""
    found = [os.stat(path) for path in going if os.path.isfile(path)]
    return sum(one.st_blocks * 512 for one in found if one.st_dev == device and one.st_nlink == 1)


def allocated(volume: Volume, known: Record | None) -> int:
    """
    Return the bytes that a file occupies by now.

    :param known: The record that lists it; None where nothing is there yet.
    """
    if known is None:
        return 0
    with contextlib.suppress(OSError):
        return os.stat(path_now(volume, known)).st_blocks * 512
    return 0
