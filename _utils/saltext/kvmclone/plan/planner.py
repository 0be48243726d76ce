"""
Compute a :class:`ClonePlan` from a base's definition, the host's facts and a request.

Pure. Computing a plan writes nothing and asks nobody; :mod:`.create` does exactly what
the plan says. Every reason to refuse is collected in ``conflicts``, and a plan with
conflicts cannot be applied.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any
from uuid import uuid4

from saltext.kvmclone.model import derived_files, domain_xml, libvirt_xml
from saltext.kvmclone.model.cloud_seed import KEEP, OWN
from saltext.kvmclone.model.domain_xml import Domain
from saltext.kvmclone.model.facts import HostFacts, ImageFacts
from saltext.kvmclone.model.hints import Commands
from saltext.kvmclone.model.record import (
    DESTROYING,
    MAKING,
    WANTED,
    BaseDisk,
    Owner,
    Record,
    Volume,
)
from saltext.kvmclone.model.record_xml import from_definition, written
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.plan import (
    address_sources,
    disk_overlaps,
    disk_sources,
    free_space,
    interfaces,
    new_disks,
    reservation,
    seed_disk,
)
from saltext.kvmclone.plan.clone_plan import GENERATED, ClonePlan
from saltext.kvmclone.plan.disk_sources import PlanIssues
from saltext.kvmclone.plan.disk_wishes import LONGEST_NAME
from saltext.kvmclone.plan.disks import SEED, PlannedDisk, decide
from saltext.kvmclone.plan.rewrite import (
    DiskId,
    Identity,
    NewDisk,
    NewInterface,
    Rewritten,
    SeedChange,
    Sizing,
    guest_words,
    path_for,
    rewrite,
    without,
)

__all__ = ["GENERATED", "ClonePlan", "PlannedDisk", "compute", "nvram_path"]


def nvram_path(domain: Domain, name: str, uuid: str) -> str:
    """
    Return the path of the clone's own variable store, beside the base's; empty without one.

    :param uuid: The clone's, which is part of the file's name: so libvirt chooses that path for no
        domain, whatever it is called, and nobody else's file stands there.
    """
    if domain.nvram is None or not domain.nvram.path:
        return ""
    stem, extension = os.path.splitext(domain.nvram.path)
    original = f"{stem.removesuffix(f'-{domain.uuid}')}{extension}"  # if the base is our clone
    stem, extension = os.path.splitext(path_for(original, domain.name, name, domain.uuid))
    path = f"{stem}-{uuid}{extension}"
    draft = f"{os.path.basename(path)}.{uuid}"  # it is written under a longer name first
    if len(os.fsencode(draft)) > LONGEST_NAME:
        path = os.path.join(os.path.dirname(path), f"{uuid}.fd")
    return path


def compute(facts: HostFacts, request: Request, worker: Owner = Owner()) -> ClonePlan:
    """
    Compute the plan for one clone.

    :param facts: The host's facts about the base and the clone's place.
    :param request: The clone as it is asked for.
    :param worker: The process that will make it, for the record.
    :raises PlanRefused: The base's definition cannot even be read.
    """
    base = domain_xml.read(without(facts.base_xml, request.leave_out), facts.stores)
    notes = PlanIssues(
        _base_conflicts(base, facts, request), disk_sources.chain_notes(facts, base.name)
    )
    _memory_note(facts, request, notes)
    disks = _disks(base, facts, request, notes)
    cards, made_up = interfaces.decide(base, facts, request, notes)
    identity = _identity(facts.base_xml, base, request, cards)
    copied = _nvram(base, identity.nvram, facts, notes)
    rewritten = _rewritten(facts, request, identity, disks, cards)
    made = domain_xml.read(rewritten.xml)
    fixed = reservation.decide(made.interfaces, facts.dhcp, request, facts.commands)
    notes.conflicts.extend(fixed.conflicts)
    notes.conflicts.extend(address_sources.against(made, facts.dhcp, request))
    if fixed.reservations:
        rewritten.change("address", None, request.address or GENERATED)
    _note_changes(rewritten, disks, request)
    warnings = tuple(dict.fromkeys(notes.warnings + rewritten.warnings))
    record = _record(
        base,
        request,
        uuid=identity.uuid,
        seed=seed_disk.recorded(facts, request),
        worker=worker,
        base_disks=_base_disks(disks, facts),
        volumes=_owned(disks, identity.nvram, copied, facts.nvram_size),
        reservations=fixed.reservations,
        warnings=warnings,
    )
    return ClonePlan(
        request=request,
        base=base.name,
        xml=rewritten.xml,
        record=record,
        disks=disks,
        nvram=(base.nvram.path, identity.nvram) if base.nvram and copied else None,
        changes=rewritten.changes,
        warnings=warnings,
        conflicts=tuple(dict.fromkeys(notes.conflicts + rewritten.conflicts)),
        generated=(identity.uuid, identity.genid, *made_up),
    )


def _memory_note(facts: HostFacts, request: Request, notes: PlanIssues) -> None:
    if request.memory and 0 < facts.host_memory < request.memory:
        notes.warnings.append(
            f"'memory' asks for {request.memory / 2**30:.1f} GiB, but the host has "
            f"{facts.host_memory / 2**30:.1f}, so it may not start. Ask for less."
        )


def _disks(
    base: Domain, facts: HostFacts, request: Request, notes: PlanIssues
) -> tuple[PlannedDisk, ...]:
    """Return what becomes of each disk, with a disk for the clone's own seed if it has one."""
    disks = decide(base.disks, facts, request, notes)
    disk_overlaps.check(base.disks, disks, notes)
    disks += new_disks.decide(base.disks, disks, facts, request, notes)
    seed_disk.note(base, facts, request, notes)
    own = seed_disk.decide(disks, facts, request, notes) if request.seed == OWN else None
    disks = (*disks, own) if own else disks
    free_space.check(disks, facts, notes)
    return disks


def _identity(
    base_xml: str, base: Domain, request: Request, cards: tuple[NewInterface, ...]
) -> Identity:
    uuid = guest_words.uuid_for(libvirt_xml.shared(base_xml), str(uuid4()))
    return Identity(
        name=request.name,
        uuid=uuid,
        macs=tuple(card.mac for card in cards),
        genid=str(uuid4()),
        nvram=nvram_path(base, request.name, uuid),
    )


def _rewritten(
    facts: HostFacts,
    request: Request,
    identity: Identity,
    disks: tuple[PlannedDisk, ...],
    cards: tuple[NewInterface, ...],
) -> Rewritten:
    """Return the base's definition as the clone's, with all that was decided."""
    return rewrite(
        facts.base_xml,
        identity,
        _new_disks(disks),
        Sizing(request.cpus, request.memory, request.description),
        cards,
        facts.standing,
        _disk_ids(request),
        _seed_change(disks, request),
        request.leave_out,
    )


def _new_disks(disks: tuple[PlannedDisk, ...]) -> tuple[NewDisk, ...]:
    """Return the disks whose file in the definition is another one, the clone's."""
    return tuple(
        NewDisk(disk.target, disk.destination, disk.format, disk.bus)
        for disk in disks
        if not (disk.stays or disk.emptied or disk.method == SEED)
    )


def _disk_ids(request: Request) -> dict[str, DiskId]:
    return {
        target: DiskId(wish.serial, wish.wwn)
        for target, wish in request.disks.items()
        if wish.serial or wish.wwn
    }


def _seed_change(disks: tuple[PlannedDisk, ...], request: Request) -> SeedChange:
    """Return what changes for cloud-init."""
    own = next((disk for disk in disks if disk.method == SEED), None)
    return SeedChange(
        frozenset(disk.target for disk in disks if disk.emptied),
        request.seed == KEEP,
        *((own.target, own.bus, own.destination) if own else ()),
    )


def _record(base: Domain, request: Request, **decided: Any) -> Record:
    """
    Return the record of a clone.

    :param decided: The fields that neither its base nor the request says.
    """
    return Record(
        name=request.name,
        base=base.name,
        base_uuid=base.uuid,
        strategy=request.clone_strategy,
        profile=request.profile,
        request=request.digest(),
        created=time.time(),
        expires=request.expires,
        ip_source=request.ip_source,
        pick=request.pick,
        tags=request.tags or (),
        spare=request.spare,
        claim=request.claim,
        **decided,
    )


def _nvram(base: Domain, nvram: str, facts: HostFacts, notes: PlanIssues) -> bool:
    """Return whether the variable store is copied; otherwise libvirt makes a fresh one."""
    if not nvram or base.nvram is None:
        return False
    if facts.local:
        return True
    if _has_template(base, facts):
        notes.warnings.append(
            f"The UEFI variables of the base ('{base.nvram.path}') cannot be copied over a remote "
            "libvirt connection: the clone begins with fresh ones from the template. If it needs "
            "the base's boot entries, set 'host:' in the provider to the KVM host's minion."
        )
    else:
        notes.conflicts.append(
            f"The base keeps UEFI variables in '{base.nvram.path}', which cannot be copied over a "
            "remote libvirt connection, and no template is known to make fresh ones from. Run the "
            "clone on that host: set 'host:' in the provider to its minion."
        )
    return False


def _has_template(base: Domain, facts: HostFacts) -> bool:
    element = libvirt_xml.shared(facts.base_xml).find("./os")
    chosen_by_libvirt = element is not None and element.get("firmware") == "efi"
    return chosen_by_libvirt or bool(base.nvram and base.nvram.template)


def _note_changes(out: Rewritten, disks: tuple[PlannedDisk, ...], request: Request) -> None:
    """Note the changes that the profile wants and the definition does not show."""
    for disk in disks:
        if disk.destination:
            out.change(f"disk {disk.target} size", disk.source_capacity or None, disk.capacity)
            if disk.pool != disk.source_pool:
                out.change(f"disk {disk.target} pool", disk.source_pool or None, disk.pool)
    if request.autostart is not None:
        out.change("autostart", None, request.autostart)
    out.change("tags", [], list(request.tags or ()))


def _base_disks(disks: tuple[PlannedDisk, ...], facts: HostFacts) -> tuple[BaseDisk, ...]:
    """Return every file that a cloned disk consists of; if one changes, so does the clone."""

    def told(target: str, image: ImageFacts) -> BaseDisk:
        return BaseDisk(target, image.path, image.allocation, image.modified)

    return tuple(
        told(disk.target, image)
        for disk in disks
        if disk.destination and not disk.bus
        for image in (*facts.sources[disk.target].images, *facts.sources[disk.target].data)
    )


def _owned(
    disks: tuple[PlannedDisk, ...], nvram: str, copied: bool, nvram_size: int
) -> tuple[Volume, ...]:
    """
    Return the files that will be made, in the order of their making.

    The first is marked as being made already: it is begun as soon as the definition with this
    record is stored, without another write.
    """
    owned = [
        Volume(disk.target, disk.destination, disk.format, disk.action, WANTED, disk.capacity)
        for disk in disks
        if disk.destination
    ]
    if copied:
        owned.append(Volume("nvram", nvram, "raw", "copy", WANTED, nvram_size))
    if owned:
        owned[0] = replace(owned[0], state=MAKING)
    if nvram and not copied:
        owned.append(Volume("nvram", nvram, "raw", "fresh"))
    return tuple(owned)


def base_is_on(name: str, state: str, commands: Commands) -> str:
    """
    Return the reason against a base that is not shut off.

    :param state: libvirt's state of it.
    """
    return (
        f"The base '{name}' is {state}; its disks change while they are cloned. Shut it off first: "
        + commands.shut_off(name, state)
    )


def _base_conflicts(base: Domain, facts: HostFacts, request: Request) -> list[str]:
    """Return every reason against the clone that is no disk's or interface's."""
    commands = facts.commands
    conflicts = [
        f"The tag {tag!r} holds characters that XML cannot (control characters); take them out."
        for tag in request.tags or ()
        if written(tag) != tag
    ]
    if facts.taken:
        conflicts.append(f"A domain named '{request.name}' exists already; choose another name.")
    elif facts.left_behind:
        conflicts.append(
            f"An earlier machine called '{request.name}' left {', '.join(facts.left_behind)}, "
            "which libvirt would take for the clone's, or write over. Choose another name. Or put "
            "it aside: " + commands.script(derived_files.aside(facts.left_behind, request.name))
        )
    if facts.base_state != "shutoff":
        conflicts.append(base_is_on(base.name, facts.base_state, commands))
    if facts.base_saved:
        conflicts.append(
            f"The base '{base.name}' has a saved memory image that its disks belong to. "
            f"Discard it first: {commands.virsh('managedsave-remove', base.name)}"
        )
    conflicts += _record_conflicts(base, facts)
    if request.cpus and 0 < facts.most_cpus < request.cpus:
        conflicts.append(
            f"'cpus' asks for {request.cpus}, and a machine of the base's type can have "
            f"{facts.most_cpus}. Ask for fewer."
        )
    if request.placement.is_wanted:
        conflicts.append(
            "Which of its 'hosts' is to have it is decided by the master: salt-run "
            "kvmclone.create. Or name one here: host=MINION"
        )
    return conflicts


def _record_conflicts(base: Domain, facts: HostFacts) -> list[str]:
    """Return the reason against a base that the record in its definition gives."""
    try:
        record = from_definition(libvirt_xml.parse(facts.base_xml))
    except ValueError as error:
        return [
            f"The base '{base.name}' is a clone whose record cannot be read: {error}. "
            "See: salt-run kvmclone.doctor"
        ]
    if record and not record.is_clone:
        return [
            f"'{base.name}' holds the saved memory of the base '{record.base}', and cannot be "
            "cloned. Clone that base instead."
        ]
    if record and (record.stage == DESTROYING or record.under_way or not record.complete):
        return [
            f"The base '{base.name}' is itself a clone that is not finished (stage "
            f"'{record.under_way or record.stage}'). See: "
            + facts.commands.clone("show", base.name)
        ]
    return []
