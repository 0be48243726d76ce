"""Promises about a clone that is there already: what differs is mended, or said to be beyond it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from lab.lab import connection
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hypervisor.host import Host
from saltext.kvmclone.model.request import DiskChanges
from tests.support.world import Salt, World, image_info, quick


@pytest.fixture
def clone(world: World, host: LocalHost, base: str) -> str:
    name = world.name()
    host.clone(quick(name, base))
    return name


def wish(base: str, **keys: Any) -> dict[str, Any]:
    return {"base_domain": base, "clone_strategy": "quick", "running": False, **keys}


GROWN = {"vda": {"size": "100MiB"}}

EVERYTHING = {
    "cpus": 2,
    "memory": "256MiB",
    "description": "the shop's front",
    "tags": ["shop", "front"],
    "autostart": True,
    "ttl": "2h",
    "disks": GROWN,
}


def test_everything_that_can_be_mended_is_mended_once(
    world: World, base: str, clone: str, salt_minion: Salt, salt_dry: Salt
) -> None:
    before = world.footprint()
    told = salt_dry.state("kvm_clone.present", clone, **wish(base, **EVERYTHING))
    assert told["result"] is None
    assert world.footprint() == before

    done = salt_minion.state("kvm_clone.present", clone, **wish(base, **EVERYTHING))
    assert done["result"] is True, done["comment"]
    assert done["changes"] == told["changes"]
    assert done["changes"] == {
        "cpus": {"old": 1, "new": 2},
        "memory": {"old": "128MiB", "new": "256MiB"},
        "description": {"old": f"Cloned from {base}", "new": "the shop's front"},
        "tags": {"old": [], "new": ["shop", "front"]},
        "autostart": {"old": False, "new": True},
        "ttl": {"old": None, "new": "2h"},
        "disk vda size": {"old": "64MiB", "new": "100MiB"},
    }
    xml = world.xml(clone)
    assert xml.findtext("vcpu") == "2"
    assert xml.findtext("memory") == xml.findtext("currentMemory") == str(256 * 1024)
    assert world.autostart(clone)
    assert image_info(world.disks(clone)[0])["virtual-size"] == 100 * 2**20
    record = world.record(clone)
    assert record is not None
    assert record.tags == ("shop", "front")
    assert record.expires == record.created + 7200
    assert "Its ttl ends at" in salt_minion("kvm_clone.show", clone)["warnings"][-1]

    again = salt_minion.state("kvm_clone.present", clone, **wish(base, **EVERYTHING))
    assert (again["result"], again["changes"]) == (True, {})


def test_fewer_cpus_and_less_memory_come_too(
    world: World, base: str, clone: str, salt_minion: Salt
) -> None:
    for keys in ({"cpus": 4, "memory": "512MiB"}, {"cpus": 2, "memory": "64MiB"}):
        done = salt_minion.state("kvm_clone.present", clone, **wish(base, **keys))
        assert done["result"] is True, done["comment"]
    assert world.xml(clone).findtext("vcpu") == "2"
    assert world.xml(clone).findtext("memory") == str(64 * 1024)


@pytest.mark.parametrize("keys", [{}, EVERYTHING], ids=["nothing", "everything"])
def test_what_is_as_asked_costs_no_writing_call(
    base: str,
    clone: str,
    keys: dict[str, Any],
    salt_minion: Salt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    salt_minion.state("kvm_clone.present", clone, **wish(base, **keys))
    asked: list[str] = []
    real = Host.call

    def call(self: Host, function: Any, *arguments: Any) -> Any:
        asked.append(function.__name__)
        return real(self, function, *arguments)

    monkeypatch.setattr(Host, "call", call)
    answer = salt_minion.state("kvm_clone.present", clone, **wish(base, **keys))
    assert (answer["result"], answer["changes"]) == (True, {})
    assert salt_minion.state("kvm_clone.stopped", clone)["changes"] == {}
    reading = {
        "lookupByName", "metadata", "XMLDesc", "state", "getHostname", "autostart", "blockInfo",
        "storageVolLookupByPath", "lookupByUUIDString",
    }  # fmt: skip
    assert set(asked) <= reading


def test_a_clone_is_adjusted_by_the_keys_alone(
    world: World, base: str, clone: str, salt_minion: Salt
) -> None:
    told = salt_minion("kvm_clone.adjust", clone, memory="256MiB", test=True)
    assert (set(told["changes"]), told["refused"]) == ({"memory"}, [])
    assert salt_minion("kvm_clone.adjust", clone, memory="256MiB") == told
    assert world.xml(clone).findtext("memory") == str(256 * 1024)
    refused = salt_minion("kvm_clone.adjust", clone, clone_strategy="full")["refused"]
    assert "cannot become 'full'" in refused[0]


def test_a_seed_that_comes_too_late_is_told_of(base: str, clone: str, salt_minion: Salt) -> None:
    done = salt_minion.state("kvm_clone.present", clone, **wish(base, seed="keep"))
    assert (done["result"], done["changes"]) == (True, {})
    assert "this one was made with another" in done["comment"]
    done = salt_minion.state("kvm_clone.present", clone, **wish(base, seed="none"))
    assert "'seed'" not in done["comment"]


def test_a_state_that_names_no_base_fails_also_where_the_clone_is_there(
    clone: str, salt_minion: Salt
) -> None:
    answer = salt_minion.state("kvm_clone.present", clone, running=False)
    assert answer["result"] is False
    assert "base_domain" in answer["comment"]


def test_a_state_is_no_way_to_another_daemon(base: str, salt_minion: Salt) -> None:
    answer = salt_minion.state(
        "kvm_clone.present", "elsewhere", **wish(base, url="test:///default")
    )
    assert answer["result"] is False
    assert "salt-run kvmclone.create" in answer["comment"]


def test_tags_are_taken_away_by_an_empty_list_and_by_nothing_else(
    world: World, base: str, clone: str, salt_minion: Salt
) -> None:
    salt_minion.state("kvm_clone.present", clone, **wish(base, tags=["shop"]))
    assert salt_minion.state("kvm_clone.present", clone, **wish(base))["changes"] == {}
    gone = salt_minion.state("kvm_clone.present", clone, **wish(base, tags=[]))
    assert gone["changes"] == {"tags": {"old": ["shop"], "new": []}}
    record = world.record(clone)
    assert record is not None and record.tags == ()


def test_a_base_is_protected_also_for_a_clone_that_stands_on_it_already(
    world: World, base: str, clone: str, salt_minion: Salt, salt_dry: Salt
) -> None:
    (disk,) = world.disks(base)
    mode = os.stat(disk).st_mode
    told = salt_dry.state("kvm_clone.present", clone, **wish(base, protect=True))
    assert (told["result"], os.stat(disk).st_mode) == (None, mode)

    done = salt_minion.state("kvm_clone.present", clone, **wish(base, protect=True))
    assert done["changes"] == told["changes"] == {"protect": {"old": False, "new": True}}
    assert not os.stat(disk).st_mode & 0o222
    again = salt_minion.state("kvm_clone.present", clone, **wish(base, protect=True))
    assert (again["result"], again["changes"]) == (True, {})

    salt_minion("kvm_clone.destroy", clone)
    assert salt_minion("kvm_clone.unprotect", base) == [str(disk)]
    assert os.stat(disk).st_mode == mode


def test_what_a_clone_is_already_known_by_needs_no_mending(
    base: str, clone: str, salt_dry: Salt
) -> None:
    keys = {"disks": {"vda": {"serial": "disk-0"}}, "networks": [{"model": "virtio"}]}
    again = salt_dry.state("kvm_clone.present", clone, **wish(base, **keys))
    assert again["result"] is True
    assert again["changes"] == {}


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"clone_strategy": "full"}, "clone_strategy: quick"),
        ({"base_domain": "another"}, "cannot become a clone of 'another'"),
        ({"disks": {"vda": {"size": "1MiB"}}}, "cannot shrink"),
        ({"disks": {"vdz": {"size": "1GiB"}}}, "no such disk"),
        ({"disks": {"vda": {"serial": "other"}}}, "the disk has disk-0"),
        ({"disks": {"vdz": {"serial": "other"}}}, "no such disk"),
        ({"disks": {"vdz": {"wwn": "5000c50015ea71ad"}}}, "no such disk"),
        ({"networks": [{"bridge": "br77"}]}, "networks"),
        ({"networks": [{"mac": "52:54:00:00:00:77"}]}, "networks"),
        ({"networks": [{"model": "e1000e"}]}, "networks"),
        ({"ip_source": "reserve", "address": "192.0.2.7"}, "address: 192.0.2.7"),
    ],
)
@pytest.mark.parametrize("mode", ["salt_minion", "salt_dry"])
def test_what_cannot_be_mended_is_a_failure_that_says_what_to_do(
    world: World,
    base: str,
    clone: str,
    keys: dict[str, Any],
    word: str,
    mode: str,
    request: pytest.FixtureRequest,
) -> None:
    before = world.footprint()
    salt = request.getfixturevalue(mode)
    answer = salt.state("kvm_clone.present", clone, **{**wish(base, cpus=3), **keys})
    assert answer["result"] is False
    assert answer["changes"] == {}
    assert word in answer["comment"]
    assert world.footprint() == before


@pytest.mark.guest
def test_a_running_clone_grows_its_disk_and_is_told_about_the_rest(
    world: World, host: LocalHost, base: str, clone: str, salt_minion: Salt
) -> None:
    host.boot(clone)
    keys = wish(base, running=True, cpus=2, memory="200MiB", disks=GROWN)
    done = salt_minion.state("kvm_clone.present", clone, **keys)
    assert done["result"] is True, done["comment"]
    assert "next boot" in done["comment"]
    assert world.xml(clone, live=True).findtext("vcpu") == "1"
    assert world.xml(clone).findtext("vcpu") == "2"
    with connection() as conn:
        assert conn.lookupByName(clone).blockInfo("vda")[0] == 100 * 2**20
    assert salt_minion.state("kvm_clone.present", clone, **keys)["changes"] == {}


def test_a_clone_in_the_making_is_left_to_its_maker(
    world: World, host: LocalHost, base: str, salt_minion: Salt
) -> None:
    name = world.name("made")
    host.clone(quick(name, base), goal="addressed")
    answer = salt_minion.state("kvm_clone.present", name, **wish(base, cpus=2))
    assert answer["result"] is False
    assert "CreateInProgress" in answer["comment"]


def test_the_dry_run_of_a_new_clone_reports_what_making_it_will(
    world: World, base: str, salt_minion: Salt, salt_dry: Salt
) -> None:
    name = world.name("new")
    told = salt_dry.state("kvm_clone.present", name, **wish(base))["changes"]["clone"]["new"]
    done = salt_minion.state("kvm_clone.present", name, **wish(base))["changes"]["clone"]["new"]
    assert set(told) == set(done)
    for key, value in told.items():
        assert value in ("<generated>", done[key]), key


def test_a_disk_that_others_stand_on_or_use_does_not_grow(
    world: World, host: LocalHost, base: str, clone: str
) -> None:
    disk = world.disks(clone)[0]
    wanted = quick(clone, base, disks={"vda": DiskChanges(size=100 * 2**20)})
    before = disk.read_bytes()

    def refused(who: str) -> bool:
        found = host.adjust(wanted, dry=False)
        assert found.changes == {}
        assert disk.read_bytes() == before
        return who in found.refused[0]

    below = world.name("below")
    host.clone(quick(below, clone))
    assert refused(str(world.disks(below)[0]))
    host.destroy(below)
    machine = world.base("machine")
    world.attach(machine, disk, "vdx")
    assert refused(machine)
    world.detach(machine, "vdx")
    assert host.adjust(wanted, dry=False).refused == []
    assert image_info(disk)["virtual-size"] == 100 * 2**20
