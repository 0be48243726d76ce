"""What the end-to-end tests share: a lab, a Salt world, an ear on the master's bus, a fleet."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.common import PASSWORD, wait_until
from lab.demo import DEPLOY_SCRIPT
from lab.ear import Ear
from lab.fleet import Fleet
from lab.lab import Lab, connection
from lab.salt import SaltWorld

BASE = "e2e-base"
BARE = "e2e-bare"


class Machines:
    """Everything of the lab that a create could leave behind."""

    def __init__(self, lab: Lab, salt: SaltWorld) -> None:
        self.lab = lab
        self.salt = salt

    def left(self) -> dict[str, set[str]]:
        """Domains of the lab, files of its pool, and the keys that the master holds."""
        with connection() as libvirtd:
            domains = {domain.name() for domain in libvirtd.listAllDomains()}
        keys = self.salt.folder / "pki/master"
        return {
            "domains": {name for name in domains if name.startswith("e2e-")},
            "files": {path.name for path in Path(self.lab.pool_path).iterdir()},
            "keys": {path.name for path in keys.glob("minions*/*")},
        }


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A libvirtd with two Debian bases: one with a guest agent, one without."""
    with Lab() as made:
        made.debian_base(BASE)
        made.debian_base(BARE, agent=False)
        yield made


@pytest.fixture(scope="session")
def salt_world(lab: Lab) -> Iterator[SaltWorld]:
    """A master and ``kvm01``, with the profiles that the tests name."""
    with SaltWorld(lab.folder / "salt", address=lab.gateway, owner=lab.name) as world:
        world.write_cloud(
            "providers",
            "kvm.conf",
            {
                "local-kvm": {"driver": "libvirt", "url": "qemu:///system", "host": "kvm01"},
                "direct-kvm": {"driver": "libvirt", "url": "qemu:///system"},
            },
        )
        minion = {"master": world.address, "master_port": world.ret_port}
        common = {"provider": "local-kvm", "clone_strategy": "quick", "minion": minion}
        documented = f"""\
centos7:
  provider: local-kvm             # required
  base_domain: {BASE}    # required: the domain to clone
  ip_source: ip-learning
  ssh_username: root
  password: {PASSWORD}
  clone_strategy: quick
  deploy_command: sh /tmp/.saltcloud/deploy.sh
  script_args: -F
  grains: {{clones-are-awesome: true}}
  minion: {{master: {world.address}, master_port: {world.ret_port}}}
  script: place-and-start
  bootstrap: ssh
"""
        world.write_cloud("profiles", "documented.conf", documented)
        world.write_cloud("deploy", "place-and-start.sh", DEPLOY_SCRIPT)
        world.write_cloud("deploy", "fails.sh", "echo no minion today; exit 3\n")
        world.write_cloud(
            "profiles",
            "others.conf",
            {
                "cloud": {
                    **common,
                    "provider": "direct-kvm",
                    "base_domain": BASE,
                    "password": PASSWORD,
                },
                "agent": {**common, "provider": "direct-kvm", "base_domain": BASE},
                "fork": {
                    **common,
                    "provider": "direct-kvm",
                    "base_domain": BASE,
                    "clone_strategy": "instant",
                },
                "fails": {
                    **common,
                    "provider": "direct-kvm",
                    "base_domain": BASE,
                    "script": "fails",
                },
                "sudo": {
                    **common,
                    "base_domain": BARE,
                    "ssh_username": "lab",
                    "password": PASSWORD,
                    "sudo_password": PASSWORD,
                },
                "wrong": {
                    **common,
                    "base_domain": BARE,
                    "ssh_username": "root",
                    "password": "not-the-password",
                },
            },
        )
        world.add_minion("kvm01")
        yield world


def in_guest(lab: Lab, name: str, command: str) -> str:
    """What a command prints in the guest, by way of its agent."""
    began = lab.agent(
        name, "guest-exec", path="/bin/sh", arg=["-c", command], **{"capture-output": True}
    )
    if not began:
        return ""

    def ended() -> dict[str, Any] | None:
        status = lab.agent(name, "guest-exec-status", pid=began["pid"])
        return status if status and status["exited"] else None

    return base64.b64decode(wait_until(ended, command, 120).get("out-data", "")).decode()


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """Three hosts of their own, each with a libvirtd and a minion, and their master."""
    with Fleet(3) as made:
        yield made


@pytest.fixture
def machines(lab: Lab, salt_world: SaltWorld) -> Machines:
    return Machines(lab, salt_world)


@pytest.fixture
def ear(salt_world: SaltWorld) -> Iterator[Ear]:
    listening = Ear(salt_world)
    with listening:
        yield listening
