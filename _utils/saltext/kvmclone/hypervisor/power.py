"""
Start, stop and reboot a domain: what each action does in each state.
"""

from __future__ import annotations

from saltext.kvmclone.errors import GuestStopped
from saltext.kvmclone.hypervisor.domain import DomainHandle

#: Seconds that a guest gets to shut down by itself.
SHUTDOWN_TIMEOUT_S = 60.0


def change(handle: DomainHandle, state: str, action: str) -> None:
    """
    Bring a domain into another power state.

    :param state: Its state now, one of :data:`.constants.STATES`.
    :param action: ``start`` (also resumes a paused guest, and wakes a suspended one), ``stop``,
        ``off`` (at once) or ``reboot`` (starts one that is off).
    :raises GuestStopped: The guest crashed and was preserved, so it is neither started nor
        rebooted.
    :raises HostError: libvirt refused.
    """
    if state == "crashed" and action in ("start", "reboot"):
        raise _crashed(handle)
    if action == "off":
        handle.power_off()
    elif action == "stop":
        if state != "shutoff":
            handle.stop(SHUTDOWN_TIMEOUT_S)
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
        f"Look at it first: {commands.virsh('dump', name, f'/var/tmp/{name}.core')}   "
        f"Then: {commands.clone('stop', name)} && {commands.clone('start', name)}",
    )
