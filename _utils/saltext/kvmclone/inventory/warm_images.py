"""
Find the saved memories of a base, and whether forks can still be made of them.

Reads only. Each is a domain of its own, which never runs again: its record lists overlay, variable
store and saved memory, so that all three are protected as the files of every clone are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

from saltext.kvmclone.errors import NotWarmed, WarmImageUnusable, absent
from saltext.kvmclone.hypervisor.constants import (
    AFFECT_CONFIG,
    METADATA_ELEMENT,
    NO_DOMAIN_METADATA,
    NO_SUPPORT,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_changes, base_content
from saltext.kvmclone.model import libvirt_xml, normal_definition
from saltext.kvmclone.model.base_content import FileState
from saltext.kvmclone.model.record import MADE, WARM, Record
from saltext.kvmclone.model.warm_record import (
    NAMESPACE,
    Circumstances,
    WarmRecord,
    from_xml,
    generation_of,
)
from saltext.kvmclone.system import saved_image


@dataclass(frozen=True)
class WarmImage:
    """
    One saved memory of a base.

    :param handle: The domain whose memory it is, ``record`` that domain's record.
    :param warm: What it was saved with; None while it is being made, or if that cannot be read.
    """

    handle: DomainHandle
    record: Record
    warm: WarmRecord | None

    @property
    def generation(self) -> int:
        return generation_of(self.record.name)

    @property
    def path(self) -> str:
        """Return the path of the saved memory; empty where none is on record."""
        return self.record.memory


def find(host: Host) -> list[WarmImage]:
    """Return every saved memory on a host, the newest of each base first."""

    def look(handle: DomainHandle) -> WarmImage | None:
        record = handle.record()
        if record is None or record.becomes != WARM:
            return None
        return WarmImage(handle, record, stored(host, handle))

    found = [image for image in host.each_domain(look) if image is not None]
    return sorted(found, key=lambda image: (image.record.base, -image.generation))


def of_base(host: Host, uuid: str) -> list[WarmImage]:
    """Return the saved memories of the base with that uuid, the newest first."""
    return [image for image in find(host) if image.record.base_uuid == uuid]


def left_of(host: Host, name: str) -> list[WarmImage]:
    """Return the saved memories of bases of that name that are gone, whoever is called so now."""
    return [
        image
        for image in find(host)
        if image.record.base == name and host.with_uuid(image.record.base_uuid) is None
    ]


def superseded(host: Host) -> list[WarmImage]:
    """Return what was saved of bases of which something newer was saved, forked or not."""
    newest: set[str] = set()
    old = []
    for image in find(host):
        if image.record.complete:
            old += [image] * (image.record.base_uuid in newest)
            newest.add(image.record.base_uuid)
    return old


def stored(host: Host, handle: DomainHandle) -> WarmRecord | None:
    """Return what a domain's memory was saved with; None where that is not on record."""
    text = ""
    with absent(NO_DOMAIN_METADATA):
        text = host.call(handle.raw.metadata, METADATA_ELEMENT, NAMESPACE, AFFECT_CONFIG)
    return from_xml(text, handle.uuid) if text else None


def usable(host: Host, base: DomainHandle, machine: str = "") -> WarmImage:
    """
    Return the newest saved memory of a base, of which a fork can be made.

    :raises NotWarmed: There is none.
    :raises WarmImageUnusable: What it was saved with, or from, is not what it was.
    """
    again = host.commands.clone("warm", base.name)
    images = [
        image
        for image in of_base(host, base.uuid)
        if image.record.complete and machine in ("", image.handle.name)
    ]
    if not images:
        raise NotWarmed(f"The base '{base.name}' is not warmed on this host.", f"Warm it: {again}")
    if why := fault(host, images[0], base):
        raise WarmImageUnusable(
            f"The saved memory of the base '{base.name}' cannot be used any more: {why}.",
            f"Warm it again: {again}",
        )
    return images[0]


def fault(host: Host, image: WarmImage, base: DomainHandle | None) -> str:
    """
    Return why no fork can be made of a saved memory, as a clause; empty if one can.

    :param base: None for one that is gone.
    """
    return next(_faults(host, image, base), "")


def _faults(host: Host, image: WarmImage, base: DomainHandle | None) -> Iterator[str]:
    if image.warm is None:
        yield "what it was saved with is not on record"
        return
    if base is None:
        yield "the base is gone"
        return
    if (state := image.handle.state()) != "shutoff" or image.handle.is_saved():
        yield f"'{image.handle.name}' was started, and is {state}"
    if different := image.warm.circumstances.against(circumstances(host, base.definition())):
        yield different
    for disk in image.record.base_disks:
        if base_changes.differs(host, disk):
            yield f"'{disk.path}' of the base was changed, or is gone"
    try:
        files = files_of(image.record)
        if changed := image.warm.changed(files):
            yield f"'{changed}' was changed"
        if head_digest(image.path) != image.warm.head:
            yield f"'{image.path}' was changed"
    except OSError as error:
        yield f"'{error.filename}' cannot be read: {error.strerror}"
    except saved_image.UnknownLayout as error:
        yield f"'{image.path}' {error}"


def circumstances(host: Host, definition: str) -> Circumstances:
    """
    Return what a memory that is saved now depends on.

    :param definition: That of the base.
    """
    root = libvirt_xml.parse(definition)
    kind = root.find("./os/type")
    return Circumstances(
        qemu=_version(_number(host)),
        libvirt=host.release(),
        emulator=libvirt_xml.text(root, "devices/emulator"),
        machine=kind.get("machine", "") if kind is not None else "",
        cpu=_digest(root.find("cpu")),
        host_cpu=_digest(_host_cpu(host)),
        definition=normal_definition.digest(definition),
    )


def _number(host: Host) -> int:
    """Return the version of QEMU as one number; 0 where the daemon does not tell."""
    with absent(NO_SUPPORT):
        return int(host.call(host.raw.getVersion))
    return 0


def _version(number: int) -> str:
    return f"{number // 10**6}.{number // 1000 % 1000}.{number % 1000}"


def _host_cpu(host: Host) -> etree._Element | None:
    """Return what libvirt says of the host's CPU, without what changes with a reboot."""
    root = libvirt_xml.element(str(host.call(host.raw.getCapabilities)))
    cpu = root.find("./host/cpu")
    for tag in ("microcode", "counter"):
        for element in cpu.findall(tag) if cpu is not None else ():
            element.getparent().remove(element)  # type: ignore[union-attr]
    return cpu


def _digest(element: etree._Element | None) -> str:
    """Return the SHA-256 of an element, without the white space between others."""
    if element is None:
        return ""
    for one in element.iter():
        one.text, one.tail = (one.text or "").strip() or None, None
    return hashlib.sha256(etree.tostring(element, method="c14n")).hexdigest()


def files_of(record: Record) -> list[FileState]:
    """
    Return the files of a saved memory, as they are: itself, the disks, the variable store.

    :raises OSError: One cannot be looked at.
    """
    return [base_content.state_of(one.path) for one in record.volumes if one.state == MADE]


def head_digest(path: str) -> str:
    """
    Return the SHA-256 of a saved image up to QEMU's stream.

    :raises OSError: It cannot be read.
    :raises saved_image.UnknownLayout: It is not understood completely.
    """
    with open(path, "rb") as image:
        length = saved_image.read(image).stream_at
        image.seek(0)
        return hashlib.sha256(image.read(length)).hexdigest()


def size_of(record: Record) -> int:
    """Return the bytes that the files of a saved memory occupy, as far as they are there."""
    paths = [one.path for one in record.volumes if one.state == MADE]
    return sum(os.stat(path).st_blocks * 512 for path in paths if os.path.isfile(path))
