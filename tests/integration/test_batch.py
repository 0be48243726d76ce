"""A batch is one job per host and stage, where each clone still succeeds or fails by itself."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from lab.common import LIBVIRT_URI
from lab.ear import Ear
from lab.image import make_disk
from lab.lab import Lab
from lab.salt import SaltWorld
from saltext.kvmclone.hosts import provision
from saltext.kvmclone.hosts.local import LocalHost
from saltext.kvmclone.hosts.operations import SEVERAL
from saltext.kvmclone.hosts.remote_server import FUNCTION
from saltext.kvmclone.master import at_once
from saltext.kvmclone.model.request import Request
from tests.integration.conftest import configure
from tests.integration.test_interrupts import (
    BLANK,
    Run,
    domains,
    waits_for_its_address,
    write_profiles,
)

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def salt(lab: Lab) -> Iterator[SaltWorld]:
    """The KVM host's minion ``kvm01``, and ``kvm02``, which lacks our modules."""
    with SaltWorld(lab.folder / "salt-batch", address=lab.gateway, owner=lab.name) as world:
        configure(world)
        world.add_minion("kvm01")
        world.add_minion("kvm02", {"module_dirs": []})
        yield world


@pytest.fixture(scope="module")
def blank(lab: Lab, salt: SaltWorld) -> str:
    """A base in which nothing boots, so no address comes; profile ``far`` makes clones of it."""
    name = f"base-batch-{lab.name}"
    disk = lab.pool_path / f"{name}.qcow2"
    lab.tiny_base(f"tiny-{name}")
    make_disk(disk, "qcow2", "64M", None)
    base = lab.define(BLANK.format(name=name, kind=lab.domain_type, disk=disk, network=lab.network))
    write_profiles(salt, base)
    return base


def asked(ear: Ear) -> tuple[int, Counter[str]]:
    """Return how many jobs asked ``kvm01`` for something, and how often each operation."""
    jobs, calls = 0, Counter[str]()
    for tag, data in ear.events:
        published = tag.startswith("salt/job/") and tag.endswith("/new")
        if published and (data["fun"], data["minions"]) == (FUNCTION, ["kvm01"]):
            jobs += 1
            told = data["arg"][-1]
            several = told["operation"] == SEVERAL
            for call in told["arguments"]["calls"] if several else [told]:
                calls[call["operation"].partition("@")[0]] += 1
    return jobs, calls


def test_twenty_are_destroyed_by_few_jobs_and_what_is_wrong_with_one_stops_no_other(
    lab: Lab, salt: SaltWorld, blank: str
) -> None:
    """Beside a host without our modules, and with a name that nobody has."""
    names = [f"d{number:02}-{lab.name}" for number in range(1, 21)]
    host = LocalHost(LIBVIRT_URI, "kvm01")

    def make(name: str) -> Any:
        return provision.create(host, Request(name, blank, clone_strategy="quick"), start=False)

    assert [one.error for one in at_once.each(make, names, 4)] == [None] * 20
    other = {"driver": "libvirt", "host": "kvm02", "url": "qemu:///system"}
    without_modules = salt.write_cloud("providers", "other.conf", {"other": other})
    try:
        with Ear(salt) as ear:
            gone = salt.run("kvmclone.destroy", f"d[01-21]-{lab.name}", "yes=True")
            jobs, calls = asked(ear)
    finally:
        without_modules.unlink()
    stages = {name: one.get("stage") for name, one in gone.data["clones"].items()}
    assert {name: stages[name] for name in names} == dict.fromkeys(names, "destroying"), gone
    missing = gone.data["clones"][f"d21-{lab.name}"]["error"]
    assert "kvm02" in missing["message"]
    assert (calls["show"], calls["destroy"]) == (21, 20)
    # The first call of a stage may go before the others are there.
    assert jobs <= 10, calls
    assert not domains() & set(names)


def test_a_clone_that_gets_no_address_keeps_no_other_waiting(
    lab: Lab, salt: SaltWorld, blank: str
) -> None:
    """They share the job that waits; the one is told of while the other still goes on."""
    fast, slow = f"fast-{lab.name}", f"slow-{lab.name}"
    keys = {"clone_strategy": "quick", "reset_identity": False, "wait_for_ip_timeout": 300}
    bases = {fast: f"tiny-{blank}", slow: blank}
    mapped = {"tiny": [{name: {"base_domain": base, **keys}} for name, base in bases.items()]}
    (salt.conf / "cloud.maps.d/uneven.map").write_text(yaml.safe_dump(mapped))
    with Ear(salt) as ear:
        run = Run(salt, "kvmclone.map", "uneven", terminal=False)
        ear.wait_for(f"salt/kvm_clone/{fast}/addressed", timeout=240)
        run.press()
        code, answer, _said = run.end()
        jobs, calls = asked(ear)
    clones = answer["clones"]
    assert (code, clones[fast]["stage"]) == (130, "addressed"), answer
    assert clones[slow]["error"]["message"].endswith(f" after 'booted'. '{slow}' was removed.")
    assert calls["clone"] == calls["boot"] == calls["wait_for_address"] == 2
    assert jobs < calls.total()
    salt.run("kvmclone.destroy", fast)


def test_a_killed_runner_leaves_what_gc_removes(lab: Lab, salt: SaltWorld, blank: str) -> None:
    names = [f"killed{number}-{lab.name}" for number in range(3)]
    run = Run(salt, "kvmclone.create", "far", *names, terminal=False)
    waits_for_its_address(*names)
    run.press(signal.SIGKILL)
    run.process.wait(30)
    found = salt.run("kvmclone.gc")
    assert {row["name"] for row in found.data["leftovers"]} == set(names), found
    gone = salt.run("kvmclone.gc", "apply=True")
    assert gone.data["leftovers"], gone
    assert not domains() & set(names)
