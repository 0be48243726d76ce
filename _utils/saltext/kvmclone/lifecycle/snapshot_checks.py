"""
Refuse to work on the snapshots of a clone, where its data or its base could suffer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable

from saltext.kvmclone.errors import (
    ChannelError,
    CloneInUse,
    HostError,
    NoSnapshot,
    PoolFull,
    SnapshotRefused,
)
from saltext.kvmclone.guest.agent import AgentError
from saltext.kvmclone.hypervisor import pools, volumes
from saltext.kvmclone.hypervisor.domain import AGENT_TIMEOUT_S, DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import clone_view
from saltext.kvmclone.inventory.base_protection import protection
from saltext.kvmclone.inventory.clone_disks import CloneDisks
from saltext.kvmclone.model.record import DESTROYING, STAGES, Record, Snapshot
from saltext.kvmclone.model.snapshots import (
    MOST_SNAPSHOTS,
    find,
    finished,
    label_of,
    labels,
)
from saltext.kvmclone.system import filesystems, images

#: Bytes that a new overlay takes at most.
_OVERLAY = 2**20

#: Most characters of a clone's name and a label together: a copy of its variable store has both in
#: its name, with two uuids, and a file name can have 255.
_LONGEST = 160


def require_ready(host: Host, handle: DomainHandle, record: Record) -> None:
    """
    Refuse a clone whose snapshots cannot be worked on in its present state.

    :raises CreateInProgress: It is being made or destroyed.
    :raises KeptAfterFailure: Its create failed.
    :raises SnapshotRefused: For any other reason.
    """
    name, commands = handle.name, host.commands
    if not host.local:
        raise SnapshotRefused(
            f"The snapshots of '{name}' cannot be worked on over '{host.url}': its files are out "
            "of reach from here.",
            "Set 'host:' in the provider to the minion on the KVM host.",
        )
    if record.stage == DESTROYING:
        raise clone_view.in_progress(record, name, commands)
    if record.failed:
        raise clone_view.kept(record, name, commands)
    if not record.complete:
        raise clone_view.in_progress(record, name, commands)
    if STAGES.index(record.stage) < STAGES.index("addressed"):
        raise SnapshotRefused(
            f"'{name}' is at stage '{record.stage}': a rollback would bring the identity of its "
            "base back.",
            f"Let it get one of its own first: {commands.clone('start', name)}",
        )
    if record.becomes:
        raise SnapshotRefused(
            f"'{name}' is becoming a {record.becomes}.",
            f"Look at it: {commands.clone('show', name)}",
        )
    if not handle.is_persistent():
        raise SnapshotRefused(
            f"'{name}' was undefined by hand while it runs.",
            f"Define it again, then repeat this: {commands.redefine(name)}",
        )
    if protection(host, handle) is not None:
        raise SnapshotRefused(
            f"'{name}' is a protected base; its files do not change.",
            f"Make them writable first: {commands.on_host('unprotect', name)}",
        )
    if handle.is_saved():
        raise SnapshotRefused(
            f"The memory of '{name}' is saved, and belongs to its disks as they are.",
            f"Let it go on first: {commands.clone('start', name)}   Or discard it: "
            + commands.virsh("managedsave-remove", name),
        )


def free_label(host: Host, name: str, record: Record, label: str) -> str:
    """
    Return the label of a new snapshot.

    :param label: The one that is wanted; empty for one made of the time.
    :raises SnapshotRefused: There is one of that label, or there are too many.
    """
    there = finished(record)
    label = label or label_of(time.time())
    if len(record.name) + len(label) > _LONGEST:
        raise SnapshotRefused(
            f"The label '{label}' is too long for the files of '{name}', which have both in their "
            "names.",
            "Choose a shorter one.",
        )
    if find(record, label) in there:
        raise SnapshotRefused(
            f"'{name}' has a snapshot '{label}' already.",
            f"Choose another label, or delete it first: "
            f"{host.commands.clone('delete_snapshot', name, label)}",
        )
    if len(there) >= MOST_SNAPSHOTS:
        raise SnapshotRefused(
            f"'{name}' has {len(there)} snapshots, and each makes its disks slower.",
            f"Delete one first: {host.commands.clone('delete_snapshot', name, there[0].label)}",
        )
    return label


def known(host: Host, name: str, record: Record, label: str) -> Snapshot:
    """
    Return a snapshot of a clone.

    :raises NoSnapshot: There is none of that label.
    """
    there = finished(record)
    for one in there:
        if one.label == label:
            return one
    raise NoSnapshot(
        f"'{name}' has no snapshot '{label}'. It has: {labels(there)}.",
        f"List them: {host.commands.clone('snapshots', name)}",
    )


def require_disks(name: str, disks: CloneDisks) -> None:
    """
    Refuse a clone with disks that cannot be frozen.

    :raises SnapshotRefused: It has such a disk, or none that can.
    """
    if disks.refused or not disks.disks:
        raise SnapshotRefused(
            f"'{name}' cannot have snapshots. "
            + (" ".join(disks.refused) or "It has no disk that was made for it."),
            "Give it other disks, or take these out. Nothing was changed.",
        )


def require_quiet(handle: DomainHandle, state: str) -> None:
    """
    Refuse a guest whose file systems cannot be frozen.

    :param state: libvirt's state of it, not ``shutoff``.
    :raises SnapshotRefused: It does not run, or its agent does not answer or may not freeze.
    """
    name, why = handle.name, f"it is {state}"
    if state == "running":
        why = "its guest agent does not answer"
        try:
            handle.agent({"execute": "guest-fsfreeze-status"}, AGENT_TIMEOUT_S)
            return
        except AgentError as error:
            why = f"its guest agent does not freeze file systems ({error.message})"
        except ChannelError:
            pass
    raise SnapshotRefused(
        f"'{name}' runs, and {why}, so its disks would be caught in the middle of a write.",
        f"Stop it first: {handle.connection.commands.clone('stop', name)}",
    )


def require_room(host: Host, paths: Iterable[str], more: int = 0, store: str = "") -> None:
    """
    Refuse to begin where the new files do not fit, or no storage pool is over their folder.

    :param paths: Files that new overlays are laid on, beside them.
    :param more: Bytes that are written besides.
    :param store: A variable store that is copied beside itself; empty for none.
    :raises PoolFull: There is too little space.
    :raises HostError: No pool that runs is over the folder.
    """
    folders = {os.path.dirname(store): os.path.getsize(store)} if store else {}
    for path in paths:
        folder = os.path.dirname(path)
        folders[folder] = folders.get(folder, more) + _OVERLAY
        if pools.holder(host, path) is None:
            raise HostError(
                f"No storage pool over '{folder}' is running.",
                f"Find it and start it: {host.commands.virsh('pool-list', '--all')}",
            )
    for folder, needed in folders.items():
        if (free := filesystems.of(folder).available) < needed:
            raise PoolFull(
                f"'{folder}' has {free} bytes free, and up to {needed} are needed.",
                f"Make room there: {host.commands.there('df', '-h', folder)}",
            )


def require_no_internal_snapshots(host: Host, name: str, paths: Iterable[str]) -> None:
    """
    Refuse to change or delete images with snapshots inside that another tool made.

    An overlay that takes over what it needs takes that over for its present state alone.

    :raises SnapshotRefused: An image has some.
    """
    for path in paths:
        if volumes.exists(host, path) and (number := images.look(path).header.snapshots):
            raise SnapshotRefused(
                f"'{path}' of '{name}' holds {number} internal snapshot(s) of another tool, which "
                "would be lost.",
                "Delete those that nobody needs, with the tool that made them. Look at them: "
                + host.commands.there("qemu-img", "snapshot", "-l", path),
            )


def require_alone(host: Host, name: str, images: Collection[str]) -> None:
    """
    Refuse to remove what others need.

    :param images: The images on the files that would go, which no record of the clone lists.
    :raises CloneInUse: There is one.
    """
    if images:
        raise CloneInUse(
            f"Other images are based on what '{name}' would lose: {', '.join(images)}. Nothing "
            "was touched.",
            f"See whose they are: {host.commands.clone('tree')}   Or of no machine any more: "
            + host.commands.clone("doctor"),
        )
