"""What an operation on a host goes by where nobody hands it a request."""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.record import Record
from saltext.kvmclone.model.request import AddressPick, Request


class Noting(LocalHost):
    """A host whose clones boot at once; it notes what is waited for."""

    asked: Request

    def boot(self, name: str) -> Any:
        return None

    def wait_for_address(self, request: Request, *_minion: Any) -> Any:
        self.asked = request


def test_a_clone_that_was_left_off_is_waited_for_as_its_record_says() -> None:
    record = Record(
        "11111111-2222-3333-4444-555555555555", "base", "", "quick",
        ip_source="qemu-agent", pick=AddressPick(family="ipv6"), identity="kept", seed="own",
    )  # fmt: skip
    host = Noting("qemu:///system")
    host._first_start("web1", record)
    asked = host.asked
    assert (asked.ip_source, asked.pick, asked.seed) == (
        "qemu-agent",
        AddressPick(family="ipv6"),
        "own",
    )
    assert not asked.reset_identity
