"""
Choose the channel into the guest, check that it is the right machine, and enrol it as a minion.

Runs on the host that made the clone, so a guest behind that host's NAT is reached too. The
agent's socket belongs to the domain and needs no proof. Over ssh the guest must show a host key
that is on the clone's record: one that we wrote, or that the agent told. The record is the
clone's known_hosts, and is deleted with it. Without a recorded key there is a first contact
(:mod:`.ssh_trust`), whose key is recorded for later.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from saltext.kvmclone.errors import (
    ChannelError,
    CommandFailed,
    GuestStopped,
    LoginFailed,
    WrongGuest,
)
from saltext.kvmclone.guest import hostkeys, identity, salt_minion, ssh
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.guest.channel import Channel, PublicKey
from saltext.kvmclone.hypervisor import addresses
from saltext.kvmclone.hypervisor.addresses import SeenAddress
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.events import Watch
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.interrupts import pause
from saltext.kvmclone.inventory import silent_agent
from saltext.kvmclone.lifecycle import fork, record_store, ssh_trust, wait_for_address
from saltext.kvmclone.lifecycle.address_query import AddressQuery
from saltext.kvmclone.lifecycle.ssh_trust import FirstContact
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.enrolment import Enrolment
from saltext.kvmclone.model.record import Minion, Record
from saltext.kvmclone.model.request import Request, Wait

log = logging.getLogger(__name__)

#: Seconds that sshd may take to answer, once the guest has its address.
SSH_TIMEOUT_S = 120.0

#: Seconds that one attempt over ssh may take, after which the address is looked up again.
SSH_ATTEMPT_TIMEOUT_S = 20.0

#: Seconds that another machine may hold the clone's address before that is an error.
WRONG_GUEST_TIMEOUT_S = 45.0

#: Seconds that the agent may take to connect, where there is no other way in.
AGENT_CONNECT_TIMEOUT_S = 120.0

UNVERIFIED = "The guest could not show its uuid, so only its address says that it is the clone."

#: Warnings by the state that :func:`.identity.restart_state` returns: the guest was left to restart
#: its network by itself and did not finish.
UNSETTLED = {
    "pending": "The guest was told to restart its network and has not: when it does, its address "
    "may change and a deployment break.",
    "failed": "The guest could not restart its network: it may keep its old address until it "
    "reboots. What failed is in its journal.",
}


def bootstrap(
    host: Host, handle: DomainHandle, record: Record, request: Request, enrolment: Enrolment
) -> Record:
    """
    Make the running guest a minion.

    What is learned of the guest on the way is saved at once, so that a repeated attempt knows it.

    :return: The record as it was saved, with the minion and what was learned on the way.
    :raises CreateInProgress: The clone was taken over, or is being destroyed.
    :raises ChannelError: The guest cannot be entered; LoginFailed and WrongGuest likewise.
    :raises DeployFailed: The deploy script, or starting the minion, failed.
    """
    if request.deploy.bootstrap == "none":
        return record
    return _Bootstrap(host, handle, record, request, enrolment).run()


def told_host_keys(handle: DomainHandle) -> tuple[str, ...]:
    """
    Return the guest's ssh host keys as its agent tells them.

    :return: Lines as a record keeps them; empty where no agent is connected or it tells none.
    """
    if not handle.agent_connected():
        return ()
    return tuple(key.line for key in hostkeys.over_agent(AgentChannel(handle.agent)))


class _Bootstrap:
    """One bootstrap under way."""

    def __init__(
        self,
        host: Host,
        handle: DomainHandle,
        record: Record,
        request: Request,
        enrolment: Enrolment,
    ) -> None:
        self.host = host
        self.handle = handle
        self.record = record
        #: The record as it was last read or written.
        self.seen = record
        self.request = request
        self.enrolment = enrolment

    def run(self) -> Record:
        """Run the bootstrap; see :func:`bootstrap`."""
        enrolled = Minion(id=self.enrolment.minion_id, fingerprint=self.enrolment.fingerprint)
        if self.record.minion.fingerprint != enrolled.fingerprint:
            # The record still names an earlier attempt's key. The new one may be accepted already,
            # and if this attempt fails, whoever resumes or destroys the clone must know which to
            # remove.
            self.record = replace(self.record, minion=enrolled)
            self._save()
        if self.enrolment.word:
            fork.give_word(self.handle, self.enrolment.word)
        agent = self._agent()
        if agent is None or not self._over_agent(agent):
            self._over_ssh()
        # The guest was entered, so it came up, whatever its agent said.
        self.record = replace(self.record, minion=enrolled, agent="")
        self._save()
        return self.record

    @property
    def _must_be_agent(self) -> bool:
        return self.request.deploy.bootstrap == "agent"

    @property
    def _wants_reset(self) -> bool:
        return self.request.reset_identity and self.record.identity != "reset"

    @property
    def _knows_host_keys(self) -> bool:
        """Return whether this very create has given the guest its host keys."""
        record = self.record
        return bool(record.goal == "ready" and record.identity == "reset" and record.host_keys)

    def _warn(self, *warnings: str) -> None:
        fresh = tuple(text for text in warnings if text not in self.record.warnings)
        self.record = replace(self.record, warnings=(*self.record.warnings, *fresh))

    def _save(self) -> None:
        self.record = self.seen = record_store.save(self.handle, self.seen, self.record)

    # --- over the agent ---------------------------------------------------------------

    def _agent(self) -> AgentChannel | None:
        """Return the agent's channel; None where ssh is to be used instead."""
        if self.request.deploy.bootstrap == "ssh":
            return None
        name = self.handle.name
        if not self._agent_connects():
            if self._must_be_agent:
                raise silent_agent.never_came(self.handle)
            return None
        channel = AgentChannel(self.handle.agent)
        usable = channel.usable()
        if usable:
            return channel
        if self._must_be_agent:
            raise ChannelError(
                f"'{name}' cannot be enrolled over its agent: {usable.why_not}.", usable.hint
            )
        self._warn(f"Used ssh, since {usable.why_not}.")
        return None

    def _agent_connects(self) -> bool:
        """
        Return True if the guest's agent is connected; wait for it where it may still connect.
        """
        domain = domain_xml.read(self.handle.live())
        if domain.agent_connected or not domain.has_agent_channel:
            return domain.agent_connected
        if self._wants_reset and not self._must_be_agent:
            return False  # It was waited for already, in order to reset the identity.
        patience = (
            AGENT_CONNECT_TIMEOUT_S if self._must_be_agent else wait_for_address.AGENT_CONNECT_S
        )
        with Watch(self.handle, Wait(timeout=patience)) as watch:
            while True:
                if self.handle.agent_connected():
                    return True
                state = self.handle.state()
                if state != "running":
                    raise GuestStopped(
                        f"'{domain.name}' is {state}: the guest stopped before its agent answered.",
                        f"Watch it boot: {silent_agent.watch_boot(self.handle, state)}",
                    )
                if not watch.rest():
                    return False

    def _over_agent(self, agent: AgentChannel) -> bool:
        """
        Reset the identity, or record the host keys, and enrol the guest over the agent.

        :return: False where the agent failed and ssh may do what is left.
        """
        with agent:
            try:
                if self._wants_reset:
                    before = self._sightings()
                    self._reset(agent)
                    self._await_renewal(before)
                elif not self._knows_host_keys:
                    self._pin(told_host_keys(self.handle))
            except (ChannelError, CommandFailed) as error:
                return self._without_agent(error)
            try:
                self._enrol(agent)
            except ChannelError as error:
                if agent.lost:  # A deployment that may be half done cannot be repeated blindly.
                    raise
                return self._without_agent(error)
        return True

    def _without_agent(self, error: ChannelError | CommandFailed) -> bool:
        if self._must_be_agent:
            raise error
        log.warning("%s: %s", self.handle.name, error)
        self._warn(f"Used ssh, since the guest agent failed: {error.message}")
        return False

    # --- what is done there -----------------------------------------------------------

    def _reset(self, channel: Channel) -> None:
        """Reset the guest's identity and let it ask for an address under its new one."""
        done = identity.reset(channel, self.handle.name, seed=self.record.seed or self.request.seed)
        self._warn(*done.warnings)
        # Saved at once, so that a second attempt is let in: the guest shows these keys from now on.
        self.record = replace(self.record, host_keys=tuple(key.line for key in done.host_keys))
        self._save()
        self._warn(*identity.rejoin_network(channel).warnings)
        self.record = replace(self.record, identity="reset")
        self._save()

    def _enrol(self, channel: Channel) -> None:
        self._warn(*salt_minion.enrol(channel, self.enrolment).warnings)

    def _pin(self, lines: tuple[str, ...]) -> None:
        """Record the guest's host keys in place of older ones; do nothing where there are none."""
        if lines and set(lines) != set(self.record.host_keys):
            self.record = replace(self.record, host_keys=lines)
            self._save()

    def _sightings(self) -> tuple[SeenAddress, ...]:
        domain = domain_xml.read(self.handle.live())
        return addresses.look(self.handle, domain, self.record.ip_source)

    def _counting(self) -> tuple[SeenAddress, ...]:
        """Return the sightings of addresses at which the clone may be entered."""
        domain = domain_xml.read(self.handle.live())
        wanted = addresses.address_filter(self.request.pick, self.record.reservations)
        return wanted.among(
            addresses.look(self.handle, domain, self.record.ip_source, wanted), domain
        )

    def _await_renewal(self, before: tuple[SeenAddress, ...]) -> None:
        query = AddressQuery.from_request(self.request, self.record)
        found = wait_for_address.await_renewal(self.handle, query, before)
        self.record = replace(self.record, address=found.address)

    # --- over ssh ---------------------------------------------------------------------

    def _over_ssh(self) -> None:
        self._pin(told_host_keys(self.handle))
        with self._reach(()) as channel:
            if not self._wants_reset:
                self._enrol(channel)
                return
            before = self._sightings()
            self._reset(channel)
        # To the network the guest is a new machine now, with host keys that we made ourselves.
        with self._reach(before) as channel:
            self._enrol(channel)

    def _reach(self, before: tuple[SeenAddress, ...]) -> ssh.SshChannel:
        """
        Find the guest's address and open a verified ssh connection to it.

        The address may be another machine's for a while: an old lease stays listed after a reset,
        and clones that boot at the same time with one machine-id share an address until the first
        of them is reset. So where a machine does not answer, or is not the clone, the address is
        looked up again, for a limited time.

        :param before: Sightings from before a reset, which are stale now; empty for none.
        :raises WrongGuest: Another machine keeps the address.
        :raises LoginFailed: The guest refuses the login.
        :raises ChannelError: The guest did not answer in time.
        """
        started = 0.0
        while True:
            if before:
                self._await_renewal(before)
            elif seen := self._counting():
                # The lease may by now be listed under the MAC address of a clone with the same
                # machine-id; then the address that was found first is the one to try.
                self.record = replace(self.record, address=seen[0].address.address)
            started = started or time.monotonic()
            try:
                channel = self._enter(
                    min(started + SSH_TIMEOUT_S, time.monotonic() + SSH_ATTEMPT_TIMEOUT_S)
                )
                if self._has_settled(channel, before, started + SSH_TIMEOUT_S):
                    return channel
            except LoginFailed:
                raise
            except WrongGuest:
                if time.monotonic() >= started + WRONG_GUEST_TIMEOUT_S:
                    raise
                pause(1.0)
            except ChannelError:
                if time.monotonic() >= started + SSH_TIMEOUT_S:
                    raise
                pause(1.0)  # a connection may be refused at once: do not retry in a tight loop

    def _has_settled(
        self, channel: ssh.SshChannel, before: tuple[SeenAddress, ...], deadline: float
    ) -> bool:
        """
        Wait until the guest has finished restarting its network.

        A slow guest is entered at its old address before that, also by whoever resumes, and a
        deployment would break in the middle. A guest that never finishes only gets a warning,
        since it does answer.

        :param before: Sightings from before a reset; empty for none.
        :param deadline: When to stop waiting, on the monotonic clock.
        :return: False, with the channel closed, where the connection broke with the restart.
        """
        waits = {"pending"}
        reserved = addresses.address_filter(self.request.pick, self.record.reservations).reserved
        if self.record.address != reserved:
            old = {sighting.address.address for sighting in before}
            if not old or self.record.address in old:
                waits.add("settling")
        try:
            while (state := identity.restart_state(channel)) in waits:
                if time.monotonic() >= deadline:
                    break
                pause(0.2)
        except (ChannelError, CommandFailed) as error:
            channel.close()
            log.debug("%s: entered before its network was restarted: %s", self.handle.name, error)
            if time.monotonic() + 1.0 >= deadline:
                raise
            pause(1.0)  # as in `_reach`, for a guest that lets us in and breaks off at once
            return False
        except BaseException:
            channel.close()
            raise
        if state in UNSETTLED:
            log.warning("%s: %s", self.handle.name, UNSETTLED[state])
            self._warn(UNSETTLED[state])
            self._save()  # so that the warning is there even if the deployment then breaks
        return True

    def _enter(self, deadline: float) -> ssh.SshChannel:
        """
        Open a verified ssh connection to the guest and put its host key on the record.

        :param deadline: When to stop trying, on the monotonic clock.
        :raises WrongGuest: The machine at the address is not the clone.
        """
        known = [PublicKey.from_line(line) for line in self.record.host_keys]
        contact = FirstContact(self.host, self.handle, self.record.address)
        channel = ssh.connect(
            self.record.address,
            self.request.login,
            self.enrolment.secrets,
            deadline=deadline,
            host_keys=known or None,
            vet=contact.vet,
        )
        try:
            shown = identity.verify_guest(channel, self.record.uuid, ssh_trust.macs(self.handle))
            if shown == "unverifiable":
                self._warn(UNVERIFIED)
            if not known:
                self._warn(contact.warning(channel))
                self._pin((channel.host_key.line,))
        except BaseException:
            channel.close()
            raise
        return channel
