"""A person sees hosts and profiles as tables."""

from __future__ import annotations

from typing import Any

from saltext.kvmclone.display import hosts
from tests.unit.display.examples import screen

GIB = 2**30


def host(**keys: Any) -> dict[str, Any]:
    return {
        "reachable": True,
        "libvirt": "9.0.0",
        "cpus": 8,
        "memory": {"total": 64 * GIB, "free": 20 * GIB},
        "promised": {"memory": 44 * GIB, "cpus": 12},
        "pools": {"default": {"capacity": 500 * GIB, "available": 227 * GIB}},
        "clones": 12,
        **keys,
    }


def test_hosts_with_what_is_free_and_those_that_are_down() -> None:
    down = {"type": "HostUnreachable", "message": "It does not answer.", "hint": "Wake it."}
    answer = {"hosts": {"kvm01": host(also=["qemu:///system"]), "kvm02": {"reachable": False,
              "error": down}}, "retcode": 1}  # fmt: skip
    assert hosts.hosts(answer, screen("hosts")) == [
        "HOST   LIBVIRT  CPUS  MEMORY  PROMISED  CLONES  POOLS (FREE)",
        "kvm01  9.0.0       8  64 GiB    44 GiB      12  default 227 GiB",
        "kvm01 is also reached as qemu:///system",
        "! kvm02 could not be checked. It does not answer.",
        "  Hint: Wake it.",
    ]


def test_the_spares_among_its_clones_are_counted() -> None:
    lines = hosts.hosts({"hosts": {"kvm01": host(spares=3)}}, screen("hosts"))
    assert "12, 3 spare" in lines[1]
    assert "spare" not in hosts.hosts({"hosts": {"kvm01": host(spares=0)}}, screen("hosts"))[1]


def test_with_a_profile_every_host_says_why_it_is_chosen_or_not() -> None:
    down = {"type": "HostUnreachable", "message": "It does not answer.", "hint": ""}
    answer = {"hosts": {
        "kvm01": host(chosen=True, reason="44 GiB of 64 GiB memory are promised"),
        "kvm02": host(chosen=False, reason="in maintenance", maintenance=True),
        "kvm03": {"reachable": False, "error": down, "chosen": False, "reason": "does not answer"},
    }, "retcode": 1}  # fmt: skip
    assert hosts.hosts(answer, screen("hosts"))[3:] == [
        "kvm02 is in maintenance",
        "kvm01 is chosen: 44 GiB of 64 GiB memory are promised",
        "kvm02 is not chosen: in maintenance",
        "kvm03 is not chosen: does not answer",
        "! kvm03 could not be checked. It does not answer.",
    ]


def test_no_hosts() -> None:
    assert hosts.hosts({"hosts": {}, "retcode": 0}, screen("hosts")) == ["No host is configured."]


def test_profiles_providers_and_what_is_wrong() -> None:
    answer = {
        "profiles": {
            "web": {"provider": "kvm", "place": "/etc/salt/cloud.profiles.d/web.conf:1",
                    "base_domain": "debian12", "clone_strategy": "quick"},
        },
        "providers": {"kvm": {"url": "qemu:///system", "host": "kvm01"}},
        "warnings": ["'size' is ignored."],
        "problems": ["web.conf:7: profile 'db': there is no provider 'kmv'."],
        "retcode": 1,
    }  # fmt: skip
    assert hosts.profiles(answer, screen("profiles")) == [
        "PROFILE  PROVIDER  BASE      CLONE  ADDRESS FROM  WRITTEN IN",
        "web      kvm       debian12  quick  auto          …/web.conf:1",
        "",
        "PROVIDER  HOST   URL",
        "kvm       kvm01  qemu:///system",
        "! 'size' is ignored.",
        "",
        "1 problem; all else can be used:",
        "  ! web.conf:7: profile 'db': there is no provider 'kmv'.",
    ]
