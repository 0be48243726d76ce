"""A create that stopped goes on where it stopped, and does nothing twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.common import PASSWORD, wait_until
from lab.demo import DEPLOY_SCRIPT
from lab.ear import Ear
from lab.lab import Lab, connection
from lab.salt import SaltWorld
from tests.e2e.conftest import BARE, BASE, Machines
from tests.e2e.test_keys import held
from tests.support.running import interrupted, started

pytestmark = pytest.mark.guest

UNPLUGGED = "e2e-unplugged"


@dataclass(frozen=True)
class Made:
    """What must not be made again: the machine, its disk, and the run since its boot."""

    uuid: str
    inode: int
    run: int

    @classmethod
    def of(cls, name: str) -> Made:
        with connection() as libvirtd:
            domain = libvirtd.lookupByName(name)
            disk = domain.XMLDesc().partition("<source file='")[2].partition("'")[0]
            return cls(domain.UUIDString(), Path(disk).stat().st_ino, domain.ID())


class Profiles:
    """The profiles of these tests, written one at a time and mended."""

    def __init__(self, world: SaltWorld) -> None:
        self.world = world
        self.written: list[Path] = []

    def write(self, name: str, **keys: Any) -> None:
        common = {
            "provider": "local-kvm",
            "base_domain": BASE,
            "clone_strategy": "quick",
            "minion": {"master": self.world.address, "master_port": self.world.ret_port},
        }
        path = self.world.write_cloud("profiles", f"{name}.conf", {name: {**common, **keys}})
        self.written.append(path)


@pytest.fixture
def profiles(salt_world: SaltWorld) -> Iterator[Profiles]:
    made = Profiles(salt_world)
    yield made
    for path in set(made.written):
        path.unlink()


@pytest.fixture(scope="module", autouse=True)
def unplugged(lab: Lab) -> None:
    """A base whose cable is not plugged in, and so its clones' neither."""
    lab.tiny_base(UNPLUGGED)
    with connection() as libvirtd:
        definition = libvirtd.lookupByName(UNPLUGGED).XMLDesc()
        libvirtd.defineXML(definition.replace("</interface>", "<link state='down'/></interface>"))


@pytest.fixture(autouse=True)
def nothing_left(salt_world: SaltWorld, machines: Machines) -> Iterator[None]:
    """Each test ends with a destroy of what it made, and that leaves nothing."""
    before = machines.left()
    yield
    for name in machines.left()["domains"] - before["domains"]:
        salt_world.run("kvmclone.destroy", name)
    assert machines.left() == before


def stopped(world: SaltWorld, profile: str, name: str, error: str, stage: str) -> Made:
    """A create that failed so, at that stage, and was kept."""
    answer = world.run("kvmclone.create", profile, name)
    assert answer.retcode == 1
    told = answer.data["clones"][name]
    assert (told["error"]["type"], told["stage"]) == (error, stage), told
    return kept(world, profile, name)


def kept(world: SaltWorld, profile: str, name: str) -> Made:
    """It is there, and waits for a word."""
    # The same again is no silent retry: it says what happened, and what to do.
    again = world.run("kvmclone.create", profile, name).data["clones"][name]
    assert again["error"]["type"] == "KeptAfterFailure"
    assert f"kvmclone.resume {name}" in again["error"]["hint"]
    return Made.of(name)


def resumed(world: SaltWorld, name: str) -> dict[str, Any]:
    answer = world.run("kvmclone.resume", name)
    assert answer.retcode == 0, answer.stdout + answer.stderr
    return dict(answer.data["clones"][name])


def assert_ready(world: SaltWorld, name: str, clone: dict[str, Any]) -> None:
    assert clone["stage"] == "ready"
    assert held(world, name) == {"minions": clone["minion"]["fingerprint"]}
    version = world.salt(name, "test.version").data
    assert version == {name: clone["minion"]["version"]}
    over = world.run("kvmclone.resume", name)
    assert over.retcode == 1
    assert "nothing to resume" in over.data["clones"][name]["error"]["message"]


def assert_goes_on(world: SaltWorld, name: str, wish: str, before: Made) -> None:
    """``resume`` ends ``ready`` with the same machine, and boots it only where it was off."""
    assert (before.run == -1) is (wish == "stop")
    assert_ready(world, name, resumed(world, name))
    after = Made.of(name)
    assert (after.uuid, after.inode) == (before.uuid, before.inode)
    if wish == "keep":
        assert after.run == before.run


def plug_in(name: str, *flags: str) -> None:
    """Plug in the cable of a machine that was made without."""
    with connection() as libvirtd:
        definition = libvirtd.lookupByName(name).XMLDesc()
    mac = definition.partition("<mac address='")[2].partition("'")[0]
    subprocess.run(["virsh", "-q", "domif-setlink", name, mac, "up", *flags], check=True)


@pytest.mark.parametrize("wish", ["keep", "stop"])
def test_resume_goes_on_after_a_clone_without_an_address(
    salt_world: SaltWorld, profiles: Profiles, wish: str
) -> None:
    name = f"e2e-mute-{wish}"
    profiles.write(
        "mute", base_domain=UNPLUGGED, deploy=False, on_failure=wish, wait_for_ip_timeout=6
    )
    before = stopped(salt_world, "mute", name, "AddressTimeout", "booted")
    assert (before.run == -1) is (wish == "stop")
    plug_in(name, *(["--config"] if wish == "stop" else []))  # of a running one: at once
    profiles.write(
        "mute", base_domain=UNPLUGGED, deploy=False, on_failure=wish, wait_for_ip_timeout=60
    )
    clone = resumed(salt_world, name)
    assert (clone["stage"], clone["state"]) == ("addressed", "running")
    assert clone["address"]
    after = Made.of(name)
    assert (after.uuid, after.inode) == (before.uuid, before.inode)
    if wish == "keep":
        assert after.run == before.run


def test_resume_goes_on_after_a_wrong_password_and_after_a_deploy_script_that_failed(
    salt_world: SaltWorld, profiles: Profiles
) -> None:
    name, keys = "e2e-mended", {"base_domain": BARE, "ssh_username": "root", "script": "mended"}
    salt_world.write_cloud("deploy", "mended.sh", "#!/bin/sh\necho no such package\nexit 4\n")
    profiles.write("mended", **keys, password="not-the-password", on_failure="stop")
    barred = stopped(salt_world, "mended", name, "LoginFailed", "addressed")
    assert barred.run == -1

    profiles.write("mended", **keys, password=PASSWORD, on_failure="keep")
    answer = salt_world.run("kvmclone.resume", name)
    told = answer.data["clones"][name]
    assert (answer.retcode, told["error"]["type"]) == (1, "DeployFailed"), told
    scripted = kept(salt_world, "mended", name)
    assert (scripted.uuid, scripted.inode) == (barred.uuid, barred.inode)

    salt_world.write_cloud("deploy", "mended.sh", DEPLOY_SCRIPT)
    assert_goes_on(salt_world, name, "keep", scripted)


@contextmanager
def passage(address: str, port: int, target: int) -> Iterator[None]:
    """What goes to one port of an address reaches another, as after a firewall was mended."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _peer = listener.accept()
                far = socket.create_connection((address, target))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    with socket.create_server((address, port)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def test_resume_goes_on_once_the_guest_reaches_its_master(
    salt_world: SaltWorld, profiles: Profiles, ear: Ear
) -> None:
    """Why it does not is said while it is waited for."""
    with socket.create_server((salt_world.address, 0)) as probe:
        port = probe.getsockname()[1]
    profiles.write(
        "walled", minion={"master": salt_world.address, "master_port": port}, on_failure="keep"
    )
    process = started(salt_world, "-l", "warning", "kvmclone.create", "walled", "e2e-walled")
    try:
        tag = "salt/kvm_clone/e2e-walled/enrolled"
        wait_until(lambda: tag in ear.tags(tag), "the minion to be started", 180)
        assert process.stderr is not None
        reason = next(line for line in process.stderr if "does not reach its master" in line)
        assert f"refused by port {port} (master_port)" in reason
        assert f"reached: port {salt_world.publish_port} (publish_port)" in reason
        told = interrupted(process)  # somebody loses patience
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0, told
    before = kept(salt_world, "walled", "e2e-walled")
    fingerprint = held(salt_world, "e2e-walled")["minions"]
    with passage(salt_world.address, port, salt_world.ret_port):
        assert_goes_on(salt_world, "e2e-walled", "keep", before)
    # The minion in the guest was not given another key.
    assert held(salt_world, "e2e-walled") == {"minions": fingerprint}


def killed(world: SaltWorld, ear: Ear, moment: str, *words: str) -> Made:
    """A create, or a resume, whose process is killed as soon as it has told of that stage."""
    process = started(world, *words)
    name = words[-1]
    try:
        tag = f"salt/kvm_clone/{name}/{moment}"
        wait_until(lambda: tag in ear.tags(tag), f"the stage {moment}", 180, interval=0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    # What the host was told last, it still does.
    wait_until(lambda: world.salt("kvm01", "saltutil.running").data == {"kvm01": []}, "it", 60)
    return Made.of(name)


def go_on(world: SaltWorld, door: str, profile: str, name: str) -> dict[str, Any]:
    """Complete it: by the same create once more, or by ``resume``."""
    words = ("create", profile, name) if door == "create" else ("resume", name)
    answer = world.run(f"kvmclone.{words[0]}", *words[1:])
    assert answer.retcode == 0, answer.stdout + answer.stderr
    return dict(answer.data["clones"][name])


@pytest.mark.parametrize(("moment", "door"), [("cloned", "create"), ("booted", "resume")])
def test_a_create_that_was_killed_before_it_had_an_address_is_completed_by_the_next(
    salt_world: SaltWorld, profiles: Profiles, ear: Ear, moment: str, door: str
) -> None:
    name = f"e2e-{moment}"
    profiles.write("killed", base_domain=UNPLUGGED, deploy=False)
    before = killed(salt_world, ear, moment, "kvmclone.create", "killed", name)
    plug_in(name, "--config")
    if before.run != -1:
        plug_in(name)
    clone = go_on(salt_world, door, "killed", name)
    assert (clone["stage"], clone["state"]) == ("addressed", "running")
    after = Made.of(name)
    assert (after.uuid, after.inode) == (before.uuid, before.inode)
    assert before.run in (-1, after.run)


def test_a_create_that_was_killed_on_its_way_to_a_minion_is_completed_by_the_next(
    salt_world: SaltWorld, profiles: Profiles, ear: Ear
) -> None:
    """Killed, and once more at a later stage: the same machine is a minion in the end."""
    name, create = "e2e-killed", ("kvmclone.create", "killed", "e2e-killed")
    profiles.write("killed")
    before = killed(salt_world, ear, "addressed", *create)
    assert killed(salt_world, ear, "enrolled", *create) == before
    assert_ready(salt_world, name, resumed(salt_world, name))
    assert Made.of(name) == before
