"""A profile with several hosts, a real one among them: placed, shown, refused, and destroyed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from salt.config import master_config

from lab.lab import Lab
from lab.salt import SaltWorld
from saltext.kvmclone.errors import ConfigError, HostFull
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.master import reservations, targets
from saltext.kvmclone.master.keys import MinionKeys, generate
from saltext.kvmclone.master.remote import RemoteHost
from saltext.kvmclone.master.reservations import Reservations
from saltext.kvmclone.model.placement import HostLimits, Need, Placed, Reserved
from saltext.kvmclone.model.request import Request
from saltext.kvmclone.system import processes
from tests.integration.conftest import master_keys
from tests.support.hints import Typist, error_of, tries, typist_of

pytestmark = pytest.mark.guest

URL = "qemu:///system"


@pytest.fixture(scope="module")
def base(lab: Lab, salt: SaltWorld) -> str:
    """The base of a profile that may go to two hosts, of which one is not there."""
    base = lab.tiny_base(f"base-many-{lab.name}")
    keys = {
        "provider": "kvm", "base_domain": base, "clone_strategy": "quick", "deploy": False,
        "hosts": ["kvm09", "kvm01"], "placement": "first",
    }  # fmt: skip
    meant = {**keys, "hosts": "kvm* and not kvm09", "placement": {"apart": "x"}, "tags": ["x"]}
    salt.write_cloud("profiles", "many.conf", {"many": keys, "meant": meant})
    return base


@pytest.fixture
def opts(salt: SaltWorld) -> dict[str, Any]:
    return dict(master_config(str(salt.conf / "master")))


@pytest.fixture
def typist(salt: SaltWorld, tmp_path: Path) -> Typist:
    return typist_of(salt, tmp_path)


def test_a_range_is_placed_shown_and_destroyed(salt: SaltWorld, lab: Lab, base: str) -> None:
    names = f"p[01-02]-{lab.name}"
    planned = salt.run("kvmclone.plan", "many", f"p01-{lab.name}")
    plan = planned.data["plans"][f"p01-{lab.name}"]
    assert (planned.retcode, plan["host"]) == (0, "kvm01")
    assert plan["hosts"]["kvm01"]["chosen"] is True
    assert "no accepted key" in plan["hosts"]["kvm09"]["reason"]

    before = salt.run("kvmclone.hosts", "many").data["hosts"]
    made = salt.run("kvmclone.create", "many", names)
    assert made.retcode == 0, made
    clones = made.data["clones"]
    assert {name: (one["host"], one["stage"]) for name, one in clones.items()} == {
        f"p0{number}-{lab.name}": ("kvm01", "addressed") for number in (1, 2)
    }
    assert error_of(salt.run("kvmclone.create", "many", f"p01-{lab.name}"))["type"] == (
        "AlreadyExists"
    )

    after = salt.run("kvmclone.hosts", "many").data["hosts"]
    assert after["kvm01"]["chosen"] is True and after["kvm01"]["maintenance"] is False
    promised = [one["kvm01"]["promised"] for one in (before, after)]
    assert promised[1]["cpus"] == promised[0]["cpus"] + 2
    assert promised[1]["memory"] > promised[0]["memory"]
    assert (after["kvm09"]["reachable"], after["kvm09"]["chosen"]) == (False, False)

    gone = salt.run("kvmclone.destroy", "profile=many")
    assert {one["stage"] for one in gone.data["clones"].values()} == {"destroying"}
    assert set(gone.data["clones"]) == set(clones)
    assert list(gone.data["unreachable"]) == ["kvm09"]
    salt_none = salt.run("kvmclone.hosts", "many").data["hosts"]["kvm01"]["promised"]
    assert salt_none == promised[0]


def test_an_expression_is_followed_and_the_clone_is_found_again(
    salt: SaltWorld, lab: Lab, base: str
) -> None:
    name = f"meant-{lab.name}"
    made = salt.run("kvmclone.create", "meant", name, "reset_identity=False")
    assert made.retcode == 0, made
    assert made.data["clones"][name]["host"] == "kvm01"
    assert salt.run("kvmclone.stop", name).data["clones"][name]["state"] == "shutoff"
    gone = salt.run("kvmclone.destroy", name)
    assert gone.data["clones"][name]["stage"] == "destroying"


@tries("placement.require_host")
def test_no_host_fits_and_each_says_why(
    salt: SaltWorld, lab: Lab, base: str, typist: Typist
) -> None:
    name = f"full-{lab.name}"
    with master_keys(salt, hosts={"kvm01": {"maintenance": True}}):
        error = error_of(salt.run("kvmclone.create", "many", name))
        assert error["type"] == "NoHostFits"
        assert "kvm01: in maintenance" in error["message"]
        assert salt.run("kvmclone.hosts").data["hosts"]["kvm01"]["maintenance"] is True
    with master_keys(salt, hosts={"*": {"reserve": {"memory": "900GiB"}}}):
        error = error_of(salt.run("kvmclone.create", "many", name))
        assert error["type"] == "NoHostFits" and "memory" in error["message"]
        assert "kvm09" in typist(error["hint"], exits=1)
    with master_keys(salt, hosts={"kvm01": {"cpu_ratio": "x"}}):
        assert "cpu_ratio" in error_of(salt.run("kvmclone.create", "many", name))["message"]
        assert salt.run("kvmclone.profiles").retcode == 1


@tries("local_placement.admitted")
def test_the_host_itself_refuses_what_it_has_no_room_for(
    lab: Lab, base: str, opts: dict[str, Any], typist: Typist
) -> None:
    tight = Placed(HostLimits(memory_ratio=1e-9))
    request = Request(f"tight-{lab.name}", base, host="kvm01", url=URL, placed=tight)
    host: Any = RemoteHost(opts, "kvm01", URL)
    outcome = provision.create(host, request, start=False)
    assert isinstance(outcome.error, HostFull)
    assert json.loads(typist(outcome.error.hint, exits=1))["hosts"]["kvm01"]["reachable"]


@tries("reservations.in_progress")
def test_a_name_that_another_create_has_reserved(
    salt: SaltWorld, lab: Lab, base: str, opts: dict[str, Any], typist: Typist,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    name, store = f"taken-{lab.name}", Reservations(opts)
    killed = replace(processes.this_process(), started=1)
    monkeypatch.setattr(reservations, "_user", lambda: killed)
    store.reserve(name, "many", URL, lambda *_: Reserved(name, "kvm05", Need()))
    error = error_of(salt.run("kvmclone.create", "many", name))
    assert error["type"] == "CreateInProgress" and "on 'kvm05'" in error["message"]
    # It stays, since 'kvm09' cannot be asked whether it has begun.
    assert "ends by itself" in typist(error["hint"], exits=1)
    assert store.left(name, True)


@tries("targets.minions")
def test_an_expression_that_means_nobody(opts: dict[str, Any], typist: Typist) -> None:
    with pytest.raises(ConfigError) as refused:
        targets.minions(opts, "xen*")
    assert "kvm01" in typist(refused.value.hint, "salt-key")


def test_a_host_that_is_down_stops_nobody(
    salt: SaltWorld, lab: Lab, base: str, opts: dict[str, Any]
) -> None:
    """The last one: from here on ``kvm09`` has a key, and is asked in vain."""
    MinionKeys(opts).accept("kvm09", generate(2048).public)
    name = f"down-{lab.name}"
    # Without that the name could be on 'kvm09' already: no key keeps it, since it has no minion.
    with master_keys(salt, hosts={"kvm09": {"maintenance": True}}):
        made = salt.run("kvmclone.create", "many", name)
    assert made.retcode == 0, made
    assert made.data["clones"][name]["host"] == "kvm01"
    host: Any = RemoteHost(opts, "kvm01", URL)
    host.destroy(name)
