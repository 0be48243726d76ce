"""
Find every base with the clones made from it, and the clones made from those.

Reads only. For the shape see docs/answers.md (``tree``); :mod:`.display.tree` draws it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from saltext.kvmclone.errors import readable
from saltext.kvmclone.hypervisor import volumes
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_changes, file_usage_scan, warm_images
from saltext.kvmclone.inventory.file_usage import FileUsage
from saltext.kvmclone.inventory.warm_images import WarmImage
from saltext.kvmclone.model import base_record, domain_xml, libvirt_xml, redacted_text, redaction
from saltext.kvmclone.model.plain import to_plain
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.model.spares import Claim
from saltext.kvmclone.system.backing_files import sizes


@dataclass(frozen=True)
class TreeDisk:
    """
    One disk. Sizes are bytes, 0 if they are not known.

    :param capacity: What the guest sees.
    :param allocation: What the file occupies.
    :param backing: Its backing file, empty for none.
    :param exists: The file is there, as far as can be told.
    """

    target: str
    path: str
    format: str
    capacity: int
    allocation: int
    backing: str
    exists: bool = True


@dataclass(frozen=True)
class TreeClone:
    """
    One clone.

    :param drift: Its base changed since it was made; ``changes`` says how.
    :param clones: Those made from it.
    :param spare: It is a spare in stock; ``claimed``: who took it out of the stock.
    """

    state: str
    stage: str
    strategy: str
    failed: str
    disks: tuple[TreeDisk, ...]
    drift: bool
    changes: tuple[str, ...]
    clones: dict[str, TreeClone] = field(default_factory=dict)
    spare: bool = False
    claimed: Claim | None = None


@dataclass(frozen=True)
class TreeWarmed:
    """
    A saved memory of a base.

    :param machine: Name of the domain that holds it.
    :param bytes: What its files occupy.
    :param unusable: Why no fork can be made of it, a clause; empty if one can.
    """

    machine: str
    generation: int
    path: str
    bytes: int
    unusable: str


@dataclass(frozen=True)
class TreeBase:
    """
    One base.

    :param exists: There is a domain of that name and uuid.
    :param state: libvirt's state; empty for a base that is gone.
    :param source: What it was made from, if it is one that we made; otherwise empty.
    :param warmed: What was saved of its memory, the newest first.
    """

    exists: bool
    state: str
    clones: dict[str, TreeClone]
    disks: tuple[TreeDisk, ...]
    source: str = ""
    warmed: tuple[TreeWarmed, ...] = ()

    @property
    def drift(self) -> bool:
        """Return whether the base changed since one of the clones was made from it."""
        return any(clone.drift for clone in self.clones.values())


@dataclass(frozen=True)
class Tree:
    """All bases of a host that clones name, existing or gone."""

    bases: dict[str, TreeBase]

    def as_dict(self) -> dict[str, Any]:
        """Return ``{"bases": …}``; see docs/answers.md."""
        bases = self.bases.items()
        return {"bases": {name: {**to_plain(base), "drift": base.drift} for name, base in bases}}


@dataclass(frozen=True)
class _Machine:
    """A domain as it was seen; ``record`` is None for a foreign one."""

    name: str
    uuid: str
    state: str
    domain: domain_xml.Domain
    record: Record | None
    source: str


def tree(host: Host) -> Tree:
    """Return the bases of all clones on a host, with the clones."""

    def look(handle: DomainHandle) -> _Machine:
        definition = handle.live()
        return _Machine(
            handle.name,
            handle.uuid,
            handle.state(),
            domain_xml.read(definition),
            handle.record(),
            _source(definition),
        )

    machines = sorted(host.each_domain(look), key=lambda machine: machine.name)
    # What is becoming a base, from an image, stands on none.
    clones = {
        m.uuid: m
        for m in machines
        if m.record is not None and m.record.is_clone and (m.record.base or not m.record.becomes)
    }
    any_saved = any(m.record is not None and not m.record.is_clone for m in machines)
    warmed = [one for one in warm_images.find(host) if one.record.complete] if any_saved else []
    if not clones and not warmed:
        return Tree({})
    return _TreeBuilder(host, file_usage_scan.scan(host), machines, clones, warmed).tree()


class _TreeBuilder:
    """The machines of one host, to be put into their tree."""

    def __init__(
        self,
        host: Host,
        usage: FileUsage,
        machines: list[_Machine],
        clones: dict[str, _Machine],
        warmed: list[WarmImage],
    ) -> None:
        self.host = host
        self.usage = usage
        self.clones = clones
        self.by_uuid = {machine.uuid: machine for machine in machines}
        self.by_name = {machine.name: machine for machine in machines}
        self.children: dict[str, list[_Machine]] = {}
        for clone in clones.values():
            self.children.setdefault(self._parent(clone), []).append(clone)
        self.warmed: dict[str, list[WarmImage]] = {}
        for image in warmed:
            key = self._parent_of(image.record)
            self.warmed.setdefault(key, []).append(image)
            self.children.setdefault(key, [])

    def tree(self) -> Tree:
        bases = {}
        for key in sorted(self.children, key=lambda key: self._title(key)):
            if key not in self.clones or self._in_a_circle(key):
                bases[self._title(key)] = self._base(key)
        return Tree(bases)

    def _parent(self, clone: _Machine) -> str:
        """Return the uuid of a clone's base; if that is gone, what the record says of it."""
        assert clone.record is not None
        return self._parent_of(clone.record)

    def _parent_of(self, record: Record) -> str:
        if record.base_uuid in self.by_uuid:
            return record.base_uuid
        named = self.by_name.get(record.base)
        if not record.base_uuid and named is not None:
            return named.uuid
        return f"{record.base_uuid} {record.base}"

    def _title(self, key: str) -> str:
        if key in self.by_uuid:
            return self.by_uuid[key].name
        uuid, _, name = key.partition(" ")
        # Another machine may have taken the name of a base that is gone.
        taken = name in self.by_name or any(
            other != key and other.partition(" ")[2] == name for other in self.children
        )
        return f"{name} ({uuid})" if taken else name

    def _in_a_circle(self, key: str) -> bool:
        """
        Return whether to start with this one of several clones that name each other as base.

        After renames the records of two clones may do so; a tree has to start somewhere.
        """
        seen = [key]
        while True:
            above = self._parent(self.clones[seen[-1]])
            if above not in self.clones:
                return False
            if above in seen:
                return min(seen[seen.index(above) :]) == key
            seen.append(above)

    def _base(self, key: str) -> TreeBase:
        machine = self.by_uuid.get(key)
        clones, warmed = self._clones_of(key, ()), tuple(map(self._saved, self.warmed.get(key, ())))
        if machine is None:
            return TreeBase(False, "", clones, self._remembered(key), "", warmed)
        disks = self._disks(machine)
        return TreeBase(True, machine.state, clones, disks, machine.source, warmed)

    def _saved(self, image: WarmImage) -> TreeWarmed:
        why = warm_images.fault(self.host, image, self.host.with_uuid(image.record.base_uuid))
        size = warm_images.size_of(image.record)
        name, path = image.handle.name, redaction.path(image.path)
        return TreeWarmed(name, image.generation, path, size, why)

    def _clones_of(self, key: str, above: tuple[str, ...]) -> dict[str, TreeClone]:
        if key in above:
            return {}
        return {
            clone.name: self._clone(clone, (*above, key)) for clone in self.children.get(key, [])
        }

    def _clone(self, machine: _Machine, above: tuple[str, ...]) -> TreeClone:
        record = machine.record
        assert record is not None
        disks = [(disk.target, disk.path) for disk in self._disks(machine)]
        committed = base_changes.committed(self.host, record, disks, self.usage.chain)
        changes = tuple(base_changes.changes(self.host, record, committed))
        return TreeClone(
            state=machine.state,
            stage=record.stage,
            strategy=record.strategy,
            failed=record.failed,
            disks=self._disks(machine),
            drift=bool(changes),
            changes=changes,
            clones=self._clones_of(machine.uuid, above),
            spare=record.in_stock,
            claimed=record.claim if record.claim.at else None,
        )

    def _disks(self, machine: _Machine) -> tuple[TreeDisk, ...]:
        return tuple(
            self._disk(disk.target, path, disk.format)
            for disk in machine.domain.disks
            if disk.device in ("disk", "lun")
            and (path := self.usage.path_of(disk.path, disk.pool, disk.volume))
        )

    def _remembered(self, key: str) -> tuple[TreeDisk, ...]:
        """Return the disks of a base that is gone, as far as its clones' records know them."""
        found: dict[str, TreeDisk] = {}
        for clone in self.children[key]:
            assert clone.record is not None
            for disk in clone.record.base_disks:
                found.setdefault(disk.path, self._disk(disk.target, disk.path, ""))
        return tuple(found.values())

    def _disk(self, target: str, path: str, format_: str) -> TreeDisk:
        backing = readable((self.usage.chain(path) or [""])[0])
        if self.host.local:
            found = sizes(path, format_)
        else:
            volume = volumes.find(self.host, path)
            found = (volume.header.capacity, volume.allocation) if volume is not None else None
            format_ = format_ or (volume.header.format if volume is not None else "")
        capacity, allocation = found or (0, 0)
        path, backing = redaction.path(path), redaction.path(backing)
        return TreeDisk(target, path, format_, capacity, allocation, backing, found is not None)


def _source(definition: str) -> str:
    """Return what a base was made from, by its definition; empty for any other domain."""
    made = base_record.from_definition(libvirt_xml.parse(definition))
    return made.source if made is not None else ""


def bases(host: Host) -> list[dict[str, Any]]:
    """
    Return every machine that is not a clone of ours, by name.

    Each as ``{"name", "uuid", "state", "cpus", "memory", "description", "source", "disks":
    [{"target", "path", "format"}]}``. It can be cloned while its state is ``shutoff``.
    """

    def look(handle: DomainHandle) -> dict[str, Any] | None:
        if handle.record() is not None:
            return None
        definition = handle.definition()
        domain = domain_xml.read(definition)
        return {
            "name": handle.name,
            "uuid": handle.uuid,
            "state": handle.state(),
            "cpus": domain.cpus,
            "memory": domain.memory,
            "description": redacted_text.HIDDEN if domain.description else "",
            "source": _source(definition),
            "disks": [
                {
                    "target": disk.target,
                    "path": redaction.path(disk.path),
                    "format": disk.format,
                }
                for disk in domain.disks
            ],
        }

    found = [base for base in host.each_domain(look) if base]
    return sorted(found, key=lambda base: str(base["name"]))
