"""
From boot to address: waiting for the guest, and making it a machine of its own.

Clones boot with the machine-id of their base and may therefore all be handed *its*
address. So where a guest agent answers, the order is: agent up, identity reset, network
restarted, then the address; what is reported is the address after the reset.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from saltext.kvmclone import addresses, domain_xml
from saltext.kvmclone.addresses import Sighting
from saltext.kvmclone.domain_xml import Domain
from saltext.kvmclone.errors import (
    AddressTimeout,
    ChannelError,
    CommandFailed,
    GuestStopped,
    HostError,
)
from saltext.kvmclone.guest import identity
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.host import DomainHandle
from saltext.kvmclone.request import Request, Wait

log = logging.getLogger(__name__)

#: Pause between two looks where the profile names none, seconds.
PAUSE = 0.2

#: An agent that has not connected this long after the address appeared counts as absent.
AGENT_GRACE = 6.0

#: How long a reset guest may take to show a renewed address before the old one counts.
RENEWAL_GRACE = 10.0

NO_RESET = (
    "The guest still has the identity of its base (machine-id, ssh host keys): it has no guest "
    "agent and nothing was bootstrapped over ssh. Clones of one base may share an address."
)


@dataclass(frozen=True)
class Arrival:
    """
    What waiting found.

    :param sightings: Every usable address, best first.
    :param host_keys: The ssh host keys that an identity reset on the way gave it; empty
        where there was none.
    :param warnings: What the operator should know.
    """

    sightings: tuple[Sighting, ...]
    host_keys: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The address to report and to use."""
        return self.sightings[0].address.address


class Pace:
    """Pauses between looks, within a hard deadline."""

    def __init__(self, wait: Wait) -> None:
        self.started = time.monotonic()
        self.deadline = self.started + wait.timeout
        self._pause = PAUSE if wait.interval is None else wait.interval
        self._multiplier = wait.multiplier

    def rest(self) -> bool:
        """Pause; False when the deadline has passed instead."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(self._pause, left))
        self._pause *= self._multiplier
        return True


def arrive(handle: DomainHandle, request: Request, reset_done: bool) -> Arrival:
    """
    Wait for the guest's address; reset its identity over the agent on the way.

    :param request: Sources, waits, and whether the identity shall be reset.
    :param reset_done: It was reset in an earlier attempt.
    :raises GuestStopped: The guest crashed or shut off.
    :raises AddressTimeout: No address in time; says what was tried.
    """
    pace = Pace(request.wait)
    wanted = request.reset_identity and not reset_done
    host_keys: tuple[str, ...] = ()
    warnings: list[str] = []
    first_seen = 0.0
    stale: dict[str, str] = {}
    stale_until = 0.0
    while True:
        domain = domain_xml.read(handle.live())
        _require_running(handle, domain)
        found = addresses.look(handle, domain, request.ip_source)
        now = time.monotonic()
        if wanted and domain.agent_connected:
            wanted = False
            host_keys = _reset(handle, request.name, warnings)
            if host_keys:
                stale = {sighting.address.address: sighting.mark for sighting in found}
                stale_until = time.monotonic() + RENEWAL_GRACE
            continue
        if found:
            first_seen = first_seen or now
            waits_for_agent = wanted and domain.has_agent_channel and now < first_seen + AGENT_GRACE
            renewed = found[0].mark != stale.get(found[0].address.address)
            if not waits_for_agent and (renewed or now >= stale_until):
                return Arrival(found, host_keys, tuple(warnings))
        if not pace.rest():
            raise _timeout(handle, domain, request)


def await_renewal(handle: DomainHandle, request: Request, before: tuple[Sighting, ...]) -> Arrival:
    """
    Wait for the address, after an identity reset for the renewed one.

    :param before: The sightings from before the reset; they count again only after
        :data:`RENEWAL_GRACE` seconds, for guests whose address does not depend on it.
    """
    pace = Pace(request.wait)
    stale = {sighting.address.address: sighting.mark for sighting in before}
    while True:
        domain = domain_xml.read(handle.live())
        _require_running(handle, domain)
        found = addresses.look(handle, domain, request.ip_source)
        if found:
            renewed = found[0].mark != stale.get(found[0].address.address)
            if renewed or time.monotonic() > pace.started + RENEWAL_GRACE:
                return Arrival(found)
        if not pace.rest():
            raise _timeout(handle, domain, request)


def _holds(
    handle: DomainHandle, sighting: Sighting, stale: dict[str, str], renewal_is_over: bool
) -> bool:
    """
    Whether the guest really has this address now.

    After an identity reset over the agent the old lease is still on the books, and a busy
    host may take long to hand out the new one. So the guest itself is asked.

    :param stale: Addresses and marks from before the reset; empty without one.
    """
    if not stale:
        return True
    renewed = stale.get(sighting.address.address) != sighting.mark
    if not renewed and not renewal_is_over:
        return False
    try:
        told = {
            address
            for interface in handle.agent_interfaces()
            for address, _prefix, _family in interface.addresses
        }
    except HostError:  # it went away again; the books are all there is
        return renewed
    return sighting.address.address in told


def _reset(handle: DomainHandle, name: str, warnings: list[str]) -> tuple[str, ...]:
    """
    Reset the identity over the agent.

    :param warnings: Told where that was not possible.
    :return: The guest's new ssh host keys; empty where it was not reset.
    """
    try:
        with AgentChannel(handle.agent) as channel:
            usable, why = channel.usable()
            if not usable:
                warnings.append(f"The identity was not reset over the guest agent: {why}.")
                return ()
            done = identity.reset(channel, name)
            identity.rejoin_network(channel)
    except (ChannelError, CommandFailed) as error:
        log.warning("%s: identity not reset over the agent: %s", name, error)
        warnings.append(f"The identity was not reset over the guest agent: {error.message}")
        return ()
    return tuple(key.line for key in done.host_keys)


def _require_running(handle: DomainHandle, domain: Domain) -> None:
    state = handle.state()
    if state in ("shutoff", "crashed"):
        raise GuestStopped(
            f"'{domain.name}' is {state}: the guest stopped while we waited for its address.",
            f"Watch it boot: virsh -c {handle.host.url} start {domain.name} --console",
        )


def _timeout(handle: DomainHandle, domain: Domain, request: Request) -> AddressTimeout:
    tried = addresses.describe_search(handle, domain, request.ip_source)
    try:
        state = handle.state()
    except HostError:
        state = "unknown"
    return AddressTimeout(
        f"'{domain.name}' ({state}) showed no address within {request.wait.timeout:g} s "
        f"(ip_source: {request.ip_source}): {tried}.",
        "Does the base get an address when it runs by itself? Look at its console: "
        f"virsh -c {handle.host.url} console {domain.name}. On a bridge use 'ip_source: "
        "qemu-agent'. For a slow guest raise 'wait_for_ip_timeout'.",
    )
