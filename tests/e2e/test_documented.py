"""The documented provider and profile as they stand: ``salt-cloud -p centos7 my-centos7-clone``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.common import run, write
from lab.demo import DEPLOY_SCRIPT
from lab.ear import Ear
from lab.lab import Lab, connection
from lab.salt import SaltWorld
from tests.e2e.conftest import Machines
from tests.support.documented import (
    BASE,
    CLONE,
    MASTER,
    MASTER_PORT,
    PASSWORD,
    PROFILE,
    PROVIDERS,
    call_nobody,
)

pytestmark = pytest.mark.guest

#: As Salt's own driver of 3006 tells it (bench/against_salt_cloud.py runs both).
WORDS = ["creating", "requesting", "deploying", "deploy_script", "created"]


def set_password(root: Path) -> None:
    run(["chroot", root, "chpasswd"], input=f"root:{PASSWORD}\n")


@pytest.fixture(scope="module")
def documented(lab: Lab) -> Iterator[SaltWorld]:
    """A master where the profile says that it is, and the documented base, without an agent."""
    lab.debian_base(BASE, agent=False, change=set_password)
    run(["ip", "address", "add", f"{MASTER}/32", "dev", lab.bridge])
    with SaltWorld(
        lab.folder / "salt-documented",
        address=MASTER,
        owner=f"{lab.name}:documented",
        ports=(MASTER_PORT - 1, MASTER_PORT),
    ) as world:
        world.write_cloud("providers", "kvm.conf", PROVIDERS)
        world.write_cloud("profiles", "kvm.conf", PROFILE)
        # The profile names no script: salt-cloud's default is this one, which asks the internet.
        script = DEPLOY_SCRIPT.replace("set -e\n", "set -e\n# instead of bootstrap-salt\n", 1)
        world.write_cloud("deploy", "bootstrap-salt.sh", script + 'echo "$@" >/etc/salt/words\n')
        settings = "sync_after_install: grains\nstart_action: test.version\n"
        write(world.conf / "cloud", settings)
        yield world


def test_the_documented_command_makes_a_minion(
    documented: SaltWorld, lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    call_nobody(monkeypatch, tmp_path)
    world, machines = documented, Machines(lab, documented)
    before = machines.left()
    with Ear(world) as ear:
        made = world.cloud("-p", "centos7", CLONE)
        assert made.retcode == 0, made
        clone = made.data[CLONE]
        assert (clone["stage"], clone["minion"]["verified_by"]) == ("ready", "uuid")
        assert clone["deployed"] is True
        assert "deploy_kwargs" not in clone
        assert set(world.salt(CLONE, "test.version").data) == {CLONE}
        assert world.salt(CLONE, "grains.get", "clones-are-awesome").data == {CLONE: True}
        profile = world.salt(CLONE, "grains.get", "salt-cloud:profile").data
        assert profile == {CLONE: "centos7"}
        said = world.salt(CLONE, "cmd.run", "cat /etc/salt/words; ls -d /tmp/.saltcloud").data
        assert said[CLONE].splitlines()[0] == "-c /tmp/.saltcloud -F"
        assert "No such file" in said[CLONE]
        gone = world.cloud("-d", "-y", CLONE)
        assert gone.retcode == 0, gone
        words = ear.words(CLONE, "destroyed")
        events = ear.about(CLONE)
    assert words == [*WORDS, "destroying", "destroyed"]
    told = dict(events)
    assert (
        told["creating"].items()
        >= {
            "name": CLONE,
            "profile": "centos7",
            "provider": "local-kvm:libvirt",
            "driver": "libvirt",
            "event": "starting create",
        }.items()
    )
    # Over ssh the guest gets its identity on the way, and may get another address by it.
    assert told["deploying"]["kwargs"]["host"].count(".") == 3
    assert told["deploy_script"]["host"] == clone["address"]
    for secret in (PASSWORD, "PRIVATE KEY"):
        assert secret not in str(events)
        assert secret not in made.stdout + made.stderr
    assert machines.left() == before
    with connection() as conn:
        assert CLONE not in [domain.name() for domain in conn.listAllDomains()]
