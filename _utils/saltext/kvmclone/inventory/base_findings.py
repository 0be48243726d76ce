"""Find what is wrong with the bases that clones stand on, each with the next command to type."""

from __future__ import annotations

from collections.abc import Iterator

from saltext.kvmclone.inventory import base_changes
from saltext.kvmclone.inventory.examination import Examination
from saltext.kvmclone.inventory.file_usage import FileId
from saltext.kvmclone.inventory.findings import Finding, in_words
from saltext.kvmclone.model.record import DESTROYING
from saltext.kvmclone.system import filesystems


def written(seen: Examination) -> Iterator[Finding]:
    """Yield bases that write, or will write, below their quick clones."""
    standing: dict[str, list[str]] = {}
    for machine, record in seen.clones:
        base = seen.base_of(record)
        quick = base_changes.stands(seen.host, record)
        if base is not None and quick and record.stage != DESTROYING:
            standing.setdefault(base.uuid, []).append(machine.name)
    for uuid, names in standing.items():
        base = seen.by_uuid[uuid]
        on_it = in_words(sorted(names)) + (
            " is based on it." if len(names) == 1 else " are based on it."
        )
        if base.state != "shutoff":
            yield Finding(
                "base-running",
                base.name,
                f"The base '{base.name}' is {base.state} and writes its disks, while {on_it}",
                seen.commands.virsh("destroy", base.name),
            )
        elif base.saved:
            yield Finding(
                "base-saved",
                base.name,
                f"The base '{base.name}' has a saved memory image: its next start will write "
                f"its disks, while {on_it}",
                seen.commands.virsh("managedsave-remove", base.name),
            )


def shared(seen: Examination) -> Iterator[Finding]:
    """Yield machines that write a base's disk although they are not that base."""
    standing: dict[FileId, dict[str, str]] = {}
    for machine, record in seen.clones:
        first = {disk.target: disk.path for disk in reversed(record.base_disks)}
        for target, path in first.items() if record.stage != DESTROYING else ():
            if base_changes.stands(seen.host, record, target):
                key = seen.usage.file_id(path)
                standing.setdefault(key, {})[machine.name] = record.base_uuid
    for machine in seen.machines:
        for disk in machine.domain.disks:
            path = seen.usage.path_of(disk.path, disk.pool, disk.volume)
            clones = standing.get(seen.usage.file_id(path), {})
            reads = disk.device != "disk" or disk.readonly
            told = path in {one.path for one in seen.committed.get(machine.uuid, ())}
            # Its overlay, on which forks stand, is written no more.
            told = told or (machine.record is not None and not machine.record.is_clone)
            if clones and machine.uuid not in clones.values() and not reads and not told:
                others = sorted(set(clones) - {machine.name})
                stand = f", while {in_words(others)} is based on it" if others else ""
                yield Finding(
                    "base-shared",
                    machine.name,
                    f"'{machine.name}' has a base's disk, '{path}', for its own and writes it "
                    f"whenever it runs{stand}. Give it one of its own.",
                    seen.commands.virsh("domblklist", machine.name),
                )


def protected_without_base(seen: Examination) -> Iterator[Finding]:
    """Yield read-only files whose base is gone, and with it the mark that explained that."""
    if not seen.host.local:
        return
    told: set[FileId] = set()
    for machine, record in seen.clones:
        if seen.base_of(record) is not None:
            continue
        for disk in record.base_disks:
            key = seen.usage.file_id(disk.path)
            if key not in told and filesystems.nobody_may_write(disk.path):
                told.add(key)
                needed = seen.usage.overlays_on([disk.path])
                show = seen.commands.clone("show", machine.name)
                yield Finding(
                    "protected-without-base",
                    disk.path,
                    f"'{disk.path}' is read-only, and its base '{record.base}' is gone. Leave "
                    "it so while quick clones are based on it.",
                    show if needed else seen.commands.there("chmod", "u+w", disk.path),
                )
