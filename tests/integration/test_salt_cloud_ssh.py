"""``url: qemu+ssh://USER@HOST/system?socket=…``: a real sshd before the real libvirtd."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.common import run
from lab.lab import Lab
from tests.support.cloud_world import CloudWorld, cloud_world
from tests.support.sshd import Sshd

pytestmark = pytest.mark.guest

ALIAS = "kvm-via-ssh"
SOCKET = "/var/run/libvirt/libvirt-sock"


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``USER@HOST:PORT`` and libvirt's own words for a key and a host that it does not know."""
    folder = tmp_path_factory.mktemp("sshd")
    folder.chmod(0o755)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "login"])
    server = Sshd(folder, options={"PermitRootLogin": "yes", "UsePAM": "no"})
    server.authorize((folder / "login.pub").read_text())
    server.start()
    try:
        server.wait()
        known = f"no_verify=1&keyfile={folder / 'login'}"
        yield f"root@127.0.0.1:{server.port}/system?socket={SOCKET}&{known}"
    finally:
        server.stop()


@pytest.fixture(scope="module")
def world(lab: Lab, login: str) -> Iterator[CloudWorld]:
    assert os.path.exists(SOCKET)
    with cloud_world(lab, "sh") as made:
        made.provider(ALIAS, url=f"qemu+ssh://{login}")
        made.profile("far", provider=ALIAS, deploy=False, ip_source="ip-learning")
        yield made


@pytest.mark.parametrize("strategy", ["quick", "full"])
def test_a_machine_is_made_listed_and_destroyed_over_ssh(world: CloudWorld, strategy: str) -> None:
    before = world.left()
    world.profile(
        "far", provider=ALIAS, deploy=False, ip_source="ip-learning", clone_strategy=strategy
    )
    name = world.name(f"far-{strategy}")
    made = world.cloud("-p", "far", name)
    assert made.retcode == 0, made
    assert made.data[name]["address"]
    assert made.data[name]["strategy"] == strategy
    assert world.listed("-Q", ALIAS)[name]["state"] == "running"
    assert name not in world.listed("-Q"), "it is listed once, although two providers see it"
    assert world.cloud("-a", "stop", "-y", name).retcode == 0
    assert world.state(name) == "off"
    gone = world.cloud("-d", "-y", name)
    assert gone.retcode == 0, gone
    assert world.left() == before


def test_a_socket_that_is_not_there_is_one_clear_error(world: CloudWorld) -> None:
    path = Path(world.salt.conf / f"cloud.providers.d/{ALIAS}.conf")
    text = path.read_text()
    path.write_text(text.replace(SOCKET, "/no/such/socket"))
    try:
        told = world.cloud("-Q")
        assert ALIAS in told.stderr
        refused = world.cloud("-p", "far", world.name("never"))
        assert refused.retcode == 1
        assert "HostUnreachable" in refused.stderr
    finally:
        path.write_text(text)
