"""Ctrl-C in a real ``salt-run``, as a terminal sends it: said in words, and nothing is left."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.common import wait_until
from lab.image import make_disk
from lab.lab import Lab, connection
from lab.salt import SaltWorld
from tests.integration.conftest import configure, master_keys
from tests.support import installs

pytestmark = pytest.mark.guest

#: Stops at its firmware.
BLANK = """
<domain type='{kind}'>
  <name>{name}</name>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/>
    </disk>
    <interface type='network'><source network='{network}'/><model type='virtio'/></interface>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  </devices>
</domain>
"""


@pytest.fixture(scope="module")
def base(lab: Lab) -> str:
    """A base in which nothing boots, so no address comes."""
    name = f"base-int-{lab.name}"
    disk = lab.pool_path / f"{name}.qcow2"
    make_disk(disk, "qcow2", "64M", None)
    return lab.define(BLANK.format(name=name, kind=lab.domain_type, disk=disk, network=lab.network))


def write_profiles(salt: SaltWorld, base: str) -> None:
    """Profiles ``waits`` on this very machine, ``kept`` there, and ``far`` through its minion."""
    here = {"driver": "libvirt", "url": "qemu:///system"}
    salt.write_cloud("providers", "here.conf", {"here": here})
    keys = {
        "base_domain": base, "clone_strategy": "quick", "deploy": False,
        "ip_source": "qemu-agent", "wait_for_ip_timeout": 300,
    }  # fmt: skip
    waits = {"waits": {"provider": "here", **keys}, "far": {"provider": "kvm", **keys}}
    kept = {"kept": {"provider": "here", **keys, "on_failure": "keep"}}
    salt.write_cloud("profiles", "waits.conf", waits | kept)


@pytest.fixture(scope="module")
def names(lab: Lab, salt: SaltWorld, base: str) -> Callable[[str], str]:
    """Names of this lab."""
    write_profiles(salt, base)
    return lambda word: f"{word}-{lab.name}"


class Run:
    """
    A program in a process group of its own, as a shell starts it in a terminal.

    :param terminal: It writes its messages to a real one.
    """

    def __init__(self, salt: SaltWorld, *words: str, program: str = "", terminal: bool) -> None:
        self.far, near = pty.openpty() if terminal else os.pipe()
        command = salt.command("salt-run", "--out=json", "-l", "error", *words)
        # Whoever runs the tests may ignore them, as nohup does, and children inherit that.
        heeding = ["env", "--default-signal=HUP,INT,TERM"]
        self.process = subprocess.Popen(
            [*heeding, *([program, *words] if program else command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=near,
            cwd="/",
            env=salt.environment("command"),
            start_new_session=True,
        )
        os.close(near)

    def press(self, number: int = signal.SIGINT) -> None:
        os.killpg(self.process.pid, number)

    def end(self, timeout: float = 60, again: float = 0) -> tuple[int, dict[str, Any], str]:
        """
        Exit code, answer, and what was said.

        :param again: Press once more where it goes on for so many seconds: Salt's loader takes
            the exit of its own handler for a module that cannot be loaded, and goes on.
        """
        try:
            output, _ = self.process.communicate(timeout=again or timeout)
        except subprocess.TimeoutExpired:
            if not again:
                raise
            self.press()
            output, _ = self.process.communicate(timeout=timeout)
        said = b""
        os.set_blocking(self.far, False)
        try:
            while piece := os.read(self.far, 65536):
                said += piece
        except OSError:  # a terminal whose other end is closed, or nothing more to read
            pass
        os.close(self.far)
        if b"Exiting gracefully" in said:  # Salt's own word: our modules were not loaded yet
            return self.process.returncode, {}, said.decode()
        assert b"Traceback" not in said + output
        return self.process.returncode, json.loads(output) if output else {}, said.decode()


def domains() -> set[str]:
    with connection() as conn:
        return {domain.name() for domain in conn.listAllDomains()}


def runs(*names: str) -> bool:
    with connection() as conn:
        return set(names) <= {
            domain.name() for domain in conn.listAllDomains() if domain.isActive()
        }


def waits_for_its_address(*names: str) -> None:
    def booted() -> bool:
        with connection() as conn:
            found = {one.name(): one.XMLDesc(0) for one in conn.listAllDomains()}
        return all("booted" in found.get(name, "") for name in names)

    wait_until(booted, timeout=120, what=f"{names} to be booted")
    time.sleep(0.5)


def libvirtds_clients() -> int:
    """Return how many have called libvirtd, even while it is stopped and takes no call."""
    lines = Path("/proc/net/unix").read_text(encoding="ascii").splitlines()
    return sum(line.endswith("/libvirt/libvirt-sock") for line in lines)


def calls_libvirtd(before: int) -> None:
    """Wait until one more does so: a Salt program has loaded our modules by then."""
    wait_until(lambda: libvirtds_clients() > before, "a call of libvirtd", 60)


@pytest.fixture
def nothing_is_left(salt: SaltWorld, lab: Lab) -> Iterator[None]:
    before = (domains(), set(lab.pool_path.iterdir()))
    yield
    assert (domains(), set(lab.pool_path.iterdir())) == before
    assert salt.run("kvmclone.gc").data["leftovers"] == []


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("nothing_is_left")
def test_an_interrupted_create_is_taken_back_and_says_so(
    salt: SaltWorld, names: Callable[[str], str], terminal: bool, number: int
) -> None:
    name = names("cut")
    run = Run(salt, "kvmclone.create", "waits", name, terminal=terminal)
    waits_for_its_address(name)
    run.press(number)
    code, answer, said = run.end()
    assert (code, answer["retcode"]) == (130, 130), (answer, said)
    clone = answer["clones"][name]
    assert clone["error"]["type"] == "Interrupted"
    assert clone["error"]["message"].endswith(f" after 'booted'. '{name}' was removed.")
    assert (clone["state"], clone["address"]) == ("", "")
    assert f"Interrupted; being brought to a safe end: {name}" in said


@pytest.mark.parametrize("profile", ["waits", "far"])
@pytest.mark.usefixtures("nothing_is_left")
def test_all_of_several_are_taken_back_and_named(
    salt: SaltWorld, names: Callable[[str], str], profile: str
) -> None:
    several = [names(f"cut{number}") for number in range(3)]
    run = Run(salt, "kvmclone.create", profile, *several, terminal=True)
    waits_for_its_address(*several)
    run.press()
    code, answer, _said = run.end()
    assert code == 130
    for name in several:
        assert "was removed" in answer["clones"][name]["error"]["message"]


@pytest.mark.usefixtures("nothing_is_left")
def test_a_create_through_the_hosts_minion_is_taken_back(
    salt: SaltWorld, names: Callable[[str], str]
) -> None:
    name = names("far")
    run = Run(salt, "kvmclone.create", "far", name, terminal=True)
    waits_for_its_address(name)
    run.press()
    code, answer, said = run.end()
    assert code == 130, (answer, said)
    assert "was removed" in answer["clones"][name]["error"]["message"]


@pytest.mark.usefixtures("nothing_is_left")
def test_at_whatever_moment_it_comes_nothing_is_left(
    salt: SaltWorld, names: Callable[[str], str]
) -> None:
    name = names("early")
    for profile in ("waits", "far"):
        for after in (1.5, 2.0, 2.5, 3.0):
            run = Run(salt, "kvmclone.create", profile, name, terminal=True)
            time.sleep(after)
            run.press()
            code, answer, said = run.end(again=15)
            assert code == 130 or "Exiting gracefully" in said, (profile, after, answer, said)
            assert name not in domains(), (profile, after, answer, said)


@pytest.mark.usefixtures("nothing_is_left")
def test_a_profile_that_keeps_keeps_it_and_says_how_to_go_on(
    salt: SaltWorld, names: Callable[[str], str]
) -> None:
    name = names("kept")
    run = Run(salt, "kvmclone.create", "kept", name, terminal=True)
    waits_for_its_address(name)
    run.press()
    code, answer, _said = run.end()
    error = answer["clones"][name]["error"]
    assert code == 130
    assert error["message"].endswith(f"'{name}' was kept and runs.")
    assert answer["clones"][name]["state"] == "running"
    assert f"salt-run kvmclone.resume {name}" in error["hint"]
    assert runs(name)

    before = libvirtds_clients()
    again = Run(salt, "kvmclone.resume", name, terminal=True)
    calls_libvirtd(before)
    time.sleep(1)
    again.press()
    code, answer, _said = again.end()
    assert code == 130, answer
    assert runs(name)
    assert salt.run("kvmclone.destroy", name).retcode == 0


@pytest.mark.usefixtures("nothing_is_left")
def test_a_second_ctrl_c_ends_at_once_and_names_what_gc_then_removes(
    salt: SaltWorld, names: Callable[[str], str]
) -> None:
    name = names("twice")
    run = Run(salt, "kvmclone.create", "waits", name, terminal=True)
    waits_for_its_address(name)
    libvirtd = int(Path("/run/libvirtd.pid").read_text())
    os.kill(libvirtd, signal.SIGSTOP)  # the way back takes as long as we like
    try:
        run.press()
        time.sleep(1)
        assert run.process.poll() is None
        run.press()
        code, answer, said = run.end(timeout=30)
    finally:
        os.kill(libvirtd, signal.SIGCONT)
    assert (code, answer) == (130, {})
    assert f"salt-run kvmclone.gc {name} apply=True" in said
    listed = salt.run("kvmclone.gc", name).data["leftovers"]
    assert listed
    gone = salt.run("kvmclone.gc", name, "apply=True")
    assert gone.retcode == 0, gone
    assert name not in domains()


@pytest.mark.usefixtures("nothing_is_left")
def test_an_interrupted_destroy_says_to_repeat_it(
    salt: SaltWorld, names: Callable[[str], str]
) -> None:
    name = names("half")
    run = Run(salt, "kvmclone.create", "kept", name, terminal=True)
    waits_for_its_address(name)
    run.press()
    run.end()
    libvirtd = int(Path("/run/libvirtd.pid").read_text())
    os.kill(libvirtd, signal.SIGSTOP)
    try:
        before = libvirtds_clients()
        with master_keys(salt, at_once=1):
            run = Run(salt, "kvmclone.destroy", name, names("other"), terminal=True)
            calls_libvirtd(before)
            time.sleep(1)
            run.press()
            time.sleep(0.2)
    finally:
        os.kill(libvirtd, signal.SIGCONT)
    code, answer, said = run.end()
    assert code == 130, (answer, said)
    error = answer["clones"][name]["error"]
    assert (error["type"], error["hint"]) == (
        "Interrupted", f"Repeat it: salt-run kvmclone.destroy {name}",
    )  # fmt: skip
    assert "left as it is" in answer["clones"][names("other")]["error"]["message"]
    assert salt.run("kvmclone.destroy", name).retcode == 0


@pytest.mark.usefixtures("nothing_is_left")
def test_on_the_host_itself_and_under_salt_cloud_it_is_taken_back_as_well(
    salt: SaltWorld, names: Callable[[str], str], lab: Lab
) -> None:
    name = names("here")
    words = ["-c", str(salt.minions["kvm01"].conf), "-l", "error", "kvm_clone.create", name]
    words += [f"base_domain=base-int-{lab.name}", "clone_strategy=quick", "ip_source=qemu-agent"]
    run = Run(salt, *words, program=str(salt.venv / "bin/salt-call"), terminal=True)
    waits_for_its_address(name)
    run.press()
    code, _answer, said = run.end()
    assert code == 130, said
    assert f"'{name}' was removed." in said

    words = ["-c", str(salt.conf), "-l", "error", "-p", "waits", name]
    run = Run(salt, *words, program=str(salt.venv / "bin/salt-cloud"), terminal=True)
    waits_for_its_address(name)
    run.press()
    code, _answer, said = run.end()
    assert code == 130, said
    assert f"'{name}' was removed." in said


@pytest.mark.usefixtures("nothing_is_left")
def test_ctrl_c_on_the_client_leaves_the_job_and_ending_the_job_takes_the_clone_back(
    salt: SaltWorld, names: Callable[[str], str], base: str
) -> None:
    name = names("job")
    words = ["-c", str(salt.conf), "-t", "60", "kvm01", "kvm_clone.create", name]
    words += [f"base_domain={base}", "clone_strategy=quick", "ip_source=qemu-agent"]
    client = Run(salt, *words, program=str(salt.venv / "bin/salt"), terminal=True)
    waits_for_its_address(name)
    client.press()
    client.end()
    assert runs(name)
    running = salt.salt("kvm01", "saltutil.running").data["kvm01"]
    (job,) = [one["jid"] for one in running if one["fun"] == "kvm_clone.create"]
    salt.salt("kvm01", "saltutil.term_job", job)
    wait_until(lambda: name not in domains(), timeout=60, what=f"{name} to be taken back")
    wait_until(
        lambda: not salt.salt("kvm01", "saltutil.find_job", job).data["kvm01"],
        timeout=60,
        what="the end of the job",
    )


@pytest.mark.parametrize("line", ["3007", "3006"])
def test_the_older_lines_of_salt_end_with_the_same_words_and_exit_code(
    lab: Lab, base: str, line: str
) -> None:
    name = f"cut{line}-{lab.name}"
    folder = lab.folder / f"salt-int-{line}"
    with SaltWorld(folder, address=lab.gateway, owner=lab.name, venv=installs.cached(line)) as salt:
        configure(salt)
        salt.add_minion("kvm01")
        write_profiles(salt, base)
        for profile in ("waits", "far"):
            run = Run(salt, "kvmclone.create", profile, name, terminal=True)
            waits_for_its_address(name)
            run.press()
            code, answer, said = run.end()
            assert code == 130, (profile, answer, said)
            assert "was removed" in answer["clones"][name]["error"]["message"]
            assert name not in domains()

        run = Run(salt, "kvmclone.create", "far", name, terminal=True)
        waits_for_its_address(name)
        run.press()
        time.sleep(0.6)
        run.press()  # the way back may have been that fast
        code, answer, _said = run.end()
        # Where it was that fast, the second one met Salt's own end of the command.
        assert code == 130 or "was removed" in str(answer)
        assert salt.run("kvmclone.gc", name, "apply=True").retcode == 0 or name not in domains()
        assert name not in domains()
