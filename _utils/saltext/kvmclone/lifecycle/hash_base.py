"""
Find out which content a base has, and record that with it.
"""

from __future__ import annotations

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import HostError, MissingProgram, PlanRefused
from saltext.kvmclone.hypervisor.constants import AFFECT_CONFIG, METADATA_ELEMENT
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_content, clone_view
from saltext.kvmclone.inventory.base_content import BaseImage
from saltext.kvmclone.model import normal_definition
from saltext.kvmclone.model.base_content import (
    NAMESPACE,
    PREFIX,
    Content,
    DiskContent,
    digest_of,
    to_xml,
)
from saltext.kvmclone.model.base_copy import NVRAM
from saltext.kvmclone.system import guest_content, images
from saltext.kvmclone.system.guest_content import UnreadableContent


def known_or_hashed(host: Host, handle: DomainHandle) -> Content:
    """
    Return the digest of a base's content; read all of it where none is on record that counts.

    :raises PlanRefused: It runs, or is no set of files on this host.
    :raises MissingProgram: ``qemu-nbd`` is not installed there.
    """
    content = base_content.known(host, handle)
    return content if content is not None else _hashed(host, handle)


def _hashed(host: Host, handle: DomainHandle) -> Content:
    """Read the content of a base, and record its digest; see :func:`known_or_hashed`."""
    _require_at_rest(host, handle)
    definition = handle.definition()
    disks = base_content.disks(host, handle, definition)
    try:
        before = base_content.files_of(host, definition, disks)
        read = tuple(_disk_content(host, disk) for disk in disks)
        named = _others(host, definition).items()
        others = {what: guest_content.file_digest(path) for what, path in named}
        after = base_content.files_of(host, definition, disks)
    except OSError as error:
        raise HostError(
            f"The content of '{handle.name}' cannot be read: {error.strerror}.",
            f"Look at its disks: {host.commands.virsh('domblklist', handle.name)}",
        ) from error
    if before != after or handle.state() != "shutoff":
        raise PlanRefused(
            f"'{handle.name}' was changed while its content was read.",
            f"Leave it alone, and repeat the command. Is it off? "
            f"{host.commands.virsh('domstate', handle.name)}",
        )
    normal = normal_definition.digest(definition)
    digest = digest_of(normal, read, others)
    content = Content(handle.uuid, digest, normal, after, read, others)
    write(host, handle, content)
    return content


def write(host: Host, handle: DomainHandle, content: Content) -> None:
    """Record the digest of a base's content with it."""
    arguments = (METADATA_ELEMENT, to_xml(content), PREFIX, NAMESPACE, AFFECT_CONFIG)
    host.call(handle.raw.setMetadata, *arguments)


def _require_at_rest(host: Host, handle: DomainHandle) -> None:
    """
    Refuse a base whose content may change, or cannot be read, at this moment.

    :raises PlanRefused: It runs, is saved, or is on another machine than we are.
    :raises MissingProgram: ``qemu-nbd`` is not installed.
    """
    name, state = handle.name, handle.state()
    clone_view.require_no_saved_memory(handle.record(), name, host.commands)
    if not host.local:
        raise PlanRefused(
            f"The content of '{name}' cannot be read over '{host.url}': its files are out of "
            "reach from here.",
            "Set 'host:' in the provider to the minion on the KVM host.",
        )
    if state != "shutoff":
        raise PlanRefused(
            f"The content of '{name}' cannot be read while it is {state}: it writes its disks.",
            f"Shut it off first: {host.commands.shut_off(name, state)}",
        )
    if not guest_content.can_read():
        raise MissingProgram.of(guest_content.PROGRAM, "qemu-utils", "qemu-img")


def _disk_content(host: Host, disk: BaseImage) -> DiskContent:
    """
    Return what a guest sees on a disk.

    :raises PlanRefused: Somebody writes it.
    :raises HostError: It cannot be read.
    """
    for image in disk.chain:
        interrupts.check()
        if images.is_written(image.path):
            raise PlanRefused(
                f"'{image.path}' is open for writing, so its content cannot be read.",
                f"Find out who it is: {host.commands.there('fuser', '-v', image.path)}",
            )
    size, digest = content_of(host, disk.path, disk.format)
    return DiskContent(disk.target, disk.format, size, digest)


def content_of(host: Host, path: str, form: str) -> tuple[int, str]:
    """
    Return size and digest of what a guest sees in an image.

    :raises HostError: It cannot be read.
    """
    try:
        return guest_content.digest(path, form)
    except UnreadableContent as error:
        look = host.commands.there("qemu-img", "check", path)
        raise HostError(f"'{path}' cannot be read: {error}.", f"Look at it: {look}") from error


def _others(host: Host, definition: str) -> dict[str, str]:
    """Return the files that a base starts from besides its disks, by what they are."""
    store = base_content.store(host, definition)
    return {**base_content.boot_files(definition), **({NVRAM: store} if store else {})}
