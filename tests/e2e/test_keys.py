"""The master holds exactly the keys of the clones that there are, whatever happened to them."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import libvirt
import pytest
import salt.config

from lab.common import PASSWORD, run, wait_until, write
from lab.demo import DEPLOY_SCRIPT
from lab.ear import Ear
from lab.lab import Lab, connection
from lab.leftovers import take_away
from lab.salt import SaltWorld
from saltext.kvmclone.master import keys
from tests.e2e.conftest import BASE, Machines
from tests.support.running import interrupted, started

pytestmark = pytest.mark.guest

SECOND_MASTER = "192.0.2.7"

#: Never comes to an end: whoever runs it has all the time to interrupt it.
ENDLESS = "#!/bin/sh\nsleep 600\n"

#: Starts the minion as it is, with whatever key it has.
CARELESS = "#!/bin/sh\nsystemctl start --no-block salt-minion.service\n"


def held(world: SaltWorld, name: str) -> dict[str, str]:
    """The keys of an id that the master has, in whatever state: fingerprint by state."""
    opts = salt.config.master_config(str(world.conf / "master"))
    store = keys.MinionKeys(opts)
    return {
        state: store.fingerprint(found[0]) for state, found in store.known(name).items() if found
    }


def created(world: SaltWorld, profile: str, name: str) -> dict[str, Any]:
    made = world.run("kvmclone.create", profile, name)
    assert made.retcode == 0, made.stdout + made.stderr
    return dict(made.data["clones"][name])


@contextmanager
def without_host(world: SaltWorld) -> Iterator[None]:
    """``kvm01`` is down, and the only way to its libvirtd leads through it."""
    path = world.conf / "cloud.providers.d/kvm.conf"
    before = path.read_text(encoding="utf-8")
    through = {"driver": "libvirt", "url": "qemu:///system", "host": "kvm01"}
    world.write_cloud("providers", "kvm.conf", {"local-kvm": through, "direct-kvm": through})
    world.stop_minion("kvm01")
    try:
        yield
    finally:
        world.write_cloud("providers", "kvm.conf", before)
        world.start_minion("kvm01")


@pytest.fixture(scope="module", autouse=True)
def profiles(lab: Lab, salt_world: SaltWorld) -> Iterator[None]:
    """What these tests create; the guests are entered over their agent where they have one."""
    minion = {"master": salt_world.address, "master_port": salt_world.ret_port}
    common = {"provider": "local-kvm", "clone_strategy": "quick", "minion": minion}
    salt_world.write_cloud("deploy", "exits.sh", "#!/bin/sh\nexit 7\n")
    salt_world.write_cloud("deploy", "endless.sh", ENDLESS)
    salt_world.write_cloud("deploy", "careless.sh", CARELESS)
    salt_world.write_cloud("deploy", "place-and-start.sh", DEPLOY_SCRIPT)
    path = salt_world.write_cloud(
        "profiles",
        "keys.conf",
        {
            "keyed": {**common, "base_domain": BASE},
            "failing": {**common, "base_domain": BASE, "script": "exits"},
            "endless": {**common, "base_domain": BASE, "script": "endless"},
            "careless": {
                **common,
                "base_domain": "e2e-keyed-base",
                "script": "careless",
                "reset_identity": False,
            },
            "knocking": {
                **common,
                "base_domain": "e2e-knocks",
                "ssh_username": "root",
                "password": PASSWORD,
            },
            "several": {
                **common,
                "base_domain": BASE,
                "minion": {**minion, "master": [salt_world.address, SECOND_MASTER]},
            },
        },
    )
    yield
    path.unlink()


@pytest.fixture
def nothing_left(salt_world: SaltWorld, machines: Machines) -> Iterator[None]:
    """Whatever the test did: no machine, file or key that was not there before."""
    before = machines.left()
    yield
    for name in machines.left()["domains"] - before["domains"]:
        salt_world.run("kvmclone.gc", name, "apply=True")
        salt_world.run("kvmclone.destroy", name)
    assert machines.left() == before


def test_the_key_of_a_clone_is_the_one_on_its_record_until_it_is_destroyed(
    salt_world: SaltWorld, nothing_left: None
) -> None:
    clone = created(salt_world, "keyed", "e2e-keyed")
    accepted = {"minions": clone["minion"]["fingerprint"]}
    assert held(salt_world, "e2e-keyed") == accepted
    shown = salt_world.run("kvmclone.show", "e2e-keyed").data["clones"]["e2e-keyed"]
    assert shown["minion"]["fingerprint"] == accepted["minions"]

    # The same again, and once more, changes nothing.
    for _ in range(2):
        assert salt_world.run("kvmclone.create", "keyed", "e2e-keyed").retcode == 1
    assert held(salt_world, "e2e-keyed") == accepted

    with without_host(salt_world):
        refused = salt_world.run("kvmclone.destroy", "e2e-keyed")
        assert refused.retcode == 1
        error = refused.data["clones"]["e2e-keyed"]["error"]
        assert error["type"] == "HostUnreachable"
        assert "kvm01" in error["message"]
        assert "force=True" in error["hint"]
        assert held(salt_world, "e2e-keyed") == accepted

        forced = salt_world.run("kvmclone.destroy", "e2e-keyed", "force=True")
        assert forced.retcode == 0, forced.stdout
        assert held(salt_world, "e2e-keyed") == {}
        words = " ".join(forced.data["clones"]["e2e-keyed"]["warnings"])
        assert "kvm01" in words and "destroy" in words

    gone = salt_world.run("kvmclone.destroy", "e2e-keyed")
    assert gone.retcode == 0, gone.stdout
    assert held(salt_world, "e2e-keyed") == {}


@pytest.mark.parametrize("state", ["minions", "minions_pre", "minions_denied"])
def test_an_id_with_a_key_of_somebody_else_is_refused_before_anything_is_made(
    salt_world: SaltWorld, machines: Machines, state: str
) -> None:
    folder = salt_world.folder / "pki/master"
    (folder / state).mkdir(exist_ok=True)
    foreign = folder / state / "e2e-foreign"
    shutil.copy(folder / "minions/kvm01", foreign)
    try:
        before = machines.left()
        with connection() as libvirtd:
            appeared: list[str] = []
            first = {domain.name() for domain in libvirtd.listAllDomains()}
            process = started(salt_world, "kvmclone.create", "keyed", "e2e-foreign")
            while process.poll() is None:
                names = {domain.name() for domain in libvirtd.listAllDomains()}
                appeared += [n for n in names - first if n == "e2e-foreign"]
                time.sleep(0.02)
        assert process.wait() == 1
        assert "KeyConflict" in process.communicate()[0]
        assert appeared == []
        # A key that we never accepted is not ours to remove either.
        assert salt_world.run("kvmclone.destroy", "e2e-foreign", "force=True").retcode == 1
        assert machines.left() == before
    finally:
        foreign.unlink()


def test_no_key_stays_of_a_create_that_failed_in_the_guest(
    salt_world: SaltWorld, nothing_left: None
) -> None:
    made = salt_world.run("kvmclone.create", "failing", "e2e-failing")
    assert made.retcode == 1
    assert made.data["clones"]["e2e-failing"]["error"]["type"] == "DeployFailed"
    assert held(salt_world, "e2e-failing") == {}


def test_no_key_stays_of_a_create_that_was_interrupted(
    salt_world: SaltWorld, nothing_left: None
) -> None:
    process = started(salt_world, "kvmclone.create", "endless", "e2e-endless")
    try:
        wait_until(lambda: held(salt_world, "e2e-endless"), "the key to be accepted", 120)
        time.sleep(1)
        told = interrupted(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0, told
    assert held(salt_world, "e2e-endless") == {}
    with connection() as libvirtd, pytest.raises(libvirt.libvirtError):
        libvirtd.lookupByName("e2e-endless")


def test_overlapping_creates_make_one_machine_with_one_key_and_other_masters_are_named(
    salt_world: SaltWorld, nothing_left: None
) -> None:
    both = [started(salt_world, "kvmclone.create", "several", "e2e-twice") for _ in range(2)]
    try:
        outputs = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert [process.returncode for process in both] == [0, 0], outputs
    shown = salt_world.run("kvmclone.show", "e2e-twice").data["clones"]["e2e-twice"]
    fingerprint = shown["minion"]["fingerprint"]
    assert held(salt_world, "e2e-twice") == {"minions": fingerprint}
    assert all(fingerprint in out and shown["uuid"] in out for out, _err in outputs)

    # The minion has two masters, and of the other one only this can be said.
    words = [text for text in shown["warnings"] if "salt-key -a e2e-twice" in text]
    assert len(words) == 1
    assert fingerprint in words[0] and SECOND_MASTER in words[0]

    # Somebody removes the domain by hand; its key is still ours to take back.
    with connection() as libvirtd:
        take_away(libvirtd.lookupByName("e2e-twice"))
    Path(shown["disks"][0]["path"]).unlink()
    assert held(salt_world, "e2e-twice") == {"minions": fingerprint}
    gone = salt_world.run("kvmclone.destroy", "e2e-twice")
    assert gone.retcode == 0, gone.stdout
    assert held(salt_world, "e2e-twice") == {}
    again = salt_world.run("kvmclone.destroy", "e2e-twice")
    assert again.data["clones"]["e2e-twice"]["error"]["type"] == "NotFound"


#: The base's minion knocks before anybody can enter the guest and stop it.
AFTER_THE_KNOCK = """\
[Service]
TimeoutStartSec=infinity
ExecStartPre=/bin/sh -c "\
until journalctl -u salt-minion | grep -qE 'cached the public key|rejected'; do sleep 1; done"
"""


@pytest.fixture(scope="module")
def knocks(lab: Lab, salt_world: SaltWorld) -> None:
    """A base without an agent whose minion knows our master, by the name of the clone to be."""

    def change(root: Path) -> None:
        pki = root / "etc/salt/pki/minion"
        run(["openssl", "genrsa", "-out", pki / "minion.pem", "2048"])
        run(["openssl", "rsa", "-in", pki / "minion.pem", "-pubout", "-out", pki / "minion.pub"])
        (pki / "minion.pem").chmod(0o400)
        write(
            root / "etc/salt/minion",
            f"master: {salt_world.address}\nmaster_port: {salt_world.ret_port}\nid: e2e-knock\n"
            "acceptance_wait_time: 1\nrejected_retry: true\nenable_fqdns_grains: false\n",
        )
        units = root / "etc/systemd/system"
        (units / "multi-user.target.wants/salt-minion.service").symlink_to(
            "/etc/systemd/system/salt-minion.service"
        )
        write(units / "ssh.service.d/late.conf", AFTER_THE_KNOCK)

    lab.debian_base("e2e-knocks", agent=False, change=change)


@pytest.mark.long
def test_a_base_whose_own_minion_knocks_first_under_the_new_name_leaves_no_key_of_its_own(
    lab: Lab, salt_world: SaltWorld, knocks: None, nothing_left: None
) -> None:
    states: set[str] = set()
    process = started(salt_world, "kvmclone.create", "knocking", "e2e-knock")
    while process.poll() is None:
        states |= set(held(salt_world, "e2e-knock"))
        time.sleep(0.2)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    shown = salt_world.run("kvmclone.show", "e2e-knock").data["clones"]["e2e-knock"]
    time.sleep(3)
    assert held(salt_world, "e2e-knock") == {"minions": shown["minion"]["fingerprint"]}
    assert salt_world.run("kvmclone.destroy", "e2e-knock").retcode == 0
    assert held(salt_world, "e2e-knock") == {}
    assert states - {"minions"}, "the base's own minion did knock"


@pytest.fixture(scope="module")
def keyed(lab: Lab, salt_world: SaltWorld) -> None:
    """A base whose minion has keys and an id of its own, and knows our master."""

    def change(root: Path) -> None:
        pki = root / "etc/salt/pki/minion"
        pki.mkdir(parents=True, exist_ok=True)
        run(["openssl", "genrsa", "-out", pki / "minion.pem", "2048"])
        run(["openssl", "rsa", "-in", pki / "minion.pem", "-pubout", "-out", pki / "minion.pub"])
        (pki / "minion.pem").chmod(0o400)
        write(
            root / "etc/salt/minion",
            f"master: {salt_world.address}\nmaster_port: {salt_world.ret_port}\n"
            f"publish_port: {salt_world.publish_port}\nid: e2e-own\n",
        )

    lab.debian_base("e2e-keyed-base", change=change)


def test_a_minion_that_kept_its_bases_key_is_foreseen_and_told_by_name_within_30_seconds(
    salt_world: SaltWorld, ear: Ear, keyed: None, nothing_left: None
) -> None:
    plan = salt_world.run("kvmclone.plan", "careless", "e2e-careless").data["plans"]["e2e-careless"]
    (foreseen,) = (text for text in plan["warnings"] if "minion.pem" in text)
    assert "'reset_identity: false'" in foreseen

    process = started(salt_world, "-l", "warning", "kvmclone.create", "careless", "e2e-careless")
    try:
        tag = "salt/kvm_clone/e2e-careless/enrolled"
        wait_until(lambda: tag in ear.tags(tag), "the minion to be started", 180)
        began = time.monotonic()
        assert process.stderr is not None
        reason = next(line for line in process.stderr if "has another key (" in line)
        assert time.monotonic() - began < 30
        assert held(salt_world, "e2e-careless")["minions"] in reason
        assert "calls itself 'e2e-own' and not 'e2e-careless'" in reason
        assert "'script_args: -F'" in reason
        wait_until(lambda: held(salt_world, "e2e-own"), "the minion to knock", 120)
        assert held(salt_world, "e2e-own")["minions_pre"] in reason
        told = interrupted(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        salt_world.execute(salt_world.command("salt-key", "-y", "-d", "e2e-own"), 60)
    assert process.returncode == 130, told
