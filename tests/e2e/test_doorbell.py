"""From an event of a minion to test.version of the machine that it asked for, and back."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Iterator

import pytest

from lab.common import CHECKOUT
from lab.ear import Ear
from lab.lab import Lab
from lab.salt import SaltWorld
from tests.e2e.conftest import BASE, Machines
from tests.support import installs
from tests.support.reactor_world import ask, ending, idle, master_config

pytestmark = [pytest.mark.guest, pytest.mark.long]

POLICY = {
    "allow": [
        {
            "minions": ["e2e-ci*"],
            "profiles": ["runner"],
            "names": "{minion}-*",
            "at_once": 2,
            "per_hour": 10,
            "overrides": {"ttl": "2h"},
        }
    ],
    "finish": True,
    "clean_keys": True,
}

TOP = "base:\n  'e2e-ci-*':\n    - finished\n"
FINISHED = "/root/finished:\n  file.managed:\n    - contents: by the reactor\n"


@pytest.fixture(scope="module")
def world(lab: Lab) -> Iterator[SaltWorld]:
    with SaltWorld(
        lab.folder / "salt-reactor",
        address=lab.gateway,
        owner=f"{lab.name}:reactor",
        master=master_config(POLICY),
    ) as made:
        files = made.folder / "srv/salt"
        # The new machine gets our modules by sync; it has neither libvirt nor lxml.
        installs.export(files, (*installs.DOORS, "_utils"))
        shutil.copytree(CHECKOUT / "reactor", files / "reactor")
        (files / "top.sls").write_text(TOP)
        (files / "finished.sls").write_text(FINISHED)
        provider = {"driver": "libvirt", "url": "qemu:///system", "host": "kvm01"}
        made.write_cloud("providers", "kvm.conf", {"kvm": provider})
        profile = {
            "provider": "kvm",
            "base_domain": BASE,
            "clone_strategy": "quick",
            "minion": {"master": made.address, "master_port": made.ret_port},
        }
        made.write_cloud("profiles", "runner.conf", {"runner": profile})
        made.add_minion("kvm01")
        made.add_minion("e2e-ci")
        yield made


def test_a_minion_rings_and_its_machine_answers_test_version_is_finished_and_gives_itself_back(
    world: SaltWorld, lab: Lab
) -> None:
    machines = Machines(lab, world)
    before = machines.left()
    name = "e2e-ci-build7"
    with Ear(world) as ear:
        token = ask(world, "e2e-ci", name, "ttl=1h", profile="runner")
        end = ending(world, "e2e-ci", token, timeout=300)
        assert end["verdict"] == "made", end

        version = world.salt(name, "test.version").data
        clone = world.run("kvmclone.show", name).data["clones"][name]
        assert version == {name: clone["minion"]["version"]}
        assert (clone["stage"], clone["uuid"]) == ("ready", end["uuid"])

        said = ear.wait_for(f"salt/kvm_clone/{name}/highstate", timeout=120)
        # Its job is heard and not asked for: a guest under emulation has enough to do with it.
        done = ear.wait_for(f"salt/job/{said['jid']}/ret/{name}", timeout=400)
        assert done["retcode"] == 0, done
        there = world.salt(name, "file.file_exists", "/root/finished", timeout=120)
        assert there.data == {name: True}

        # A clone from before it was turned on is one that the store does not know; its minion
        # starts again.
        path = next(world.folder.rglob("reactor/requests.db"))
        with contextlib.closing(sqlite3.connect(path, 60)) as store, store:
            known = store.execute("DELETE FROM highstates WHERE uuid = ?", (clone["uuid"],))
            assert known.rowcount == 1
        again = world.salt(name, "event.send", f"salt/minion/{name}/start", timeout=120)
        assert again.retcode == 0, again
        time.sleep(3)
        idle(world)
        told = [tag for tag, _data in ear.events if tag == f"salt/kvm_clone/{name}/highstate"]
        assert len(told) == 1

        # Its highstate has brought it our modules.
        lacks = world.salt(name, "kvm_clone.list_clones", timeout=120)
        assert "salt-pip install" in lacks.data[name]
        rung = world.salt(name, "kvm_clone.release", name, timeout=120)
        assert rung.retcode == 0, rung
        ear.wait_for(f"salt/kvm_clone/{name}/destroyed", timeout=120)
    idle(world)
    assert machines.left() == before
