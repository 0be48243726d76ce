"""What a KVM host tells by itself: through its mine, its beacon and its schedule."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest

from lab.common import wait_until
from lab.ear import Ear
from lab.lab import Lab
from lab.salt import SaltWorld
from tests.support.reactor_world import HOST, MINE, README, reactor_world

pytestmark = pytest.mark.guest


def hurried(host: dict[str, Any]) -> dict[str, Any]:
    """What reactor/README.md says for a KVM host, at the pace of a test."""
    (job,) = host["schedule"].values()
    assert job.pop("minutes") == 5
    job["seconds"] = 5
    host["beacons"]["kvm_clone"] = [{"interval": 2}]
    return host


@pytest.fixture(scope="module")
def world(lab: Lab) -> Iterator[SaltWorld]:
    base = lab.tiny_base(f"base-host-{lab.name}")
    host = {**hurried(copy.deepcopy(HOST)), **MINE}
    keys = {"base_domain": base, "clone_strategy": "quick"}
    with reactor_world(lab, "host", {"expire": True}, "balancer", host=host, **keys) as made:
        yield made


@pytest.fixture(scope="module")
def clone(world: SaltWorld, lab: Lab) -> Iterator[str]:
    name = f"pool-{lab.name}"
    made = world.run("kvmclone.create", "tiny", name, "tags=[web]", "ttl=1h")
    assert made.retcode == 0, made
    yield name
    world.run("kvmclone.destroy", name)


def test_the_mine_has_what_a_load_balancer_and_a_placement_need(
    world: SaltWorld, clone: str, lab: Lab
) -> None:
    assert world.salt("kvm01", "mine.update").retcode == 0
    pool = world.salt("balancer", "mine.get", "kvm01", "web_pool").data["balancer"]
    assert pool["kvm01"][clone] == lab.lease(clone)
    told = world.salt("balancer", "mine.get", "kvm01", "kvm_clone.published").data["balancer"]
    host = told["kvm01"]
    assert host["host"] == "kvm01"
    assert 0 < host["memory"]["free"] < host["memory"]["total"]
    assert host["pools"][lab.pool]["available"] > 0
    assert host["clones"][clone]["address"] == lab.lease(clone)
    assert host["clones"][clone]["tags"] == ["web"]


def test_the_template_of_the_readme_makes_a_load_balancers_pool(
    world: SaltWorld, clone: str, lab: Lab
) -> None:
    (template,) = re.findall(r"```jinja\n(.*?)```", README.read_text(), re.S)
    path = world.folder / "haproxy.jinja"
    path.write_text(template)
    assert world.salt("kvm01", "mine.update").retcode == 0
    words = [f"path={path}", "default_renderer=jinja"]
    made = world.salt("balancer", "slsutil.renderer", *words).data["balancer"]
    assert made.strip() == f"server {clone} {lab.lease(clone)}:80 check"


def test_the_beacon_rings_when_a_clone_stops_and_when_its_base_changes(
    world: SaltWorld, clone: str, lab: Lab
) -> None:
    cache = world.folder / "state/kvm01/cache/kvm_clone"

    def looked() -> bool:
        return any(clone in seen.read_text() for seen in cache.glob("seen-*.json"))

    wait_until(looked, "the beacon's first look", 60)
    with Ear(world) as ear:
        lab.stop(clone)

        def about(what: str) -> bool:
            for tag in ("kvm_clone/changed", "salt/beacon/kvm01/kvm_clone/changed"):
                ear.wait_for(
                    tag,
                    lambda data: (
                        [
                            one
                            for one in (data.get("data") or data).get("clones", [])
                            if (one["name"], one["what"]) == (clone, what)
                        ]
                        != []
                    ),
                )
            return True

        assert about("stopped")
        base = lab.pool_path / f"base-host-{lab.name}-0.qcow2"
        base.touch()
        assert about("base")
        # The minion's process goes on with its work.
        assert world.salt("kvm01", "kvm_clone.show", clone).data["kvm01"]["drift"] is True


def test_a_clone_with_a_ttl_is_gone_when_its_time_has_passed_and_nobody_did_anything(
    world: SaltWorld, clone: str, lab: Lab
) -> None:
    name = f"brief-{lab.name}"
    made = world.run("kvmclone.create", "tiny", name, "ttl=20")
    assert made.retcode == 0, made
    there = lambda: set(world.run("kvmclone.list").data["clones"])  # noqa: E731
    wait_until(lambda: name not in there(), "the end of its time", 120)
    assert clone in there(), "its hour has not passed"
