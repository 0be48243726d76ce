"""Over a real master and host: a slip stops only what uses it, and one daemon is shown once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lab.lab import Lab
from lab.salt import SaltWorld

pytestmark = pytest.mark.guest

SLIPS = {
    "profiles": "wrong: {provider: kvm, base_domain: x, cpu: 2, memry: 1}\nlost: {cpus: two}\n",
    "providers": "kvm-b:\n  driver: libvirt\n  host: kvm99\n  pol: fast\n",
}


@pytest.fixture(scope="module")
def clone(lab: Lab, salt: SaltWorld) -> Iterator[str]:
    """A clone that runs, made through the host's minion."""
    base, name = lab.tiny_base(f"base-slip-{lab.name}"), f"slip-{lab.name}"
    keys = [f"base_domain={base}", "clone_strategy=quick"]
    made = salt.run("kvmclone.create", "tiny", name, *keys)
    assert made.retcode == 0, made
    yield name
    salt.run("kvmclone.destroy", name)


@pytest.fixture
def slips(salt: SaltWorld) -> Iterator[None]:
    """A wrong profile and a wrong provider beside the sound ones."""
    files = [salt.write_cloud(kind, "slip.conf", text) for kind, text in SLIPS.items()]
    yield
    for file in files:
        file.unlink()


def failure(told: Any, name: str) -> dict[str, Any]:
    error: dict[str, Any] = told.data["clones"][name]["error"]
    return error


@pytest.mark.usefixtures("slips")
def test_a_slip_stops_only_what_uses_it(salt: SaltWorld, clone: str) -> None:
    for verb in ("stop", "start", "show"):
        told = salt.run(f"kvmclone.{verb}", clone)
        assert told.retcode == 0, told
        assert "'wrong', 'lost'" in told.data["clones"][clone]["warnings"][-1].replace(
            "'kvm-b', ", ""
        )
    told = salt.run("kvmclone.list")
    assert clone in told.data["clones"]
    assert set(told.data["unreachable"]) == {"kvm-b"}
    plan = salt.run(
        "kvmclone.plan", "tiny", "new", f"base_domain={told.data['clones'][clone]['base']}"
    )
    assert "something is wrong there" in plan.data["plans"]["new"]["warnings"][-1]

    refused = failure(salt.run("kvmclone.create", "wrong", "new"), "new")
    assert "slip.conf:1: section 'wrong': key 'cpu'" in refused["message"]
    assert "key 'memry'" in refused["message"]
    lost = failure(salt.run("kvmclone.create", "lost", "new"), "new")["message"]
    assert all(f"section 'lost': key '{key}'" in lost for key in ("provider", "cpus"))

    shown = salt.run("kvmclone.profiles")
    assert shown.retcode == 1
    told = "\n".join(shown.data["problems"])
    for key in ("cpu", "memry", "cpus", "provider", "pol"):
        assert f"key '{key}'" in told
    found = salt.run("kvmclone.doctor").data["findings"]
    assert {item["name"] for item in found if item["kind"] == "configuration"} == {
        "wrong",
        "lost",
        "kvm-b",
    }


@pytest.mark.usefixtures("slips")
def test_while_a_provider_cannot_be_read_nobody_is_gone(salt: SaltWorld) -> None:
    key = salt.folder / "pki/master/minions/lost1"
    key.write_text("a key\n")
    for words in ("lost1",), ("lost1", "force=True"):
        told = failure(salt.run("kvmclone.destroy", *words), "lost1")
        assert told["type"] == "ConfigError"
        assert "no machine counts as gone" in told["message"]
    assert key.exists()
    key.unlink()
    gc = salt.run("kvmclone.gc", "apply=True")
    assert gc.retcode == 1
    assert not [row for row in gc.data["leftovers"] if row["removed"]]


def test_one_daemon_through_its_minion_and_from_the_master_is_shown_once(
    salt: SaltWorld, clone: str
) -> None:
    twin = {"driver": "libvirt", "url": "qemu+unix:///system"}
    file = salt.write_cloud("providers", "twin.conf", {"a-twin": twin})
    try:
        hosts = salt.run("kvmclone.hosts").data["hosts"]
        assert {label: told["also"] for label, told in hosts.items()} == {"kvm01": [twin["url"]]}
        listed = salt.run("kvmclone.list").data["clones"]
        assert listed[clone]["host"] == "kvm01"
        assert not [name for name in listed if "(" in name]
        cloud = salt.cloud("-Q").data
        assert clone in cloud["kvm"]["libvirt"]
        assert clone not in cloud.get("a-twin", {}).get("libvirt", {})
        for verb in ("show", "stop", "start"):
            told = salt.run(f"kvmclone.{verb}", clone)
            assert told.retcode == 0, told
            assert told.data["clones"][clone]["host"] == "kvm01"
        found = salt.run("kvmclone.doctor").data["findings"]
        assert [item["name"] for item in found if item["kind"] == "daemon-twice"] == ["kvm01"]
    finally:
        file.unlink()
