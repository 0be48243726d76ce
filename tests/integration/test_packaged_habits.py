"""A packaged Salt's habits: a master that is not root, packages that are missing, neighbours."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.common import CACHE, run
from lab.lab import Lab
from lab.salt import SaltWorld
from tests.integration.conftest import configure
from tests.support import installs

#: A packaged master runs as ``salt``. Any user without rights will do, and this one is everywhere.
USER = "nobody"

#: What the keys of a minion go through, run as the master's user. Prints what is left of them.
KEYS = """
import sys
import salt.config
from saltext.kvmclone.master import keys
store = keys.MinionKeys(salt.config.master_config(sys.argv[1]))
pair = keys.generate(2048)
store.require_free("web1")
store.accept("web1", pair.public)
assert store.fingerprint(store.accepted("web1")) == store.fingerprint(pair.public)
print(store.remove("web1", "00:11"), store.remove("web1", store.fingerprint(pair.public)))
print(repr(store.accepted("web1")))
"""


def error_of(answer: dict[str, Any]) -> dict[str, str]:
    """The one error of a runner's answer."""
    assert answer["retcode"] == 1
    holders: dict[str, Any] = answer.get("clones") or answer.get("plans") or {"": answer}
    (holder,) = holders.values()
    error: dict[str, str] = holder["error"]
    return error


# --- the master is not root -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(lab: Lab) -> str:
    return lab.tiny_base(f"base-habits-{lab.name}")


@pytest.fixture(scope="module")
def unprivileged(lab: Lab, base: str) -> Iterator[SaltWorld]:
    """A master as a package sets it up, and the minion of the KVM host, which is root."""
    venv = installs.cached("3008")
    reach = ["runuser", "-u", USER, "--", "test", "-x", str(venv / "bin/salt-run")]
    if subprocess.run(reach, check=False).returncode:
        pytest.skip(f"user {USER} cannot walk to {venv}: set KVMCLONE_CACHE to a public folder")
    with SaltWorld(
        lab.folder / "salt-unprivileged",
        address=lab.gateway,
        owner=lab.name,
        preloads=False,
        venv=venv,
        modules=(installs.export(lab.folder / "checkout"),),
        user=USER,
    ) as world:
        configure(world, base_domain=base)
        world.add_minion("kvm01")
        yield world


@pytest.fixture
def direct(unprivileged: SaltWorld) -> Iterator[None]:
    """A second provider, which the master is to drive by itself."""
    files = [
        unprivileged.write_cloud(
            "providers", "direct.conf", {"direct": {"driver": "libvirt", "url": "qemu:///system"}}
        ),
        unprivileged.write_cloud(
            "profiles", "direct.conf", {"by-hand": {"provider": "direct", "base_domain": "base"}}
        ),
    ]
    yield
    for file in files:
        file.unlink()


def test_the_master_really_is_not_root(unprivileged: SaltWorld) -> None:
    assert unprivileged.master.process is not None
    pid = unprivileged.master.process.pid
    owners = run(["ps", "-o", "user=", "--ppid", str(pid)]).split()
    assert USER in owners


def test_it_plans_and_lists_through_the_hosts_minion(unprivileged: SaltWorld, base: str) -> None:
    planned = unprivileged.run("kvmclone.plan", "tiny", "planned-only")
    assert planned.retcode == 0, planned
    assert planned.data["plans"]["planned-only"]["base"] == base
    listed = unprivileged.run("kvmclone.list")
    assert listed.retcode == 0, listed
    assert "planned-only" not in listed.data["clones"]


@pytest.mark.guest
def test_it_creates_and_destroys_through_the_hosts_minion(
    unprivileged: SaltWorld, lab: Lab
) -> None:
    name = f"web-{lab.name}"
    created = unprivileged.run("kvmclone.create", "tiny", name)
    assert created.retcode == 0, created
    clone = created.data["clones"][name]
    assert (clone["stage"], clone["host"], clone["state"]) == ("addressed", "kvm01", "running")
    assert clone["address"] == lab.lease(name)

    destroyed = unprivileged.run("kvmclone.destroy", name)
    assert destroyed.retcode == 0, destroyed
    assert name not in unprivileged.run("kvmclone.list").data["clones"]
    assert not list(lab.pool_path.glob(f"{name}*"))


def test_its_user_accepts_and_removes_keys(unprivileged: SaltWorld) -> None:
    python = [unprivileged.venv / "bin/python", "-c", KEYS, unprivileged.conf / "master"]
    library = f"PYTHONPATH={unprivileged.modules[0]}/_utils"
    done = unprivileged.execute(["runuser", "-u", USER, "--", "env", library, *map(str, python)])
    assert done.stdout.splitlines() == ["False True", "''"], done


@pytest.mark.usefixtures("direct")
def test_a_url_that_it_may_not_open_says_what_to_do(unprivileged: SaltWorld) -> None:
    answer = unprivileged.run("kvmclone.plan", "by-hand", "web1")
    assert answer.retcode == 1, answer
    error = error_of(answer.data)
    assert error["type"] == "HostUnreachable"
    assert "qemu:///system" in error["message"]
    assert "host:" in error["hint"]
    assert "usermod -aG libvirt" in error["hint"]


@pytest.mark.usefixtures("direct")
def test_a_host_that_it_cannot_reach_does_not_hide_the_others(unprivileged: SaltWorld) -> None:
    answer = unprivileged.run("kvmclone.list")
    assert answer.retcode == 1
    assert set(answer.data["unreachable"]) == {"qemu:///system"}
    assert "clones" in answer.data


# --- a package is missing -------------------------------------------------------------------------


def world_without(lab: Lab, scratch: Path, *packages: str) -> SaltWorld:
    venv = installs.environment(scratch / "venv", installs.cached("3008"))
    installs.without(venv, *packages)
    folder = lab.folder / f"salt-without-{packages[0]}"
    world = SaltWorld(folder, address=lab.gateway, owner=lab.name, venv=venv, preloads=False)
    try:
        configure(world)
        world.add_minion("kvm01")
    except BaseException:
        world.close()
        raise
    return world


@pytest.fixture(scope="module")
def no_libvirt(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SaltWorld]:
    scratch = tmp_path_factory.mktemp("no-libvirt")
    with world_without(lab, scratch, "libvirt", "libvirt_qemu", "libvirtmod") as world:
        yield world


@pytest.fixture(scope="module")
def no_lxml(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SaltWorld]:
    with world_without(lab, tmp_path_factory.mktemp("no-lxml"), "lxml") as world:
        yield world


@pytest.fixture(scope="module")
def no_paramiko(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SaltWorld]:
    with world_without(lab, tmp_path_factory.mktemp("no-paramiko"), "paramiko") as world:
        yield world


def test_without_libvirt_the_master_works_and_the_host_names_it(no_libvirt: SaltWorld) -> None:
    assert no_libvirt.run("kvmclone.profiles").retcode == 0
    assert list(no_libvirt.cloud("--list-providers").data["kvm"]) == ["libvirt"]
    host = no_libvirt.salt("kvm01", "kvm_clone.list_clones")
    assert host.retcode != 0
    assert "salt-pip install libvirt-python" in host.data["kvm01"]


def test_without_libvirt_the_runner_passes_on_what_the_host_lacks(no_libvirt: SaltWorld) -> None:
    answer = no_libvirt.run("kvmclone.plan", "tiny", "web1")
    assert answer.retcode == 1
    error = error_of(answer.data)
    assert "salt-pip install libvirt-python" in error["message"] + error["hint"]


def test_without_libvirt_a_direct_url_names_both_ways_out(no_libvirt: SaltWorld) -> None:
    provider = {"direct": {"driver": "libvirt", "url": "qemu:///system"}}
    no_libvirt.write_cloud("providers", "direct.conf", provider)
    profile = {"by-hand": {"provider": "direct", "base_domain": "base"}}
    no_libvirt.write_cloud("profiles", "direct.conf", profile)
    error = error_of(no_libvirt.run("kvmclone.plan", "by-hand", "web1").data)
    assert error["type"] == "MissingPackage"
    assert "salt-pip install libvirt-python" in error["hint"]
    assert "host:" in error["hint"]


def test_without_lxml_the_runner_and_the_host_name_it(no_lxml: SaltWorld) -> None:
    answer = no_lxml.run("kvmclone.profiles")
    assert answer.retcode == 1, answer
    assert error_of(answer.data)["type"] == "MissingPackage"
    assert "salt-pip install lxml" in error_of(answer.data)["message"]
    host = no_lxml.salt("kvm01", "kvm_clone.list_clones")
    assert host.retcode != 0
    assert "salt-pip install lxml" in host.data["kvm01"]


def test_without_paramiko_everything_but_ssh_works(no_paramiko: SaltWorld) -> None:
    assert no_paramiko.run("kvmclone.profiles").retcode == 0
    assert list(no_paramiko.cloud("--list-providers").data["kvm"]) == ["libvirt"]
    assert no_paramiko.salt("kvm01", "kvm_clone.list_clones").retcode == 0


def test_without_paramiko_ssh_names_it(no_paramiko: SaltWorld) -> None:
    code = """
import time
from saltext.kvmclone import errors
from saltext.kvmclone.guest import ssh
from saltext.kvmclone.model.request import Login, Secrets
try:
    ssh.connect("192.0.2.1", Login(), Secrets(password="x"), deadline=time.monotonic() + 1)
except errors.MissingPackage as error:
    print(error)
"""
    library = no_paramiko.modules[0] + "/_utils"
    python = str(no_paramiko.venv / "bin/python")
    done = no_paramiko.execute(["env", f"PYTHONPATH={library}", python, "-c", code])
    assert "salt-pip install 'paramiko>=3.2'" in done.stdout, done


# --- beside saltext-virt --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saltext_virt() -> Path:
    """The wheel of the other extension in the namespace ``saltext``."""
    wheels = sorted((CACHE / "wheels").glob("saltext_virt-*.whl"))
    assert wheels, "make setup-all fetches it"
    return wheels[-1]


def test_beside_saltext_virt_both_load(
    lab: Lab, saltext_virt: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scratch = tmp_path_factory.mktemp("neighbours")
    ours = installs.wheel(installs.export(scratch / "project"), scratch)
    venv = installs.environment(scratch / "venv", installs.cached("3008"))
    installs.install(venv, saltext_virt, ours)
    folder = lab.folder / "salt-neighbours"
    with SaltWorld(
        folder, address=lab.gateway, owner=lab.name, venv=venv, modules=(), preloads=False
    ) as world:
        configure(world)
        world.add_minion("kvm01")
        assert (
            "virt.list_domains" in world.salt("kvm01", "sys.list_functions", "virt").data["kvm01"]
        )
        assert world.salt("kvm01", "kvm_clone.list_clones").retcode == 0
        runners = world.salt("kvm01", "sys.list_runner_functions", "virt", "kvmclone").data["kvm01"]
        assert {"virt.list", "kvmclone.create"} <= set(runners)
