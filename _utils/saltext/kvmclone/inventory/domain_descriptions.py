"""
Read every description of every domain: as it is defined, runs, was saved, and was at snapshots.

Reads only. A definition that was read before is read again only after it changed, so that a look at
many domains can be repeated before each deletion.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.hypervisor.constants import LIST_SAVED, LIST_WITH_SNAPSHOTS
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model import libvirt_xml


@dataclass(frozen=True)
class Described:
    """
    The descriptions of one domain, parsed; others look at them, too, and nobody may change them.

    :param roots: The definition, which holds our record, then all others.
    :param unread: A clause about each that cannot be read.
    """

    name: str
    uuid: str
    roots: tuple[etree._Element, ...]
    unread: tuple[str, ...] = ()


def read(host: Host) -> list[Described]:
    """Return the descriptions of all domains of a host."""
    saved, with_snapshots = host.uuids(LIST_SAVED), host.uuids(LIST_WITH_SNAPSHOTS)

    def look(handle: DomainHandle) -> Described:
        name, uuid, unread = handle.name, handle.uuid, list[str]()
        others = _others(handle, uuid in saved, uuid in with_snapshots, unread)
        roots = (_definition(host, handle), *map(libvirt_xml.element, others))
        return Described(name, uuid, roots, tuple(unread))

    found = host.each_domain(look)
    for gone in set(host.definitions).difference(one.uuid for one in found):
        del host.definitions[gone]
    return found


def _definition(host: Host, handle: DomainHandle) -> etree._Element:
    """
    Return the definition of a domain; libvirt is asked only if it may be another than before.

    After each change libvirt puts another file in place of the one that holds the definition, so
    what was read after a file was seen is true as long as that file is there.
    """
    file = _state_of(host, handle.name)
    before = host.definitions.get(handle.uuid)
    if before and file and before[0] == file:
        return before[1]
    root = libvirt_xml.element(handle.definition())
    host.definitions[handle.uuid] = file, root
    return root


def _state_of(host: Host, name: str) -> tuple[int, ...]:
    """Return what tells the file of a definition from the one before; empty if it is not seen."""
    folder = host.folders.definitions
    if not (host.local and folder):
        return ()
    try:
        status = os.stat(os.path.join(folder, f"{name}.xml"))
    except OSError:  # it runs without a definition
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _others(
    handle: DomainHandle, saved: bool, with_snapshots: bool, unread: list[str]
) -> Iterator[str]:
    """
    Yield the descriptions of a domain beside its definition.

    :param unread: Takes a clause if the saved image cannot be read.
    """
    if not handle.was_off:
        yield handle.live()
    if saved:
        try:
            yield str(handle.connection.call(handle.raw.managedSaveGetXMLDesc, 0))
        except HostError as error:
            unread.append(f"the saved image of '{handle.name}' cannot be read: {error.message}")
    if with_snapshots:
        yield from handle.snapshot_definitions()
