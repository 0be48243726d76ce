"""Take back the word that a fork's minion had to answer, see :func:`.fork_identity.give_word`."""

from __future__ import annotations

from saltext.kvmclone.guest.channel import Channel, check
from saltext.kvmclone.guest.fork_identity_script import WORD

FORGET_TIMEOUT_S = 15.0

_FORGET = f'p=${{KVM_CLONE_ROOT-}}{WORD}; rm -f "$p" && [ ! -e "$p" ]'


def forget(channel: Channel) -> None:
    """
    Remove the word from the guest, and see that it is gone.

    :raises errors.ChannelError: The guest cannot be talked to.
    :raises errors.CommandFailed: It is still there.
    """
    result = channel.run(_FORGET, timeout=FORGET_TIMEOUT_S)
    check(result, f"removing {WORD}")
