"""From one command to test.version, with real Debian guests."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from lab.common import PASSWORD, run
from lab.ear import Ear
from lab.lab import connection
from lab.salt import SaltWorld
from tests.e2e.conftest import Machines

pytestmark = pytest.mark.guest

STAGES = ["cloned", "booted", "addressed", "enrolled", "ready"]


def uuid_of(name: str) -> str:
    with connection() as libvirtd:
        return str(libvirtd.lookupByName(name).UUIDString())


def test_the_documented_profile_makes_a_minion_and_destroy_leaves_nothing(
    salt_world: SaltWorld, machines: Machines, ear: Ear
) -> None:
    before = machines.left()
    made = salt_world.run("kvmclone.create", "centos7", "e2e-web1")
    assert made.retcode == 0, made.stdout
    clone = made.data["clones"]["e2e-web1"]
    assert clone["stage"] == "ready"
    assert clone["minion"]["verified_by"] == "uuid"
    assert clone["uuid"] == uuid_of("e2e-web1")
    assert list(clone["timings"]) == STAGES

    assert salt_world.salt("e2e-web1", "test.version").data == {
        "e2e-web1": clone["minion"]["version"]
    }
    assert salt_world.salt("e2e-web1", "grains.get", "clones-are-awesome").data == {
        "e2e-web1": True
    }
    told = salt_world.salt("e2e-web1", "network.ip_addrs").data["e2e-web1"]
    assert told == [clone["address"]]
    assert salt_world.salt("e2e-web1", "file.directory_exists", "/tmp/.saltcloud").data == {
        "e2e-web1": False
    }
    listed = salt_world.run("kvmclone.list")
    assert listed.data["clones"]["e2e-web1"]["stage"] == "ready"

    again = salt_world.run("kvmclone.create", "centos7", "e2e-web1")
    assert again.retcode == 1
    error = again.data["clones"]["e2e-web1"]["error"]
    assert error["type"] == "AlreadyExists"
    assert error["clone"]["uuid"] == clone["uuid"]

    gone = salt_world.run("kvmclone.destroy", "e2e-web1")
    assert gone.retcode == 0, gone.stdout
    assert machines.left() == before

    ear.wait_for("salt/kvm_clone/e2e-web1/destroyed")  # the bus is not in a hurry
    assert ear.tags("salt/kvm_clone/e2e-web1/") == [
        f"salt/kvm_clone/e2e-web1/{stage}" for stage in [*STAGES, "failed", "destroyed"]
    ]
    data = dict(ear.events)["salt/kvm_clone/e2e-web1/ready"]
    assert {"name", "host", "profile", "stage", "elapsed"} <= set(data)


def identities(world: SaltWorld, name: str) -> list[str]:
    """What makes a guest one machine, as its minion tells it; the host name comes last."""
    commands = ["cat /etc/machine-id", "cat /etc/ssh/ssh_host_ed25519_key.pub", "hostname"]
    return [world.salt(name, "cmd.run", command).data[name] for command in commands]


def test_two_clones_made_by_one_command_are_two_machines(
    salt_world: SaltWorld, machines: Machines
) -> None:
    before = machines.left()
    names = ["e2e-one", "e2e-two"]
    made = salt_world.run("kvmclone.create", "agent", *names)
    try:
        assert made.retcode == 0, made.stdout
        clones = [made.data["clones"][name] for name in names]
        assert [clone["minion"]["verified_by"] for clone in clones] == ["uuid", "uuid"]
        assert len({clone["address"] for clone in clones}) == 2
        one, two = (identities(salt_world, name) for name in names)
        assert not set(one) & set(two)
        assert [one[-1], two[-1]] == names
    finally:
        gone = salt_world.run("kvmclone.destroy", *names)
    assert gone.retcode == 0
    assert machines.left() == before


#: Processes of this group reach nobody but this machine itself.
CUT_OFF = 47110

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 22), timeout=5)"


@pytest.fixture
def cut_off() -> Iterator[list[str]]:
    """What stands before a command that shall not reach any guest, as behind another host's NAT."""
    table = "kvmclone-cut-off"
    rule = f"oifname != lo meta skgid {CUT_OFF} ct state new reject"
    hook = "{ type filter hook output priority 0; policy accept; }"
    run(["nft", "add", "table", "inet", table])
    try:
        run(["nft", "add", "chain", "inet", table, "out", hook])
        run(["nft", "add", "rule", "inet", table, "out", *rule.split()])
        yield ["setpriv", "--regid", str(CUT_OFF), "--clear-groups"]
    finally:
        run(["nft", "delete", "table", "inet", table])


@pytest.mark.long
def test_clones_of_a_base_without_an_agent_become_machines_of_their_own_over_ssh(
    salt_world: SaltWorld, machines: Machines, cut_off: list[str]
) -> None:
    """The second for a master that cannot reach it: the host that made it goes in."""
    before = machines.left()
    names = ["e2e-first", "e2e-second"]
    first = salt_world.run("kvmclone.create", "sudo", names[0])
    command = salt_world.command("salt-run", "--out=json", "-l", "error", "kvmclone.create")
    made = [first, salt_world.execute([*cut_off, *command, "sudo", names[1]])]
    try:
        assert [answer.retcode for answer in made] == [0, 0], made
        clones = [a.data["clones"][name] for a, name in zip(made, names, strict=True)]
        assert len({clone["address"] for clone in clones}) == 2
        reach = [sys.executable, "-c", CONNECT, clones[1]["address"]]
        assert salt_world.execute(reach).retcode == 0
        assert salt_world.execute([*cut_off, *reach]).retcode != 0, "it is cut off indeed"
        assert any("first contact" in warning for warning in clones[0]["warnings"])
        first, second = (identities(salt_world, name) for name in names)
        assert not set(first) & set(second)
        assert [first[-1], second[-1]] == names
    finally:
        gone = salt_world.run("kvmclone.destroy", *names)
    assert gone.retcode == 0
    assert machines.left() == before


def test_salt_cloud_says_that_a_bootstrap_failed_and_leaves_nothing(
    salt_world: SaltWorld, machines: Machines
) -> None:
    before = machines.left()
    made = salt_world.cloud("-p", "fails", "e2e-fails")
    assert made.retcode == 1
    assert "DeployFailed" in made.stderr
    assert "no minion today" in made.stderr
    assert machines.left() == before


def test_a_wrong_password_is_one_clear_error_and_leaves_nothing(
    salt_world: SaltWorld, machines: Machines
) -> None:
    before = machines.left()
    made = salt_world.run("kvmclone.create", "wrong", "e2e-wrong")
    assert made.retcode == 1
    failed = made.data["clones"]["e2e-wrong"]
    assert failed["error"]["type"] == "LoginFailed"
    assert failed["error"]["hint"]
    assert failed["stage"] == "addressed"
    assert "not-the-password" not in made.stdout + made.stderr
    assert machines.left() == before


def test_a_key_of_somebody_else_stops_the_create_before_anything_is_made(
    salt_world: SaltWorld, machines: Machines
) -> None:
    foreign = salt_world.folder / "pki/master/minions/e2e-taken"
    foreign.write_text((salt_world.folder / "pki/master/minions/kvm01").read_text())
    try:
        before = machines.left()
        made = salt_world.run("kvmclone.create", "agent", "e2e-taken")
        assert made.retcode == 1
        assert made.data["clones"]["e2e-taken"]["error"]["type"] == "KeyConflict"
        assert machines.left() == before
    finally:
        foreign.unlink()


def test_salt_cloud_makes_and_destroys_the_same_machine(
    salt_world: SaltWorld, machines: Machines
) -> None:
    before = machines.left()
    made = salt_world.cloud("-p", "cloud", "e2e-cloud")
    assert made.retcode == 0, made.stdout + made.stderr
    assert "PRIVATE KEY" not in made.stdout
    assert PASSWORD not in made.stdout
    answer = salt_world.salt("e2e-cloud", "grains.get", "uuid").data
    assert answer == {"e2e-cloud": uuid_of("e2e-cloud")}
    asked = salt_world.cloud("-Q").data
    assert asked["direct-kvm"]["libvirt"]["e2e-cloud"]["state"] == "running"
    gone = salt_world.cloud("-y", "-d", "e2e-cloud")
    assert gone.retcode == 0, gone.stdout + gone.stderr
    assert machines.left() == before
