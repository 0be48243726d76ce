"""
Make a fork a machine of its own before it has a network.

A fork is a guest that goes on from the saved memory of another. Two of them would draw the same
random numbers, so that nothing secret may be made in one before its kernel has acknowledged fresh
entropy: :func:`reseed` comes first, and a fork for which it fails must be destroyed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from saltext.kvmclone import errors, interrupts
from saltext.kvmclone.guest import fork_identity_script
from saltext.kvmclone.guest.agent import AgentError, Command
from saltext.kvmclone.guest.channel import Channel, check, tail
from saltext.kvmclone.guest.fork_identity_script import FixedAddress
from saltext.kvmclone.guest.identity import steps_of, why_incomplete

#: Seconds within which the guest's agent has to answer after the restore.
PING_TIMEOUT_S = 30.0

#: Seconds that one ping may take, and between two: a request that was lost with the channel to the
#: saved machine is never answered.
_PING_S, _PING_PAUSE_S = 2.0, 0.05

RESEED_TIMEOUT_S = 30.0
SETTLE_TIMEOUT_S = 60.0
FORGET_TIMEOUT_S = 15.0

#: Seconds by which the clock of a fork may be late, and how often it is set again for that.
CLOCK_LATE_S, _CLOCK_ATTEMPTS = 1.0, 3

#: Bytes of entropy that a fork is given: twice the key of the kernel's generator.
ENTROPY_BYTES = 64

#: The warning for a guest in which the uuid of its firmware cannot be covered.
OTHER_UUID = (
    "Until its first reboot the guest shows the uuid of the machine that was warmed, Salt's grain "
    "'uuid' too."
)

_NEEDS = (
    "The guest needs Linux 4.14 or later, and perl or python3. Otherwise use 'clone_strategy: "
    "quick'."
)


def ping(command: Command, timeout_s: float = PING_TIMEOUT_S) -> None:
    """
    Wait until the guest's agent answers.

    :param command: Sends a request to the agent.
    :param timeout_s: Seconds until it has to.
    :raises errors.ChannelError: It did not.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        interrupts.check()
        try:
            command({"execute": "guest-ping"}, _PING_S)
            return
        except AgentError as refusal:
            raise errors.ChannelError(
                f"the guest agent refused guest-ping: {refusal.message}"
            ) from refusal
        except errors.ChannelError as silence:
            if time.monotonic() > deadline:
                raise errors.ChannelError(
                    f"the guest agent did not answer within {timeout_s:g} s", silence.hint
                ) from silence
        interrupts.pause(_PING_PAUSE_S)


def reseed(channel: Channel) -> None:
    """
    Set the guest's clock, and have its kernel take fresh entropy and use it from now on.

    :raises errors.ChannelError: The guest cannot be talked to.
    :raises errors.CommandFailed: Its kernel did not acknowledge that.
    """
    sent = time.monotonic()
    result = channel.run(
        fork_identity_script.reseed(time.time()),
        timeout=RESEED_TIMEOUT_S,
        stdin=os.urandom(ENTROPY_BYTES),
    )
    said = {(step.name, step.outcome): step.why for step in steps_of(result.output)}
    if result.status == 0 and ("reseed", "done") in said:
        _set_clock_again(channel, time.monotonic() - sent)
        return
    why = "; ".join(f"{name}: {why}" for (name, how), why in said.items() if how == "failed")
    raise errors.CommandFailed(
        "its kernel did not acknowledge fresh random numbers: "
        + (why or tail(result, lines=3) or f"exit status {result.status}"),
        _NEEDS,
    )


def _set_clock_again(channel: Channel, took: float) -> None:
    """
    Set the clock again as long as a busy host may have taken too long to do it.

    :param took: Seconds that the last time took, by which the clock may be late.
    """
    for _again in range(_CLOCK_ATTEMPTS):
        if took < CLOCK_LATE_S:
            return
        sent = time.monotonic()
        script = fork_identity_script.clock(time.time())
        check(channel.run(script, timeout=RESEED_TIMEOUT_S), "setting the clock")
        took = time.monotonic() - sent


def settle(
    channel: Channel, uuid: str, addresses: Iterable[FixedAddress] = (), enrols: bool = True
) -> tuple[str, ...]:
    """
    Have the guest show its own uuid, and start the timers that were masked when it was warmed.

    :param uuid: The domain's.
    :param addresses: What its cards are given at once, before they ask a DHCP server.
    :param enrols: It is to become a minion.
    :return: What the operator should know, one sentence each.
    :raises errors.CommandFailed: The timers do not start.
    """
    script = fork_identity_script.settle(uuid, addresses, enrols)
    result = channel.run(script, timeout=SETTLE_TIMEOUT_S)
    check(result, "starting the timers of the fork")
    said = steps_of(result.output)
    if why := why_incomplete(said, tail(result)):
        raise errors.CommandFailed(
            f"the timers that were masked in the warmed base do not start: {why}",
            "Look at them in a clone of the base: systemctl list-timers --all",
        )
    shown = not any((step.name, step.outcome) == ("uuid", "skipped") for step in said)
    return () if shown else (OTHER_UUID,)


def give_word(channel: Channel, word: str) -> None:
    """
    Put a word into the guest that its minion has to answer.

    :param channel: The domain's own agent.
    """
    # No process but the shell, since each takes long in a guest that was only just restored.
    path = fork_identity_script.WORD
    script = f"umask 0377; read -r word && printf '%s\\n' \"$word\" >{path}"
    result = channel.run(script, timeout=SETTLE_TIMEOUT_S, stdin=f"{word}\n".encode())
    check(result, f"writing {path}")


def forget_word(channel: Channel) -> None:
    """
    Remove the word that the minion has answered, and see that it is gone.

    :raises errors.ChannelError: The guest cannot be talked to.
    :raises errors.CommandFailed: It is still there.
    """
    result = channel.run(fork_identity_script.FORGET_WORD, timeout=FORGET_TIMEOUT_S)
    check(result, f"removing {fork_identity_script.WORD}")
