"""
List every file that the descriptions of the domains name: as defined, running, saved, snapshotted.

Reads only. Files are told apart by the spelling of their paths here. What a definition names is
known from the last look where the definition did not change since, so that looking at many domains
again before each deletion costs little.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from lxml import etree

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.hypervisor.constants import LIST_SAVED, LIST_WITH_SNAPSHOTS
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import snapshots
from saltext.kvmclone.inventory.file_usage import UNKNOWN
from saltext.kvmclone.model import domain_xml, libvirt_xml
from saltext.kvmclone.model.record import WANTED
from saltext.kvmclone.model.record_xml import NAMESPACE

#: Returns the path of a volume by the names of its pool and itself; empty if there is none now.
VolumePath = Callable[[str, str], str]

#: Seconds after which a file that is put in place of another has another time for certain.
_SETTLED_S = 1.0

#: The format of a path in an argument for QEMU: it is a disk if a file is there.
ARGUMENT = "argument"


@dataclass
class NamedFiles:
    """
    The files that one description of a domain names.

    :param names: Names of the domain in it.
    :param stores: Variable stores, also one that only the record lists.
    :param files: Paths, each with its image format if it is a disk.
    :param memories: Those of them that hold the memory of a snapshot.
    :param links: An image, and its backing file, as the description spells them out.
    :param headed: Images whose header libvirt read for it.
    :param layers: From a snapshot: an overlay, and its backing file.
    :param claims: Files on the record of the domain.
    :param told: From the record: an overlay, its mount point, and its backing file.
    :param is_snapshot: It describes what was, not what is.
    :param by_volume: It names volumes of pools, whose paths may be others by now.
    """

    names: list[str] = field(default_factory=list)
    stores: list[str] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)
    memories: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    headed: list[str] = field(default_factory=list)
    layers: list[snapshots.Layer] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    told: list[tuple[str, str, str]] = field(default_factory=list)
    is_snapshot: bool = False
    by_volume: bool = False


@dataclass(frozen=True)
class DomainFiles:
    """
    The files that all descriptions of one domain name.

    :param parts: Those of the definition first.
    :param unread: A clause about each description that cannot be read.
    """

    name: str
    uuid: str
    parts: tuple[NamedFiles, ...]
    unread: tuple[str, ...] = ()


def read(host: Host, volume_path: Callable[[str, str, str], str]) -> list[DomainFiles]:
    """
    Return the files of all domains of a host.

    :param volume_path: Returns the path of a volume by pool, volume and the domain that names it.
    """
    saved, with_snapshots = host.uuids(LIST_SAVED), host.uuids(LIST_WITH_SNAPSHOTS)

    def look(handle: DomainHandle) -> DomainFiles:
        name, uuid, unread = handle.name, handle.uuid, list[str]()

        def path(pool: str, volume: str) -> str:
            return volume_path(pool, volume, name)

        others = _others(handle, uuid in saved, uuid in with_snapshots, unread)
        parts = [_defined(host, handle, path)]
        parts += [_Reader(libvirt_xml.element(text), path).read() for text in others]
        return DomainFiles(name, uuid, tuple(parts), tuple(unread))

    found = host.each_domain(look)
    for gone in set(host.defined).difference(one.uuid for one in found):
        host.defined.pop(gone, None)  # threads of a batch share it
    return found


def _defined(host: Host, handle: DomainHandle, volume_path: VolumePath) -> NamedFiles:
    """
    Return the files that a definition names; libvirt is asked only if that may have changed.

    After each change libvirt puts another file in place of the one that holds the definition, so
    what was read after a file was seen is true as long as that file is there.
    """
    file, uuid = _file_of(host, handle.name), handle.uuid
    before, named = host.defined.get(uuid, ((), None))
    if isinstance(named, NamedFiles) and file and file == before:
        return named
    named = _Reader(libvirt_xml.element(handle.definition()), volume_path, uuid).read()
    if not named.by_volume:
        host.defined[uuid] = file, named
    return named


def _file_of(host: Host, name: str) -> tuple[int, ...]:
    """Return what tells the file of a definition from the next one; empty if nothing is sure."""
    folder = host.folders.definitions
    # The daemon behind another socket may have its files where this process sees others.
    if not (host.local and folder) or "socket" in parse_qs(urlsplit(host.url).query):
        return ()
    try:
        status = os.stat(os.path.join(folder, f"{name}.xml"))
    except OSError:  # it runs without a definition
        return ()
    if time.time() - status.st_mtime < _SETTLED_S:
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


class _Reader:
    """
    Reads one description.

    :param uuid: The domain's, if its record counts: that in its definition.
    """

    def __init__(self, root: etree._Element, volume_path: VolumePath, uuid: str = "") -> None:
        self.root = root
        self.volume_path = volume_path
        self.uuid = uuid
        self.found = NamedFiles(is_snapshot=root.tag == snapshots.SNAPSHOT)

    def read(self) -> NamedFiles:
        found, root = self.found, self.root
        found.names += domain_xml.names_in(root)
        found.stores += domain_xml.stores_in(root)
        found.layers += snapshots.layers(root, self._source)
        found.memories += snapshots.memory_files(root)
        for disk in root.iter("disk"):
            found.files += self._disk(disk)
        found.files += [(path, "") for path in (*domain_xml.plain_files(root), *found.memories)]
        found.files += [(path, ARGUMENT) for path in domain_xml.argument_paths(root)]
        if self.uuid:
            self._record()
        return found

    def _record(self) -> None:
        """Note what a domain's own record lists, element by element: a damaged one counts too."""
        record = self.root.find(f"./metadata/{{{NAMESPACE}}}clone")
        if record is None or record.get("uuid") != self.uuid:  # a copied one claims nothing
            return
        below: dict[str, list[str]] = {}
        for disk in record.iterfind(f"./{{{NAMESPACE}}}base/{{{NAMESPACE}}}disk"):
            below.setdefault(disk.get("target", ""), []).append(disk.get("path", ""))
        for volume in record.iterfind(f"./{{{NAMESPACE}}}volume"):
            path, mount = volume.get("path", ""), volume.get("mount", "")
            if not path or volume.get("state") == WANTED:
                continue
            self.found.claims.append(path)
            self.found.stores += [path] * (volume.get("target") == "nvram")
            if volume.get("strategy") == "overlay":
                told = below.get(volume.get("target", ""), [])
                self.found.told += [(path, mount, one) for one in told]
            if volume.get("below"):  # a file of the same clone, which a snapshot froze
                self.found.told.append((path, mount, volume.get("below", "")))

    def _disk(self, disk: etree._Element) -> Iterator[tuple[str, str]]:
        """
        Yield the files of a ``<disk>``: its own, its explicit chain, the target of a copy job.

        The chain is noted as links too.
        """
        driver = disk.find("driver")
        kind = driver.get("type", "") if driver is not None else ""
        parent = disk.getparent()
        if not kind:  # libvirt takes a disk without a format for raw; a snapshot's can be any
            kind = "raw" if parent is not None and parent.tag == "devices" else UNKNOWN
        path = self._source(disk)
        if path:
            yield path, kind
        for mirror in disk.findall("mirror"):
            inner = mirror.find("format")
            file = self._source(mirror) or mirror.get("file", "")
            if file:
                yield file, inner.get("type", UNKNOWN) if inner is not None else UNKNOWN
        above, level = path, disk.find("backingStore")
        while level is not None:
            self.found.headed += [above] * bool(above)
            below = self._source(level)
            if below:
                inner = level.find("format")
                yield below, inner.get("type", UNKNOWN) if inner is not None else UNKNOWN
                self.found.links += [(above, below)] * bool(above)
            above, level = below, level.find("backingStore")

    def _source(self, element: etree._Element) -> str:
        """Return the file that the ``<source>`` directly below an element names; empty for none."""
        source = element.find("source")
        if source is None:
            return ""
        if source.get("pool") and source.get("volume"):
            self.found.by_volume = True
            return self.volume_path(source.get("pool", ""), source.get("volume", ""))
        return source.get("file") or source.get("dev") or source.get("dir") or ""
