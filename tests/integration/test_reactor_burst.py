"""Many at once, and a master that dies in the middle: the limits hold, and nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.common import wait_until
from lab.ear import Ear
from lab.lab import Lab
from lab.salt import SaltWorld
from tests.support.reactor_world import (
    MASTER,
    RULE,
    ask,
    asked,
    ending,
    fire,
    idle,
    plant,
    reactor_world,
    told,
)

pytestmark = pytest.mark.guest

LIMITS = {**RULE, "at_once": 3, "per_hour": 3}
POLICY = {"allow": [LIMITS], "queue": 20, "workers": 2, "patience": "45s"}


@pytest.fixture
def world(lab: Lab, request: pytest.FixtureRequest) -> Iterator[SaltWorld]:
    word = request.node.name[:12]
    base = lab.tiny_base(f"base-{word}-{lab.name}")
    keys = {"base_domain": base, "clone_strategy": "quick"}
    with reactor_world(lab, word, POLICY, "ci01", **keys) as made:
        yield made
        names = [name for name in made.run("kvmclone.list").data["clones"] if "ci01-" in name]
        if names:
            made.run("kvmclone.destroy", *names)


def workers(world: SaltWorld) -> list[int]:
    """Processes that work off the requests of this master."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes()  # Salt puts a title over it
            except OSError:
                continue
            if b"kvmclone.work_off" in words and str(world.conf).encode() in words:
                found.append(int(folder.name))
    return found


def reconfigure(world: SaltWorld, **sections: Any) -> None:
    """Write something else into the master's configuration; it is not restarted."""
    path = world.conf / "master"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **sections}))


def test_a_burst_of_fifty_keeps_within_the_limits_and_starves_nobody(world: SaltWorld) -> None:
    for number in range(50):
        token = f"{number:032x}"
        fields = {"name": f"ci01-{number}", "profile": "tiny", "keys": {}, "bell": "request"}
        plant(world, "ci01", {"token": token, "at": time.time() + number, **fields})
    bell = {"id": "ci01", "data": {}}
    with Ear(world) as ear:
        fire(world, "kvm_clone/request", *[bell] * 50)
        # Machines are being made now; the reactor has two threads, and both are free.
        ear.wait_for("salt/kvm_clone/queued")
        for number in range(10):
            fire(world, "test/ping", {"number": number})
            wait_until(
                lambda n=number: [  # type: ignore[misc]
                    1
                    for _tag, data in list(ear.events)
                    if data.get("fun") == "runner.test.arg"
                    and {"number": n} in data.get("fun_args", [])
                    and "return" in data
                ],
                "a reaction",
                60,
            )
            assert len(workers(world)) <= 1
        assert asked(world)["working"], "all of these came while the work went on"
        requests = idle(world, 180)
    assert len(requests) == 50
    assert Counter(one["state"] for one in requests) == {"made": 3, "refused": 47}
    assert len({one["name"] for one in requests if one["state"] == "made"}) == 3
    reasons = Counter(one["reason"].split(";")[0][:26] for one in requests if one["reason"])
    assert reasons["At most 20 requests of one"] >= 25, reasons
    assert reasons["It waited longer than 45s "] >= 15, reasons
    late = next(one["reason"] for one in requests if one["reason"].startswith("It waited"))
    assert late.endswith(": at most 3 machines of its rule may exist at once."), late


def test_master_and_worker_are_killed_in_the_middle_one_clone_is_made_and_no_limit_forgotten(
    world: SaltWorld,
) -> None:
    with Ear(world) as ear:
        token = ask(world, "ci01", "ci01-cut")
        ear.wait_for("salt/kvm_clone/ci01-cut/cloned")
    (worker,) = workers(world)
    os.kill(worker, signal.SIGKILL)
    world.stop(world.master)
    wait_until(lambda: not workers(world), "the worker's end", 10)
    left = asked_offline(world)
    assert left == ["making"]

    # Nobody rings again: the schedule of reactor/README.md goes on, here sooner.
    (job,) = MASTER["schedule"].values()
    schedule = {"kvm_clone": {"function": job["function"], "seconds": 5}}
    reconfigure(world, schedule=schedule)
    world.start_master()
    assert ending(world, "ci01", token)["verdict"] == "made"
    (entry,) = asked(world)["requests"]
    shown = world.run("kvmclone.show", "ci01-cut").data["clones"]["ci01-cut"]
    assert (entry["state"], entry["uuid"]) == ("made", shown["uuid"])
    assert shown["stage"] == "addressed"
    # Others may work on this machine as well, and leave something.
    left_over = world.run("kvmclone.gc").data["leftovers"]
    assert not [one for one in left_over if one["name"] == "ci01-cut"]

    # Three an hour: the first of them began before the restart.
    more = [ask(world, "ci01", f"ci01-{number}") for number in range(2)]
    for one in more:
        assert ending(world, "ci01", one)["verdict"] == "made"
    released = world.salt("ci01", "kvm_clone.release", "ci01-0").data["ci01"]
    assert told(world, "ci01", released)["verdict"] == "gone"
    fourth = ask(world, "ci01", "ci01-fourth")
    assert told(world, "ci01", fourth)["verdict"] == "queued"
    time.sleep(3)  # several looks of the worker; on a slow machine fewer, which harms nothing
    assert told(world, "ci01", fourth)["verdict"] == "queued"

    # Whoever makes a rule stricter means what still waits, too; the worker reads it by itself.
    reconfigure(world, kvm_clone={"reactor": {**POLICY, "allow": [{**LIMITS, "names": "x-*"}]}})
    end = ending(world, "ci01", fourth)
    assert end["verdict"] == "refused"
    assert "may not call a machine" in end["reason"]


def asked_offline(world: SaltWorld) -> list[str]:
    """The states of all requests, while no master runs."""
    return [one["state"] for one in world.run("kvmclone.asked").data["requests"]]
