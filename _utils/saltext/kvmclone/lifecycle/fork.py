"""
Let a fork go on from the saved memory of its warmed base, and make it a machine of its own.

The order is what keeps two forks apart. The memory is restored without a network card; the fork's
own is plugged in with its link down; the kernel takes fresh random numbers and acknowledges them;
only then is a new identity made, and the link goes up once the guest has it. Nothing is on record
as booted before the acknowledgement, and what fails before it is switched off at once: its disk
has been written by a machine that must not go on, so that nothing can be resumed either.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import (
    ChannelError,
    CommandFailed,
    ForkFailed,
    HostError,
    KvmCloneError,
)
from saltext.kvmclone.guest import fork_identity, identity
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.guest.fork_identity_script import FixedAddress
from saltext.kvmclone.guest.identity_script import NOT_IN_A_FORK
from saltext.kvmclone.hypervisor import networks
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.inventory import warm_images
from saltext.kvmclone.lifecycle import record_store
from saltext.kvmclone.lifecycle.journal import Journal
from saltext.kvmclone.model.record import INSTANT, MEMORY, Record
from saltext.kvmclone.plan import fork_definition
from saltext.kvmclone.system import saved_image

log = logging.getLogger(__name__)

#: Seconds that the agent of a fork may take to answer which was booted since.
AGENT_TIMEOUT_S = 120.0

_INSTEAD = "Make it as a quick clone ('clone_strategy: quick', or 'instant: prefer')."


def is_due(record: Record) -> bool:
    """Return whether the first boot of a clone is to be a restore."""
    return record.strategy == INSTANT and record.stage == "cloned"


def first_boot(host: Host, handle: DomainHandle, record: Record) -> Record:
    """
    Restore a fork, and have its kernel acknowledge fresh random numbers.

    :return: The record as it was saved, at stage ``booted``.
    :raises ForkFailed: It was not restored, or did not acknowledge; it is off.
    :raises WarmImageUnusable: The saved memory is not what it was; NotWarmed: it is gone. Nothing
        was done.
    """
    started = time.monotonic()
    _require_fresh(handle, record)
    base = host.domain(record.base)
    image = warm_images.usable(host, base, record.warmed).path
    definition = handle.definition()
    with _switched_off_unless_acknowledged(handle):
        record = _restore(host, handle, record, image, definition)
        for card in fork_definition.cards(definition, unplugged=True):
            handle.attach_live(card)
        fork_identity.ping(handle.agent)
        with AgentChannel(handle.agent) as channel:
            fork_identity.reseed(channel)
        interrupts.check()
        booted = record.at("booted", booted=time.monotonic() - started)
        return record_store.save(handle, record, booted)


def become_itself(handle: DomainHandle, record: Record, enrols: bool = False) -> Record:
    """
    Give a fork that acknowledged its own identity and network. May be repeated.

    :param enrols: It becomes a minion later; otherwise one that was preloaded is stopped.
    :return: The record, with the identity on it; it was not saved.
    :raises ForkFailed: The guest could not be given an identity of its own.
    """
    if not record.warmed or record.identity == "reset":
        return record
    try:
        with AgentChannel(handle.agent) as channel:
            done = identity.reset(channel, handle.name, taken=NOT_IN_A_FORK, rejoins=True)
            for card in fork_definition.cards(handle.definition()):
                handle.update_live(card)
            known = fixed_addresses(handle, record)
            warnings = fork_identity.settle(channel, handle.uuid, known, enrols)
    except (ChannelError, CommandFailed) as error:
        raise ForkFailed(
            f"The fork '{handle.name}' was not given an identity of its own: {error.message}",
            error.hint,
        ) from error
    return replace(
        record,
        identity="reset",
        host_keys=tuple(key.line for key in done.host_keys),
        warnings=(*record.warnings, *done.warnings, *warnings),
    )


def give_word(handle: DomainHandle, word: str) -> None:
    """
    Put a word into the guest, over its own agent, that its minion has to answer.

    :raises ChannelError: The guest cannot be talked to.
    :raises CommandFailed: The word cannot be written.
    """
    fork_identity.ping(handle.agent, AGENT_TIMEOUT_S)
    with AgentChannel(handle.agent) as channel:
        fork_identity.give_word(channel, word)


def forget_word(handle: DomainHandle) -> tuple[str, ...]:
    """Remove the word that the minion has answered; return what an operator should know of that."""
    try:
        with AgentChannel(handle.agent) as channel:
            fork_identity.forget_word(channel)
    except (ChannelError, CommandFailed) as error:
        return (
            "The word by which this fork was known is in its guest until that boots again; it "
            f"proves nothing any more. {error.message}",
        )
    return ()


def fixed_addresses(handle: DomainHandle, record: Record) -> list[FixedAddress]:
    """Return the addresses that are reserved for a fork, as its cards are given them."""
    found = []
    for reserved in record.reservations:
        network = networks.facts(handle.connection, reserved.network)
        address = ipaddress.ip_address(reserved.address)
        for subnet in network.subnets if network is not None else ():
            gateway = ipaddress.ip_interface(subnet.gateway)
            if network is not None and address in gateway.network:
                found.append(
                    FixedAddress(
                        reserved.mac,
                        f"{address}/{gateway.network.prefixlen}",
                        str(gateway.ip),
                        bool(network.forward),
                    )
                )
    return found


def _require_fresh(handle: DomainHandle, record: Record) -> None:
    """
    Refuse a fork whose restore was begun before.

    :raises ForkFailed: It was; whatever runs of it is off now.
    """
    if not record.fork_begun and handle.state() == "shutoff":
        return
    handle.power_off()
    raise _not_fresh(handle, "Repeat the command.")


def require_not_begun(handle: DomainHandle, record: Record) -> None:
    """
    Refuse to start a fork that was kept after its restore was begun.

    :raises ForkFailed: It was.
    """
    if record.fork_begun:
        commands = handle.connection.commands
        raise _not_fresh(handle, f"Remove it: {commands.clone('destroy', handle.name)}")


def _not_fresh(handle: DomainHandle, hint: str) -> ForkFailed:
    return ForkFailed(
        f"The fork '{handle.name}' was interrupted before it had fresh random numbers, so it does "
        "not go on.",
        hint,
    )


def _restore(
    host: Host, handle: DomainHandle, record: Record, image: str, definition: str
) -> Record:
    """
    Restore the fork from a copy of the saved memory in which it is itself.

    :param image: The saved memory of the warmed base.
    :param definition: The fork's own.
    :return: The record as it was saved, without the copy, which is gone again.
    """
    journal = Journal(handle, record)
    copy = record.memory
    journal.making(MEMORY)

    def made() -> None:
        journal.made(MEMORY)
        journal.save()

    try:
        saved_image.write(image, copy, fork_definition.without_cards(definition), made)
        host.restore(copy)
        os.unlink(copy)
    except FileExistsError as error:
        journal.not_made(MEMORY)
        journal.save()
        raise HostError(f"'{copy}' is there already, and was not made for this fork") from error
    except saved_image.UnknownLayout as error:
        raise HostError(f"the saved memory '{image}' {error}") from error
    except OSError as error:
        raise HostError(f"the saved memory '{image}' cannot be used: {error}") from error
    left = tuple(volume for volume in journal.record.volumes if volume.target != MEMORY)
    return record_store.save(handle, journal.record, replace(journal.record, volumes=left))


@contextmanager
def _switched_off_unless_acknowledged(handle: DomainHandle) -> Iterator[None]:
    """
    Switch the fork off where anything fails in the block.

    :raises ForkFailed: libvirt or the guest failed.
    """
    try:
        yield
    except BaseException as error:
        with interrupts.shield():
            _switch_off(handle)
        if not isinstance(error, (HostError, ChannelError, CommandFailed)):
            raise
        raise ForkFailed(
            f"The fork '{handle.name}' did not become a machine of its own, and was switched off: "
            f"{error.message}",
            f"{error.hint}   {_INSTEAD}".strip(),
        ) from error


def _switch_off(handle: DomainHandle) -> None:
    """Switch a fork off, and see that it is; what cannot be seen is said in the log."""
    try:
        handle.power_off()
        state = handle.state()
    except KvmCloneError as problem:
        log.error("%s: not switched off: %s", handle.name, problem)
        return
    if state != "shutoff":
        log.error("%s: still %s after it was switched off", handle.name, state)
