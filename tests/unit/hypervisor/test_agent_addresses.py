"""What an agent tells of its network, and an agent that tells nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from saltext.kvmclone.errors import HostError
from saltext.kvmclone.hypervisor.domain import AGENT_TIMEOUT_S, DomainHandle
from saltext.kvmclone.model.facts import AgentInterface

MAC = "52:54:00:00:00:01"


class Raw:
    """libvirt's object of a domain whose agent takes every question and never answers."""

    def name(self) -> str:
        return "web1"

    def interfaceAddresses(self, *_: Any) -> None:
        pytest.fail("libvirt waits for its answer for ever")


class Host:
    def __init__(self, told: Any) -> None:
        self.told = told

    def call(self, function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    def agent_command(self, _raw: Any, text: str, timeout: float) -> Any:
        assert json.loads(text) == {"execute": "guest-network-get-interfaces"}
        assert 0 < timeout <= AGENT_TIMEOUT_S
        return self.told


def interfaces(told: Any) -> list[AgentInterface]:
    host: Any = Host(told)
    return DomainHandle(host, Raw()).agent_interfaces()


def test_an_agent_is_asked_for_its_addresses_with_a_deadline() -> None:
    told = [
        {"name": "lo", "ip-addresses": [{"ip-address-type": "ipv4", "ip-address": "127.0.0.1"}]},
        {
            "name": "eth0:1",
            "hardware-address": MAC.upper(),
            "ip-addresses": [
                {"ip-address-type": "ipv4", "ip-address": "10.9.0.7", "prefix": 24},
                {"ip-address-type": "ipv6", "ip-address": "fd00::7", "prefix": 10**40},
            ],
        },
        {"name": "eth1", "hardware-address": MAC},
    ]
    assert interfaces(json.dumps({"return": told})) == [
        AgentInterface("lo", "", (("127.0.0.1", 0, "ipv4"),)),
        AgentInterface("eth0", MAC, (("10.9.0.7", 24, "ipv4"), ("fd00::7", 128, "ipv6"))),
        AgentInterface("eth1", MAC, ()),
    ]


@pytest.mark.parametrize(
    "told",
    ["", "[", "7", "null", "{}", '{"return": 7}', '{"return": [7]}', '{"return": [{}]}',
     '{"return": [{"name": "a", "ip-addresses": 7}]}',
     '{"return": [{"name": "a", "ip-addresses": [{"ip-address": "x", "prefix": "x"}]}]}'],
)  # fmt: skip
def test_nonsense_is_an_agent_that_told_nothing(told: str) -> None:
    with pytest.raises(HostError):
        interfaces(told)
