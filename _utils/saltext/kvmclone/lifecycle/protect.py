"""
Make a base's files read-only, so that no start of the base can damage the clones on top.

QEMU runs without the privilege to write what file modes forbid, so a protected base cannot be
started, while clones, which only read its files, run. The original modes are kept in the base's
own ``<metadata>``, written *before* any mode is changed and removed *after* all are restored:
after a crash at any point, repeating the operation completes it.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable
from dataclasses import replace

from lxml import etree

from saltext.kvmclone.errors import CloneInUse, HostError, PlanRefused, absent
from saltext.kvmclone.hypervisor.constants import (
    AFFECT_CONFIG,
    METADATA_ELEMENT,
    NO_DOMAIN_METADATA,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import file_usage_scan, snapshots
from saltext.kvmclone.inventory.base_protection import ProtectedFile, Protection, held, protection
from saltext.kvmclone.inventory.file_usage import FileId, file_id
from saltext.kvmclone.model.record import BASE_NAMESPACE, Record
from saltext.kvmclone.system import backing_files, images, processes

PREFIX = "kvmclone-base"

#: Name of the lock that is held while the protection of any base is changed.
_TURN = "protected bases"

_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def check(host: Host, base: DomainHandle, disk_paths: Iterable[str]) -> list[str]:
    """
    Check that a base can be protected.

    :param disk_paths: Paths of the base's disks, without what it shares (cdrom media).
    :return: Paths of all files that it consists of, down to the ends of the backing chains.
    :raises PlanRefused: The host's files are not in reach, the base runs, or a disk is not a
        regular file.
    """
    name = base.name
    if not host.local:
        raise PlanRefused(
            f"The base '{name}' cannot be protected over '{host.url}': file modes are out of "
            "reach from here.",
            "Set 'host:' in the provider to the minion on the KVM host, or take 'protect' out "
            "of the profile.",
        )
    state = base.state()
    if state != "shutoff" or base.is_saved():
        raise PlanRefused(
            f"The base '{name}' cannot be protected while it runs or is saved: it would go on "
            "writing the files that it has open.",
            f"Shut it off first: {host.commands.shut_off(name, state)}"
            if state != "shutoff"
            else "Discard what is saved, if it may be lost: "
            + host.commands.virsh("managedsave-remove", name),
        )
    return _with_chains(host, disk_paths, name)


def protect(
    host: Host, base: DomainHandle, disk_paths: Iterable[str], holder: str = ""
) -> Protection:
    """
    Make the base's files read-only, down to the ends of their backing chains. Can be repeated.

    :param disk_paths: Paths of the base's disks, without what it shares (cdrom media).
    :param holder: Uuid of the clone for whose sake it is done; if its create fails,
        :func:`withdraw` undoes it.
    :return: The mark as it stands in the base's metadata.
    :raises PlanRefused: It cannot be protected, see :func:`check`. Nothing was changed.
    :raises HostError: A mode could not be changed; repeating is safe.
    """
    paths = check(host, base, disk_paths)
    with processes.name_lock(_TURN):  # another create must not take our modes for the original ones
        old = protection(host, base)
        known = {file.path: file.mode for file in old.files} if old else {}
        # A file that another protected base uses too is read-only already.
        others = _modes_elsewhere(host, base)
        for path in paths:
            if path not in known:
                known[path] = others.get(file_id(path, True), _mode(path))
        files = tuple(ProtectedFile(path, mode) for path, mode in known.items())
        holders = old.holders if old else ()
        if holder and (old is None or holders):
            holders = tuple(dict.fromkeys((*holders, holder)))
        mark = Protection(base.uuid, old.since if old else time.time(), files, holders)
        if old != mark:
            _write(host, base, mark)
        for path in paths:
            _change(host, path, remove=_WRITE)
    return mark


def confirm(host: Host, record: Record) -> None:
    """Make the protection permanent, since the clone for whose sake it was set succeeded."""
    with processes.name_lock(_TURN):
        base, mark = held(host, record)
        if base is not None and mark is not None:
            _write(host, base, replace(mark, holders=()))


def withdraw(host: Host, record: Record) -> str:
    """
    Lift the protection that was set for the sake of a clone whose create failed. Can be repeated.

    It stays where another clone's create wanted it, too.

    :return: Name of the base that is writable again; empty for none.
    """
    with processes.name_lock(_TURN):
        base, mark = held(host, record)
        if base is None or mark is None:
            return ""
        others = tuple(uuid for uuid in mark.holders if uuid != record.uuid)
        if others:
            _write(host, base, replace(mark, holders=others))
            return ""
        _lift(host, base, mark)
        return base.name


def unprotect(host: Host, base: DomainHandle) -> list[str]:
    """
    Restore the modes of the base's files and remove the mark. Can be repeated.

    :return: Paths of the files that are writable again.
    :raises CloneInUse: Quick clones depend on the base.
    :raises PlanRefused: The host's files are not in reach.
    """
    mark = protection(host, base)
    if mark is None:
        return []
    if not host.local:
        raise PlanRefused(
            f"The protection of '{base.name}' cannot be lifted over '{host.url}'.",
            "Set 'host:' in the provider to the minion on the KVM host. Or, there: "
            + host.commands.there("salt-call", "--local", "kvm_clone.unprotect", base.name),
        )
    with processes.name_lock(_TURN):
        _require_unused(host, base, mark)
        return _lift(host, base, mark)


def _lift(host: Host, base: DomainHandle, mark: Protection) -> list[str]:
    """
    Restore the modes, then remove the mark that remembers them.

    :return: Paths of the files that are writable again.
    """
    kept = _modes_elsewhere(host, base)
    freed = []
    for file in mark.files:
        if file_id(file.path, True) not in kept and os.path.exists(file.path):
            _change(host, file.path, add=file.mode & _WRITE)
            freed.append(file.path)
    with absent(NO_DOMAIN_METADATA):
        host.call(base.raw.setMetadata, METADATA_ELEMENT, None, None, BASE_NAMESPACE, AFFECT_CONFIG)
    return freed


def _require_unused(host: Host, base: DomainHandle, mark: Protection) -> None:
    """
    Refuse to lift the protection of a base that clones depend on.

    :raises CloneInUse: An image that is not the base's own has one of its files as backing file.
    """
    usage = file_usage_scan.scan(host)
    # A snapshot of the base has its files as backing files and is its own; a clone may use that.
    mine = [use.path for use in usage.uses if use.uuid == base.uuid and use.format]
    mine += [below for path in mine for below in usage.chain(path)]
    mine = [path for path in mine if set(usage.users(path)) <= {base.name}]
    mine += [file.path for file in mark.files]
    own = {file_id(path, True) for path in mine}
    standing = usage.overlays_on(mine)
    others = {
        image for some in standing.values() for image in some if file_id(image, True) not in own
    }
    if others:
        towers = [usage.with_overlays(image).values() for image in others]
        named = {name for tower in towers for path in tower for name in usage.users(path)}
        named -= {base.name}
        unnamed = {image for image in others if not usage.users(image)}
        raise CloneInUse(
            f"The base '{base.name}' stays protected: quick clones are based on it: "
            + ", ".join(sorted(named) + sorted(unnamed))
            + ".",
            snapshots.in_the_way(usage, named, sorted(unnamed), images.holder, host.commands),
        )


def _with_chains(host: Host, disk_paths: Iterable[str], name: str) -> list[str]:
    """
    Return the disks and every image in their backing chains, each once.

    :raises PlanRefused: A file is not a regular file, or its backing file is not known.
    """

    def below(_key: FileId, path: str) -> list[tuple[FileId, str]]:
        _require_regular(host, path, name)
        return [(file_id(file, True), file) for file in backing_files.needs(path)]

    try:
        disks = [(file_id(path, True), path) for path in disk_paths]
        return list(backing_files.walk(disks, below).values())
    except backing_files.Unreadable as error:
        raise PlanRefused(
            f"The base '{name}' cannot be protected: what '{error.path}' is based on is not known, "
            f"since {error}.",
            f"Look at it: {host.commands.there('ls', '-l', error.path)}",
        ) from error


def _require_regular(host: Host, path: str, name: str) -> None:
    """
    Refuse a file whose mode would not last.

    :raises PlanRefused: It cannot be looked at, or is not a regular file.
    """
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        raise PlanRefused(
            f"The base '{name}' cannot be protected: '{path}': {error.strerror}.",
            f"Look at its disks: {host.commands.virsh('domblklist', name)}",
        ) from error
    if not regular:
        raise PlanRefused(
            f"The base '{name}' cannot be protected: '{path}' is a device, whose mode is made "
            "anew with every boot.",
            "Take 'protect' out of the profile.",
        )


def _modes_elsewhere(host: Host, base: DomainHandle) -> dict[FileId, int]:
    """Return the original modes of all other protected bases' files, by the file's identity."""
    uuid = base.uuid

    def look(handle: DomainHandle) -> Protection | None:
        return protection(host, handle) if handle.uuid != uuid else None

    return {
        file_id(file.path, True): file.mode
        for mark in host.each_domain(look)
        if mark is not None
        for file in mark.files
    }


def _mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def _change(host: Host, path: str, add: int = 0, remove: int = 0) -> None:
    """
    Change the write bits of a file and nothing else, since others may have changed the rest.

    :param add: Mode bits to set.
    :param remove: Mode bits to clear.
    :raises HostError: The mode cannot be changed.
    """
    try:
        old = _mode(path)
        new = (old | add) & ~remove
        if new != old:
            os.chmod(path, new)
    except OSError as error:
        raise HostError(
            f"The mode of '{path}' cannot be changed: {error.strerror}.",
            "Look at its file system, then repeat: " + host.commands.there("findmnt", "-T", path),
        ) from error


# --- the mark -----------------------------------------------------------------------


def _write(host: Host, base: DomainHandle, mark: Protection) -> None:
    root = etree.Element("protected", uuid=mark.uuid, since=repr(mark.since))
    for file in mark.files:
        etree.SubElement(root, "file", path=file.path, mode=f"{file.mode:04o}")
    for uuid in mark.holders:
        etree.SubElement(root, "holder", uuid=uuid)
    text = etree.tostring(root, encoding="unicode")
    host.call(base.raw.setMetadata, METADATA_ELEMENT, text, PREFIX, BASE_NAMESPACE, AFFECT_CONFIG)
