"""
Asking the new minion whether it is there, and whether it is the machine that we made.

``ready`` rests on this room: the minion that holds *our* key answered ``test.version``,
and its ``uuid`` grain is the domain's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import salt.client
import salt.exceptions
import salt.utils.event

from saltext.kvmclone.errors import MinionTimeout, VerificationFailed
from saltext.kvmclone.guest.identity import same_machine

log = logging.getLogger(__name__)

#: Seconds after which an unanswered question is asked again.
ASK_AGAIN = 3.0

#: Seconds that a minion gets from its start to its answer.
MINION_TIMEOUT = 180.0


@dataclass(frozen=True)
class Verified:
    """
    What the minion said.

    :param version: Its answer to ``test.version``.
    :param by: ``uuid`` where its grain equals the domain's uuid, else ``key``: only the
        key speaks for it.
    """

    version: str
    by: str


def verify(
    opts: Mapping[str, Any], minion_id: str, uuid: str, timeout: float = MINION_TIMEOUT
) -> Verified:
    """
    Wait until the minion answers, and hold its uuid against the domain's.

    The question is asked at once, again when the minion announces itself, and every few
    seconds in between, so that neither a lost event nor a slow start costs time.

    :param uuid: The domain's uuid.
    :param timeout: Seconds to wait.
    :raises MinionTimeout: It never answered.
    :raises VerificationFailed: A machine with another uuid answered.
    """
    deadline = time.monotonic() + timeout
    with (
        salt.client.get_local_client(mopts=opts) as client,
        salt.utils.event.get_master_event(opts, opts["sock_dir"], listen=True) as bus,
    ):
        asked: set[str] = set()
        ask_next = 0.0
        while time.monotonic() < deadline:
            if time.monotonic() >= ask_next:
                jid = _ask(client, minion_id)
                asked |= {f"salt/job/{jid}/ret/{minion_id}"} if jid else set()
                ask_next = time.monotonic() + ASK_AGAIN
            event = bus.get_event(wait=0.5, full=True, auto_reconnect=True)
            tag = event["tag"] if event else ""
            if tag in asked:
                return _judge(event["data"].get("return"), minion_id, uuid)
            if tag == f"salt/minion/{minion_id}/start":
                ask_next = 0.0
    raise MinionTimeout(
        f"The minion '{minion_id}' did not answer test.version within {timeout:g} s.",
        "Can the guest reach the master? Check 'minion: {master: …, master_port: …}' in the "
        "profile, and in the guest: journalctl -u salt-minion",
    )


def run(opts: Mapping[str, Any], minion_id: str, function: str) -> str:
    """
    Call a Salt function on the minion and wait for it (``start_action``).

    :return: Empty when it succeeded, else what to tell the operator.
    """
    with salt.client.get_local_client(mopts=opts) as client:
        answer = client.cmd(minion_id, function, tgt_type="list", full_return=True, timeout=60)
    result = answer.get(minion_id) or {}
    if result and result.get("retcode", 1) == 0:
        return ""
    return (
        f"start_action '{function}' failed on '{minion_id}'. Repeat it: salt {minion_id} {function}"
    )


def _ask(client: Any, minion_id: str) -> str:
    """Publish the question; the answer comes as an event. Empty where nothing was published."""
    try:
        published = client.run_job(
            minion_id,
            ["test.version", "grains.get"],
            arg=[[], ["uuid"]],
            tgt_type="list",
            timeout=5,
        )
    except salt.exceptions.SaltClientError as error:
        log.debug("asking %s: %s", minion_id, error)
        return ""
    return str(published.get("jid", "")) if published else ""


def _judge(answer: Any, minion_id: str, uuid: str) -> Verified:
    version = answer.get("test.version") if isinstance(answer, dict) else None
    if not isinstance(version, str):
        raise VerificationFailed(
            f"'{minion_id}' answered, but not to test.version.",
            f"Ask it yourself: salt {minion_id} test.version",
        )
    told = answer.get("grains.get")
    same = same_machine(told.strip(), uuid) if isinstance(told, str) else None
    if same is False:
        raise VerificationFailed(
            f"'{minion_id}' answered from the machine {told}, and the clone is {uuid}.",
            "Another machine holds the clone's key or id. Destroy the clone and find that machine.",
        )
    return Verified(version, "uuid" if same else "key")
