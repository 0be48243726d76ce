"""
Let a clone write other files: in its definition, or while it runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.hypervisor.constants import (
    SNAPSHOT_ATOMIC,
    SNAPSHOT_DISK_ONLY,
    SNAPSHOT_NO_METADATA,
    SNAPSHOT_QUIESCE,
    SNAPSHOT_REUSE_EXT,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model import domain_xml, libvirt_xml, redaction
from saltext.kvmclone.model.facts import QCOW2
from saltext.kvmclone.model.record import FrozenDisk, Record, Volume
from saltext.kvmclone.model.record_xml import embed

#: A file for a disk: its target, path and format.
File = FrozenDisk | Volume


def redefine(host: Host, handle: DomainHandle, files: Iterable[File], record: Record) -> None:
    """
    Let the next start use other files, and store the record, both in one step.

    Whatever else the definition says stays as it is.

    :param files: For each disk that changes.
    """
    wanted = {file.target: file for file in files}
    root = libvirt_xml.parse(handle.definition())
    for element in root.findall("./devices/disk"):
        file = wanted.get(domain_xml.disk_of(element).target)
        if file is not None:
            set_source(element, file.path, file.format)
    embed(root, record)
    text = libvirt_xml.serialize(root)
    try:
        host.define(text, False)
    except HostError as error:
        # libvirt's text may quote the definition, and with it secrets.
        hidden = redaction.hidden_values(text)
        raise error.with_message(redaction.without(error.message, hidden)) from None


def set_source(element: etree._Element, path: str, form: str) -> None:
    """Let a ``<disk>`` of a definition name another file, whatever it named before."""
    source = element.find("source")
    if source is None:
        source = etree.SubElement(element, "source")
    for name in ("pool", "volume", "mode", "index", "file"):
        source.attrib.pop(name, "")
    element.set("type", "file")
    source.set("file", path)
    driver = element.find("driver")
    if driver is None:
        driver = etree.Element("driver", name="qemu")
        element.insert(0, driver)
    driver.set("type", form)
    for store in element.findall("backingStore"):
        element.remove(store)


def switch_running(handle: DomainHandle, overlays: Iterable[File]) -> None:
    """
    Let a running guest go on with overlays, its file systems frozen for that moment.

    libvirt keeps nothing of it but the disks' new sources, running and defined.

    :param overlays: One for each disk that changes, on the file that it writes until now.
    :raises HostError: It was refused, and the guest writes the same files as before.
    """
    paths = {file.target: file.path for file in overlays}
    root = etree.Element("domainsnapshot")
    disks = etree.SubElement(root, "disks")
    for disk in domain_xml.read(handle.live()).disks:
        path = paths.get(disk.target)
        how = "external" if path else "no"
        element = etree.SubElement(disks, "disk", name=disk.target, snapshot=how)
        if path:
            element.set("type", "file")
            etree.SubElement(element, "driver", type=QCOW2)
            etree.SubElement(element, "source", file=path)
    flags = SNAPSHOT_DISK_ONLY | SNAPSHOT_REUSE_EXT | SNAPSHOT_QUIESCE
    flags |= SNAPSHOT_ATOMIC | SNAPSHOT_NO_METADATA
    text = etree.tostring(root, encoding="unicode")
    handle.connection.call(handle.raw.snapshotCreateXML, text, flags)
