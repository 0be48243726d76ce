"""
The plan: a base's definition, the host's facts and a request become a :class:`ClonePlan`.

Pure. Computing a plan writes nothing and asks nobody; :mod:`.apply` does exactly what
the plan says. Every reason to refuse is collected in ``conflicts``, and a plan with
conflicts cannot be applied.
"""

from __future__ import annotations

import json
import os.path
import random
import time
import uuid as uuid_module
from dataclasses import dataclass
from typing import Any

from saltext.kvmclone import domain_xml, ownership
from saltext.kvmclone.domain_xml import Disk, Domain
from saltext.kvmclone.errors import PlanRefused
from saltext.kvmclone.facts import HostFacts
from saltext.kvmclone.request import Request
from saltext.kvmclone.rewrite import Identity, NewDisk, Sizing, path_for, rewrite

GENERATED = "<generated>"

#: Formats that are tested from clone to boot.
FORMATS = ("qcow2", "raw")

#: Pool types whose volumes are files in a folder.
FILE_POOLS = ("dir", "fs", "netfs")


@dataclass(frozen=True)
class PlannedDisk:
    """
    The fate of one disk.

    :param action: ``overlay | copy | share``; ``skip`` where a conflict refuses the disk.
    :param reason: Why, in words.
    :param bytes: What will be written.
    :param pool: Pool of the new volume, ``volume`` its name, ``capacity`` its size.
    """

    target: str
    action: str
    reason: str
    source: str
    destination: str = ""
    format: str = ""
    bytes: int = 0
    pool: str = ""
    volume: str = ""
    capacity: int = 0
    source_format: str = ""
    source_backing: str = ""


_SHOWN_OF_A_DISK = ("target", "action", "reason", "source", "destination", "format", "bytes")


@dataclass(frozen=True)
class ClonePlan:
    """
    Everything that will be done, decided.

    :param xml: The clone's complete definition, without its record. It may hold a
        console password: show :meth:`as_dict`, never this.
    :param nvram: Source and destination of the variable store, None without one.
    :param record: The record as it is defined with, stage ``planned``.
    :param generated: Values that were made up just now and stand masked when shown.
    """

    request: Request
    base: str
    xml: str
    record: ownership.Record
    disks: tuple[PlannedDisk, ...]
    nvram: tuple[str, str] | None
    changes: dict[str, dict[str, Any]]
    warnings: tuple[str, ...]
    conflicts: tuple[str, ...]
    generated: tuple[str, ...]

    def check(self) -> None:
        """
        :raises PlanRefused: The plan has conflicts; the message lists them all.
        """
        if self.conflicts:
            listed = " ".join(
                f"({number}) {conflict}" if len(self.conflicts) > 1 else conflict
                for number, conflict in enumerate(self.conflicts, 1)
            )
            raise PlanRefused(
                f"'{self.request.name}' cannot be cloned from '{self.base}': {listed}",
                "Nothing was written. Mend the above and repeat the command.",
            )

    def as_dict(self) -> dict[str, Any]:
        """PLAN, as CONTRACT.md fixes it, without secrets and with generated values masked."""
        plain = {
            "name": self.request.name,
            "base": self.base,
            "strategy": self.request.clone_strategy,
            "disks": [{key: getattr(disk, key) for key in _SHOWN_OF_A_DISK} for disk in self.disks],
            "changes": self.changes,
            "warnings": list(self.warnings),
            "conflicts": list(self.conflicts),
            "xml": domain_xml.redact(self.xml),
        }
        shown = json.dumps(plain)
        for value in self.generated:
            shown = shown.replace(value, GENERATED)
        answer: dict[str, Any] = json.loads(shown)
        return answer


def is_cloned(disk: Disk) -> bool:
    """Whether a disk gets a file of its own, as opposed to being shared or refused."""
    return (
        disk.device == "disk"
        and disk.kind == "file"
        and bool(disk.path)
        and not (disk.readonly or disk.shareable or disk.encrypted)
        and disk.format in FORMATS
    )


def volume_name(name: str, disk: Disk, strategy: str) -> str:
    """Name of a clone's volume: ``NAME-vda.qcow2``. An overlay is always qcow2."""
    return f"{name}-{disk.target}.{'qcow2' if strategy == 'quick' else disk.format}"


def nvram_path(domain: Domain, name: str) -> str:
    """Path of the clone's own variable store, beside the base's; empty without one."""
    if domain.nvram is None or not domain.nvram.path:
        return ""
    return path_for(domain.nvram.path, domain.name, name)


def compute(
    facts: HostFacts, request: Request, worker: ownership.Worker = ownership.Worker()
) -> ClonePlan:
    """
    Decide everything about one clone.

    :param facts: What the host says.
    :param request: What is asked for.
    :param worker: Who will make it, for the record.
    :raises PlanRefused: The base's definition cannot even be read.
    """
    base = domain_xml.read(facts.base_xml)
    conflicts = _base_conflicts(base, facts, request)
    warnings: list[str] = []
    disks = tuple(_decide(disk, facts, request, conflicts, warnings) for disk in base.disks)
    _space(disks, facts, request, conflicts)

    nvram = nvram_path(base, request.name)
    if nvram and not facts.local:
        conflicts.append(
            f"The base keeps UEFI variables in '{base.nvram.path if base.nvram else ''}', which "
            "cannot be copied over a remote libvirt connection. Run the clone on that host: set "
            "'host:' in the provider to its minion."
        )
    if nvram and nvram in facts.existing:
        conflicts.append(f"The NVRAM file '{nvram}' exists already; move it away first.")
    identity = Identity(
        name=request.name,
        uuid=str(uuid_module.uuid4()),
        macs=tuple(_random_mac() for _ in base.interfaces),
        genid=str(uuid_module.uuid4()),
        nvram=nvram,
    )
    rewritten = rewrite(
        facts.base_xml,
        identity,
        tuple(NewDisk(d.target, d.destination, d.format) for d in disks if d.destination),
        Sizing(request.cpus, request.memory, request.description),
    )
    now = time.time()
    record = ownership.Record(
        uuid=identity.uuid,
        base=base.name,
        base_uuid=base.uuid,
        strategy=request.clone_strategy,
        profile=request.profile,
        request=request.digest(),
        created=now,
        expires=now + request.ttl if request.ttl else 0.0,
        ip_source=request.ip_source,
        worker=worker,
        base_disks=tuple(
            ownership.BaseDisk(
                disk.target,
                disk.source,
                facts.volumes[disk.source].allocation,
                facts.volumes[disk.source].modified,
            )
            for disk in disks
            if disk.source in facts.volumes and disk.action != "share"
        ),
        volumes=_owned(disks, nvram),
        tags=request.tags,
        warnings=tuple(warnings + rewritten.warnings),
    )
    return ClonePlan(
        request=request,
        base=base.name,
        xml=rewritten.xml,
        record=record,
        disks=disks,
        nvram=(base.nvram.path, nvram) if base.nvram and nvram else None,
        changes=rewritten.changes,
        warnings=tuple(warnings + rewritten.warnings),
        conflicts=tuple(conflicts + rewritten.conflicts),
        generated=(identity.uuid, identity.genid, *identity.macs),
    )


def _owned(disks: tuple[PlannedDisk, ...], nvram: str) -> tuple[ownership.Volume, ...]:
    owned = [
        ownership.Volume(disk.target, disk.destination, disk.format, disk.action)
        for disk in disks
        if disk.destination
    ]
    if nvram:
        owned.append(ownership.Volume("nvram", nvram, "raw", "copy"))
    return tuple(owned)


def _base_conflicts(base: Domain, facts: HostFacts, request: Request) -> list[str]:
    conflicts = []
    if facts.taken:
        conflicts.append(f"A domain named '{request.name}' exists already; choose another name.")
    if facts.base_state != "shutoff":
        conflicts.append(
            f"The base '{base.name}' is {facts.base_state}; its disks change while they are "
            f"cloned. Shut it off first: virsh shutdown {base.name}"
        )
    if facts.base_saved:
        conflicts.append(
            f"The base '{base.name}' has a saved memory image that its disks belong to. "
            f"Discard it first: virsh managedsave-remove {base.name}"
        )
    for key in sorted(request.later):
        conflicts.append(
            f"'{key}' is known but this version cannot act on it yet; take it out of the profile."
        )
    return conflicts


def _decide(
    disk: Disk, facts: HostFacts, request: Request, conflicts: list[str], warnings: list[str]
) -> PlannedDisk:
    """The fate of one disk; a refusal is added to ``conflicts``."""
    shared = _shared(disk)
    if shared:
        if disk.shareable:
            warnings.append(f"Disk {disk.target} '{disk.path}' is shared with the base.")
        return PlannedDisk(disk.target, "share", shared, disk.path, format=disk.format)

    refused = PlannedDisk(disk.target, "skip", "refused", disk.path, format=disk.format)
    if not is_cloned(disk):
        conflicts.append(_why_not(disk))
        return refused
    source = facts.volumes.get(disk.path)
    if source is None:
        folder = os.path.dirname(disk.path)
        conflicts.append(
            f"Disk {disk.target} '{disk.path}' lies in no active storage pool. "
            f"Make one: virsh pool-create-as NAME dir --target {folder}"
        )
        return refused
    pool = facts.pools.get(request.pool or source.pool)
    if pool is None or not pool.active:
        conflicts.append(
            f"Storage pool '{request.pool or source.pool}' is not there or not started. "
            f"See: virsh pool-list --all"
        )
        return refused
    if pool.type not in FILE_POOLS:
        conflicts.append(
            f"Storage pool '{pool.name}' is of type '{pool.type}'; this version makes volumes "
            f"in pools of type {', '.join(FILE_POOLS)}."
        )
        return refused

    quick = request.clone_strategy == "quick"
    name = volume_name(request.name, disk, request.clone_strategy)
    destination = os.path.join(pool.path, name)
    if destination in facts.existing:
        conflicts.append(
            f"The volume '{destination}' exists already and is not ours to overwrite. "
            f"Look at it, then: virsh vol-delete {destination}"
        )
    return PlannedDisk(
        target=disk.target,
        action="overlay" if quick else "copy",
        reason=f"clone_strategy is {request.clone_strategy}",
        source=disk.path,
        destination=destination,
        format="qcow2" if quick else disk.format,
        bytes=0 if quick else source.allocation,
        pool=pool.name,
        volume=name,
        capacity=source.capacity,
        source_format=disk.format,
        source_backing=source.backing,
    )


def _shared(disk: Disk) -> str:
    """Why a disk may be shared with the base; empty where it may not."""
    if disk.device in ("cdrom", "floppy") and not disk.path and disk.kind == "file":
        return "an empty drive"
    if disk.device == "cdrom":
        return "cdrom media are read-only"
    if disk.readonly:
        return "the disk is read-only"
    if disk.shareable and disk.device == "disk":
        return "the base marks it as shareable"
    return ""


def _why_not(disk: Disk) -> str:
    where = f"Disk {disk.target}" + (f" '{disk.path}'" if disk.path else "")
    if disk.encrypted:
        return f"{where} is encrypted; this version cannot clone encrypted disks."
    if disk.device != "disk":
        return f"{where} is a {disk.device}, which two machines cannot write. Remove it first."
    if disk.kind != "file":
        return f"{where} is of type '{disk.kind}'; this version clones disks of type 'file'."
    if disk.format not in FORMATS:
        return f"{where} has format '{disk.format}'; this version clones {' and '.join(FORMATS)}."
    return f"{where} has no source."


def _space(
    disks: tuple[PlannedDisk, ...], facts: HostFacts, request: Request, conflicts: list[str]
) -> None:
    needed: dict[str, int] = {}
    for disk in disks:
        if disk.bytes:
            needed[disk.pool] = needed.get(disk.pool, 0) + disk.bytes
    for name, wanted in needed.items():
        available = facts.pools[name].available
        if wanted > available:
            conflicts.append(
                f"Storage pool '{name}' has {available / 2**20:.0f} MiB free and the copies need "
                f"{wanted / 2**20:.0f} MiB. Make room, or use 'clone_strategy: quick'."
            )


def _random_mac() -> str:
    """A MAC address in the range that belongs to QEMU and KVM guests (52:54:00)."""
    return "52:54:00:" + ":".join(f"{random.SystemRandom().randrange(256):02x}" for _ in range(3))
