"""
Turn a machine that was made to become a base into one, at the end of both ways to make a base.

Until :func:`finish` the machine is an unfinished clone: its record lists its files, and what is
left of it after a crash at any point is removed by ``gc``. With the last step of :func:`finish`,
which is one call to libvirt, it is a base like any other, and nothing is on record to be deleted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from lxml import etree

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import ChannelError, CommandFailed, GuestStopped, HostError
from saltext.kvmclone.guest import base_cleaning
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.hypervisor import networks
from saltext.kvmclone.hypervisor.constants import OFF_SHUTDOWN, SHUTOFF_BECAUSE, STATES
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import deletion_plan
from saltext.kvmclone.lifecycle import destroy, protect, record_store
from saltext.kvmclone.model import base_record, libvirt_xml, record_xml
from saltext.kvmclone.model.base_record import BaseRecord
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.system import processes

#: Seconds between two looks at the guest.
_POLL_S = 0.3

#: Seconds after which a guest is asked again to shut down: it may have been busy with its boot.
_ASK_AGAIN_S = 15.0


def boot_without_network(handle: DomainHandle, record: Record) -> Record:
    """
    Boot the machine once with the links of all its network cards down.

    Only this run has them down; the definition stays as it is.

    :param record: As it was last read or written, at stage ``cloned``.
    :return: The record as it was saved, at stage ``booted``.
    :raises HostError: libvirt refused.
    """
    # Before the start: from the stage, gc knows that nobody but us has started it.
    record = record_store.save(handle, record, record.at("booted"))
    root = libvirt_xml.parse(handle.definition())
    for card in root.iterfind("./devices/interface"):
        link = card.find("link")
        if link is None:
            link = etree.SubElement(card, "link")
        link.set("state", "down")
    handle.start(libvirt_xml.serialize(root))
    return record


def clean_and_shut_off(
    handle: DomainHandle, timeout_s: float, names: Sequence[str] = ()
) -> tuple[str, ...]:
    """
    Clean the running guest over its agent, and have it shut itself off.

    :param timeout_s: Seconds until its agent has to answer, and again until it has to be off.
    :param names: Host names that are not to stay in it.
    :return: What is still in the guest, one sentence each.
    :raises ChannelError: Its agent does not answer, or forbids what is needed.
    :raises CommandFailed: A step of the cleaning failed, or the guest does not shut down.
    :raises GuestStopped: It crashed, or was stopped otherwise than by itself.
    """
    with AgentChannel(handle.agent) as channel:
        await_agent(handle, channel, timeout_s, "cleaned")
        left = base_cleaning.clean(channel, names)
    _shut_off(handle, timeout_s)
    return left


def finish(
    host: Host,
    handle: DomainHandle,
    record: Record,
    made_from: BaseRecord,
    without: Sequence[str] = (),
) -> None:
    """
    Make the machine, which is off, a protected base; what it must not keep is deleted before.

    The links of its network cards are as its definition has them. A failure, or the end of this
    process, leaves it unfinished.

    :param record: As it was last read or written.
    :param made_from: Its record as a base; the uuid in it is set here.
    :param without: Targets of disks that were only needed to make it, such as a seed: their files
        are deleted as far as they are on the record, and they leave the definition.
    :raises PlanRefused: It cannot be protected; it runs, for instance.
    :raises CreateInProgress: Another worker has it.
    :raises HostError: A file cannot be deleted, or libvirt refused.
    """
    record = delete_files(host, handle, record, without)
    for reservation in record.reservations:
        networks.release(host, reservation)
    # Protected first, so that a finished base is never writable: an unfinished one is deleted all
    # the same.
    protect.protect(host, handle, [one.path for one in record.volumes if _is_disk(one.target)])
    with processes.name_lock(handle.name):
        record_store.current(handle, record)
        own = replace(made_from, uuid=handle.uuid)
        host.define(_as_base(handle.definition(), own, without), False)


def _as_base(definition: str, made_from: BaseRecord, without: Sequence[str]) -> str:
    """
    Return the definition without our record of a clone, and with that of a base.

    :param without: Targets of disks that leave it.
    """
    root = libvirt_xml.parse(definition)
    for devices in root.iterfind("./devices"):
        for disk in devices.findall("disk"):
            target = disk.find("target")
            if target is not None and target.get("dev") in without:
                devices.remove(disk)
    for metadata in root.iterfind("./metadata"):
        for mine in metadata.findall(f"{{{record_xml.NAMESPACE}}}clone"):
            metadata.remove(mine)
    base_record.embed(root, made_from)
    return libvirt_xml.serialize(root)


def _is_disk(target: str) -> bool:
    return target != deletion_plan.NVRAM


def delete_files(
    host: Host, handle: DomainHandle, record: Record, without: Sequence[str]
) -> Record:
    """
    Delete the files of some disks, as a destroy would.

    :return: The record as it was saved, without them.
    :raises HostError: One of them cannot be deleted.
    """
    going = [volume for volume in record.volumes if volume.target in without]
    if not going:
        return record
    deletion = deletion_plan.plan_deletion(host, handle, record)
    paths = {volume.path for volume in going}
    for kept in deletion.kept:
        if kept.path in paths:
            raise HostError(
                f"'{handle.name}' does not become a base, since {kept}",
                f"Look at it: {host.commands.there('ls', '-l', kept.path)}",
            )
    for file in deletion.files:
        if file.target in without:
            record_store.current(handle, record)
            destroy.delete_file(host, file)
    kept_volumes = tuple(volume for volume in record.volumes if volume not in going)
    return record_store.save(handle, record, replace(record, volumes=kept_volumes))


# --- the guest ------------------------------------------------------------------------


def await_agent(handle: DomainHandle, channel: AgentChannel, timeout_s: float, doing: str) -> None:
    """
    Wait until the guest's agent does what we need.

    :param doing: What is done to the guest over it, a participle.
    :raises ChannelError: It does not in time, or its configuration forbids it.
    :raises GuestStopped: The guest stopped.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        interrupts.check()
        connected = handle.agent_connected()
        state, reason = _state(handle)
        if state in ("shutoff", "crashed"):
            raise GuestStopped(
                f"'{handle.name}' is {state}{reason}: the guest stopped before it was {doing}.",
                "Does what it was made from boot, and stay up, without a network?",
            )
        if connected:
            usable = channel.usable()
            if usable:
                return
            if not usable.silent:
                raise ChannelError(
                    f"'{handle.name}' cannot be {doing}: {usable.why_not}.", usable.hint
                )
        if time.monotonic() > deadline:
            raise ChannelError(
                f"The guest agent of '{handle.name}' did not answer within {timeout_s:g} s, and "
                f"without it the guest cannot be {doing}.",
                "Does the guest boot, and start qemu-guest-agent, without a network? Try it in "
                "what it was made from.",
            )
        interrupts.pause(_POLL_S)


def _shut_off(handle: DomainHandle, timeout_s: float) -> None:
    """
    Ask the guest to shut down, and wait until it did; never switch it off.

    Its file systems would not be clean then, and every clone would begin with repairing them.

    :raises CommandFailed: It did not in time.
    :raises GuestStopped: It stopped otherwise.
    """
    deadline, ask_at = time.monotonic() + timeout_s, 0.0
    while True:
        state, reason = _state(handle)
        if state == "shutoff" and not reason:
            return
        if state in ("shutoff", "crashed"):
            raise GuestStopped(
                f"'{handle.name}' did not shut down by itself ({state}{reason}), so its disks may "
                "not be whole.",
                "Repeat the command; nothing of this attempt is used.",
            )
        now = time.monotonic()
        if now > deadline:
            raise CommandFailed(
                f"'{handle.name}' was cleaned, and did not shut down within {timeout_s:g} s.",
                "What keeps the guest from powering off (systemctl poweroff)? Mend that in what it "
                "was made from, and repeat the command.",
            )
        if now >= ask_at:
            handle.shut_down()
            ask_at = now + _ASK_AGAIN_S
        interrupts.pause(_POLL_S)


def _state(handle: DomainHandle) -> tuple[str, str]:
    """Return libvirt's state, and why the guest is off unless it powered off; empty for that."""
    number, reason = handle.connection.call(handle.raw.state)[:2]
    state = STATES.get(number, "running")
    if state != "shutoff" or reason == OFF_SHUTDOWN:
        return state, ""
    return state, f" ({SHUTOFF_BECAUSE.get(reason, 'nobody knows why')})"
