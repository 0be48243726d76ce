"""
Make a guest ready to be a base: without a name, keys or history of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from secrets import token_hex
from uuid import uuid4

from saltext.kvmclone import errors
from saltext.kvmclone.guest import base_cleaning_script, hostkeys
from saltext.kvmclone.guest.channel import Channel, check, tail
from saltext.kvmclone.guest.identity import steps_of, what_remains, why_incomplete

log = logging.getLogger(__name__)

#: Seconds for the cleaning: a few for the work, most for services that take long to stop.
CLEANING_TIMEOUT_S = 180.0

#: A step whose reason for being skipped the operator is to know.
_KEPT_GRAINS = "salt_grains"


def clean(channel: Channel, names: Iterable[str]) -> tuple[str, ...]:
    """
    Take out of the guest what makes it a machine of its own. May be repeated.

    It is to be shut down next: what it would do at its first boot, it does at the next.

    :param names: Host names that are not to stay.
    :return: What is still in the guest, one sentence each.
    :raises errors.CommandFailed: A step that applies to this guest did not succeed.
    """
    keys = hostkeys.generate()
    script = base_cleaning_script.text(names, keys, token_hex(64), str(uuid4()))
    result = channel.run("exec /bin/sh -s", timeout=CLEANING_TIMEOUT_S, stdin=script.encode())
    hidden = [key.private for key in keys]
    check(result, "cleaning", secrets=hidden)
    said = steps_of(result.output)
    if why := why_incomplete(said, tail(result, hidden)):
        raise errors.CommandFailed(
            f"the guest was not cleaned completely: {why}",
            "Is a file system of the guest read-only or full? Mend that in it, and repeat the "
            "command.",
        )
    for step in said:
        log.info("cleaning: %s %s %s", step.name, step.outcome, step.why)
    kept = [f"{step.why}." for step in said if step.name == _KEPT_GRAINS]
    return (*what_remains(said, "clone"), *kept)
