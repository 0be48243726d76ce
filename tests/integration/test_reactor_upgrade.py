"""An upgrade while the reactor's worker is at work: the next worker goes on with all of it."""

from __future__ import annotations

import re

import pytest

from lab.common import wait_until
from lab.ear import Ear
from lab.lab import Lab
from lab.salt import SaltWorld
from tests.support import installs
from tests.support.reactor_world import RULE, ask, asked, ending, reactor_world

POLICY = {"allow": [RULE], "workers": 1}


@pytest.mark.guest
def test_a_worker_of_the_library_before_an_upgrade_leaves_its_requests_to_the_next(
    lab: Lab,
) -> None:
    base = lab.tiny_base(f"base-upgrade-{lab.name}")
    keys = {"base_domain": base, "clone_strategy": "quick"}
    modules = installs.export(lab.folder / "upgraded")
    with (
        reactor_world(lab, "upgrade", POLICY, "ci01", modules=modules, **keys) as world,
        Ear(world) as ear,
    ):
        begun, waits = (ask(world, "ci01", f"ci01-{number}") for number in range(2))
        ear.wait_for("salt/kvm_clone/ci01-0/cloned")
        # What travels is of another version from now on, at both ends.
        operations = modules / "_utils/saltext/kvmclone/hosts/operations.py"
        text, number = re.subn(
            r"^VERSION = \d+$", "VERSION = 99", operations.read_text(), flags=re.MULTILINE
        )
        assert number == 1
        operations.write_text(text)
        cut_short = ear.wait_for("salt/kvm_clone/ci01-0/failed")
        assert cut_short["error"] == "HostUnreachable", "it is of another version"
        assert states(world) == {"ci01-0": "making", "ci01-1": "queued"}
        for token in (begun, waits):
            assert ending(world, "ci01", token)["verdict"] == "made"
        assert not ear.heard("salt/kvm_clone/failed")
        wait_until(lambda: not asked(world)["working"], "the worker's end", 60)
        world.run("kvmclone.destroy", "ci01-0", "ci01-1")


def states(world: SaltWorld) -> dict[str, str]:
    return {one["name"]: one["state"] for one in asked(world)["requests"]}
