"""
Wait for a guest's address, and reset the guest's identity over its agent on the way.

Clones boot with the machine-id of their base and may therefore all be given the *base's* address.
So where a guest agent answers, the order is: agent connected, identity reset, network restarted,
then the address; the address that is reported is the one after the reset.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from saltext.kvmclone.errors import (
    AddressTimeout,
    ChannelError,
    CommandFailed,
    GuestStopped,
    HostError,
    HostUnreachable,
)
from saltext.kvmclone.guest import identity
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.guest.identity import Reset
from saltext.kvmclone.hypervisor.addresses import (
    AGENT,
    SOURCES,
    AddressFilter,
    Search,
    SeenAddress,
)
from saltext.kvmclone.hypervisor.constants import SHUTOFF_BECAUSE, STATES
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.events import Watch
from saltext.kvmclone.inventory import silent_agent
from saltext.kvmclone.inventory.silent_agent import SILENT
from saltext.kvmclone.lifecycle.address_query import AddressQuery
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.cloud_seed import KEEP, OUT, OWN, TOLD
from saltext.kvmclone.model.domain_xml import AGENT_CHANNEL, Domain

log = logging.getLogger(__name__)

#: Seconds after the address appeared at which an agent that has not connected counts as absent.
AGENT_CONNECT_S = 6.0

#: The same where cloud-init works on a seed, seconds: it sets up the network first, and the agent
#: is started when cloud-init is done, or is only installed by it.
CLOUD_INIT_AGENT_CONNECT_S = 120.0

#: Seconds for which an agent that is connected and does not answer is asked again: a libvirtd that
#: was just restarted reports the agent before it can talk to it.
AGENT_SILENCE_S = 20.0

#: Seconds that a reset guest may take to show a renewed address before the old one counts.
ADDRESS_RENEWAL_S = 10.0

#: What a wait found of the guest's agent, besides ``SILENT``: there is no channel for one, or it
#: answered.
ABSENT, HEARD = "absent", "heard"

_NOT_OVER_AGENT = {
    ABSENT: f"its definition has no channel for a guest agent ({AGENT_CHANNEL})",
    SILENT: "its guest agent did not answer",
    HEARD: "its guest agent could not do it",
}


@dataclass(frozen=True)
class Arrival:
    """
    The result of waiting for a guest's address.

    :param sightings: Every usable address, best first.
    :param identity_reset: The guest was given an identity of its own on the way.
    :param host_keys: The ssh host keys that it was given with that identity.
    :param warnings: What the operator should know.
    :param agent: :data:`ABSENT`, :data:`.silent_agent.SILENT` or :data:`HEARD`.
    """

    sightings: tuple[SeenAddress, ...]
    identity_reset: bool = False
    host_keys: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    agent: str = HEARD

    @property
    def address(self) -> str:
        """Return the address to report and to use."""
        return self.sightings[0].address.address

    @property
    def not_reset(self) -> str:
        """Return the warning for a guest whose identity nothing later will reset either."""
        return (
            "The guest still has the identity of its base (machine-id, ssh host keys): "
            f"{_NOT_OVER_AGENT[self.agent]}, and nothing was bootstrapped over ssh. Clones of one "
            "base may share an address."
        )


class _Renewal:
    """
    The addresses that a guest really holds after its identity was reset.

    The old lease stays listed, and a busy host takes long to hand out the new one. So a sighting
    from before counts again only after :data:`ADDRESS_RENEWAL_S`, for guests whose address does not
    depend on their identity; and where there is an agent, it is asked.

    :param before: What was seen just before the network was restarted.
    :param reserved: The address that the guest gets under any identity; empty for none.
    """

    def __init__(self, before: tuple[SeenAddress, ...], reserved: str = "") -> None:
        self._stale = {
            one.address.address: one.mark for one in before if one.address.address != reserved
        }
        self._over = time.monotonic() + ADDRESS_RENEWAL_S

    def current(
        self, handle: DomainHandle, domain: Domain, found: tuple[SeenAddress, ...]
    ) -> tuple[SeenAddress, ...]:
        """Return those of the sightings that hold now."""
        over = time.monotonic() >= self._over
        fresh = tuple(s for s in found if over or self._stale.get(s.address.address) != s.mark)
        if not fresh or not domain.agent_connected:
            return fresh
        try:
            interfaces = handle.agent_interfaces()
        except HostError:  # the agent is busy; it is asked again at the next look
            return ()
        told = {address for interface in interfaces for address, _, _ in interface.addresses}
        return tuple(sighting for sighting in fresh if sighting.address.address in told)


class _Wait:
    """
    One wait for an address: what is known of the guest, and what was done to it.

    :param watch: Ends the pauses.
    """

    def __init__(self, handle: DomainHandle, query: AddressQuery, watch: Watch) -> None:
        self.handle = handle
        self.query = query
        self.watch = watch
        self.wanted = query.wanted
        self.search = Search(handle, query.ip_source, self.wanted)
        self.domain: Domain | None = None
        self.renewal: _Renewal | None = None

    def until(self, look: Callable[[Domain], Arrival | None]) -> Arrival:
        """
        Look at the guest until ``look`` returns a result.

        :param look: Called with the domain as it runs; returns None to go on waiting.
        :raises GuestStopped: The guest crashed or shut off.
        :raises AddressTimeout: No result in time; the message says what was tried.
        :raises HostUnreachable: libvirt went away and did not come back in time.
        """
        while True:
            try:
                arrival = look(self._now())
            except HostUnreachable as error:
                log.warning("%s: %s", self.handle.name, error.message)
                self.watch.reconnect()
                self.search.renew()
                continue
            if arrival is not None:
                return arrival
            if not self.watch.rest():
                raise self._timeout()

    def _now(self) -> Domain:
        """
        Return the domain as it runs; libvirt is asked only when something may have changed.

        :raises GuestStopped: The guest crashed or shut off.
        """
        if why := self.watch.ended():
            raise _stopped(self.handle, f"shutoff ({why})")
        if self.domain is None or self.watch.due():
            # Read together, so that a connected agent is seen with the state that it came up in.
            self.domain = domain_xml.read(self.handle.live())
            _require_running(self.handle)
            self.search.renew()
        return self.domain

    def found(self, domain: Domain) -> tuple[SeenAddress, ...]:
        """Return every address that holds now, those that count first; empty while none counts."""
        seen = self.search.look(domain)
        if self.renewal is not None:
            seen = self.renewal.current(self.handle, domain, seen)
        if not self.wanted.among(seen, domain):
            return ()
        return self.wanted.first(seen, domain)

    def _without_leases(self, domain: Domain) -> list[str]:
        """Return what to do where libvirt hands out no addresses, as far as it was not done."""
        asked = domain.has_agent_channel and AGENT in SOURCES[self.query.ip_source]
        if asked or all(map(self.search.leasing, domain.interfaces)):
            return []
        agent = "'ip_source: qemu-agent'"
        if not domain.has_agent_channel:
            needs = f"qemu-guest-agent and its channel ({AGENT_CHANNEL}) in the base"
            return [f"Where libvirt hands out no leases, {agent} needs {needs}."]
        return [f"Where libvirt hands out no leases, use {agent}."]

    def _timeout(self) -> AddressTimeout:
        query, name = self.query, self.handle.name
        commands = self.handle.connection.commands
        assert self.domain is not None
        try:
            state = self.handle.state()
        except (HostError, HostUnreachable):
            state = "unknown"
        hints = [f"Look at it: {silent_agent.check_agent(self.handle, self.domain, state)}  "]
        hints += self._without_leases(self.domain)
        if self.wanted != AddressFilter():
            hints.append(f"See all its addresses: {commands.on_host('addresses', name)}  ")
        if query.seed == OUT:
            hints.append(
                "The base's cloud-init seed is left out of its clones. If it set up the network, "
                "and for the base's card, give the clone a seed of its own: "
                "'seed: {network_config: …}'."
            )
        hints.append(
            "Does the base get an address when it runs by itself? For a slow guest raise "
            "'wait_for_ip_timeout'."
        )
        return AddressTimeout(
            f"'{name}' ({state}) showed no address within {query.wait.timeout:g} s "
            f"(ip_source: {query.ip_source}): {self.search.said(self.domain)}.",
            " ".join(hints),
        )


class _Arriving:
    """
    A guest that is waited for, and whose identity is reset over the agent once that connects.

    :param wait: The wait for its address.
    """

    def __init__(self, wait: _Wait) -> None:
        self.wait = wait
        #: The identity is to be reset; False once that was done, or given up.
        self.resets = wait.query.resets
        #: Its agent answered, or need not be waited for: that the guest came up is known.
        self.heard = wait.query.heard
        self.done: Reset | None = None
        self.warnings: list[str] = []
        #: When the agent was asked first, and when the address was seen first, on the monotonic
        #: clock; 0 for not yet.
        self._asked = self._seen = 0.0

    def look(self, domain: Domain) -> Arrival | None:
        """Return the arrival; None while no address counts, or the agent may still connect."""
        if self.resets and domain.agent_connected:
            self._over_agent(domain)
            if self.resets:
                return None
        elif domain.agent_connected:
            self.heard = True
        found = self.wait.found(domain)
        if not found:
            return None
        self._seen = self._seen or time.monotonic()
        may_come = domain.has_agent_channel and not (domain.agent_connected or self.heard)
        seeded = self.resets and self.wait.query.seed in (OWN, KEEP, TOLD)
        grace = CLOUD_INIT_AGENT_CONNECT_S if seeded else AGENT_CONNECT_S
        if may_come and time.monotonic() < self._seen + grace:
            return None
        keys = tuple(key.line for key in self.done.host_keys) if self.done else ()
        agent = HEARD if self.heard else SILENT if domain.has_agent_channel else ABSENT
        return Arrival(found, self.done is not None, keys, tuple(self.warnings), agent)

    def _over_agent(self, domain: Domain) -> None:
        """
        Reset the identity over the agent, or note why it was not reset.

        An agent that does not answer yet is asked again at the next look.
        """
        with AgentChannel(self.wait.handle.agent) as channel:
            usable = channel.usable()
            self._asked = self._asked or time.monotonic()
            if usable.silent and time.monotonic() < self._asked + AGENT_SILENCE_S:
                return
            self.heard = not usable.silent
            if usable:
                self._reset(channel, domain)
            else:
                self._not_reset(f"{usable.why_not}.")
        self.resets = False

    def _reset(self, channel: AgentChannel, domain: Domain) -> None:
        """Reset the identity and restart the network; then only a renewed address counts."""
        wait, name = self.wait, self.wait.handle.name
        try:
            done = identity.reset(channel, name, seed=wait.query.seed)
            self.warnings.extend(done.warnings)
            before = wait.search.look(domain)
            self.warnings.extend(identity.rejoin_network(channel).warnings)
        except (ChannelError, CommandFailed) as error:
            log.warning("%s: identity not reset over the agent: %s", name, error)
            self._not_reset(error.message)
            return
        self.done = done
        wait.renewal = _Renewal(before, wait.wanted.reserved)

    def _not_reset(self, why: str) -> None:
        self.warnings.append(f"The identity was not reset over the guest agent: {why}")


def arrive(handle: DomainHandle, query: AddressQuery) -> Arrival:
    """
    Wait for the guest's address; reset its identity over the agent on the way.

    The handle stays valid even if libvirtd is restarted during the wait.

    :raises GuestStopped: The guest crashed or shut off.
    :raises AddressTimeout: No address in time; the message says what was tried.
    """
    with Watch(handle, query.wait) as watch:
        wait = _Wait(handle, query, watch)
        return wait.until(_Arriving(wait).look)


def await_renewal(
    handle: DomainHandle, query: AddressQuery, before: tuple[SeenAddress, ...]
) -> Arrival:
    """
    Wait for the address that the guest has after an identity reset.

    :param before: What was seen just before its network was restarted.
    :raises GuestStopped: The guest crashed or shut off.
    :raises AddressTimeout: No address in time; the message says what was tried.
    """
    with Watch(handle, query.wait) as watch:
        wait = _Wait(handle, query, watch)
        wait.renewal = _Renewal(before, wait.wanted.reserved)

        def look(domain: Domain) -> Arrival | None:
            found = wait.found(domain)
            return Arrival(found) if found else None

        return wait.until(look)


def _require_running(handle: DomainHandle) -> None:
    number, reason = handle.connection.call(handle.raw.state)[:2]
    state = STATES.get(number, "running")
    if state == "shutoff" and reason in SHUTOFF_BECAUSE:
        raise _stopped(handle, f"{state} ({SHUTOFF_BECAUSE[reason]})")
    if state in ("shutoff", "crashed"):
        raise _stopped(handle, state)


def _stopped(handle: DomainHandle, state: str) -> GuestStopped:
    return GuestStopped(
        f"'{handle.name}' is {state}: the guest stopped while we waited for its address.",
        f"Watch it boot: {silent_agent.watch_boot(handle, state.partition(' ')[0])}",
    )
