"""Warm bases of tiny guests without an agent, and do things in children that may be killed."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

import pytest

from lab.common import LIBVIRT_URI
from lab.lab import connection
from saltext.kvmclone.guest import warming
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle import finish_base
from tests.support.world import World

#: Seconds that a child may take to open a connection to libvirt.
OPENING_TIMEOUT_S = 30.0


def warm_without_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have guests need no making ready; the tiny one has no agent, but it boots."""
    monkeypatch.setattr(finish_base, "await_agent", lambda *_args: None)
    monkeypatch.setattr(warming, "await_settled", lambda *_args: None)
    monkeypatch.setattr(warming, "make_ready", lambda *_args: ())


def machines(world: World) -> list[str]:
    """The domains of a test, by name."""
    with connection() as conn:
        return sorted(one.name() for one in conn.listAllDomains() if world.token in one.name())


def forked(work: Callable[[], object]) -> int:
    """
    Do something in a child, and return its status as ``waitpid`` has it; 1 where it is not killed.

    The tests' process has libvirt's event loop in a thread. A child that is forked while that
    thread holds the lock of the loop waits for ever where it opens its first connection. So each
    child opens one before anything else, and one that cannot is replaced by another.
    """
    while True:
        told, tell = os.pipe()
        child = os.fork()
        if not child:
            try:
                with Host(LIBVIRT_URI):
                    os.write(tell, b"1")
                work()
            finally:
                os._exit(1)
        os.close(tell)
        ended = bool(select.select([told], [], [], OPENING_TIMEOUT_S)[0])
        opened = ended and os.read(told, 1) == b"1"
        os.close(told)
        if not ended:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        assert opened or not ended, "no connection to libvirt can be opened"
        if opened:
            return status
