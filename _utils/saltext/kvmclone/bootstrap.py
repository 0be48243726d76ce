"""
Into the guest: choosing the channel, making sure it is the right machine, enrolling it.

Runs on the host that made the clone, so a guest behind that host's NAT is reached too.
Before anything secret is sent over ssh the guest must prove that it is the clone; the
agent's socket is the domain's own and needs no proof.
"""

from __future__ import annotations

import time
from dataclasses import replace

from saltext.kvmclone import addresses, arrival, domain_xml
from saltext.kvmclone.addresses import Sighting
from saltext.kvmclone.errors import ChannelError, LoginFailed, WrongGuest
from saltext.kvmclone.guest import identity, minion, ssh
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.guest.channel import Channel, PublicKey
from saltext.kvmclone.guest.minion import Enrolment
from saltext.kvmclone.host import DomainHandle
from saltext.kvmclone.ownership import Minion, Record
from saltext.kvmclone.request import Request

#: Seconds for sshd to answer, once the guest has its address.
SSH_TIMEOUT = 120.0

#: Seconds for one attempt, after which its address is looked up again.
ATTEMPT_TIMEOUT = 20.0

#: Seconds that another machine may hold the clone's address.
WRONG_GUEST_PATIENCE = 45.0

UNVERIFIED = "The guest could not show its uuid, so only its address says that it is the clone."
FIRST_CONTACT = "The guest's ssh host key was recorded at first contact: nothing vouches for it."


def bootstrap(
    handle: DomainHandle, record: Record, request: Request, enrolment: Enrolment
) -> Record:
    """
    Make the running guest a minion.

    :return: The record, with the minion and what was learned on the way.
    :raises ChannelError: The guest cannot be entered; LoginFailed, WrongGuest likewise.
    :raises DeployFailed: The script, or starting the minion, failed.
    """
    way = request.deploy.bootstrap
    warnings: list[str] = []
    agent = None if way == "ssh" else _agent(handle, way, warnings)
    if agent is not None:
        with agent:
            if _wants_reset(request, record):
                before = _sightings(handle, record)
                record = _reset(agent, handle.name, record)
                found = arrival.await_renewal(handle, request, before)
                record = replace(record, address=found.address)
            warnings += minion.enrol(agent, enrolment).warnings
    else:
        record = _over_ssh(handle, record, request, enrolment, warnings)
    return replace(
        record,
        minion=Minion(id=enrolment.minion_id, fingerprint=enrolment.fingerprint),
        warnings=(*record.warnings, *warnings),
    )


def _wants_reset(request: Request, record: Record) -> bool:
    return request.reset_identity and record.identity != "reset"


def _agent(handle: DomainHandle, way: str, warnings: list[str]) -> AgentChannel | None:
    """The agent's channel; None where ssh shall serve instead."""
    if not domain_xml.read(handle.live()).agent_connected:
        if way == "agent":
            raise ChannelError(
                f"'{handle.name}' has no connected guest agent.",
                "Install and enable qemu-guest-agent in the base and give it the channel "
                "org.qemu.guest_agent.0, or use 'bootstrap: ssh'.",
            )
        return None
    channel = AgentChannel(handle.agent)
    usable, why = channel.usable()
    if usable:
        return channel
    if way == "agent":
        raise ChannelError(
            f"'{handle.name}' cannot be enrolled over its agent: {why}.",
            "Allow these commands in the base (qemu-ga's configuration), or use 'bootstrap: ssh'.",
        )
    warnings.append(f"Went over ssh, since {why}.")
    return None


def _reset(channel: Channel, name: str, record: Record) -> Record:
    """Reset the identity and let the guest ask for an address under its new one."""
    keys = tuple(key.line for key in identity.reset(channel, name).host_keys)
    identity.rejoin_network(channel)
    return replace(record, identity="reset", host_keys=keys)


def _sightings(handle: DomainHandle, record: Record) -> tuple[Sighting, ...]:
    return addresses.look(handle, domain_xml.read(handle.live()), record.ip_source)


def _over_ssh(
    handle: DomainHandle,
    record: Record,
    request: Request,
    enrolment: Enrolment,
    warnings: list[str],
) -> Record:
    if not record.host_keys:
        warnings.append(FIRST_CONTACT)
    channel, record = _reach(handle, record, request, enrolment, (), warnings)
    with channel:
        if not _wants_reset(request, record):
            warnings += minion.enrol(channel, enrolment).warnings
            return replace(record, host_keys=record.host_keys or (channel.host_key.line,))
        before = _sightings(handle, record)
        record = _reset(channel, handle.name, record)
    # The guest is another machine to the network now, with keys that we made ourselves.
    channel, record = _reach(handle, record, request, enrolment, before, warnings)
    with channel:
        warnings += minion.enrol(channel, enrolment).warnings
    return record


def _reach(
    handle: DomainHandle,
    record: Record,
    request: Request,
    enrolment: Enrolment,
    before: tuple[Sighting, ...],
    warnings: list[str],
) -> tuple[ssh.SshChannel, Record]:
    """
    Find the guest and enter it.

    Its address may be another's for a while: an old lease stays on the books after a
    reset, and clones that boot at once with one machine-id share an address until the
    first of them is reset. So a machine that does not answer, or not as the clone, is
    looked up again, for a while.

    :param before: Sightings from before a reset, which are stale now.
    :raises WrongGuest: Another machine holds the address for good.
    """
    started = time.monotonic()
    while True:
        if before:
            record = replace(record, address=arrival.await_renewal(handle, request, before).address)
        elif seen := _sightings(handle, record):
            # The lease may meanwhile stand under the MAC address of a clone with the same
            # machine-id; then the address that was found first is the one to try.
            record = replace(record, address=seen[0].address.address)
        attempt = min(started + SSH_TIMEOUT, time.monotonic() + ATTEMPT_TIMEOUT)
        try:
            return _enter(record, request, enrolment, attempt, warnings), record
        except LoginFailed:
            raise
        except WrongGuest:
            if time.monotonic() >= started + WRONG_GUEST_PATIENCE:
                raise
            time.sleep(1.0)
        except ChannelError:
            if time.monotonic() >= started + SSH_TIMEOUT:
                raise


def _enter(
    record: Record,
    request: Request,
    enrolment: Enrolment,
    deadline: float,
    warnings: list[str],
) -> ssh.SshChannel:
    """
    A verified connection to the guest.

    :raises WrongGuest: The machine there is not the clone; it saw the login and nothing else.
    """
    channel = ssh.connect(
        record.address,
        request.login,
        enrolment.secrets,
        deadline=deadline,
        host_keys=[PublicKey.from_line(line) for line in record.host_keys] or None,
    )
    try:
        if identity.verify_guest(channel, record.uuid) != "dmi" and UNVERIFIED not in warnings:
            warnings.append(UNVERIFIED)
    except BaseException:
        channel.close()
        raise
    return channel
