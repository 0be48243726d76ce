"""
Fetch a base from another host, which offers it (see :mod:`.offer_base`).

The definition is the journal here, too: it is written before any disk is, with a record of every
file that is to come. Each file is fetched under another name, so that the machine cannot start,
and none has its own name before all were compared with the source's. With the record's end the
machine is a base like any other. A fetch that was killed is gone on with by the next.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from uuid import uuid4

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    CopyFailed,
    CreateInProgress,
    HostError,
    MissingProgram,
    PlanRefused,
    PoolFull,
)
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.constants import AFFECT_CONFIG, METADATA_ELEMENT, OPERATION_FAILED
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_content, copy_target, deletion_plan
from saltext.kvmclone.lifecycle import hash_base, record_store, remove_base
from saltext.kvmclone.lifecycle.destroy import take_back
from saltext.kvmclone.model import libvirt_xml, normal_definition, redaction
from saltext.kvmclone.model.base_content import BaseState, Content, DiskContent, digest_of
from saltext.kvmclone.model.base_copy import (
    DEFINITION,
    NVRAM,
    BaseOffer,
    CopyKey,
    OfferedFile,
)
from saltext.kvmclone.model.record import BASE, MADE, Record
from saltext.kvmclone.model.record_xml import NAMESPACE, embed
from saltext.kvmclone.plan import base_copy
from saltext.kvmclone.system import (
    copy_folder,
    fetching,
    filesystems,
    guest_content,
    processes,
    ssh_server,
)
from saltext.kvmclone.system.fetching import FetchFailed, Source
from saltext.kvmclone.system.ssh_server import NoAccess


def expect(host: Host, name: str) -> BaseState:
    """
    Return what this host has under the name of a base that is to be copied here.

    :return: With the digest of the base that is there already; without where none is, or only what
        an interrupted copy left.
    :raises CreateInProgress: Somebody is making it at this moment.
    :raises PlanRefused: A clone has that name.
    :raises MissingProgram: A program that copying takes is not installed.
    """
    for program in fetching.missing():
        raise MissingProgram.of(program, *fetching.PROGRAMS[program])
    if not guest_content.can_read():
        raise MissingProgram.of(guest_content.PROGRAM, "qemu-utils", "qemu-img")
    handle = host.find(name)
    if handle is None:
        return BaseState(name)
    if handle.record() is not None:
        copy_target.left_behind(host, handle)
        return BaseState(name, copying=True)
    hash_base.known_or_hashed(host, handle)
    found = base_content.state(host, handle)
    assert found is not None
    return found


def prepare(host: Host, offer: BaseOffer, instead: bool = False) -> CopyKey:
    """
    Check that a base can be fetched, and make the key for that.

    :param instead: In the place of the base of that name, which :func:`fetch` removes.
    :raises KvmCloneError: It cannot, or that one cannot be removed; nothing was made.
    """
    copy_target.require_sound(offer)
    copy_target.require_needs(offer)
    old = _to_remove(host, offer) if instead else None
    going = remove_base.examine(host, old).files if old is not None else ()
    known = _left_behind(host, offer) if old is None else None
    planned = copy_target.planned_volumes(host, offer, known, going)
    copy_target.require_room(host, offer, planned, known, going)
    try:
        copy_folder.make(offer.copy, offer.base)
        key = CopyKey(fetching.make_key(offer.copy), ssh_server.addresses())
        copy_folder.wait_for_other(offer.copy)
    except (FetchFailed, NoAccess, OSError) as error:
        copy_folder.remove(offer.copy)
        raise CopyFailed(
            f"'{offer.base}' cannot be fetched from here: {error}.",
            f"Look at it: {host.commands.there('ls', '-ld', copy_folder.ROOT)}",
        ) from error
    return key


def _to_remove(host: Host, offer: BaseOffer) -> DomainHandle | None:
    """Return the base whose place another is to take; None for none, or half a copy."""
    handle = host.find(offer.base)
    return handle if handle is not None and handle.record() is None else None


def _left_behind(host: Host, offer: BaseOffer) -> Record | None:
    """Return the record of what an interrupted copy left; None for nothing."""
    handle = host.find(offer.base)
    return copy_target.left_behind(host, handle) if handle is not None else None


def fetch(host: Host, offer: BaseOffer, instead: bool = False) -> BaseState:
    """
    Fetch a base, compare it with the source's, and define it.

    :param instead: Remove the base of that name, as soon as the source let us read.
    :raises CopyFailed: It could not be fetched whole; nothing of it is left.
    :raises KvmCloneError: Likewise.
    """
    copy_target.require_sound(offer)
    try:
        copy_folder.make(offer.copy, offer.base)
        source = _source(host, offer)
        with open(copy_folder.path(offer.copy, DEFINITION), encoding="utf-8") as file:
            original = file.read()
        if instead and (old := _to_remove(host, offer)) is not None:
            remove_base.remove(host, old)
        handle, record = _begin(host, offer, original)
        try:
            record = _fetched(host, handle, record, offer, source, original)
        except BaseException:
            with interrupts.shield(), contextlib.suppress(CreateInProgress):
                take_back(host, handle, handle.record() or record)
            raise
    finally:
        copy_folder.remove(offer.copy)
    found = base_content.state(host, handle)
    assert found is not None
    return found


def _fetched(
    host: Host,
    handle: DomainHandle,
    record: Record,
    offer: BaseOffer,
    source: Source,
    original: str,
) -> Record:
    """Fetch what is still missing, compare it, put it in place, and end the record."""
    offered = {file.name: file for file in offer.files}
    read: list[DiskContent] = []
    others = {
        what: guest_content.file_digest(path)
        for what, path in base_content.boot_files(original).items()
    }
    for volume in sorted(record.volumes, key=lambda volume: volume.target != NVRAM):
        file, path = offered[volume.target], copy_target.path_now(volume, record)
        if path != volume.path:
            _fetch(host, source, file, path, offer)
        size, digest = _compared(host, file, path)
        if file.name == NVRAM:
            others[NVRAM] = digest
            # Before the disks: whoever tries to start half a copy makes libvirt make one there.
            record = _put_in_place(host, handle, record, (NVRAM,))
        else:
            read.append(DiskContent(file.name, file.format, size, digest))
    if digest_of(normal_definition.digest(original), read, others) != offer.digest:
        raise CopyFailed(
            f"The definition of '{offer.base}' that came is not the one that was offered.",
            "Was it changed meanwhile? Repeat the command.",
        )
    record = _put_in_place(host, handle, record, [disk.target for disk in read])
    definition = handle.definition()
    disks = base_content.disks(host, handle, definition)
    content = Content(
        handle.uuid,
        offer.digest,
        normal_definition.digest(definition),
        base_content.files_of(host, definition, disks),
        tuple(read),
        others,
    )
    hash_base.write(host, handle, content)
    record_store.current(handle, record)
    host.call(handle.raw.setMetadata, METADATA_ELEMENT, None, None, NAMESPACE, AFFECT_CONFIG)
    return record


def _fetch(host: Host, source: Source, file: OfferedFile, path: str, offer: BaseOffer) -> None:
    try:
        fetching.fetch(source, file.name, path)
        with open(path, "rb") as fetched:
            os.fsync(fetched.fileno())
    except (FetchFailed, OSError) as error:
        folder = os.path.dirname(path)
        room = os.statvfs(folder)
        if room.f_bavail * room.f_frsize < 2**23:
            raise PoolFull(
                f"'{folder}' filled up while '{offer.base}' was fetched.",
                f"Make room there. See: {host.commands.there('df', '-h', folder)}",
            ) from error
        raise CopyFailed(
            f"'{file.name}' of '{offer.base}' could not be fetched from {source.address}: {error}.",
            "Repeat the push when the hosts reach each other.",
        ) from error


def _compared(host: Host, file: OfferedFile, path: str) -> tuple[int, str]:
    """
    Return size and digest of a file that was fetched.

    :raises CopyFailed: They are not the source's.
    """
    if file.name == NVRAM:
        size, digest = os.path.getsize(path), guest_content.file_digest(path)
    else:
        size, digest = hash_base.content_of(host, path, file.format)
    if (size, digest) != (file.size, file.digest):
        raise CopyFailed(
            f"What came as '{file.name}' is not what the source has: {size} bytes with the digest "
            f"{digest[:12]}, not {file.size} with {file.digest[:12]}.",
            "Was the base changed, or started, meanwhile? Repeat the command.",
        )
    return size, digest


def _put_in_place(
    host: Host, handle: DomainHandle, record: Record, targets: Collection[str]
) -> Record:
    """
    Give some files their own names.

    The record says first which file that is, so that another one there is never taken for ours.
    """
    known = []
    for volume in record.volumes:
        if volume.target in targets:
            path = copy_target.path_now(volume, record)
            os.chmod(path, 0o600)
            inode, mount = filesystems.inode(path), filesystems.mount_point(path)
            known.append(replace(volume, state=MADE, inode=inode, mount=mount))
        else:
            known.append(volume)
    record = _save(handle, replace(record, volumes=tuple(known)))
    placed = [volume for volume in record.volumes if volume.target in targets]
    for volume in placed:
        draft = deletion_plan.draft_path(volume.path, record)
        try:
            if os.path.lexists(draft):
                os.link(draft, volume.path)
        except FileExistsError as error:
            if not os.path.samefile(draft, volume.path):
                raise PlanRefused(
                    f"The file '{volume.path}' appeared in the meantime; it is not ours to "
                    "overwrite.",
                    f"See what it is: {host.commands.there('ls', '-l', volume.path)}",
                ) from error
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
    for folder in {os.path.dirname(volume.path) for volume in placed}:
        volumes.refresh_folder(host, folder)
    return record


def _save(handle: DomainHandle, record: Record) -> Record:
    record_store.current(handle, record)
    handle.save_record_offline(record)
    return record


# --- the journal --------------------------------------------------------------------


def _begin(host: Host, offer: BaseOffer, original: str) -> tuple[DomainHandle, Record]:
    """Define the machine with the record of all that is to come; also where it is there already."""
    with processes.name_lock(offer.base):
        known = _left_behind(host, offer)
        record = Record(
            uuid=known.uuid if known is not None else str(uuid4()),
            base="",
            base_uuid="",
            strategy="full",
            name=offer.base,
            goal="cloned",
            created=time.time(),
            worker=processes.this_process(),
            volumes=copy_target.planned_volumes(host, offer, known),
            becomes=BASE,
        )
        stores = {volume.target: volume.path for volume in record.volumes}
        nvram = stores.pop(NVRAM, "") or copy_target.store(host, offer, "")
        place = base_copy.Place(record.uuid, str(uuid4()), stores, nvram)
        there = [path for path in base_copy.media(original) if os.path.exists(path)]
        xml = base_copy.definition(original, place, there)
        return _define(host, xml, record), record


def _define(host: Host, xml: str, record: Record) -> DomainHandle:
    root = libvirt_xml.parse(xml)
    embed(root, record)
    try:
        return host.define(libvirt_xml.serialize(root), validate=False)
    except HostError as told:
        # libvirt's text may quote the definition and with it secrets; so may the error behind ours.
        error = told.with_message(redaction.without(told.message, redaction.hidden_values(xml)))
        if error.code == OPERATION_FAILED and host.find(record.name) is not None:
            raise CreateInProgress(
                f"Another worker defined '{record.name}' at the same moment.",
                f"List them: {host.commands.virsh('list', '--all')}",
            ) from None
        raise error from None


def reached(host: Host, addresses: Sequence[str], port: int) -> tuple[str, ...]:
    """
    Return at which of another machine's addresses its port takes connections from here.

    :raises CopyFailed: This machine's own addresses are not known.
    """
    try:
        return fetching.reached(addresses, port, ssh_server.addresses())
    except NoAccess as error:
        raise CopyFailed(
            f"No base can be fetched from here: {error}.",
            f"Look at it: {host.commands.there('ip', 'address')}",
        ) from error


def _source(host: Host, offer: BaseOffer) -> Source:
    """
    Return the source at the address where it is reached, with its definition fetched.

    :raises CopyFailed: None of its addresses leads to it.
    """
    fetching.know(offer.copy, offer.host_keys, offer.relay)
    tried = []
    for at, port, source in _ways(offer):
        if not fetching.answers(at, port):
            tried.append(f"{at} does not answer")
            continue
        try:
            fetching.try_out(source, DEFINITION, copy_folder.path(offer.copy, DEFINITION))
        except FetchFailed as error:
            tried.append(f"{at}: {error}")
            continue
        return source
    way = "through the master" if offer.relay is not None else f"port {offer.port}"
    raise CopyFailed(
        f"This host does not reach the one that has '{offer.base}' by ssh, {way}: "
        f"{'; '.join(tried) or 'it has no address'}.",
        "Let it through the firewalls: the host that is to have the base connects to the one that "
        "has it.",
    )


def _ways(offer: BaseOffer) -> Iterator[tuple[str, int, Source]]:
    """Yield the ways to a source: the address and port to connect to, and what is there."""
    for address in offer.addresses:
        source = Source(offer.copy, offer.user, address, offer.port)
        if offer.relay is None:
            yield address, offer.port, source
            continue
        for way in offer.relay.addresses:
            through = replace(offer.relay, addresses=(way,))
            yield way, offer.relay.port, replace(source, through=through)
