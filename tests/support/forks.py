"""Do something in a process that is forked from the tests', and may be killed in the middle."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

from lab.common import LIBVIRT_URI
from saltext.kvmclone.hypervisor.host import Host

#: Seconds that a child may take to open a connection to libvirt.
OPENING_TIMEOUT_S = 30.0


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
