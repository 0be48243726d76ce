"""Switching a clone on and off: what each word does in each state."""

from __future__ import annotations

from saltext.kvmclone.errors import GuestStopped
from saltext.kvmclone.hypervisor.domain import DomainHandle

#: Seconds that a guest gets to shut down by itself.
PATIENCE = 60.0


def change(handle: DomainHandle, state: str, action: str) -> None:
    """
    :param state: One of :data:`.constants.STATES`.
    :param action: ``start`` (also lets a paused guest go on, and wakes one that sleeps),
        ``stop``, ``off`` (at once) or ``reboot`` (starts one that is off).
    :raises GuestStopped: It shall run, and is kept as it crashed.
    """
    if state == "crashed" and action in ("start", "reboot"):
        raise _crashed(handle)
    if action == "off":
        handle.power_off()
    elif action == "stop":
        if state != "shutoff":
            handle.stop(PATIENCE)
    elif state == "shutoff":
        handle.start()
    elif action == "reboot":
        handle.reboot()
    elif state == "paused":
        handle.resume()
    elif state == "pmsuspended":
        handle.wake_up()


def _crashed(handle: DomainHandle) -> GuestStopped:
    name, commands = handle.name, handle.connection.commands
    return GuestStopped(
        f"'{name}' crashed, and is kept as it was (on_crash: preserve).",
        f"Look at it first: {commands.virsh('dump', name, 'FILE')}   "
        f"Then: {commands.clone('stop', name)} && {commands.clone('start', name)}",
    )
