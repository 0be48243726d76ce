"""
Warn of a guest whose agent was silent when its address appeared.

An address alone does not prove that a machine booted: a guest in emergency mode has asked for
its address already, and so has one that hangs at a prompt. If the definition has the agent's
channel and no agent answers on it, the clone's record says so (``agent``), and every look at
the clone reports it until the agent answers, or somebody was inside.
"""

from __future__ import annotations

from saltext.kvmclone.errors import ChannelError
from saltext.kvmclone.guest.agent import AgentError
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.domain_xml import AGENT_CHANNEL, Domain
from saltext.kvmclone.model.hints import GO_ON
from saltext.kvmclone.model.record import Record

#: On a record: there is a channel for the agent, which did not answer when the address appeared.
SILENT = "silent"

#: Seconds that a connected agent gets to answer, so that one that hangs delays a list of clones
#: no longer than asking it for addresses does.
AGENT_PING_TIMEOUT_S = 3.0


def answers(handle: DomainHandle, domain: Domain) -> bool:
    """
    Return whether a guest agent answers now.

    :param domain: The facts of the running domain; an agent that is not connected is not asked.
    """
    if not domain.agent_connected:
        return False
    try:
        handle.agent({"execute": "guest-ping"}, AGENT_PING_TIMEOUT_S)
    except AgentError:  # it refuses, so there is one
        return True
    except ChannelError:
        return False
    return True


def warnings(handle: DomainHandle, record: Record, domain: Domain, state: str) -> tuple[str, ...]:
    """
    Return the warning about a clone whose agent has been silent so far; nothing for others.

    :param state: libvirt's state of the clone.
    """
    if record.agent != SILENT or answers(handle, domain):
        return ()
    told = "has not answered yet" if state == "running" else "was silent when it got its address"
    return (
        f"Its guest agent {told}, although its definition has the channel "
        f"({AGENT_CHANNEL}): the guest may not have come up, whatever its address says. Look at "
        f"it: {check_agent(handle, domain, state)}   If the base has no qemu-guest-agent, install "
        "it there, or take the channel out.",
    )


def check_agent(handle: DomainHandle, domain: Domain, state: str = "running") -> str:
    """Return the command that shows what a guest is doing, by what its definition has."""
    commands, name = handle.connection.commands, handle.name
    on = state != "shutoff"
    if domain.console == "pty":
        return commands.terminal("console", name) if on else watch_boot(handle, state)
    start = "" if on else f"{commands.virsh('start', name)} && "
    if domain.console:
        return start + commands.there("tail", domain.console)
    if domain.screen:
        return start + commands.virsh("screenshot", name, f"/var/tmp/{name}.ppm")
    return commands.virsh("domstate", "--reason", name)


def watch_boot(handle: DomainHandle, state: str) -> str:
    """
    Return the command that lets a guest go on, or boots it, and shows its console.

    :param state: libvirt's state of it.
    """
    commands, name = handle.connection.commands, handle.name
    if state in GO_ON:
        go_on = commands.virsh(GO_ON[state], name)
        return f"{go_on} && {commands.terminal('console', name)}"
    boot = commands.terminal("start", name, "--console")
    # One that is kept as it crashed counts as running.
    return f"{commands.virsh('destroy', name)}; {boot}" if state == "crashed" else boot


def never_came(handle: DomainHandle) -> ChannelError:
    """Return the error for a guest that cannot be reached because no agent ever connected."""
    domain = domain_xml.read(handle.live())
    instead = "Or use 'bootstrap: ssh'."
    if not domain.has_agent_channel:
        return ChannelError(
            f"The definition of '{domain.name}' has no channel for a guest agent.",
            f"Give the base the channel {AGENT_CHANNEL}. {instead}",
        )
    return ChannelError(
        f"The guest agent of '{domain.name}' never connected: the guest may not have come up.",
        f"Look at it: {check_agent(handle, domain)}   Is qemu-guest-agent installed and enabled in "
        f"the base? {instead}",
    )
