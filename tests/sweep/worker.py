"""
One piece of work on a clone in a process of its own, which a fault hits at a chosen point.

A point is the end of the Nth call of one kind: of a libvirt function, or of a system call
that puts a file in place. ``trace`` only lists the points that a run passes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from lab import libvirtd
from saltext.kvmclone.errors import AddressTimeout, HostError, KvmCloneError
from saltext.kvmclone.guest import fork_identity, warming
from saltext.kvmclone.hosts import gc, provision, warm_base
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.lifecycle import finish_base, first_boot, record_store
from saltext.kvmclone.model.plain import from_plain
from saltext.kvmclone.model.record import INSTANT, Record
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.system import copying

#: What a point may be besides a libvirt call.
SYSTEM_CALLS = ("link", "unlink", "ftruncate", "copy_file_range")
COPYING = ("share_blocks", "copy", "convert", "grow")

#: Exit code of a worker that told its error; see ``TOLD`` in :mod:`.faults`.
TOLD = 3


class Points:
    """Counts what is passed, and lets the fault hit at its point."""

    def __init__(self, fault: str, point: str) -> None:
        self.fault = fault
        self.point = point
        #: A rollback's points are those after the failure.
        self.counting = True
        self._seen: Counter[str] = Counter()

    def passed(self, word: str) -> None:
        if not self.counting:
            return
        self._seen[word] += 1
        point = f"{word}:{self._seen[word]}"
        if self.fault == "trace":
            print(point, flush=True)
        elif point == self.point:
            FAULTS[self.fault]()


def main() -> None:
    order: dict[str, Any] = json.loads(sys.argv[1])
    # As a Salt process ends when it is told to: by an exception, so that work is taken back.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # A job in the background is started with Ctrl-C ignored; this fault must hit there, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    points = Points(order["fault"], order["point"])
    _watch(Host, "call", points.passed, lambda call: call[1].__name__)
    for name in SYSTEM_CALLS:
        _watch(os, name, points.passed)
    for name in COPYING:
        _watch(copying, name, points.passed)
    if order["action"] == "rollback":
        _fail_at_the_end(points, order["start"])
    try:
        work(order)
    except KvmCloneError as error:
        print(json.dumps(error.as_dict()), file=sys.stderr)
        sys.exit(TOLD)


def work(order: dict[str, Any]) -> None:
    host = LocalHost(order["url"], label="kvm01")
    _oblige()
    if order["action"] == "destroy":
        host.destroy(order["name"])
    elif order["action"] == "warm":
        warm_base.warm(host, order["request"]["base_domain"])
    elif order["action"] == "gc":
        for item in gc.collect(host, order["name"], apply=True):
            if not item.removed:
                raise HostError(item.reason, "repeat the command")
    else:
        wanted = from_plain(Request, order["request"])
        outcome = provision.create(host, wanted, start=order["start"])
        if outcome.error is not None:
            raise outcome.error


def _oblige() -> None:
    """Let the tiny guest be ready to be saved, and to go on: it has no agent, but it boots."""
    finish_base.await_agent = lambda *_arguments: None
    warming.await_settled = lambda *_arguments: None
    warming.make_ready = lambda *_arguments: ()
    fork_identity.ping = lambda *_arguments: None
    fork_identity.reseed = lambda *_arguments: None
    await_address = first_boot.await_address

    def addressed(handle: DomainHandle, record: Record, *arguments: Any) -> Any:
        if record.strategy != INSTANT:
            return await_address(handle, record, *arguments)
        return record_store.save(handle, record, record.at("addressed")), ()

    first_boot.await_address = addressed


def _fail_at_the_end(points: Points, booted: bool) -> None:
    """Let the create fail when everything is there; from then on its points count."""
    points.counting = False

    def no_address(*_arguments: Any) -> None:
        points.counting = True
        raise AddressTimeout("no address", "none is wanted")

    def save(handle: DomainHandle, record: Record) -> None:
        if record.stage == "cloned":
            points.counting = True
            raise HostError("the record cannot be closed", "none is wanted")
        real(handle, record)

    real = DomainHandle.save_record_offline
    if booted:
        LocalHost.wait_for_address = no_address
    else:
        DomainHandle.save_record_offline = save


def _watch(
    where: Any,
    name: str,
    passed: Callable[[str], None],
    word_of: Callable[[tuple[Any, ...]], str] | None = None,
) -> None:
    """Tell of every end of a function, by its name or by what its arguments say."""
    real = getattr(where, name)

    def watched(*arguments: Any, **keys: Any) -> Any:
        answer = real(*arguments, **keys)
        passed(word_of(arguments) if word_of else name)
        return answer

    setattr(where, name, watched)


def _signal_myself(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _kill_both() -> None:
    """As when the whole machine loses its power, but for what was not written to its disks."""
    libvirtd.crash()
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS: dict[str, Callable[[], None]] = {
    "kill": _signal_myself(signal.SIGKILL),
    "libvirtd": libvirtd.crash,
    "both": _kill_both,
    "interrupt": _signal_myself(signal.SIGINT),
    "terminate": _signal_myself(signal.SIGTERM),
}


if __name__ == "__main__":
    main()
