"""Promises of the execution module and the states, called the way Salt calls them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError

from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.model.record import WARM
from tests.support.refusals import Change
from tests.support.world import Salt, World, minion_config, quick

URL = "qemu+tcp://127.0.0.1:1/system"


def _keys(base: str, **more: Any) -> dict[str, Any]:
    return {"base_domain": base, "clone_strategy": "quick", **more}


# --- execution module ---------------------------------------------------------------------------


def test_a_clone_from_create_to_destroy(world: World, base: str, salt_minion: Salt) -> None:
    name = world.name()
    clone = salt_minion("kvm_clone.create", name, start=False, **_keys(base))
    assert (clone["name"], clone["stage"], clone["state"]) == (name, "cloned", "shutoff")
    assert clone["host"] == "kvm01"
    assert salt_minion("kvm_clone.show", name)["uuid"] == clone["uuid"]
    assert name in [one["name"] for one in salt_minion("kvm_clone.list_clones")]
    assert salt_minion("kvm_clone.addresses", name) == []
    assert salt_minion("kvm_clone.exists", name) is True
    assert salt_minion("kvm_clone.destroy", name)["name"] == name
    assert salt_minion("kvm_clone.exists", name) is False


def test_answers_are_plain_data(world: World, base: str, salt_minion: Salt) -> None:
    name = world.name()
    plan = salt_minion("kvm_clone.plan", name, **_keys(base))
    clone = salt_minion("kvm_clone.create", name, start=False, **_keys(base))
    assert json.loads(json.dumps([plan, clone])) == [plan, clone]
    assert set(plan) == {
        "name", "base", "strategy", "disks", "changes", "warnings", "conflicts", "xml",
    }  # fmt: skip
    assert set(clone) == {
        "name", "uuid", "host", "base", "profile", "strategy", "state", "stage", "address",
        "addresses", "disks", "minion", "warnings", "drift", "timings",
    }  # fmt: skip


def test_a_plan_says_of_a_domain_alone_that_it_does_nothing(
    world: World, salt_minion: Salt, base: str
) -> None:
    keys = {"base_domain": base, "clone_strategy": "quick", "domain": "example.com"}
    (said,) = salt_minion("kvm_clone.plan", world.name(), **keys)["warnings"]
    assert said.startswith("'domain' does nothing alone")
    told = salt_minion("kvm_clone.plan", world.name("other"), **keys, use_fqdn=True)
    assert told["warnings"] == []


def test_a_profile_of_the_pillar_is_used_and_arguments_override_it(
    world: World, base: str, load: Any
) -> None:
    profiles = {"web": {"provider": "here", **_keys(base, cpus=2)}}
    providers = {"here": {"driver": "libvirt", "url": "qemu:///system"}}
    minion = load(pillar={"kvm_clone": {"providers": providers, "profiles": profiles}})
    name = world.name()
    clone = minion("kvm_clone.create", name, profile="web", start=False, clone_strategy="full")
    assert (clone["profile"], clone["strategy"]) == ("web", "full")
    assert world.xml(name).findtext("vcpu") == "2"


@pytest.mark.parametrize("function", ["show", "start", "stop", "reboot", "destroy", "addresses"])
def test_a_missing_clone_is_an_error_of_the_job(
    world: World, salt_minion: Salt, function: str
) -> None:
    with pytest.raises(CommandExecutionError, match=r"NotFound.*Hint"):
        salt_minion(f"kvm_clone.{function}", world.name())


@pytest.mark.parametrize("function", ["start", "stop", "reboot", "show", "wait_for_address"])
def test_a_foreign_machine_is_left_alone(
    world: World, base: str, salt_minion: Salt, function: str
) -> None:
    with pytest.raises(CommandExecutionError, match="ForeignDomain"):
        salt_minion(f"kvm_clone.{function}", base)


def test_a_refused_create_is_an_error_of_the_job(world: World, salt_minion: Salt) -> None:
    with pytest.raises(CommandExecutionError, match=r"NotFound.*there-is-none"):
        salt_minion("kvm_clone.create", world.name(), **_keys("there-is-none"))
    with pytest.raises(CommandExecutionError, match=r"ConfigError.*clone_stategy"):
        salt_minion("kvm_clone.create", world.name("b"), base_domain="b", clone_stategy="quick")
    with pytest.raises(CommandExecutionError, match="SecretInArgument"):
        salt_minion("kvm_clone.create", world.name("c"), base_domain="b", password="geheim")
    with pytest.raises(CommandExecutionError, match=f"HostUnreachable.*{URL.replace('+', '.')}"):
        salt_minion("kvm_clone.create", world.name("d"), base_domain="b", url=URL)


@pytest.mark.parametrize("word", ["another-one", "false", 1, None])
def test_a_switch_is_true_or_false_and_never_one_more_name(
    world: World, base: str, salt_minion: Salt, word: Any
) -> None:
    """`kvm_clone.destroy a b` must not be `destroy a force=b`."""
    before = world.footprint()
    name = world.name()
    for work in (
        lambda: salt_minion("kvm_clone.destroy", base, word),
        lambda: salt_minion("kvm_clone.destroy", base, test=word),
        lambda: salt_minion("kvm_clone.gc", name, word),
        lambda: salt_minion("kvm_clone.gc", name, force=word),
        lambda: salt_minion("kvm_clone.adjust", name, test=word, **_keys(base)),
        lambda: salt_minion("kvm_clone.create", name, start=word, **_keys(base)),
    ):
        with pytest.raises(CommandExecutionError, match=r"ConfigError.*neither true nor false"):
            work()
    for state, switch in (("present", "running"), ("absent", "force")):
        keys = _keys(base) if state == "present" else {}
        answer = salt_minion.state(f"kvm_clone.{state}", base, **keys, **{switch: word})
        assert answer["result"] is False
        assert "neither true nor false" in answer["comment"]
    assert world.footprint() == before


def test_a_wait_says_what_is_wrong_with_it(world: World, salt_minion: Salt) -> None:
    name = world.name()
    for key, value in (("timeout", "abc"), ("timeout", -1), ("ip_source", "dns")):
        with pytest.raises(CommandExecutionError, match=rf"ConfigError: {key}: .*{value}.* is not"):
            salt_minion("kvm_clone.wait_for_address", name, **{key: value})


def test_what_belongs_to_another_host_is_not_made_here(
    world: World, base: str, salt_minion: Salt
) -> None:
    before = world.footprint()
    name = world.name()
    for function in ("plan", "create"):
        with pytest.raises(CommandExecutionError, match=r"ConfigError.*kvm02.*kvm01"):
            salt_minion(f"kvm_clone.{function}", name, host="kvm02", **_keys(base))
    answer = salt_minion.state("kvm_clone.present", name, host="kvm02", **_keys(base))
    assert answer["result"] is False
    assert world.footprint() == before
    assert not salt_minion("kvm_clone.plan", name, host="kvm01", **_keys(base))["conflicts"]


# --- the process --------------------------------------------------------------------------------


def _salt_call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "minion").write_text(json.dumps(minion_config(folder)))
    program = Path(sys.executable).with_name("salt-call")
    return subprocess.run(
        [program, "-c", folder, "--local", "--out=json", "-l", "error", *words],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_salt_call_exits_with_the_truth(world: World, base: str, tmp_path: Path) -> None:
    name = world.name()
    keys = [f"{key}={value}" for key, value in _keys(base, start="False").items()]
    made = _salt_call(tmp_path, "kvm_clone.create", name, *keys)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["local"]["stage"] == "cloned"

    refused = _salt_call(tmp_path, "kvm_clone.destroy", base)
    assert refused.returncode != 0
    assert "ForeignDomain" in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr
    assert world.exists(base)


# --- states -------------------------------------------------------------------------------------


def test_present_makes_a_clone_once(world: World, base: str, salt_minion: Salt) -> None:
    name = world.name()
    first = salt_minion.state("kvm_clone.present", name, running=False, **_keys(base))
    assert first["result"] is True
    assert first["changes"]["clone"]["old"] is None
    assert first["changes"]["clone"]["new"]["stage"] == "cloned"

    again = salt_minion.state("kvm_clone.present", name, running=False, **_keys(base))
    assert (again["result"], again["changes"]) == (True, {})


def test_present_in_test_mode_shows_the_plan_and_writes_nothing(
    world: World, base: str, salt_dry: Salt
) -> None:
    before = world.footprint()
    answer = salt_dry.state("kvm_clone.present", world.name(), **_keys(base))
    assert answer["result"] is None
    assert answer["changes"]["clone"]["new"]["disks"][0]["strategy"] == "overlay"
    assert world.footprint() == before


@pytest.mark.parametrize("mode", ["salt_minion", "salt_dry"])
def test_present_that_cannot_be_is_a_failure_and_no_traceback(
    world: World, base: str, mode: str, request: pytest.FixtureRequest
) -> None:
    salt = request.getfixturevalue(mode)
    before = world.footprint()
    for name, keys in (
        (world.name("a"), _keys("there-is-none")),
        (world.name("b"), {}),
        ("a/b", _keys(base)),
        (7, _keys(base)),
        (base, _keys("any")),
    ):
        answer = salt.state("kvm_clone.present", name, **keys)
        assert answer["result"] is False
        assert "Hint" in answer["comment"]
        assert answer["changes"] == {}
    assert world.footprint() == before


def test_absent_removes_a_clone_once(
    world: World, host: LocalHost, base: str, salt_minion: Salt, salt_dry: Salt
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    before = world.footprint()
    told = salt_dry.state("kvm_clone.absent", name)
    assert told["result"] is None
    assert world.footprint() == before

    answer = salt_minion.state("kvm_clone.absent", name)
    assert answer["result"] is True
    assert answer["changes"] == told["changes"]
    assert answer["changes"]["clone"]["old"]["name"] == name
    assert answer["changes"]["clone"]["new"] is None
    again = salt_minion.state("kvm_clone.absent", name)
    assert (again["result"], again["changes"]) == (True, {})


@pytest.mark.parametrize("mode", ["salt_minion", "salt_dry"])
def test_absent_of_a_clone_that_others_stand_on_is_refused(
    world: World, host: LocalHost, base: str, mode: str, request: pytest.FixtureRequest
) -> None:
    name, above = world.name(), world.name("above")
    host.clone(quick(name, base))
    host.clone(quick(above, name))
    before = world.footprint()
    answer = request.getfixturevalue(mode).state("kvm_clone.absent", name)
    assert answer["result"] is False
    assert "CloneInUse" in answer["comment"]
    assert world.footprint() == before


def test_the_machine_with_the_saved_memory_of_a_base_is_nothing_to_functions_and_states(
    world: World, host: LocalHost, base: str, salt_minion: Salt, salt_dry: Salt, change: Change
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    change(name, becomes=WARM)
    before = world.footprint()
    assert name not in [one["name"] for one in salt_minion("kvm_clone.list_clones")]
    keys = _keys(base)
    for function, words, more in (
        ("create", [name], keys), ("show", [name], {}), ("destroy", [name], {"force": True}),
        ("start", [name], {}), ("adopt", [name], {}), ("resume", [name], {}),
        ("adjust", [name], keys), ("snapshot", [name], {}), ("addresses", [name], {}),
    ):  # fmt: skip
        with pytest.raises(CommandExecutionError, match=r"ForeignDomain.*saved memory.*unwarm"):
            salt_minion(f"kvm_clone.{function}", *words, **more)
    for salt in (salt_minion, salt_dry):
        for function, more in (
            ("present", keys), ("absent", {"force": True}), ("running", {}), ("stopped", {}),
        ):  # fmt: skip
            answer = salt.state(f"kvm_clone.{function}", name, **more)
            assert (answer["result"], answer["changes"]) == (False, {})
            assert "holds the saved memory" in answer["comment"]
    assert world.footprint() == before


def test_absent_with_force_removes_a_foreign_definition_and_tells_so_before(
    world: World, base: str, salt_minion: Salt, salt_dry: Salt
) -> None:
    before = world.footprint()
    told = salt_dry.state("kvm_clone.absent", base, force=True)
    assert told["result"] is None
    assert world.footprint() == before
    done = salt_minion.state("kvm_clone.absent", base, force=True)
    assert (done["result"], done["changes"]) == (True, told["changes"])
    assert not world.exists(base)
    assert world.footprint()[1] == before[1]


@pytest.mark.parametrize("mode", ["salt_minion", "salt_dry"])
def test_absent_refuses_what_destroy_would_refuse(
    world: World, base: str, mode: str, request: pytest.FixtureRequest
) -> None:
    before = world.footprint()
    answer = request.getfixturevalue(mode).state("kvm_clone.absent", base)
    assert answer["result"] is False
    assert "ForeignDomain" in answer["comment"]
    assert world.footprint() == before


@pytest.mark.parametrize("function", ["running", "stopped"])
def test_power_states_of_a_missing_clone_fail(
    world: World, salt_minion: Salt, function: str
) -> None:
    answer = salt_minion.state(f"kvm_clone.{function}", world.name())
    assert answer["result"] is False
    assert "NotFound" in answer["comment"]


@pytest.mark.guest
def test_running_and_stopped_do_what_they_say(
    world: World, host: LocalHost, base: str, salt_minion: Salt, salt_dry: Salt
) -> None:
    name = world.name()
    host.clone(quick(name, base))
    told = salt_dry.state("kvm_clone.running", name)
    assert told["result"] is None
    assert world.state(name) == "shutoff"

    started = salt_minion.state("kvm_clone.running", name)
    assert started["result"] is True
    # Its first boot: from now on it has an address.
    shown = salt_minion("kvm_clone.show", name)
    assert shown["stage"] == "addressed"
    assert started["changes"] == {
        "state": {"old": "shutoff", "new": "running"},
        "address": {"old": "", "new": shown["address"]},
    }
    assert shown["address"]
    told["changes"]["address"]["new"] = shown["address"]
    assert told["changes"] == started["changes"]
    assert salt_minion.state("kvm_clone.running", name)["changes"] == {}
    assert salt_dry.state("kvm_clone.stopped", name)["result"] is None
    assert world.state(name) == "running"

    world.lab.wait_for_lease(name)
    time.sleep(1)  # now it hears the power button
    stopped = salt_minion.state("kvm_clone.stopped", name)
    assert stopped["changes"] == {"state": {"old": "running", "new": "shutoff"}}
    assert world.state(name) == "shutoff"
    assert salt_minion.state("kvm_clone.stopped", name)["changes"] == {}


@pytest.mark.guest
def test_present_waits_for_the_address(world: World, base: str, salt_minion: Salt) -> None:
    answer = salt_minion.state("kvm_clone.present", world.name(), **_keys(base))
    assert answer["result"] is True
    clone = answer["changes"]["clone"]["new"]
    assert (clone["stage"], clone["state"]) == ("addressed", "running")
    assert clone["address"]
