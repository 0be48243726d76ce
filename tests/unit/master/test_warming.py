"""Bases are warmed on the host that is meant, each by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone.config.placement_keys import FleetSettings
from saltext.kvmclone.errors import CommandFailed, ConfigError, HostUnreachable
from saltext.kvmclone.master import warming
from saltext.kvmclone.model.base_content import BaseState
from saltext.kvmclone.model.placement import HostLimits
from saltext.kvmclone.model.warmed_base import UnwarmedBase, WarmedBase
from tests.support import base_hosts

SMALL = HostLimits(memory_ratio=0.5)


class Host(base_hosts.Host):
    limits: HostLimits | None = None

    def warm(self, base: str, _worker: Any, limits: Any) -> WarmedBase:
        self._do(f"warm {base}")
        self.limits = limits
        return WarmedBase(base, self.name, 1, f"{base}.warm1", "/pool/x.save")

    def unwarm(self, base: str) -> UnwarmedBase:
        self._do(f"unwarm {base}")
        return UnwarmedBase(base, self.name, ("/pool/x.save",))

    def tree(self) -> dict[str, Any]:
        return {"bases": {"gone": {"warmed": [{}] if self.name == "kvm02" else []}}}


def having(name: str, *bases: str, **breaks: BaseException) -> Host:
    return Host(name, *[BaseState(base) for base in bases], **breaks)


def fleet(*hosts: Host, chosen: tuple[str, ...] = ()) -> Any:
    settings = FleetSettings({"kvm02": SMALL})
    everywhere = base_hosts.hosts_of(*hosts, chosen=chosen)
    placing = SimpleNamespace(settings=settings)
    return SimpleNamespace(opts={}, everywhere=everywhere, placing=placing)


def test_each_base_is_warmed_on_the_host_that_has_it() -> None:
    hosts = having("kvm01", "debian12"), having("kvm02", "rocky9")
    told = warming.warm(fleet(*hosts), ["debian12", "rocky9", "debian12"], "")
    assert told["retcode"] == 0
    assert {base: one["host"] for base, one in told["bases"].items()} == {
        "debian12": "kvm01",
        "rocky9": "kvm02",
    }
    assert hosts[0].did.count("warm debian12") == 1


@pytest.mark.parametrize(
    ("chosen", "limits"), [((), [None, SMALL]), (("kvm01", "kvm02"), [HostLimits(), SMALL])]
)
def test_a_host_is_held_to_limits_where_its_clones_are(
    chosen: tuple[str, ...], limits: list[HostLimits | None]
) -> None:
    hosts = having("kvm01", "debian12"), having("kvm02", "rocky9")
    warming.warm(fleet(*hosts, chosen=chosen), ["debian12", "rocky9"], "")
    assert [host.limits for host in hosts] == limits


def test_one_that_fails_does_not_keep_the_others() -> None:
    host = having("kvm01", "debian12", "rocky9", **{"warm debian12": CommandFailed("no", "Mend.")})
    told = warming.warm(fleet(host), ["debian12", "rocky9"], "")
    assert told["retcode"] == 1
    assert told["bases"]["debian12"] == {
        "name": "debian12",
        "error": {"type": "CommandFailed", "message": "no", "hint": "Mend."},
    }
    assert told["bases"]["rocky9"]["generation"] == 1


def failed(told: dict[str, Any]) -> dict[str, Any]:
    assert told["retcode"] == 1
    error: dict[str, Any] = told["bases"]["debian12"]["error"]
    return error


def test_where_several_hosts_have_it_one_is_named() -> None:
    hosts = having("kvm01", "debian12"), having("kvm02", "debian12")
    error = failed(warming.warm(fleet(*hosts), ["debian12"], ""))
    assert (error["type"], "host=kvm01" in error["hint"]) == ("ConfigError", True)
    told = warming.warm(fleet(*hosts), ["debian12"], "kvm02")
    assert told["bases"]["debian12"]["host"] == "kvm02"
    assert failed(warming.warm(fleet(*hosts), ["debian12"], "kvm09"))["type"] == "ConfigError"


def test_a_host_that_is_silent_may_have_it() -> None:
    silent = having("kvm02", base_states=HostUnreachable("No answer.", "Look."))
    error = failed(warming.warm(fleet(having("kvm01"), silent), ["debian12"], ""))
    assert error["type"] == "HostUnreachable"
    assert failed(warming.warm(fleet(having("kvm01")), ["debian12"], ""))["type"] == "NotFound"


def test_what_was_saved_of_a_base_that_is_gone_is_removed() -> None:
    told = warming.unwarm(fleet(having("kvm01"), having("kvm02")), ["gone"], "")
    assert told["bases"]["gone"]["host"] == "kvm02"
    assert told["bases"]["gone"]["removed"] == ["/pool/x.save"]


def test_no_base_is_not_every_base() -> None:
    with pytest.raises(ConfigError, match="No base is named"):
        warming.unwarm(fleet(having("kvm01")), [], "")
