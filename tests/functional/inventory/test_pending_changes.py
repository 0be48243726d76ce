"""Promises about what a guest has, what it may have, and what waits for its next start."""

from __future__ import annotations

import json
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from lab.lab import connection
from saltext.kvmclone.display.changes import short
from saltext.kvmclone.hosts.local import LocalHost
from tests.support.world import Salt, World, quick

MIB = 2**20

#: Four processors and 256 MiB are possible, and less is there.
LESS = "<memory unit='MiB'>256</memory><currentMemory unit='MiB'>128</currentMemory>"
FEWER = "<vcpu current='1'>4</vcpu>"

TOPOLOGY = "<cpu><topology sockets='1' cores='4' threads='1'/></cpu>"
PLUGGED = (
    "<vcpus><vcpu id='0' enabled='yes' hotpluggable='no' order='1'/>"
    + "".join(f"<vcpu id='{one}' enabled='no' hotpluggable='yes'/>" for one in (1, 2, 3))
    + "</vcpus>"
)
CELLS = "<cpu><numa><cell id='0' cpus='0-3' memory='256' unit='MiB'/></numa></cpu>"
SLOTS = "<maxMemory slots='2' unit='MiB'>512</maxMemory>"


def edit(name: str, *pairs: tuple[str, str]) -> str:
    """Change a definition by hand."""
    with connection() as conn:
        xml = conn.lookupByName(name).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        for old, new in pairs:
            start = xml.index(f"<{old}")
            end = xml.index(f"</{old}>") + len(f"</{old}>")
            xml = xml[:start] + new + xml[end:]
        conn.defineXML(xml)
    return name


def lessened(name: str, more: str = "") -> str:
    edit(name, ("currentMemory", ""), ("vcpu", FEWER), ("memory", LESS + more))
    return name


def wish(base: str, **keys: Any) -> dict[str, Any]:
    return {"base_domain": base, "clone_strategy": "quick", "running": False, **keys}


@pytest.mark.parametrize("fixed", ["", TOPOLOGY, CELLS], ids=["free", "topology", "cells"])
def test_a_guest_that_has_less_than_it_may_gets_what_is_asked(
    world: World, host: LocalHost, base: str, salt_minion: Salt, salt_dry: Salt, fixed: str
) -> None:
    lessened(base, fixed)
    name = world.name()
    host.clone(quick(name, base))
    keys = wish(base, cpus=4, memory="256MiB")
    before = world.footprint()
    told = salt_dry.state("kvm_clone.present", name, **keys)
    assert told["result"] is None
    assert world.footprint() == before
    done = salt_minion.state("kvm_clone.present", name, **keys)
    assert done["result"] is True, done["comment"]
    assert done["changes"] == told["changes"]
    assert done["changes"] == {
        "cpus": {"old": 1, "new": 4},
        "memory": {"old": "128MiB", "new": "256MiB"},
    }
    xml = world.xml(name)
    vcpu = xml.find("vcpu")
    assert vcpu is not None
    assert (vcpu.text, vcpu.get("current", "4")) == ("4", "4")
    assert xml.findtext("memory") == xml.findtext("currentMemory") == str(256 * 1024)
    again = salt_minion.state("kvm_clone.present", name, **keys)
    assert (again["result"], again["changes"]) == (True, {})


def test_a_plan_shows_what_the_guest_gets_that_had_less(
    world: World, base: str, salt_minion: Salt
) -> None:
    lessened(base)
    plan = salt_minion("kvm_clone.plan", world.name(), base_domain=base, cpus=4, memory="256MiB")
    assert plan["changes"]["cpus"] == {"old": 1, "new": 4}
    assert plan["changes"]["memory"] == {"old": 128 * MIB, "new": 256 * MIB}
    assert 'current="1"' not in plan["xml"]


def test_what_a_guest_may_have_at_most_is_told_where_that_changes(
    world: World, host: LocalHost, base: str, salt_minion: Salt
) -> None:
    lessened(base)
    name, made = world.name(), world.name("made")
    host.clone(quick(name, base))
    keys = wish(base, cpus=2, memory="128MiB")
    done = salt_minion.state("kvm_clone.present", name, **keys)
    assert done["changes"] == {
        "cpus": {"old": 1, "new": 2},
        "cpus maximum": {"old": 4, "new": 2},
        "memory maximum": {"old": "256MiB", "new": "128MiB"},
    }
    plan = salt_minion("kvm_clone.plan", made, base_domain=base, cpus=2, memory="128MiB")
    assert short({key: plan["changes"][key] for key in done["changes"]}) == done["changes"]
    assert salt_minion.state("kvm_clone.present", name, **keys)["changes"] == {}


def test_a_topology_follows_the_number_of_processors(
    world: World, host: LocalHost, base: str, salt_minion: Salt, salt_dry: Salt
) -> None:
    lessened(base, TOPOLOGY)
    name, made = world.name(), world.name("made")
    host.clone(quick(name, base))
    record = world.record(name)
    keys = wish(base, cpus=6)
    told = salt_dry.state("kvm_clone.present", name, **keys)
    done = salt_minion.state("kvm_clone.present", name, **keys)
    assert done["result"] is True, done["comment"]
    assert done["changes"] == told["changes"]
    assert done["changes"] == {
        "cpus": {"old": 1, "new": 6},
        "cpus maximum": {"old": 4, "new": 6},
        "topology": {"old": "4 cores", "new": "6 sockets"},
    }
    assert world.xml(name).findtext("vcpu") == "6"
    assert world.record(name) == record
    assert salt_minion.state("kvm_clone.present", name, **keys)["changes"] == {}
    plan = salt_minion("kvm_clone.plan", made, base_domain=base, cpus=8)
    assert plan["conflicts"] == []
    assert plan["changes"]["topology"] == {"old": "4 cores", "new": "4 cores 2 sockets"}
    clone = host.clone(quick(made, base, cpus=8))
    assert clone.stage == "cloned"


@pytest.mark.guest
def test_a_topology_of_a_running_clone_waits_for_its_next_start(
    world: World, host: LocalHost, base: str, salt_minion: Salt
) -> None:
    edit(base, ("vcpu", "<vcpu>1</vcpu><cpu><topology sockets='1' cores='1' threads='1'/></cpu>"))
    name = world.name()
    host.clone(quick(name, base))
    with connection() as conn:
        conn.lookupByName(name).create()
    answer = salt_minion("kvm_clone.adjust", name, base_domain=base, clone_strategy="quick", cpus=2)
    assert answer["refused"] == []
    assert answer["pending"]["cpus"] == {"old": 1, "new": 2}
    assert answer["pending"]["topology"] == {"old": "1 of each", "new": "2 sockets"}
    with connection() as conn:
        domain = conn.lookupByName(name)
        domain.destroy()
        domain.create()
    assert world.xml(name, live=True).findtext("vcpu") == "2"


@pytest.mark.parametrize(
    ("fixed", "keys", "word"),
    [
        (PLUGGED, {"cpus": 2}, "<vcpus>"),
        (CELLS, {"cpus": 2}, "NUMA cells"),
        (CELLS, {"memory": "512MiB"}, "NUMA cells"),
        (SLOTS + CELLS, {"memory": "1GiB"}, "NUMA cells"),
    ],
)
def test_what_a_definition_fixes_is_refused_before_anything_is_changed(
    world: World,
    host: LocalHost,
    base: str,
    salt_minion: Salt,
    fixed: str,
    keys: dict[str, Any],
    word: str,
) -> None:
    lessened(base, fixed)
    name = world.name()
    host.clone(quick(name, base))
    before = world.footprint()
    answer = salt_minion.state("kvm_clone.present", name, **wish(base, tags=["x"], **keys))
    assert (answer["result"], answer["changes"]) == (False, {})
    assert word in answer["comment"]
    assert world.footprint() == before


@pytest.mark.parametrize("size", [128 * MIB + 1, 200_000_000, "190735KiB"])
def test_a_size_between_two_of_libvirts_is_no_change_the_second_time(
    world: World, host: LocalHost, base: str, salt_minion: Salt, size: Any
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    if isinstance(size, int):
        size = f"{size}B"
    keys = wish(base, memory=size)
    first = salt_minion.state("kvm_clone.present", name, **keys)
    assert first["result"] is True, first["comment"]
    assert set(first["changes"]) == {"memory"}
    assert salt_minion.state("kvm_clone.present", name, **keys)["changes"] == {}


# --- a clone that runs --------------------------------------------------------------------------


def has(name: str) -> tuple[int, int]:
    """Processors and bytes of memory that QEMU itself gives the guest."""
    with connection() as conn:
        raw = conn.lookupByName(name)

        def ask(command: str) -> Any:
            words = json.dumps({"execute": command})
            return json.loads(libvirt_qemu.qemuMonitorCommand(raw, words, 0))["return"]

        size = ask("query-memory-size-summary")["base-memory"]
        return len(ask("query-cpus-fast")), size


@pytest.mark.guest
def test_a_pending_change_is_told_until_the_watch_brings_it(
    world: World, host: LocalHost, base: str, salt_minion: Salt, salt_dry: Salt
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    host.boot(name)
    keys = wish(base, running=True, cpus=2, memory="200MiB", description="the front")
    waits = {
        "cpus": {"old": 1, "new": 2},
        "memory": {"old": 128 * MIB, "new": 200 * MIB},
    }
    done = salt_minion.state("kvm_clone.present", name, **keys)
    assert done["result"] is True, done["comment"]
    assert world.xml(name, live=True).findtext("description") == "the front"

    for state, told in (
        ("present", done),
        *(
            (state, salt.state(f"kvm_clone.{state}", name, **(keys if state == "present" else {})))
            for salt in (salt_minion, salt_dry)
            for state in ("present", "running")
        ),
    ):
        assert told["result"] is True, state
        assert told is done or told["changes"] == {}
        assert "cpus (1 now, then 2) and memory (128MiB now, then 200MiB)" in told["comment"]
        assert f"salt-call kvm_clone.stop {name}   salt-call" in told["comment"]
    for salt in (salt_minion, salt_dry):
        assert salt("kvm_clone.adjust", name, test=True)["pending"] == waits
    assert salt_minion("kvm_clone.pending_changes", name)["changes"] == waits
    (warning,) = [
        one for one in salt_minion("kvm_clone.show", name)["warnings"] if "Pending" in one
    ]
    assert warning in host.show(name).warnings or "salt-run kvmclone.stop" in str(host.show(name))

    rebooted = salt_minion("kvm_clone.reboot", name)
    assert warning in rebooted["warnings"]
    assert has(name) == (1, 128 * MIB)

    watched = salt_dry.state("kvm_clone.mod_watch", name, sfun="running")
    assert watched["result"] is None
    assert watched["changes"] == {"restarted": {"old": False, "new": True}, **short(waits)}
    assert has(name) == (1, 128 * MIB)
    again = salt_minion.state("kvm_clone.mod_watch", name, sfun="running")
    assert (again["result"], again["changes"]) == (True, watched["changes"]), again["comment"]
    assert has(name) == (2, 200 * MIB)

    for state in ("present", "running"):
        told = salt_minion.state(f"kvm_clone.{state}", name, **(keys if state == "present" else {}))
        assert (told["result"], told["changes"]) == (True, {})
        assert told["comment"] == f"'{name}' is running."
    assert not [one for one in host.show(name).warnings if "Pending" in one]
    quiet = salt_minion.state("kvm_clone.mod_watch", name, sfun="present")
    assert quiet["changes"] == {"rebooted": {"old": False, "new": True}}

    # Switching it off brings a change as well, so that nothing waits.
    off = salt_minion.state("kvm_clone.present", name, **{**keys, "cpus": 1, "running": False})
    assert off["result"] is True, off["comment"]
    assert "Pending" not in off["comment"]
    assert salt_minion("kvm_clone.pending_changes", name) == {"changes": {}, "note": ""}


@pytest.mark.guest
def test_a_size_that_qemu_rounds_up_waits_for_nothing(
    world: World, host: LocalHost, base: str, salt_minion: Salt
) -> None:
    edit(base, ("memory", "<memory unit='KiB'>131500</memory>"), ("currentMemory", ""))
    name = world.name()
    host.clone(quick(name, base))
    host.boot(name)
    assert world.xml(name, live=True).findtext("memory") != world.xml(name).findtext("memory")
    assert salt_minion("kvm_clone.pending_changes", name)["changes"] == {}

    # Its memory is kept over the time that it is off, and with it how much that is.
    with connection() as conn:
        conn.lookupByName(name).managedSave()
    done = salt_minion("kvm_clone.adjust", name, cpus=2)
    assert "managedsave-remove" in done["notes"][0]
