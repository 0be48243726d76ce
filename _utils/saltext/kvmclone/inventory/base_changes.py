"""
Find what changed in a base since a clone was made from it.

For a quick clone, whose overlays have the base's files as backing files, a change means that
its guest may read garbage; a full clone has its own copy, and merely differs from what the base
is now. Reads only, and costs a ``stat`` per file if the host is this machine.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from saltext.kvmclone.errors import absent
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.constants import NO_DOMAIN
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory.file_usage import file_id
from saltext.kvmclone.model.record import BaseDisk, Record
from saltext.kvmclone.system import backing_files, images

#: Seconds by which a time may change when it is written as text and read again: libvirt writes
#: nanoseconds in decimal, and a float holds them to a quarter of a microsecond.
_ROUNDING_S = 1e-5

_DANGER = "the clone is based on it, and its guest may read garbage"
_HARMLESS = "the clone has its own copy and does not see that"


@dataclass(frozen=True)
class Committed:
    """
    A disk of a clone that was committed into its base: ``virsh blockcommit`` without ``--base``.

    :param target: The disk's target, such as ``vda``.
    :param path: The base's file.
    :param own: The clone's own overlay, which it no longer uses.
    :param below: Whether the clone writes another overlay of its own; otherwise it writes the
        base's file.
    """

    target: str
    path: str
    own: str
    below: bool = False

    def sentence(self, name: str, base: str) -> str:
        """
        Return the sentence that reports it to an operator.

        :param name: The clone.
        :param base: Its base.
        """
        told = (
            f"The disk {self.target} of '{name}' was committed into the one of its base '{base}', "
            f"as by 'virsh blockcommit' without --base: '{self.path}' holds what the clone wrote"
        )
        more = "." if self.below else ", and whatever it writes from now on."
        return f"{told}{more} The base is changed for good."


def committed(
    host: Host,
    record: Record,
    disks: Iterable[tuple[str, str]],
    chain: Callable[[str], list[str]] = lambda _path: [],
) -> list[Committed]:
    """
    Return the disks of a clone that were committed into its base.

    :param disks: Target and path of each disk that the clone uses now.
    :param chain: Returns the backing files of an image, if they are known.
    """
    made: dict[str, list[str]] = {}
    for volume in record.volumes:
        made.setdefault(volume.target, []).append(volume.path)
    found = []
    for target, path in disks:
        if not path or target not in made:
            continue
        keys = [file_id(one, host.local) for one in (path, *chain(path))]
        base = {
            file_id(disk.path, host.local): disk.path
            for disk in record.base_disks
            if disk.target == target
        }
        below = [key for key in keys if key in base]
        if below and not {file_id(one, host.local) for one in made[target]} & set(keys):
            own = made[target][-1]
            found.append(Committed(target, base[below[0]], own, below=keys[0] not in base))
    return found


def stands(host: Host, record: Record, target: str = "") -> bool:
    """
    Return whether a clone still needs its base's disk.

    Somebody may have flattened the clone's overlay since (``virsh blockpull``, ``blockcopy``).

    :param target: One disk (``vda``); any of them if empty.
    """
    return any(
        record.stands_on_base(volume.target) and not _is_flat(host, volume.path)
        for volume in record.volumes
        if target in ("", volume.target)
    )


def _is_flat(host: Host, path: str) -> bool:
    """Return whether an overlay needs no other file any more; False if that cannot be told."""
    try:
        return host.local and not backing_files.needs(path)
    except (OSError, ValueError, backing_files.Unreadable):
        return False


def changes(host: Host, record: Record, own: Iterable[Committed] = ()) -> list[str]:
    """
    Return what changed in the base of a clone, one sentence each; empty if nothing did.

    That the base is running now counts only if the clone stands on one of its disks.

    :param own: The clone's disks that were committed into the base.
    """
    base = find_base(host, record)
    written = {one.path for one in own if not one.below}
    others = tuple(disk for disk in record.base_disks if disk.path not in written)
    name, record = record.name, replace(record, base_disks=others)
    told = [one.sentence(name, record.base) for one in own]
    return told + _changes(host, record, base)


def _changes(host: Host, record: Record, base: DomainHandle | None) -> list[str]:
    found = file_changes(host, record, base is not None)
    if stands(host, record) and base is not None:
        with absent(NO_DOMAIN):  # it may be removed at this moment
            state = base.state()
            if state != "shutoff":
                told = f"The base '{base.name}' is {state} and writes its disks; {_DANGER}."
                return [told, *found]
    return [*being_written(host, record), *found]


def being_written(host: Host, record: Record) -> list[str]:
    """
    Return a sentence for each backing file of a clone that is open for writing.

    Another machine with the same disk, or a tool, has it open. What that writes may not have
    reached the file yet.

    :return: Empty on a remote host.
    """
    if not host.local:
        return []
    paths = [disk.path for disk in record.base_disks if stands(host, record, disk.target)]
    return [
        f"'{path}' of the base '{record.base}' is open for writing; {_DANGER}. Find out who it "
        f"is: {host.commands.there('fuser', '-v', path)}"
        for path in dict.fromkeys(paths)
        if images.is_written(path)
    ]


def file_changes(host: Host, record: Record, base_exists: bool) -> list[str]:
    """
    Return what changed in the files of a clone's base, one sentence each; see :func:`changes`.

    :param base_exists: Whether the base's domain is still there.
    """
    found: list[str] = []
    gone: list[BaseDisk] = []
    for disk in record.base_disks:
        try:
            now = modified(host, disk.path)
        except OSError as error:  # a network file system that denies access, or went away
            found.append(
                f"Whether '{disk.path}' of the base '{record.base}' changed is not known: "
                f"{error.strerror}."
            )
            continue
        if now is None:
            gone.append(disk)
        elif told := _difference(disk, now):
            effect = _DANGER if stands(host, record, disk.target) else _HARMLESS
            found.append(f"'{disk.path}' of the base '{record.base}' {told}; {effect}.")
    if gone and len(gone) == len(record.base_disks) and not base_exists:
        effect = _gone(stands(host, record))
        found.append(f"The base '{record.base}' is gone with its files; {effect}.")
    else:
        found += [
            f"'{disk.path}' of the base '{record.base}' is gone; "
            f"{_gone(stands(host, record, disk.target))}."
            for disk in gone
        ]
    return found


def differs(host: Host, disk: BaseDisk) -> bool:
    """Return whether one disk of a base is gone, changed, or cannot be looked at."""
    try:
        now = modified(host, disk.path)
    except OSError:  # unknown, so assume the worst
        return True
    return now is None or bool(_difference(disk, now))


def modified(host: Host, path: str) -> float | None:
    """
    Return the time of a file's last change, in seconds since the epoch.

    :return: None if there is no such file; 0 if a change cannot be told, as of a block device.
    :raises OSError: The file cannot be looked at now.
    """
    if host.local:
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return status.st_mtime if stat.S_ISREG(status.st_mode) else 0.0
    volume = volumes.find(host, path)
    return volume.modified if volume is not None else None


def find_base(host: Host, record: Record) -> DomainHandle | None:
    """Return the base of a clone, also under a new name; None if it is gone."""
    if not record.base_uuid:
        return host.find(record.base)
    return host.with_uuid(record.base_uuid)


def _difference(disk: BaseDisk, now: float) -> str:
    """Return how a file differs from what the record says; empty if it does not."""
    if disk.modified and not now and not os.path.isfile(disk.path) and os.path.exists(disk.path):
        return "is no longer a file"
    if not now or not disk.modified or abs(now - disk.modified) <= _ROUNDING_S:
        return ""
    if now < disk.modified:
        return f"was replaced by one that was last changed {_time(now)}"
    return f"was changed {_time(now)}"


def _gone(stands: bool) -> str:
    return "the clone is based on it and cannot run" if stands else _HARMLESS


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
