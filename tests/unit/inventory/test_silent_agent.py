"""What is said of a guest whose agent was not heard, and which command shows what it is doing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from saltext.kvmclone.errors import ChannelError
from saltext.kvmclone.guest.agent import AgentError
from saltext.kvmclone.hypervisor.domain import DomainHandle
from saltext.kvmclone.inventory import silent_agent
from saltext.kvmclone.lifecycle.record_store import merged
from saltext.kvmclone.model import domain_xml
from saltext.kvmclone.model.domain_xml import Domain
from saltext.kvmclone.model.hints import AT_HOST, Commands
from saltext.kvmclone.model.record import Record, replace
from saltext.kvmclone.model.record_xml import from_xml, to_xml

UUID = "11111111-2222-3333-4444-555555555555"
RECORD = Record(UUID, "base", "", "quick", agent=silent_agent.SILENT)


@dataclass
class Host:
    commands: Commands = Commands(ours=AT_HOST)


@dataclass
class Handle:
    """A domain whose agent does as it likes."""

    fault: Exception | None = None
    name: str = "web1"
    connection: Host = field(default_factory=Host)
    asked: int = 0

    def agent(self, request: dict[str, Any], timeout: float) -> Any:
        self.asked += 1
        assert request == {"execute": "guest-ping"}
        assert timeout <= 3
        if self.fault is not None:
            raise self.fault
        return {}


def domain(devices: str = "", state: str = "") -> Domain:
    return domain_xml.read(
        f"<domain type='qemu'><name>web1</name><uuid>{UUID}</uuid><memory>1024</memory>"
        f"<vcpu>1</vcpu><devices>{devices}<channel type='unix'><target type='virtio' "
        f"name='org.qemu.guest_agent.0' state='{state}'/></channel></devices></domain>"
    )


def said(handle: Handle, record: Record, one: Domain, state: str = "running") -> tuple[str, ...]:
    return silent_agent.warnings(cast(DomainHandle, handle), record, one, state)


@pytest.mark.parametrize(
    ("fault", "doubted"),
    [
        (None, False),
        (AgentError("CommandDisabled", "guest-ping has been disabled"), False),
        (ChannelError("silent", ""), True),
    ],
)
def test_an_agent_that_is_connected_counts_when_it_answers(
    fault: Exception | None, doubted: bool
) -> None:
    assert bool(said(Handle(fault), RECORD, domain(state="connected"))) is doubted


def test_only_a_clone_that_was_doubted_is_asked() -> None:
    handle = Handle()
    assert said(handle, replace(RECORD, agent=""), domain(state="connected")) == ()
    assert said(handle, RECORD, domain(state="disconnected"))
    assert handle.asked == 0


VIRSH = "virsh -c qemu:///system"


@pytest.mark.parametrize(
    ("devices", "state", "command"),
    [
        ("<console type='pty'/>", "running", f"{VIRSH} console web1"),
        ("<console type='pty'/>", "shutoff", f"{VIRSH} start web1 --console"),
        ("<serial type='pty'/><video/>", "running", f"{VIRSH} console web1"),
        (
            "<serial type='file'><source path='/log/web1'/></serial><video/>",
            "running",
            "tail /log/web1",
        ),
        ("<video/>", "running", f"{VIRSH} screenshot web1 /var/tmp/web1.ppm"),
        ("<video/>", "shutoff", f"{VIRSH} start web1 && {VIRSH} screenshot web1 /var/tmp/web1.ppm"),
        ("<serial type='tcp'/>", "running", f"{VIRSH} domstate --reason web1"),
        (
            "<serial type='file'><source path='/log/the shop'/></serial>",
            "running",
            "tail '/log/the shop'",
        ),
        (
            "<serial type='unix'><source mode='bind' path='/run/web1.sock'/></serial><video/>",
            "running",
            f"{VIRSH} screenshot web1 /var/tmp/web1.ppm",
        ),
    ],
)
def test_the_command_shows_what_the_definition_has(devices: str, state: str, command: str) -> None:
    (warning,) = said(Handle(), RECORD, domain(devices), state)
    assert f"Look at it: {command}   " in warning


def test_the_mark_survives_in_the_record_and_goes_when_it_is_taken_away() -> None:
    assert from_xml(to_xml(RECORD), UUID) == RECORD
    heard = replace(RECORD, agent="")
    assert from_xml(to_xml(heard), UUID) == heard
    assert merged(RECORD, heard, RECORD).agent == ""
