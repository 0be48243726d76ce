"""What a guest installs at the only boot of a base, in a folder that stands for its disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from saltext.kvmclone.guest import base_setup_script

#: Real programs that the script uses; all others are fakes that note how they were called.
REAL = (
    "sh",
    "printf",
    "mv",
    "mkdir",
    "ln",
    "rm",
    "tail",
    "tr",
    "cat",
    "sed",
    "chmod",
    "touch",
    "cp",
)


class Guest:
    """A guest's disk, its programs, and its console."""

    def __init__(self, root: Path) -> None:
        self.root, self.programs = root / "disk", root / "programs"
        self.console, self.calls = root / "console", root / "calls"
        self.programs.mkdir()
        for folder in ("run/kvm-clone-seed/packages", "run/kvm-clone-seed/salt", "etc/systemd"):
            (self.root / folder).mkdir(parents=True)
        for name in REAL:
            found = shutil.which(name)
            assert found
            (self.programs / name).symlink_to(found)
        for name in ("systemctl", "umount", "mountpoint"):
            self.program(name)

    def program(self, name: str, body: str = "") -> None:
        path = self.programs / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.calls}"\n{body}\n')
        path.chmod(0o755)

    def seed(self, folder: str, *names: str) -> None:
        for name in names:
            (self.root / "run/kvm-clone-seed" / folder / name).touch()

    def run(self, packages: bool, salt: str = "none") -> str:
        """Run the script as cloud-init would; return how it says that it ended."""
        config = json.loads(base_setup_script.user_data(packages, salt).partition("\n")[2])
        (words,) = config["runcmd"]
        environment = {
            "KVM_CLONE_ROOT": str(self.root),
            "KVM_CLONE_PATH": str(self.programs),
            "KVM_CLONE_CONSOLE": str(self.console),
        }
        subprocess.run(["/bin/sh", *words[1:]], env=environment, check=True, timeout=30)
        return (self.root / "run/kvm-clone-base").read_text().strip()

    @property
    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


def test_packages_of_a_folder_are_installed_and_the_agent_is_started(guest: Guest) -> None:
    guest.program("dpkg")
    guest.seed("packages", "a.deb", "b.deb")
    assert guest.run(packages=True) == "done"
    installed = [call for call in guest.called if call.startswith("dpkg --install")]
    assert len(installed) == 1
    assert installed[0].endswith("/a.deb " + installed[0].split()[2].replace("a.deb", "b.deb"))
    assert "systemctl restart qemu-guest-agent.service" in guest.called
    assert guest.console.read_text() == "kvm-clone-base: done\n"


def test_packages_that_depend_on_each_other_get_a_second_attempt(guest: Guest) -> None:
    guest.program("dpkg", f"[ -e {guest.root}/tried ] || {{ : >{guest.root}/tried; exit 1; }}")
    guest.seed("packages", "a.deb")
    assert guest.run(packages=True) == "done"


def test_rpm_packages_are_installed_where_the_guest_has_rpm(guest: Guest) -> None:
    guest.program("rpm")
    guest.seed("packages", "a.rpm")
    (guest.root / "etc/sysconfig").mkdir()
    agent = guest.root / "etc/sysconfig/qemu-ga"
    agent.write_text("BLACKLIST_RPC=guest-exec\nFILTER_RPC_ARGS=--allow-rpcs=x\nOTHER=1\n")
    assert guest.run(packages=True) == "done"
    assert agent.read_text().splitlines() == [
        "#BLACKLIST_RPC=guest-exec", "#FILTER_RPC_ARGS=--allow-rpcs=x", "OTHER=1",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.rpm", "README"])
def test_packages_for_another_family_are_a_failure_that_says_so(guest: Guest, name: str) -> None:
    guest.program("dpkg")
    guest.seed("packages", name)
    assert guest.run(packages=True).startswith(
        "failed: the packages of the folder: no package in it is for this guest"
    )
    assert guest.console.read_text().startswith("kvm-clone-base: failed: the packages")


def test_without_a_folder_cloud_init_fetches_the_agent_and_the_script_sees_to_it(
    guest: Guest,
) -> None:
    config = json.loads(base_setup_script.user_data(False, "none").partition("\n")[2])
    assert config["packages"] == ["qemu-guest-agent"]
    guest.program("apt-get")
    assert guest.run(packages=False) == "done"
    assert "apt-get -q -y install --no-install-recommends qemu-guest-agent" in guest.called


def test_an_agent_that_is_there_already_is_not_installed_again(guest: Guest) -> None:
    guest.program("apt-get")
    guest.program("qemu-ga")
    assert guest.run(packages=False) == "done"
    assert not any(call.startswith("apt-get") for call in guest.called)


@pytest.mark.parametrize(
    ("manager", "words"),
    [("dnf", "dnf -q -y install"), ("zypper", "zypper -q --non-interactive install")]
    + [("apk", "apk add -q"), ("pacman", "pacman -Sy --noconfirm")],
)
def test_every_familys_package_manager_is_known(guest: Guest, manager: str, words: str) -> None:
    guest.program(manager)
    assert guest.run(packages=False) == "done"
    assert f"{words} qemu-guest-agent" in guest.called


def test_a_guest_without_a_network_says_what_its_package_manager_said(guest: Guest) -> None:
    guest.program("apt-get", "echo 'Could not resolve deb.debian.org'; exit 100")
    assert guest.run(packages=False) == (
        "failed: installing qemu-guest-agent: Could not resolve deb.debian.org"
    )


# --- Salt ---------------------------------------------------------------------------------------


def _minion(guest: Guest) -> None:
    """A package of Salt that would start its minion, as they do."""
    unit = guest.root / "etc/systemd/system/salt-minion.service"
    (guest.root / "etc/salt/pki/minion").mkdir(parents=True)
    body = f"[ -L {unit} ] || touch {guest.root}/started; printf x >{guest.programs}/salt-minion; "
    body += f"chmod 755 {guest.programs}/salt-minion"
    guest.program("apt-get", f'case "$*" in *salt-minion) {body};; esac')
    guest.program("dpkg", body)


def _never_ran(guest: Guest) -> None:
    assert not (guest.root / "started").exists(), "the minion was started"
    assert not (guest.root / "etc/salt/pki/minion").exists()
    unit = guest.root / "etc/systemd/system/salt-minion.service"
    assert not unit.is_symlink(), "an enrolment could not enable it"
    assert "systemctl --quiet disable --now salt-minion.service" in guest.called


def test_salt_of_its_own_repository_is_installed_and_never_runs(guest: Guest) -> None:
    _minion(guest)
    guest.program("qemu-ga")
    guest.program("curl", "echo key")
    assert guest.run(packages=False, salt="repository") == "done"
    source = (guest.root / "etc/apt/sources.list.d/salt.sources").read_text()
    assert "URIs: https://packages.broadcom.com/artifactory/saltproject-deb\n" in source
    key = guest.root / "etc/apt/keyrings/salt-archive-keyring.pgp"
    assert key.read_text() == "key\n"
    assert any(call.endswith("SaltProjectKey/public") for call in guest.called)
    _never_ran(guest)


def test_a_key_that_cannot_be_fetched_is_a_failure(guest: Guest) -> None:
    _minion(guest)
    guest.program("qemu-ga")
    guest.program("curl", "exit 6")
    assert guest.run(packages=False, salt="repository").startswith("failed: Salt's key")


def test_salt_for_the_family_of_red_hat_comes_from_the_same_place(guest: Guest) -> None:
    guest.program("qemu-ga")
    guest.program("salt-minion")
    guest.program("dnf")
    assert guest.run(packages=False, salt="repository") == "done"
    source = (guest.root / "etc/yum.repos.d/salt.repo").read_text()
    assert "baseurl=https://packages.broadcom.com/artifactory/saltproject-rpm/\n" in source
    assert "gpgcheck=1" in source
    assert "dnf -q -y install salt-minion" in guest.called


def test_salts_packages_of_a_folder_are_installed_and_never_run(guest: Guest) -> None:
    _minion(guest)
    guest.seed("packages", "a.deb")
    guest.seed("salt", "salt-minion.deb", "salt-common.deb")
    assert guest.run(packages=True, salt="folder") == "done"
    _never_ran(guest)


def test_salts_wheels_go_into_an_environment_with_a_service(guest: Guest) -> None:
    guest.program("qemu-ga")
    pip = guest.root / "opt/salt/bin/pip"
    link = f"mkdir -p {pip.parent} && cp {guest.programs}/mountpoint {pip}"
    guest.program("python3", f"{link}; touch {pip.parent}/salt-minion")
    guest.program("salt-minion")
    guest.seed("salt", "salt-3008.whl")
    assert guest.run(packages=False, salt="folder") == "done"
    unit = (guest.root / "etc/systemd/system/salt-minion.service").read_text()
    assert "ExecStart=/usr/local/bin/salt-minion" in unit
    assert os.readlink(guest.root / "usr/local/bin/salt-minion") == "/opt/salt/bin/salt-minion"
    assert "systemctl --quiet disable --now salt-minion.service" in guest.called


def test_a_folder_without_salt_in_it_is_a_failure(guest: Guest) -> None:
    guest.program("qemu-ga")
    guest.program("dpkg")
    guest.seed("salt", "hello.deb")
    assert guest.run(packages=False, salt="folder").startswith("failed: there is no salt-minion")
