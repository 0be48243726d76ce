"""The list of hosts says what each has promised, and of a profile which of them it takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from saltext.kvmclone.config.placement_keys import FleetSettings
from saltext.kvmclone.errors import BaseDiffers
from saltext.kvmclone.master import host_list
from saltext.kvmclone.model.placement import Decision, HostLimits, Placement, Verdict
from saltext.kvmclone.model.request import Request

WAYS = {"kvm01": ("kvm01", "a"), "kvm02": ("kvm02", "a"), "qemu:///system": ("", "qemu:///system")}
DRAINED = FleetSettings({"kvm02": HostLimits(maintenance=True)})


def fleet(request: Request, decision: Decision | BaseDiffers) -> Any:
    def consider(asked: Request) -> Decision:
        assert asked.name == "", "it is nobody's name"
        if isinstance(decision, BaseDiffers):
            raise decision
        return decision

    def capacities() -> dict[str, Any]:
        hosts = {label: {"reachable": label != "qemu:///system"} for label in WAYS}
        return {"hosts": hosts, "retcode": 0}

    return SimpleNamespace(
        resolve=lambda _profile, _name, _keys: (request, None, None),
        everywhere=SimpleNamespace(capacities=capacities, ways=WAYS),
        placing=SimpleNamespace(
            settings=DRAINED,
            consider=consider,
            offers=SimpleNamespace(hosts_of=lambda asked: asked.placement.hosts),
        ),
    )


PLACED = Request("any", "base", placement=Placement(("kvm01", "kvm02")))
DECISION = Decision(
    (Verdict("kvm01", True, "room"), Verdict("kvm02", False, "in maintenance")), ("kvm01",)
)


def test_without_a_profile_only_maintenance_is_said() -> None:
    assert host_list.listing(fleet(PLACED, DECISION))["hosts"] == {
        "kvm01": {"reachable": True, "maintenance": False},
        "kvm02": {"reachable": True, "maintenance": True},
        "qemu:///system": {"reachable": False},
    }


def test_with_a_profile_every_host_has_its_reason() -> None:
    told = host_list.listing(fleet(PLACED, DECISION), "many")["hosts"]
    assert {label: (host["chosen"], host["reason"]) for label, host in told.items()} == {
        "kvm01": (True, "room"),
        "kvm02": (False, "in maintenance"),
        "qemu:///system": (False, "not among the hosts of 'many'"),
    }


@pytest.mark.parametrize(("host", "label"), [("kvm02", "kvm02"), ("", "qemu:///system")])
def test_a_profile_that_names_its_host_takes_that(host: str, label: str) -> None:
    request = Request("any", "base", host=host)
    told = host_list.listing(fleet(request, DECISION), "one")["hosts"]
    assert [name for name, one in told.items() if one["chosen"]] == [label]


def test_where_the_base_differs_no_host_is_chosen() -> None:
    told = host_list.listing(fleet(PLACED, BaseDiffers("They differ.")), "many")["hosts"]
    assert told["kvm01"]["reason"] == told["kvm02"]["reason"] == "They differ."
    assert not any(host["chosen"] for host in told.values())
