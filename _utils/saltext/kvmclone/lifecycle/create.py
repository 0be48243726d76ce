"""
Carry out a clone plan, and undo it when a step fails.

What is made is journalled in the definition, see :mod:`.journal`.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    HostError,
    PlanRefused,
)
from saltext.kvmclone.hypervisor import networks
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import base_changes, deletion_plan
from saltext.kvmclone.lifecycle import protect
from saltext.kvmclone.lifecycle.journal import (
    Journal,
    define,
    make_volume,
    own_automatic_nvram,
    undo,
)
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.cloud_seed import OWN
from saltext.kvmclone.model.record import (
    DESTROYING,
    Record,
)
from saltext.kvmclone.plan.planner import ClonePlan
from saltext.kvmclone.system import seed_image


def apply(
    host: Host,
    plan: ClonePlan,
    seed: Mapping[str, str] = MappingProxyType({}),
    admission: AbstractContextManager[None] | None = None,
) -> tuple[DomainHandle, Record]:
    """
    Make the clone, shut off; undo everything on any failure.

    :param plan: A plan without conflicts.
    :param seed: Files of the clone's own cloud-init seed, where the plan has one.
    :param admission: Entered around the definition; what it raises refuses the clone.
    :return: The domain and its record, at stage ``cloned``.
    :raises PlanRefused: The plan has conflicts, or a file or the base changed since.
    :raises CreateInProgress: The name was taken in the meantime.
    :raises KvmCloneError: A step failed; what was made is deleted again, as far as that worked.
    """
    plan.check()
    started = time.monotonic()
    content = b""
    if plan.request.seed == OWN:
        content = seed_image.build(seed, plan.record.uuid, plan.request.name)
    with admission or nullcontext():
        handle = define(host, plan.xml, plan.record, plan.request.validate_xml)
    journal = Journal(handle, plan.record)
    try:
        if plan.request.protect:  # once the record is written, since undoing relies on it
            protect.protect(host, host.domain(plan.base), plan.sources, plan.record.uuid)
        for disk in plan.disks:
            if disk.destination:
                interrupts.check()
                make_volume(host, disk, journal, content)
        if plan.nvram:
            _copy_nvram(*plan.nvram, journal)
        elif domain_xml.read(plan.xml).nvram is not None:
            own_automatic_nvram(journal)
        for wanted in plan.record.reservations:
            networks.reserve(host, wanted, plan.request, journal.reserving)
        for base in filter(None, (plan.base, plan.warmed)):
            _require_base_at_rest(host, plan, base)
        # Otherwise only once it has an identity of its own: libvirt would start that of its base.
        if plan.request.autostart is not None and plan.record.goal == "cloned":
            handle.set_autostart(plan.request.autostart)
        journal.record = journal.record.at("cloned", cloned=time.monotonic() - started)
        journal.save()
    except BaseException as error:
        undo(host, journal, error)
        raise
    return handle, journal.record


def _copy_nvram(source: str, destination: str, journal: Journal) -> None:
    """
    Copy the variable store; a base that never booted has none, and libvirt then makes one.

    The copy is written under a name that only this create uses and linked into place whole, so
    that a file at the destination is never a half-written one of ours.

    :param source: Path of the base's variable store.
    :param destination: Path of the clone's.
    :raises PlanRefused: A file appeared at the destination in the meantime.
    :raises HostError: Copying failed.
    """
    if not os.path.exists(source):
        journal.made("nvram")
        return
    journal.making("nvram")
    draft = deletion_plan.draft_path(destination, journal.record)
    try:
        with open(source, "rb") as original, open(draft, "xb") as copy:
            shutil.copyfileobj(original, copy)
            # That of a protected or a warmed base is read-only, and QEMU runs without privileges.
            os.chmod(draft, stat.S_IMODE(os.stat(source).st_mode) | stat.S_IWUSR)
        os.link(draft, destination)
        journal.made("nvram")
        journal.save()
        os.unlink(draft)
    except FileExistsError as error:
        journal.not_made("nvram")
        raise PlanRefused(
            f"The NVRAM file '{destination}' appeared in the meantime; it is not ours to "
            "overwrite.",
            "Repeat the command: the next one gets another name.",
        ) from error
    except OSError as error:
        raise HostError(
            f"Copying the NVRAM '{source}' to '{destination}' failed: {error.strerror}.",
            "Look at that folder; nothing was overwritten.",
        ) from error


def _require_base_at_rest(host: Host, plan: ClonePlan, name: str) -> None:
    """
    Refuse a base that did not stay as the plan found it: shut off and unchanged.

    :param name: Name of the base, or of the warmed machine that a fork stands on.
    :raises PlanRefused: The base was started or destroyed, or its disks changed, in the meantime.
    """
    base = host.find(name)
    record = base.record() if base else None
    commands = host.commands
    again = "Leave the base alone and repeat the command"
    disks = plan.record.base_disks if host.local else ()
    if base is None or (record is not None and (record.stage == DESTROYING or record.under_way)):
        what, way = "is gone, being destroyed or rolled back, now", "List the domains"
        command = commands.virsh("list", "--all")
    elif not base.was_off and (state := base.state()) != "shutoff":
        what, way = f"is {state} now", again
        command = commands.shut_off(name, state)
    elif changed := [disk.path for disk in disks if base_changes.differs(host, disk)]:
        what, way = f"changed: {', '.join(changed)}", f"{again}. Is it off now? See"
        command = commands.virsh("domstate", name)
    else:
        return
    raise PlanRefused(
        f"The base '{name}' {what}; '{plan.request.name}' was being made from it.",
        f"{way}: {command}",
    )
