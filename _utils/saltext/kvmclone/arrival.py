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
from saltext.kvmclone.guest.identity import Reset
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
    :param identity_reset: The guest was given an identity of its own on the way.
    :param host_keys: The ssh host keys that it was given then.
    :param warnings: What the operator should know.
    """

    sightings: tuple[Sighting, ...]
    identity_reset: bool = False
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


class _Renewal:
    """
    Which addresses a guest really holds after its identity was reset.

    The old lease stays on the books, and a busy host takes long to hand out the new one.
    So an old sighting counts again only after :data:`RENEWAL_GRACE`, for guests whose
    address does not depend on their identity; and where there is an agent it is asked.

    :param before: What was seen just before the network was restarted.
    """

    def __init__(self, before: tuple[Sighting, ...]) -> None:
        self._stale = {sighting.address.address: sighting.mark for sighting in before}
        self._over = time.monotonic() + RENEWAL_GRACE

    def current(
        self, handle: DomainHandle, domain: Domain, found: tuple[Sighting, ...]
    ) -> tuple[Sighting, ...]:
        """Those of the sightings that hold now."""
        over = time.monotonic() >= self._over
        fresh = tuple(s for s in found if over or self._stale.get(s.address.address) != s.mark)
        if not fresh or not domain.agent_connected:
            return fresh
        try:
            interfaces = handle.agent_interfaces()
        except HostError:  # busy; it is asked again at the next look
            return ()
        told = {address for interface in interfaces for address, _, _ in interface.addresses}
        return tuple(sighting for sighting in fresh if sighting.address.address in told)


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
    done: Reset | None = None
    renewal: _Renewal | None = None
    warnings: list[str] = []
    first_seen = 0.0
    while True:
        domain = domain_xml.read(handle.live())
        _require_running(handle, domain)
        if wanted and domain.agent_connected:
            wanted = False
            done, renewal = _reset(handle, domain, request, warnings)
        found = addresses.look(handle, domain, request.ip_source)
        if renewal:
            found = renewal.current(handle, domain, found)
        if found:
            now = time.monotonic()
            first_seen = first_seen or now
            if not (wanted and domain.has_agent_channel and now < first_seen + AGENT_GRACE):
                keys = tuple(key.line for key in done.host_keys) if done else ()
                return Arrival(found, done is not None, keys, tuple(warnings))
        if not pace.rest():
            raise _timeout(handle, domain, request)


def await_renewal(handle: DomainHandle, request: Request, before: tuple[Sighting, ...]) -> Arrival:
    """
    Wait for the address that the guest has after an identity reset.

    :param before: What was seen just before its network was restarted.
    """
    pace = Pace(request.wait)
    renewal = _Renewal(before)
    while True:
        domain = domain_xml.read(handle.live())
        _require_running(handle, domain)
        seen = addresses.look(handle, domain, request.ip_source)
        found = renewal.current(handle, domain, seen)
        if found:
            return Arrival(found)
        if not pace.rest():
            raise _timeout(handle, domain, request)


def _reset(
    handle: DomainHandle, domain: Domain, request: Request, warnings: list[str]
) -> tuple[Reset | None, _Renewal | None]:
    """
    Reset the identity over the agent.

    :param warnings: Told where that was not possible.
    :return: What was done and how to tell the new address; None where it was not.
    """
    try:
        with AgentChannel(handle.agent) as channel:
            usable, why = channel.usable()
            if not usable:
                warnings.append(f"The identity was not reset over the guest agent: {why}.")
                return None, None
            done = identity.reset(channel, request.name)
            before = addresses.look(handle, domain, request.ip_source)
            identity.rejoin_network(channel)
    except (ChannelError, CommandFailed) as error:
        log.warning("%s: identity not reset over the agent: %s", request.name, error)
        warnings.append(f"The identity was not reset over the guest agent: {error.message}")
        return None, None
    return done, _Renewal(before)


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
