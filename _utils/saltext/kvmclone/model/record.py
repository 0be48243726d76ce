"""
The record that a clone carries in its own ``<metadata>``.

Pure. The record is the journal and the title deed: it is written into the definition
*before* anything else exists and lists every file that is about to be made. A volume is
deleted only if a record lists it, and a record counts only in the domain whose uuid it
names, since other tools copy foreign metadata into their copies.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import Any

from lxml import etree

from saltext.kvmclone.model import libvirt_xml
from saltext.kvmclone.model.request import Pick
from saltext.kvmclone.plan.reservation import Reservation

NAMESPACE = "urn:saltext:kvmclone:1"
PREFIX = "kvmclone"

#: The mark on a protected base; see :mod:`.protect`.
BASE_NAMESPACE = "urn:saltext:kvmclone:base:1"
SCHEMA = "1"

STAGES = ("planned", "cloned", "booted", "addressed", "enrolled", "ready")
DESTROYING = "destroying"

#: What is known of a worker, see :func:`.processes.life`.
ALIVE, DEAD, ELSEWHERE = "alive", "dead", "elsewhere"

#: How far a volume is. Before the call that makes it, it is marked as being made.
WANTED, MAKING, MADE = "wanted", "making", "made"

#: ``NAME-UUID1.EXT``, as Salt's own driver named volumes; the uuid is of version 1, made from a
#: clock. Such files are on the records of clones that were adopted.
DRIVER_NAMED = re.compile(
    r"(?P<stem>.+)-(?P<uuid>[0-9a-f]{8}-[0-9a-f]{4}-1[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})"
    r"(?P<extension>\.[^.]+)?"
)


@dataclass(frozen=True)
class BaseDisk:
    """
    What a base's disk was when the clone was made.

    :param path: The file.
    :param size: Bytes that it held (its allocation).
    :param modified: Time of its last change, seconds since the epoch.
    """

    target: str
    path: str
    size: int
    modified: float


@dataclass(frozen=True)
class Volume:
    """
    One file that was made for the clone, and may be deleted with it.

    :param target: The disk it serves (``vda``), or ``nvram``.
    :param strategy: How it was made: ``overlay``, ``copy`` …
    :param state: How far it is: one of :data:`WANTED`, :data:`MAKING`, :data:`MADE`. A
        file that stands at the path of a wanted volume is somebody else's.
    :param capacity: Bytes that the guest sees, 0 where it does not matter; tells a half-made
        volume of ours from a file that somebody put in its place.
    :param mount: Mount point of the file system that it was made on, where that is known: tells
        a file that is away, since nothing is mounted there, from one that is gone.
    :param inode: What a variable store was when it was made, see :func:`.filesystems.inode`.
    """

    target: str
    path: str
    format: str
    strategy: str
    state: str = "made"
    capacity: int = 0
    mount: str = ""
    inode: str = ""


@dataclass(frozen=True)
class Worker:
    """
    Who is making the clone, or destroying it: the process that drives all its stages.

    :param host: Host name of the machine it runs on.
    :param boot: That machine's boot id, and the number of its process namespace.
    :param machine: That machine's machine-id.
    :param pid: Its process id there.
    :param started: Start time of that process, clock ticks since boot.
    :param token: A random word that only this piece of work knows.
    """

    host: str = ""
    boot: str = ""
    pid: int = 0
    started: int = 0
    token: str = ""
    machine: str = ""


@dataclass(frozen=True)
class Work:
    """
    Somebody's unfinished work on a clone, as its record tells it.

    :param life: :data:`ALIVE`, :data:`DEAD` or :data:`ELSEWHERE`, seen from the KVM host.
    """

    worker: Worker
    life: str
    stage: str
    goal: str
    request: str


def work_from_dict(data: dict[str, Any]) -> Work:
    """The work that ``dataclasses.asdict`` made plain."""
    return Work(**{**data, "worker": Worker(**data["worker"])})


@dataclass(frozen=True)
class Minion:
    """The minion on the clone, as far as it was enrolled; see CLONE in CONTRACT.md."""

    id: str = ""
    version: str = ""
    fingerprint: str = ""
    verified_by: str = ""


@dataclass(frozen=True)
class Record:
    """
    Everything we know about a clone and cannot read from libvirt.

    :param uuid: Uuid of the domain that this record speaks of.
    :param base: Name of the domain that it was cloned from, ``base_uuid`` its uuid; empty where
        that was gone already (an adopted clone).
    :param strategy: ``full`` or ``quick``.
    :param name: What that was called when it was made. Its files are named so, whatever it is
        called now; empty in records of version 0.1.
    :param stage: One of :data:`STAGES` or :data:`DESTROYING`.
    :param goal: The stage at which the create is complete; :data:`DESTROYING` where somebody
        wants the clone gone.
    :param failed: Why a create that failed was kept (``on_failure: stop|keep``).
    :param overrides: The keys that were given as arguments, as JSON, for a resume.
    :param request: Digest of the request, to tell a repeated create from another one.
    :param created: Time of the create, seconds since the epoch.
    :param expires: When the clone counts as expired, likewise; 0 for never.
    :param ip_source: Where its address is looked up.
    :param identity: ``reset`` once the guest has an identity of its own, ``kept`` where it
        shall keep its base's, else empty.
    :param seed: What cloud-init in it goes by, see :mod:`.cloud_seed`; empty in old records.
    :param address: The address that was last reported.
    :param agent: :data:`.silent_agent.SILENT` until its guest agent was heard; else empty.
    :param worker: Who is, or was last, at work on the clone.
    :param base_disks: The base's files as they were when the clone was made.
    :param volumes: Every file that was made for the clone, or is about to be.
    :param reservations: DHCP host entries, likewise.
    :param pick: Which of the guest's addresses counts.
    :param warnings: What the operator should know; shown with the clone from then on.
    :param host_keys: The guest's ssh host keys, ``TYPE BASE64``, where they are known.
    :param timings: Seconds each stage took.
    """

    uuid: str
    base: str
    base_uuid: str
    strategy: str
    name: str = ""
    profile: str = ""
    stage: str = "planned"
    goal: str = "addressed"
    failed: str = ""
    overrides: str = ""
    request: str = ""
    created: float = 0.0
    expires: float = 0.0
    ip_source: str = "auto"
    identity: str = ""
    seed: str = ""
    address: str = ""
    agent: str = ""
    worker: Worker = Worker()
    minion: Minion = Minion()
    base_disks: tuple[BaseDisk, ...] = ()
    volumes: tuple[Volume, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    pick: Pick = Pick()
    tags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    host_keys: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)

    def at(self, stage: str, **timings: float) -> Record:
        """This record, moved to ``stage`` with the given timings added."""
        return replace(self, stage=stage, timings={**self.timings, **timings})

    @property
    def complete(self) -> bool:
        """Whether the create reached what it was to reach."""
        return self.stage in STAGES and STAGES.index(self.stage) >= STAGES.index(self.goal)

    def stands_on_base(self, target: str = "") -> bool:
        """
        Whether the clone reads its base's disk as long as it lives, and must not see it change.

        :param target: Of one disk (``vda``); of any, where it is empty.
        """
        return any(
            volume.strategy == "overlay" and target in ("", volume.target)
            for volume in self.volumes
        )

    def owns(self, path: str) -> bool:
        """Whether this record lists the file."""
        return any(volume.path == path for volume in self.volumes)

    def could_have_made(self, volume: Volume) -> bool:
        """
        Whether a file is called as what is made for this clone is; a record that was edited by
        hand may list anything.
        """
        file = os.path.basename(volume.path)
        if volume.target == "nvram":
            return self.uuid in file or self.name in file
        return (
            DRIVER_NAMED.fullmatch(file) is not None
            or re.fullmatch(
                rf"{re.escape(self.name) or '.+'}-{re.escape(volume.target)}\.\w+", file
            )
            is not None
        )


def merged(seen: Record, mine: Record, now: Record) -> Record:
    """
    The record as it stands now, with what a piece of work found out since it read it.

    :param seen: As that work read it.
    :param mine: The same with what it found out.
    :param now: As it stands.
    """
    found = {
        name: getattr(mine, name)
        for name in Record.__dataclass_fields__
        if getattr(mine, name) != getattr(seen, name)
    }
    if "warnings" in found:
        added = [w for w in mine.warnings if w not in seen.warnings and w not in now.warnings]
        found["warnings"] = (*now.warnings, *added)
    if "timings" in found:
        found["timings"] = {**now.timings, **mine.timings}
    if "stage" in found and STAGES.index(now.stage) > STAGES.index(mine.stage):
        del found["stage"]  # somebody else brought it further
    return replace(now, **found)


_SCALARS: dict[str, type] = {
    "uuid": str, "name": str, "stage": str, "goal": str, "failed": str, "profile": str,
    "strategy": str, "request": str, "overrides": str,
    "created": float, "expires": float, "ip_source": str, "identity": str, "seed": str,
    "address": str, "agent": str,
}  # fmt: skip

#: Lists of words, one element each.
_LISTS = {"tag": "tags", "warning": "warnings", "host_key": "host_keys"}


def to_xml(record: Record) -> str:
    """The record as ``setMetadata`` takes it: libvirt adds the namespace itself."""
    return etree.tostring(_element(record), encoding="unicode")


def embed(definition: etree._Element, record: Record) -> None:
    """Put the record into a domain definition, replacing one that is there."""
    metadata = definition.find("metadata")
    if metadata is None:
        metadata = etree.SubElement(definition, "metadata")
    for old in metadata.findall(f"{{{NAMESPACE}}}clone"):
        metadata.remove(old)
    metadata.append(_qualified(_element(record)))


def from_definition(definition: etree._Element) -> Record | None:
    """
    The record in a domain definition, if it has one that counts.

    :param definition: The parsed ``<domain>``.
    :return: None where there is no record, or where it names another domain's uuid.
    """
    element = definition.find(f"./metadata/{{{NAMESPACE}}}clone")
    if element is None:
        return None
    uuid = (definition.findtext("uuid") or "").strip()
    record = _from_element(element)
    return record if record.uuid == uuid else None


def from_xml(xml: str, uuid: str) -> Record | None:
    """
    The record in what ``metadata()`` returned.

    :param xml: The metadata element's text.
    :param uuid: Uuid of the domain it was read from; another one makes the record void.
    """
    record = _from_element(libvirt_xml.element(xml))
    return record if record.uuid == uuid else None


# --- XML ----------------------------------------------------------------------------


def _element(record: Record) -> etree._Element:
    root = etree.Element("clone", schema=SCHEMA)
    for name in _SCALARS:
        value = getattr(record, name)
        if value:
            root.set(name, written(str(value)))
    base = etree.SubElement(root, "base", name=written(record.base), uuid=record.base_uuid)
    for disk in record.base_disks:
        _child(base, "disk", disk)
    _child(root, "worker", record.worker)
    if record.minion.id:
        _child(root, "minion", record.minion)
    for volume in record.volumes:
        _child(root, "volume", volume)
    for reservation in record.reservations:
        _child(root, "reservation", reservation)
    if record.pick != Pick():
        _child(root, "pick", record.pick)
    for stage, seconds in record.timings.items():
        etree.SubElement(root, "timing", stage=stage, seconds=f"{seconds:.3f}")
    for tag, name in _LISTS.items():
        for value in getattr(record, name):
            etree.SubElement(root, tag).text = written(value)
    return root


#: Characters that XML has no way to write.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def written(text: str) -> str:
    """
    A text as XML can hold it. What a guest or its script said may have anything in it, and a
    record that cannot be written would be no record.
    """
    return _UNWRITABLE.sub("\ufffd", text)


def _child(parent: etree._Element, tag: str, value: Any) -> None:
    element = etree.SubElement(parent, tag)
    for name in value.__dataclass_fields__:
        element.set(name, written(str(getattr(value, name))))


def _qualified(element: etree._Element) -> etree._Element:
    copy = etree.Element(f"{{{NAMESPACE}}}{element.tag}", nsmap={PREFIX: NAMESPACE})
    copy.attrib.update(element.attrib)
    copy.text = element.text
    for child in element:
        copy.append(_qualified(child))
    return copy


def _local(element: etree._Element) -> str:
    return etree.QName(element).localname


def _read(cls: Any, element: etree._Element) -> Any:
    convert: dict[str, type] = {"int": int, "float": float, "str": str}
    values = {
        name: convert[cls.__dataclass_fields__[name].type](value)
        for name, value in ((str(key), value) for key, value in element.attrib.items())
        if name in cls.__dataclass_fields__
    }
    return cls(**values)


def _from_element(root: etree._Element) -> Record:
    values: dict[str, Any] = {
        name: convert(root.get(name, convert())) for name, convert in _SCALARS.items()
    }
    children: dict[str, list[etree._Element]] = {}
    for child in root:
        children.setdefault(_local(child), []).append(child)
    for tag, name in _LISTS.items():
        values[name] = tuple(child.text or "" for child in children.get(tag, []))
    # Records of version 0.1 name no goal: what they reached was what they were to reach.
    reached = values["stage"] if values["stage"] in STAGES[1:] else "cloned"
    values["goal"] = values["goal"] or reached
    if values["stage"] == "planned":
        # Nor do their volumes say how far they are: then they may have been begun.
        for volume in children.get("volume", []):
            volume.set("state", volume.get("state", MAKING))
    base = children.get("base", [etree.Element("base")])[0]
    return Record(
        base=base.get("name", ""),
        base_uuid=base.get("uuid", ""),
        base_disks=tuple(_read(BaseDisk, disk) for disk in base),
        worker=_read(Worker, children["worker"][0]) if "worker" in children else Worker(),
        minion=_read(Minion, children["minion"][0]) if "minion" in children else Minion(),
        volumes=tuple(_read(Volume, volume) for volume in children.get("volume", [])),
        reservations=tuple(_read(Reservation, one) for one in children.get("reservation", [])),
        pick=_read(Pick, children["pick"][0]) if "pick" in children else Pick(),
        timings={
            timing.get("stage", ""): float(timing.get("seconds", 0))
            for timing in children.get("timing", [])
        },
        **values,
    )
