"""
Wait for a guest, woken by libvirt's events.

An agent that connects, a guest that stops and a daemon that dies end a pause at once; what
libvirt has no event for (a lease) is looked at after every pause. Events may be lost, or never
arrive in this process, so everything is asked again every few seconds.

On the KVM host itself the end of the QEMU process is seen directly: libvirt reports it only
after that process was reaped and everything behind it cleaned up.
"""

from __future__ import annotations

import logging
import math
import os
import select
import socket
import time
from contextlib import suppress

from saltext.kvmclone import interrupts
from saltext.kvmclone.errors import HostError, HostUnreachable
from saltext.kvmclone.hypervisor.constants import (
    EVENT_AGENT_LIFECYCLE,
    EVENT_LIFECYCLE,
    EVENT_SHUTDOWN,
    EVENT_STOPPED,
    OFF_CRASHED,
    SHUTOFF_BECAUSE,
)
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.model.request import Wait

log = logging.getLogger(__name__)

#: Pause between two looks if the profile sets none, seconds.
LEASE_POLL_S = 0.2

#: Without an event, what events would report is asked again after this many seconds.
STATE_POLL_S = 5.0

#: Seconds in which everything is asked after an event: what it reports may show up later.
AFTER_EVENT_S = 1.0

#: Pause between two attempts to reach a daemon that went away.
_RECONNECT_POLL_S = 0.25

#: Where libvirt's system daemon notes the process of a running domain.
_PROCESS = "/run/libvirt/qemu/{name}.pid"


class Watch:
    """
    One wait for a domain: pauses until a deadline, and what ends them early.

    Use it as a context manager. The handle stays good when the connection is renewed.

    :param wait: Deadline and pauses, as the profile sets them.
    """

    def __init__(self, handle: DomainHandle, wait: Wait) -> None:
        self.deadline = time.monotonic() + wait.timeout
        self._handle = handle
        self._pause = LEASE_POLL_S if wait.interval is None else wait.interval
        self._multiplier = wait.multiplier
        # The event loop's thread writes to one end (the rope), which wakes the wait at the other
        # (the bell). Sockets and not bare descriptors: an event that arrives after the end finds
        # its socket closed, whereas a descriptor's number could be another open file by then.
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._process = -1
        self._powered_off = False
        self._registered: list[int] = []
        self._hears = False
        #: Until this moment (monotonic clock) :meth:`due` is always true.
        self._unsettled = 0.0
        self._asked = -math.inf

    def __enter__(self) -> Watch:
        connection = self._handle.connection
        before = connection.raw
        try:
            if connection.listen():
                if connection.raw is not before:
                    self._handle.look_up_again()
                self._register()
        except HostUnreachable:
            self.reconnect()
        self._process = _process_of(self._handle)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._forget()
        self._bell.close()
        self._rope.close()
        if self._process >= 0:
            os.close(self._process)

    def ended(self) -> str:
        """Return why the guest stopped, once its QEMU process has ended; empty before that."""
        if not self._wait(0.0, self._process):
            return ""
        return "the guest powered off" if self._powered_off else SHUTOFF_BECAUSE[OFF_CRASHED]

    def due(self) -> bool:
        """
        Return whether to ask libvirt again for the domain's state and its agent's.

        True at first, for a moment after each event, after a while without one, and always where no
        events arrive.
        """
        now = time.monotonic()
        if self._hears and now >= self._unsettled and now < self._asked + STATE_POLL_S:
            return False
        self._asked = now
        return True

    def rest(self) -> bool:
        """
        Wait until the next look: for one pause, or until something happens.

        :return: False, without a pause, if the deadline has passed.
        :raises Interrupt: Somebody wants the work to end.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            return False
        rung = self._wait(
            min(self._pause, left), self._bell.fileno(), self._process, interrupts.descriptor()
        )
        interrupts.check()
        if self._bell.fileno() in rung:
            with suppress(BlockingIOError):
                self._bell.recv(4096)
        self._pause *= self._multiplier
        return True

    @staticmethod
    def _wait(seconds: float, *descriptors: int) -> list[int]:
        """Wait until a descriptor is readable and return all that are; -1 stands for none."""
        poll = select.poll()  # not select(): a master has more files open than that can name
        for descriptor in descriptors:
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        return [descriptor for descriptor, _ in poll.poll(math.ceil(seconds * 1000))]

    def reconnect(self) -> None:
        """
        Connect again to a daemon that went away, which may be restarting.

        :raises HostUnreachable: It did not come back before the deadline.
        """
        name = self._handle.name
        self._forget()
        while True:
            try:
                self._handle.connection.reopen()
                self._handle.look_up_again()
                self._register()
            except HostUnreachable:
                if time.monotonic() >= self.deadline:
                    raise
                interrupts.pause(_RECONNECT_POLL_S)
            else:
                break
        log.info("%s: libvirt answers again", name)
        self._asked = -math.inf

    def _register(self) -> None:
        host, raw = self._handle.connection, self._handle.raw
        self._registered = []
        try:
            self._registered = [
                host.on_event(raw, EVENT_LIFECYCLE, self._lived),
                host.on_event(raw, EVENT_AGENT_LIFECYCLE, self._ring),
            ]
            host.on_lost(self._ring)
        except HostError as error:  # a driver without these events
            log.debug("no events: %s", error)
            self._forget()
        else:
            self._hears = True

    def _lived(self, what: int) -> None:
        # The guest is not off yet: libvirt reboots some guests by letting them power off.
        self._powered_off = what == EVENT_SHUTDOWN or (self._powered_off and what == EVENT_STOPPED)
        self._ring()

    def _ring(self, _what: int = 0) -> None:
        self._unsettled = time.monotonic() + AFTER_EVENT_S
        with suppress(OSError):  # the buffer is full, or the wait is over
            self._rope.send(b"!")

    def _forget(self) -> None:
        self._hears = False
        for number in self._registered:
            with suppress(HostError, HostUnreachable):
                self._handle.connection.off_event(number)
        self._registered = []


def _process_of(handle: DomainHandle) -> int:
    """Return a descriptor of the domain's QEMU process; -1 if there is none."""
    if not handle.connection.local:
        return -1
    try:
        with open(_PROCESS.format(name=handle.name), encoding="ascii") as noted:
            return os.pidfd_open(int(noted.read()))
    except (OSError, ValueError):  # off, or not the system's own daemon
        return -1
