"""
Make a running guest ready to have its memory saved, so that others may go on from there.
"""

from __future__ import annotations

import logging
import time
from secrets import token_hex

from saltext.kvmclone import errors, interrupts
from saltext.kvmclone.guest import warming_script
from saltext.kvmclone.guest.channel import Channel, check, tail
from saltext.kvmclone.guest.identity import steps_of, what_remains, why_incomplete

log = logging.getLogger(__name__)

#: Seconds that the guest may go on booting once its agent answers, and between two looks.
SETTLED_TIMEOUT_S, _POLL_S = 300.0, 0.5

#: Seconds for one look, and for making it ready: most for services that take long to stop.
_LOOK_TIMEOUT_S, READY_TIMEOUT_S = 30.0, 400.0

_SETTLED = "kvm-clone: settled"
_BUSY = "kvm-clone: busy"


def await_settled(channel: Channel, timeout_s: float = SETTLED_TIMEOUT_S) -> None:
    """
    Wait until the guest has booted, as far as it can without a network.

    :raises errors.CommandFailed: It did not in time; the message says what it is still doing.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        interrupts.check()
        try:
            said = channel.run(warming_script.SETTLED, timeout=_LOOK_TIMEOUT_S).output.strip()
        except (errors.ChannelError, errors.CommandFailed) as error:  # too busy to answer in time
            said = error.message
        if said == _SETTLED:
            return
        if time.monotonic() > deadline:
            raise errors.CommandFailed(
                f"the guest has not booted to its end within {timeout_s:g} s of its agent's first "
                f"answer: {said.removeprefix(_BUSY).strip()[:600]}",
                "What keeps it? In a clone of the base: systemctl list-jobs",
            )
        interrupts.pause(_POLL_S)


def make_ready(channel: Channel) -> tuple[str, ...]:
    """
    Stop the guest's minion and timers, and take out what its forks must not share.

    :return: What is still in the guest, one sentence each.
    :raises errors.CommandFailed: A step that applies to this guest did not succeed.
    """
    script = warming_script.text(token_hex(64))
    result = channel.run("exec /bin/sh -s", timeout=READY_TIMEOUT_S, stdin=script.encode())
    check(result, "making the guest ready")
    said = steps_of(result.output)
    if why := why_incomplete(said, tail(result)):
        raise errors.CommandFailed(
            f"the guest was not made ready completely: {why}",
            "Mend that in the base, and repeat the command.",
        )
    for step in said:
        log.info("warming: %s %s %s", step.name, step.outcome, step.why)
    salt = any((step.name, step.outcome) == ("salt_identity", "done") for step in said)
    cold = [
        f"Its minion is not preloaded, so that its forks answer later: {step.why}."
        for step in said
        if (step.name, step.outcome) == ("preload", "skipped") and salt
    ]
    return (*what_remains(said, "base"), *cold)
