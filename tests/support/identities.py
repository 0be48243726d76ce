"""The identity reset as its tests call it, and what became of each of its steps."""

from __future__ import annotations

from saltext.kvmclone.guest import hostkeys, identity
from saltext.kvmclone.guest.channel import Channel

KEYS = hostkeys.generate()


def outcome(done: identity.Reset) -> dict[str, str]:
    return {step.name: step.outcome for step in done.steps}


def reset(guest: Channel, name: str = "new-name", **options: bool) -> identity.Reset:
    return identity.reset(guest, name, keys=KEYS, **options)
