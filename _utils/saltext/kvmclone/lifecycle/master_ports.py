"""
Find out why a clone's minion does not come to its master: what the guest says of it.

Only a look, while the minion is waited for: where the guest cannot be entered within seconds, it is
not asked.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from saltext.kvmclone.errors import ChannelError, CommandFailed
from saltext.kvmclone.guest import master_ports, ssh
from saltext.kvmclone.guest.agent import AgentChannel
from saltext.kvmclone.guest.channel import PublicKey
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.model.guest_minion import GuestMinion
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.model.request import Request, Secrets

log = logging.getLogger(__name__)

#: Seconds that the agent gets for one answer, and sshd to let us in.
AGENT_ANSWER_TIMEOUT_S, SSH_TIMEOUT_S = 3.0, 6.0


def look(
    handle: DomainHandle, record: Record, request: Request, secrets: Secrets, publish_port: int
) -> GuestMinion:
    """
    Ask the guest what :func:`.guest.master_ports.ask` does: over its agent, else over ssh.

    :param secrets: The login, for ssh.
    :param publish_port: See :func:`.guest.master_ports.ask`.
    :return: What it says; nothing where it cannot be asked.
    """
    try:
        if handle.agent_connected():
            with AgentChannel(lambda *asked: _impatient(handle, *asked)) as agent:
                return master_ports.ask(agent, publish_port)
    except (ChannelError, CommandFailed) as error:
        log.info("%s: its agent does not tell what it reaches: %s", handle.name, error)
    # Only where the guest is known by its host key: there is no time for a first contact.
    if request.deploy.bootstrap == "agent" or not (record.host_keys and record.address):
        return GuestMinion()
    keys = [PublicKey.from_line(line) for line in record.host_keys]
    until = time.monotonic() + SSH_TIMEOUT_S
    with ssh.connect(
        record.address, request.login, secrets, deadline=until, host_keys=keys
    ) as channel:
        return master_ports.ask(channel, publish_port)


def _impatient(handle: DomainHandle, asked: dict[str, Any], timeout: float) -> Any:
    return handle.agent(asked, min(timeout, AGENT_ANSWER_TIMEOUT_S))
