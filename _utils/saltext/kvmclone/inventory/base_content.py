"""
Say which content a base has, where that was found out before; see :mod:`.base_content` of model.

Reads only, and no content: a digest on record counts as long as definition and files are as they
were.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from saltext.kvmclone.errors import KvmCloneError, PlanRefused, absent
from saltext.kvmclone.hypervisor import pools
from saltext.kvmclone.hypervisor.constants import (
    AFFECT_CONFIG,
    METADATA_ELEMENT,
    NO_DOMAIN_METADATA,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import copy_target
from saltext.kvmclone.inventory.base_protection import protection
from saltext.kvmclone.model import domain_xml, libvirt_xml, normal_definition
from saltext.kvmclone.model.base_content import NAMESPACE, BaseState, Content, FileState, from_xml
from saltext.kvmclone.model.facts import ImageFacts
from saltext.kvmclone.model.record import BASE
from saltext.kvmclone.system import images

#: Elements of ``<os>`` that name a file which the machine starts from directly.
_BOOT = ("kernel", "initrd", "dtb")


@dataclass(frozen=True)
class BaseImage:
    """
    A disk of a base, with all the files that it consists of.

    :param chain: The disk's own image first, then its backing files; ``data`` their data files.
    """

    target: str
    format: str
    path: str
    chain: tuple[ImageFacts, ...]
    data: tuple[ImageFacts, ...]

    @property
    def is_whole(self) -> bool:
        """Return whether its bytes are the disk and nothing else, so that they can be copied."""
        header = self.chain[0].header
        return len(self.chain) == 1 and not self.data and (header.plain or self.format == "raw")

    @property
    def allocation(self) -> int:
        return sum(image.allocation for image in (*self.chain, *self.data))


def disks(host: Host, handle: DomainHandle, definition: str) -> list[BaseImage]:
    """
    Return the disks of a base; drives with a medium that can be changed are none.

    :param definition: That of the domain.
    :raises PlanRefused: One is no file on this host, or cannot be read.
    """
    found = []
    for disk in domain_xml.read(definition, host.folders.stores).disks:
        if disk.device not in ("disk", "lun"):
            continue
        path, problem = pools.path_of(host, disk)
        chain, data, fault = images.chain(path, disk.format, images.look, host.commands)
        if problem or disk.kind not in ("file", "volume"):
            fault = f"its pool is {problem}" if problem else f"it is of type '{disk.kind}'"
        elif wrong := [image for image in (*chain, *data) if image.kind != "file"]:
            fault = fault or f"'{wrong[0].path}' is {_kind(wrong[0])}"
        elif disk.encrypted or any(image.header.encrypted for image in chain):
            fault = "it is encrypted"
        if fault:
            raise PlanRefused(
                f"The content of '{handle.name}' cannot be compared or copied: its disk "
                f"'{disk.target}' cannot be read as a file: {fault}.",
                f"Look at it: {host.commands.virsh('domblklist', handle.name, '--details')}",
            )
        found.append(BaseImage(disk.target, disk.format, path, chain, data))
    return found


def _kind(image: ImageFacts) -> str:
    return {"block": "a block device", "folder": "a folder"}.get(image.kind, image.kind)


def boot_files(definition: str) -> dict[str, str]:
    """Return the files that a machine starts from directly, by what they are."""
    root = libvirt_xml.parse(definition)
    named = {tag: (root.findtext(f"./os/{tag}") or "").strip() for tag in _BOOT}
    return {tag: path for tag, path in named.items() if path}


def store(host: Host, definition: str) -> str:
    """Return the base's variable store; empty where it has none, or none was made yet."""
    nvram = domain_xml.read(definition, host.folders.stores).nvram
    return nvram.path if nvram is not None and os.path.isfile(nvram.path) else ""


def files_of(host: Host, definition: str, disks: list[BaseImage]) -> tuple[FileState, ...]:
    """
    Return the state of every file that a base's content is made of.

    :raises OSError: One cannot be looked at.
    """
    paths = [image.path for disk in disks for image in (*disk.chain, *disk.data)]
    paths += [path for path in (store(host, definition), *boot_files(definition).values()) if path]
    return tuple(state_of(path) for path in dict.fromkeys(paths))


def state_of(path: str) -> FileState:
    """
    Return the state of one file.

    :raises OSError: It cannot be looked at.
    """
    status = os.stat(path)
    return FileState(path, status.st_size, status.st_mtime_ns, status.st_ino)


def recorded(host: Host, handle: DomainHandle) -> Content | None:
    """Return the digest on a base's record, whether it counts or not; None where there is none."""
    text = ""
    with absent(NO_DOMAIN_METADATA):
        text = host.call(handle.raw.metadata, METADATA_ELEMENT, NAMESPACE, AFFECT_CONFIG)
    return from_xml(text, handle.uuid) if text else None


def known(host: Host, handle: DomainHandle) -> Content | None:
    """Return the digest on a base's record; None where there is none, or it is void."""
    content = recorded(host, handle)
    return content if content is not None and _counts(host, handle, content) else None


def known_disks(host: Host, handle: DomainHandle) -> list[BaseImage] | None:
    """Return the disks whose content a digest on record is of; None where none counts."""
    content = recorded(host, handle)
    return _unchanged(host, handle, content) if content is not None else None


def _counts(host: Host, handle: DomainHandle, content: Content) -> bool:
    return _unchanged(host, handle, content) is not None


def _unchanged(host: Host, handle: DomainHandle, content: Content) -> list[BaseImage] | None:
    """Return the disks of a base that is still as it was when its content was read, or None."""
    if not host.local or handle.state() != "shutoff":
        return None  # a machine that runs writes its disks
    definition = handle.definition()
    try:
        found = disks(host, handle, definition)
        # The normal form has no paths: which files they are counts as much as what they are like.
        now = files_of(host, definition, found)
    except (OSError, KvmCloneError):
        return None
    same = set(now) == set(content.files)
    return found if same and normal_definition.digest(definition) == content.definition else None


def states(host: Host, names: Collection[str]) -> list[BaseState]:
    """
    Return the machines of a host that may be bases: those of ours, and those that are named.

    :param names: Which to return although nothing of ours is recorded with them.
    """

    def look(handle: DomainHandle) -> BaseState | None:
        record = handle.record()
        if record is not None and record.becomes != BASE:
            return None
        if record is not None:
            volumes = record.volumes if host.local else ()
            taken = sum(copy_target.allocated(volume, record) for volume in volumes)
            return BaseState(handle.name, "", taken, copying=True, marked=True)
        return state(host, handle, handle.name in names)

    found = [one for one in host.each_domain(look) if one is not None]
    return sorted(found, key=lambda one: one.name)


def state(host: Host, handle: DomainHandle, wanted: bool = True) -> BaseState | None:
    """
    Return what is known of one base.

    :param wanted: Return it also where nothing of ours is recorded with it.
    """
    content = recorded(host, handle)
    marked = content is not None or protection(host, handle) is not None
    if not (marked or wanted):
        return None
    digest = content.digest if content is not None and _counts(host, handle, content) else ""
    return BaseState(handle.name, digest, _bytes(host, handle), False, marked)


def _bytes(host: Host, handle: DomainHandle) -> int:
    if not host.local:
        return 0
    try:
        return sum(disk.allocation for disk in disks(host, handle, handle.definition()))
    except KvmCloneError:
        return 0
