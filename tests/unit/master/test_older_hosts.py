"""A host of an earlier version makes what was asked for, or nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from saltext.kvmclone.errors import HostUnreachable
from saltext.kvmclone.hosts import remote_server
from saltext.kvmclone.master.remote import RemoteHost
from saltext.kvmclone.model.request import DiskChanges, InterfaceChanges, Request

PLAIN = Request("web1", "base", disks={"vda": DiskChanges(size=2**30)})

#: What the first version did not know of, and dropped.
MORE = {
    "serial": replace(PLAIN, disks={"vda": DiskChanges(serial="data")}),
    "wwn": replace(PLAIN, disks={"sda": DiskChanges(wwn="5000c50015ea71ad")}),
    "portgroup": replace(PLAIN, networks=(InterfaceChanges(network="lan", portgroup="blue"),)),
    "seed": replace(PLAIN, seed="own"),
}

#: What that version served of these.
KNOWN = {"plan", "clone"}


class Older(RemoteHost):
    """A host that knows the operations of the first version; it notes what it is asked."""

    def __init__(self) -> None:
        super().__init__({}, "kvm01", "qemu:///system")
        self.asked: list[str] = []

    def _public_key(self) -> str:
        return ""

    def _call(self, operation: str, **_arguments: Any) -> Any:
        self.asked.append(operation)
        if operation not in KNOWN:
            raise HostUnreachable(f"This host does not know the operation '{operation}'.")
        return {}

    def _clone(self, operation: str, **arguments: Any) -> Any:
        return self._call(operation, **arguments)


def test_a_request_that_an_older_host_understands_goes_to_it_as_ever() -> None:
    host = Older()
    host.plan(PLAIN)
    host.clone(PLAIN)
    assert host.asked == ["plan", "clone"]


@pytest.mark.parametrize("key", MORE)
def test_an_older_host_refuses_what_it_would_leave_out(key: str) -> None:
    host = Older()
    for ask in (host.plan, host.clone):
        with pytest.raises(HostUnreachable):
            ask(MORE[key])
    assert set(host.asked) <= set(remote_server._SERVED)
